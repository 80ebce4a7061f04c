"""The round at a participant: the other half of the conversation. Pure, as the coordinator's half is.

What the coordinator says is checked against what this silo knows by itself (its copy of the job, its own layout, the
manifest that it pinned), never believed. In a plain round what does not hold raises a PeerError before anything
changed. In a masked one the silo leaves the attempt (`participant.round.attempts` says when).

Here is which event goes where. The parts: `attempts` (how one is entered and left), `masking` (the exchanges of one),
`ending`.
"""

from __future__ import annotations

from typing import assert_never

from participant.round.attempts import announced, leave
from participant.round.checks import says_fits
from participant.round.effects import (
    AbortCame,
    AttemptAnnounced,
    BundleCame,
    DeliveryCame,
    Erase,
    Event,
    PassedOver,
    PlanRepeated,
    RecordEnd,
    RecordPlan,
    RecordUpdate,
    ResultCame,
    RosterCame,
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
from participant.round.ending import abort_came, passed_over, result_came, withdraw
from participant.round.masking import bundle_came, delivery_came, roster_came, survivors_listed
from participant.round.phases import (
    MISSES_MAX,
    Advertised,
    Committed,
    Confirmed,
    Finished,
    Fixed,
    Offer,
    Opened,
    Opening,
    Out,
    Plain,
    Ready,
    RoundState,
    Shared,
    SpooledUpdate,
    Uploading,
    Working,
    phase_of,
)
from participant.round.transition import Tools, Transition
from shared.errors import ConflictError
from shared.protocol.messages import (
    AttemptStart,
    Consent,
    Decline,
    Progress,
    RoundReply,
    Sealed,
    SurvivorList,
    UploadCommit,
    attempt_digest,
)
from shared.protocol.messages import Ready as ReadyMessage
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import AttemptAbortReason, ConsentRule, DropReason
from shared.update import Encoding
from shared.wire.sealed import reopen


def accept(offer: Offer) -> Transition:
    """The silo consents: on record first, then said, then started on."""
    advance(Role.PARTICIPANT, Phase.PLANNED, Kind.CONSENT)
    return Transition(Working(offer), (RecordPlan(offer), Say(_consent(offer)), StartWork(offer)))


def decline(offer: Offer, rule: ConsentRule, *, over: bool = False) -> Transition:
    """The silo does not consent. Nothing is recorded: asked again, it looks again. `over`: the round is on record as
    over here.
    """
    advance(Role.PARTICIPANT, Phase.PLANNED, Kind.DECLINE)
    said = Decline(offer.key, offer.digest, rule)
    return Transition(Out(offer, said, over), (Say(said),))


def take_back(offer: Offer, rule: ConsentRule) -> Transition:
    """The silo consented once, and would not today: the round is over here, on record, and nothing of it stays."""
    advance(Role.PARTICIPANT, Phase.TRAINING, Kind.DECLINE)
    said = Decline(offer.key, offer.digest, rule)
    ended = RecordEnd(offer, survived=False, verified=None, aborted=False)
    return Transition(Out(offer, said, over=True), (ended, Say(said), Erase(offer)))


def resume(
    offer: Offer, update: SpooledUpdate | None, attempt: Sealed[AttemptStart] | None, opening: Opening | None
) -> Transition:
    """The state that a restart goes on from: what was recorded, no more. The secrets of a masked attempt are gone."""
    if update is None:
        return Transition(Working(offer), (StartWork(offer),))
    if attempt is not None and opening is not None:
        return Transition(Opened(offer, update, attempt, opening))
    if attempt is None or offer.masked:
        return Transition(Ready(offer, update, last=attempt))
    uploading = Uploading(offer, update, attempt, Plain(), None)
    return Transition(uploading, (StartUpload(offer, update, attempt, Plain()),))


def step(state: RoundState, event: Event, tools: Tools) -> Transition:
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
            return withdraw(state, reason) if isinstance(state, Working) else Transition(state)
        case AttemptAnnounced(attempt):
            return announced(state, attempt, tools)
        case UploadAcknowledged():
            return _upload_acknowledged(state, event)
        case UploadImpossible():
            return _upload_impossible(state, event, tools)
        case RosterCame() | DeliveryCame() | SurvivorsListed() | BundleCame():
            return _exchanged(state, event, tools)
        case ResultCame(result):
            return result_came(state, result)
        case AbortCame(aborted):
            return abort_came(state, aborted)
        case PassedOver():
            return passed_over(state)
        case _:
            assert_never(event)


def _exchanged(
    state: RoundState, event: RosterCame | DeliveryCame | SurvivorsListed | BundleCame, tools: Tools
) -> Transition:
    match event:
        case RosterCame(roster):
            return roster_came(state, roster, tools)
        case DeliveryCame(delivery):
            return delivery_came(state, delivery, tools)
        case SurvivorsListed(survivors):
            advance(Role.COORDINATOR, phase_of(state), Kind.SURVIVOR_LIST)
            masked = state.offer.masked
            return survivors_listed(state, event, tools) if masked else _plain_survivors_listed(state, survivors)
        case BundleCame():
            return bundle_came(state, event, tools)
        case _:
            assert_never(event)


# --- one event each ---------------------------------------------------------------------------------------------------


def _plan_repeated(state: RoundState) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.ROUND_PLAN)
    match state:
        case Working():
            replies: tuple[RoundReply, ...] = (_consent(state.offer),)
        case Ready() | Advertised() | Shared() | Uploading() | Committed() | Confirmed() | Opened():
            replies = (_consent(state.offer), _ready(state.offer, state.update))
        case Fixed():  # of a plain attempt, where every update fits
            replies = (_consent(state.offer), ReadyMessage(state.offer.key, state.offer.digest, fits=True))
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
    if not update.fits and state.offer.misses < MISSES_MAX and state.offer.encoding is Encoding.U64:
        return withdraw(state, DropReason.OUT_OF_RANGE)  # there is no wider one
    advance(Role.PARTICIPANT, phase_of(state), Kind.READY)
    recorded = RecordUpdate(state.offer, update)
    return Transition(Ready(state.offer, update, None), (recorded, Say(_ready(state.offer, update))))


