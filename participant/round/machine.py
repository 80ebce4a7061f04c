"""The round at a participant: the other half of the conversation. Pure, as the coordinator's half is.

What the coordinator says is checked against what this silo knows by itself (its copy of the job, its own layout), never
believed. What does not hold raises a PeerError before anything changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from participant.round.checks import check_attempt
from participant.round.effects import (
    AbortCame,
    AttemptAnnounced,
    Effect,
    Erase,
    Event,
    PassedOver,
    PlanRepeated,
    RecordAttempt,
    RecordEnd,
    RecordPlan,
    RecordUpdate,
    ResultCame,
    Say,
    StartUpload,
    StartWork,
    Stop,
    SurvivorsListed,
    UploadAcknowledged,
    UploadImpossible,
    WorkDone,
    WorkFailed,
    WorkProgressed,
)
from participant.round.phases import (
    Committed,
    Finished,
    Fixed,
    Offer,
    Out,
    Ready,
    RoundState,
    SpooledUpdate,
    Uploading,
    Working,
    phase_of,
)
from shared.errors import ConflictError, WireError
from shared.ids import Digest
from shared.protocol.messages import (
    AttemptStart,
    Consent,
    Decline,
    Progress,
    RoundAborted,
    RoundReply,
    RoundResult,
    Sealed,
    SurvivorList,
    UploadCommit,
    Withdraw,
    attempt_digest,
)
from shared.protocol.messages import Ready as ReadyMessage
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import ConsentRule, DropReason
from shared.wire.sealed import reopen


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state, and the effects to perform in order before it is in force."""

    state: RoundState
    effects: tuple[Effect, ...] = ()


def accept(offer: Offer) -> Transition:
    """The silo consents: on record first, then said, then started on."""
    advance(Role.PARTICIPANT, Phase.PLANNED, Kind.CONSENT)
    return Transition(Working(offer), (RecordPlan(offer), Say(_consent(offer)), StartWork(offer)))


def decline(offer: Offer, rule: ConsentRule) -> Transition:
    """The silo does not consent. Nothing is recorded: asked again, it looks again."""
    advance(Role.PARTICIPANT, Phase.PLANNED, Kind.DECLINE)
    said = Decline(offer.key, offer.digest, rule)
    return Transition(Out(offer, said), (Say(said),))


def resume(offer: Offer, update: SpooledUpdate | None, attempt: Sealed[AttemptStart] | None) -> Transition:
    """The state that a restart goes on from: what was recorded, no more."""
    if update is None:
        return Transition(Working(offer), (StartWork(offer),))
    if attempt is None:
        return Transition(Ready(offer, update))
    return Transition(Uploading(offer, update, attempt), (StartUpload(offer, update, attempt),))


def step(state: RoundState, event: Event) -> Transition:
    """What happens next. Raises PeerError for what the coordinator may not say now."""
    match event:
        case PlanRepeated():
            return _plan_repeated(state)
        case WorkProgressed(percent):
            said = Progress(state.offer.key, state.offer.digest, percent)
            return Transition(state, (Say(said),) if isinstance(state, Working) else ())
        case WorkDone(update):
            return _work_done(state, update)
        case WorkFailed(reason):
            return _withdraw(state, reason) if isinstance(state, Working) else Transition(state)
        case AttemptAnnounced(attempt):
            return _attempt_announced(state, attempt)
        case UploadAcknowledged(attempt):
            return _upload_acknowledged(state, attempt)
        case UploadImpossible(attempt, reason):
            mine = isinstance(state, Uploading) and attempt_digest(state.attempt) == attempt
            return _withdraw(state, reason) if mine else Transition(state)
        case SurvivorsListed(survivors):
            return _survivors_listed(state, survivors)
        case ResultCame(result):
            return _result_came(state, result)
        case AbortCame(aborted):
            return _abort_came(state, aborted)
        case PassedOver():
            return _finish(state, survived=False)
        case _:
            assert_never(event)


# --- one event each ---------------------------------------------------------------------------------------------------


def _plan_repeated(state: RoundState) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.ROUND_PLAN)
    match state:
        case Working():
            replies: tuple[RoundReply, ...] = (_consent(state.offer),)
        case Ready() | Uploading() | Committed() | Fixed():
            replies = (_consent(state.offer), _ready(state.offer))
        case Out(said=said):
            replies = (said,)
        case Finished():
            replies = ()
        case _:
            assert_never(state)
    return Transition(state, tuple(map(Say, replies)))


def _work_done(state: RoundState, update: SpooledUpdate) -> Transition:
    if not isinstance(state, Working):
        return Transition(state)  # the round ended while the task was finishing
    advance(Role.PARTICIPANT, phase_of(state), Kind.READY)
    recorded = RecordUpdate(state.offer, update)
    return Transition(Ready(state.offer, update), (recorded, Say(_ready(state.offer))))