def _upload_acknowledged(state: RoundState, event: UploadAcknowledged) -> Transition:
    if not isinstance(state, Uploading) or attempt_digest(state.attempt) != event.attempt:
        return Transition(state)  # the acknowledgement of an attempt that is over
    advance(Role.PARTICIPANT, phase_of(state), Kind.UPLOAD_COMMIT)
    return Transition(Committed(state.offer, state.update, state.attempt, state.protection, state.dealt, event.commit))


def _upload_impossible(state: RoundState, event: UploadImpossible, tools: Tools) -> Transition:
    if not isinstance(state, Uploading) or attempt_digest(state.attempt) != event.attempt:
        return Transition(state)
    if isinstance(event.reason, AttemptAbortReason):
        return leave(state, event.reason, "the upload cannot go on", tools)
    return withdraw(state, event.reason)


def _plain_survivors_listed(state: RoundState, listed: SurvivorList) -> Transition:
    if isinstance(state, Uploading | Committed):
        if listed.key != state.attempt.value.key:
            raise ConflictError(f"survivors of attempt {listed.key}, but attempt {state.attempt.value.key} runs")
        mine = [commit for commit in listed.commits if commit.signer == state.offer.index]
        if len(mine) != 1 or reopen(UploadCommit, mine[0]).value.attempt != attempt_digest(state.attempt):
            raise ConflictError(f"a survivor list for {state.offer.key} without this participant's commitment")
        return Transition(Fixed(state.offer, state.attempt), (Stop(state.offer),))
    return Transition(state)


def _consent(offer: Offer) -> Consent:
    return Consent(offer.key, offer.digest)


def _ready(offer: Offer, update: SpooledUpdate) -> ReadyMessage:
    return ReadyMessage(offer.key, offer.digest, fits=says_fits(offer, update))