def _withdraw(state: RoundState, reason: DropReason) -> Transition:
    advance(Role.PARTICIPANT, phase_of(state), Kind.WITHDRAW)
    offer = state.offer
    said = Withdraw(offer.key, offer.digest, reason)
    return Transition(Out(offer, said), (Stop(offer), RecordEnd(offer, survived=False), Say(said), Erase(offer)))


def _attempt_announced(state: RoundState, attempt: Sealed[AttemptStart]) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.ATTEMPT_START)
    match state:
        case Ready():
            check_attempt(state.offer, attempt.value, state.update)
            return _begin_upload(state.offer, state.update, attempt, ())
        case Uploading() | Committed():
            known = state.attempt
            if known.value.key.attempt == attempt.value.key.attempt:
                if known.payload != attempt.payload:
                    raise ConflictError(f"attempt {attempt.value.key} was announced before with other content")
                return Transition(state)
            if known.value.key.attempt > attempt.value.key.attempt:
                raise ConflictError(f"attempt {attempt.value.key} comes after attempt {known.value.key.attempt}")
            check_attempt(state.offer, attempt.value, state.update)
            return _begin_upload(state.offer, state.update, attempt, (Stop(state.offer),))
        case Working() | Fixed() | Out() | Finished():
            return Transition(state)
        case _:
            assert_never(state)


def _begin_upload(
    offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], before: tuple[Effect, ...]
) -> Transition:
    effects = (*before, RecordAttempt(offer, attempt), StartUpload(offer, update, attempt))
    return Transition(Uploading(offer, update, attempt), effects)


def _upload_acknowledged(state: RoundState, attempt: Digest) -> Transition:
    if not isinstance(state, Uploading) or attempt_digest(state.attempt) != attempt:
        return Transition(state)  # the acknowledgement of an attempt that is over
    advance(Role.PARTICIPANT, phase_of(state), Kind.UPLOAD_COMMIT)
    return Transition(Committed(state.offer, state.update, state.attempt))


def _survivors_listed(state: RoundState, listed: SurvivorList) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.SURVIVOR_LIST)
    if isinstance(state, Uploading | Committed):
        if listed.key != state.attempt.value.key:
            raise ConflictError(f"survivors of attempt {listed.key}, but attempt {state.attempt.value.key} runs")
        mine = [commit for commit in listed.commits if commit.signer == state.offer.index]
        if len(mine) != 1 or reopen(UploadCommit, mine[0]).value.attempt != attempt_digest(state.attempt):
            raise ConflictError(f"a survivor list for {state.offer.key} without this participant's commitment")
        return Transition(Fixed(state.offer, state.attempt), (Stop(state.offer),))
    return Transition(state)


def _result_came(state: RoundState, result: Sealed[RoundResult]) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.ROUND_RESULT)
    if isinstance(state, Finished):
        return Transition(state)
    offer, value = state.offer, result.value
    plan = offer.plan.value
    if value.purpose is not plan.purpose:
        raise ConflictError(f"round {offer.key} was planned to {plan.purpose}, its result is of {value.purpose}")
    if value.survivors and value.survivors[-1] > len(offer.spec.members):
        raise WireError(f"a result names member {value.survivors[-1]} of {len(offer.spec.members)}")
    survived = offer.index in value.survivors
    if survived and not isinstance(state, Uploading | Committed | Fixed) and not _left_after_upload(state):
        raise ConflictError(f"the result of {offer.key} counts an update that this participant never sent")
    if isinstance(state, Uploading | Committed | Fixed) and survived and value.attempt != attempt_digest(state.attempt):
        raise ConflictError(
            f"the result of {offer.key} is of another attempt than the one that this update was sent in"
        )
    return _finish(state, survived=survived and not isinstance(state, Out))


def _left_after_upload(state: RoundState) -> bool:
    """One that withdrew may have been counted before it was heard."""
    return isinstance(state, Out) and isinstance(state.said, Withdraw)


def _abort_came(state: RoundState, aborted: Sealed[RoundAborted]) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.ROUND_ABORTED)
    if aborted.value.plan != state.offer.digest:
        raise ConflictError(f"an abort of {state.offer.key} that names another plan")
    return _finish(state, survived=False)


def _finish(state: RoundState, *, survived: bool) -> Transition:
    if isinstance(state, Finished):
        return Transition(state)
    offer = state.offer
    effects: tuple[Effect, ...] = (Stop(offer), RecordEnd(offer, survived=survived), Erase(offer))
    return Transition(Finished(offer, survived), effects)


def _consent(offer: Offer) -> Consent:
    return Consent(offer.key, offer.digest)


def _ready(offer: Offer) -> ReadyMessage:
    return ReadyMessage(offer.key, offer.digest, fits=True)
