"""The round at the coordinator: `step(state, event)` gives the next state and what must be done about it.

Pure: no clock, no randomness, no I/O. Time comes in as `now` (monotonic seconds), signatures through `Seal`, which is a
function of its argument. What is refused raises a PeerError before anything changed; the caller charges it to the
identity on whose connection it came. The rules are PROTOCOL.md section 5, the order of effects is `effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, assert_never

from coordinator.round.effects import (
    Abort,
    AbortAsked,
    AcknowledgeUpload,
    AttemptBegun,
    Commit,
    Connected,
    Contributed,
    Disconnected,
    Effect,
    Event,
    Folded,
    FoldFailed,
    Journal,
    MemberOut,
    Replied,
    Revoked,
    Send,
    StartFold,
    SurvivorsFixed,
    Tick,
    UploadOffered,
)
from coordinator.round.members import conversation, dropped, linked, ready, with_phase
from coordinator.round.phases import (
    Aborted,
    Away,
    Committed,
    Contribution,
    Conversation,
    Folding,
    Gracing,
    NeverSeen,
    OpenState,
    Present,
    Recruiting,
    RoundFrame,
    RoundState,
    Uploading,
)
from shared.errors import ConflictError, LateError, PhaseError, WireError
from shared.ids import AttemptKey, ParticipantId, parse_attempt_number
from shared.job import jobspec_digest
from shared.protocol.messages import (
    PROTOCOL_VERSIONS,
    SUITE_1,
    AttemptStart,
    Consent,
    Decline,
    Progress,
    Ready,
    RoundAborted,
    RoundBroadcast,
    RoundReply,
    RoundResult,
    Sealed,
    SurvivorList,
    Withdraw,
    attempt_digest,
    plan_digest,
    result_digest,
)
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import AbortReason, DropReason

RECONNECT_WINDOW_S = 15.0  # how long an upload that only absent members owe is waited for, once the floor is reached

V = TypeVar("V", AttemptStart, RoundResult, RoundAborted)


class Seal(Protocol):
    """Encodes and signs, as the coordinator."""

    def __call__(self, value: V, /) -> Sealed[V]: ...


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state, and the effects to perform in order before it is in force."""

    state: RoundState
    effects: tuple[Effect, ...] = ()

    def then(self, follow: Callable[[RoundState], Transition]) -> Transition:
        """The same, and then another one from where it led."""
        after = follow(self.state)
        return Transition(after.state, self.effects + after.effects)


def begin(frame: RoundFrame, present: Collection[ParticipantId], now: float) -> Transition:
    """Plan the round with those who are there; the others are told when they come."""
    told = Conversation(advance(Role.COORDINATOR, Phase.UNPLANNED, Kind.ROUND_PLAN), Present())
    untold = Conversation(Phase.UNPLANNED, NeverSeen())
    conversations = {member: told if member in present else untold for member in frame.spec.members}
    deadline = now + frame.spec.round.deadline_s
    return Transition(
        Recruiting(frame, conversations, {}, deadline=deadline, attempts_used=0),
        tuple(Send(member, frame.plan) for member in frame.spec.members if member in present),
    )


def step(state: RoundState, event: Event, now: float, seal: Seal) -> Transition:
    """What happens next. Raises PeerError for what the sender may not do now."""
    if isinstance(state, Committed | Aborted):
        return _step_finished(state, event)
    match event:
        case Connected(participant):
            return _repeat_what_matters(linked(state, participant, Present()), participant)
        case Disconnected(participant):
            moved = Transition(linked(state, participant, Away(now)))
        case Replied(participant, message):
            moved = _replied(state, participant, message)
        case UploadOffered():
            moved = _upload_offered(state, event)
        case Revoked(participant):
            moved = _out(state, participant, DropReason.REVOKED)
        case AbortAsked():
            return _abort(state, AbortReason.OPERATOR, seal)
        case Folded():
            return _folded(state, event, seal)
        case FoldFailed(reason):
            return _abort(state, reason, seal)
        case Tick():
            moved = Transition(state)
        case _:
            assert_never(event)
    return moved.then(lambda reached: settle(reached, now, seal))


def settle(state: RoundState, now: float, seal: Seal) -> Transition:
    """Go on as far as what is known, and the time, allow."""
    match state:
        case Recruiting():
            return _settle_recruiting(state, now, seal)
        case Gracing():
            return _settle_gracing(state, now, seal)
        case Uploading():
            return _settle_uploading(state, now, seal)
        case Folding() | Committed() | Aborted():
            return Transition(state)
        case _:
            assert_never(state)


def next_deadline(state: RoundState) -> float:
    """When a Tick is due at the latest (monotonic seconds; infinity for never)."""
    match state:
        case Recruiting(deadline=deadline):
            return deadline
        case Gracing(deadline=deadline, grace_ends=grace_ends):
            return min(deadline, grace_ends)
        case Uploading():
            return min(state.deadline, _patience_ends(state))
        case Folding() | Committed() | Aborted():
            return float("inf")
        case _:
            assert_never(state)


# --- what members say -------------------------------------------------------------------------------------------------


def _replied(state: OpenState, participant: ParticipantId, message: RoundReply) -> Transition:
    told = conversation(state, participant)
    if message.plan != plan_digest(state.frame.plan):
        raise ConflictError(f"a reply to another plan for round {state.frame.key}: expected this round's plan digest")
    kind = _kind_of(message)
    phase = advance(Role.PARTICIPANT, told.phase, kind)
    moved = with_phase(state, participant, phase)
    match message:
        case Decline():
            return _out(state, participant, DropReason.DECLINED)
        case Withdraw(reason=reason):
            return _out(state, participant, reason)
        case Ready(fits=fits):
            if not fits:
                raise WireError("Ready.fits is always true for a plain update")
            return _ready_again(moved, participant)
        case Consent() | Progress():
            return Transition(moved)
        case _:
            assert_never(message)


def _kind_of(message: RoundReply) -> Kind:
    match message:
        case Consent():
            return Kind.CONSENT
        case Decline():
            return Kind.DECLINE
        case Progress():
            return Kind.PROGRESS
        case Ready():
            return Kind.READY
        case Withdraw():
            return Kind.WITHDRAW
        case _:
            assert_never(message)


def _ready_again(state: OpenState, participant: ParticipantId) -> Transition:
    """One that is Ready although its attempt runs has missed the announcement, or trained again: say it once more."""
    owes = isinstance(state, Uploading) and participant in state.cohort - state.contributions.keys()
    if isinstance(state, Uploading) and owes:
        return Transition(state, (Send(participant, state.attempt),))
    return Transition(state)


def _upload_offered(state: OpenState, offer: UploadOffered) -> Transition:
    if not isinstance(state, Uploading) or offer.attempt != state.key:
        raise LateError(f"attempt {offer.attempt} takes no uploads now")
    if offer.participant not in state.cohort or offer.participant in state.outs:
        raise PhaseError(f"{offer.participant} is not in the cohort of attempt {offer.attempt}")
    contribution = Contribution(offer.commit, offer.header, offer.update)
    known = state.contributions.get(offer.participant)
    acknowledge = AcknowledgeUpload(offer.participant, offer.update)
    if known is not None:
        if known.commit.payload != offer.commit.payload:
            raise ConflictError(f"another update is already committed in attempt {offer.attempt}")
        return Transition(state, (acknowledge,))
    told = conversation(state, offer.participant)
    phase = advance(Role.PARTICIPANT, told.phase, Kind.UPLOAD_COMMIT)
    moved = with_phase(state, offer.participant, phase)
    moved = replace(moved, contributions={**moved.contributions, offer.participant: contribution})
    return Transition(moved, (Journal(Contributed(offer.participant, contribution)), acknowledge))


def _out(state: OpenState, participant: ParticipantId, reason: DropReason) -> Transition:
    """Off the round for good. A repeated word changes nothing; once survivors are fixed, nothing does."""
    if participant in state.outs or isinstance(state, Folding):
        return Transition(state)
    moved = with_phase(state, participant, Phase.OUT)
    moved = replace(moved, outs={**moved.outs, participant: reason})
    if isinstance(moved, Uploading):
        kept = {name: update for name, update in moved.contributions.items() if name != participant}
        moved = replace(moved, contributions=kept)
    return Transition(moved, (Journal(MemberOut(participant, reason)),))


# --- going on ---------------------------------------------------------------------------------------------------------


def _settle_recruiting(state: Recruiting, now: float, seal: Seal) -> Transition:
    policy = state.frame.spec.round
    if len(state.conversations) - len(state.outs) < policy.quorum:
        return _abort(state, AbortReason.BELOW_QUORUM, seal)
    if len(ready(state)) >= policy.quorum:
        gracing = Gracing(
            state.frame,
            state.conversations,
            state.outs,
            deadline=state.deadline,
            attempts_used=state.attempts_used,
            grace_ends=now + policy.grace_s,
        )
        return _settle_gracing(gracing, now, seal)
    if now >= state.deadline:
        return _abort(state, AbortReason.BELOW_QUORUM, seal)
    return Transition(state)


def _settle_gracing(state: Gracing, now: float, seal: Seal) -> Transition:
    present = ready(state)
    if len(present) < state.frame.spec.round.quorum:  # one that was Ready has withdrawn
        back = Recruiting(state.frame, state.conversations, state.outs, state.deadline, state.attempts_used)
        return _settle_recruiting(back, now, seal)
    everyone = len(present) == len(state.conversations) - len(state.outs)
    if everyone or now >= min(state.grace_ends, state.deadline):
        return _start_attempt(state, state.attempts_used + 1, now, seal)
    return Transition(state)


def _start_attempt(state: Gracing | Uploading, number: int, now: float, seal: Seal) -> Transition:
    frame, plan = state.frame, state.frame.plan.value
    cohort = ready(state)
    start = seal(
        AttemptStart(
            version=PROTOCOL_VERSIONS[-1],
            suite=SUITE_1,
            key=AttemptKey(plan.key, parse_attempt_number(number)),
            purpose=plan.purpose,
            plan=plan_digest(frame.plan),
            jobspec=jobspec_digest(plan.jobspec),
            consortium=b"",
            model=plan.model,
            previous_result=result_digest(plan.previous_result),
            members=frame.spec.members,
            max_colluding=0,
            layout=frame.layout.digest,
            encoding=frame.layout.encoding,
            upload_deadline_s=frame.spec.round.upload_deadline_s,
        )
    )
    conversations = {
        member: replace(told, phase=advance(Role.COORDINATOR, told.phase, Kind.ATTEMPT_START))
        if member in cohort
        else told
        for member, told in state.conversations.items()
    }
    uploading = Uploading(
        frame,
        conversations,
        state.outs,
        attempt=start,
        cohort=frozenset(cohort),
        contributions={},
        deadline=now + frame.spec.round.upload_deadline_s,
    )
    return Transition(uploading, (Journal(AttemptBegun(start, cohort)), *(Send(member, start) for member in cohort)))


def _settle_uploading(state: Uploading, now: float, seal: Seal) -> Transition:
    floor = state.frame.spec.round.min_survivors
    arrived, owing = len(state.contributions), _owing(state)
    over = now >= min(state.deadline, _patience_ends(state))
    if arrived + len(owing) < floor or (over and arrived < floor):
        return _attempt_failed(state, now, seal)
    if not owing or over:
        return _fix_survivors(state)
    return Transition(state)


def _owing(state: Uploading) -> frozenset[ParticipantId]:
    return state.cohort - state.contributions.keys() - state.outs.keys()


def _patience_ends(state: Uploading) -> float:
    """When the floor is reached and only absent members owe an update, they are waited for a little; else no limit."""
    links = [state.conversations[member].link for member in _owing(state)]
    if len(state.contributions) < state.frame.spec.round.min_survivors or not links:
        return float("inf")
    return max(link.since + RECONNECT_WINDOW_S if isinstance(link, Away) else float("inf") for link in links)


def _attempt_failed(state: Uploading, now: float, seal: Seal) -> Transition:
    policy = state.frame.spec.round
    again = state.key.attempt < policy.attempts and len(ready(state)) >= policy.quorum
    if again:
        return _start_attempt(state, state.key.attempt + 1, now, seal)
    return _abort(state, AbortReason.BELOW_FLOOR, seal)


def _fix_survivors(state: Uploading) -> Transition:
    survivors = {member: state.contributions[member] for member in sorted(state.contributions)}
    listed = SurvivorList(state.key, tuple(contribution.commit for contribution in survivors.values()))
    conversations = {
        member: replace(told, phase=advance(Role.COORDINATOR, told.phase, Kind.SURVIVOR_LIST))
        if member in survivors
        else told
        for member, told in state.conversations.items()
    }
    return Transition(
        Folding(state.frame, conversations, state.outs, state.attempt, survivors),
        (
            Journal(SurvivorsFixed(tuple(survivors))),
            *(Send(member, listed) for member in survivors),
            StartFold(state.key, survivors),
        ),
    )


def _folded(state: OpenState, folded: Folded, seal: Seal) -> Transition:
    if not isinstance(state, Folding):
        raise RuntimeError(f"a fold ended in phase {type(state).__name__}")  # noqa: TRY004 - a bug, not a type
    plan = state.frame.plan.value
    result = seal(
        RoundResult(
            key=plan.key,
            purpose=plan.purpose,
            attempt=attempt_digest(state.attempt),
            survivors=tuple(state.frame.index_of(member) for member in state.survivors),
            weight_total=folded.weight_total,
            aggregate=folded.aggregate,
            next_model=folded.next_model,
        )
    )
    return Transition(
        Committed(state.frame, folded.next_model),
        (Commit(result, dropped(state), folded.totals), *_tell_everyone(state, result)),
    )


def _abort(state: OpenState, reason: AbortReason, seal: Seal) -> Transition:
    aborted = seal(RoundAborted(key=state.frame.key, plan=plan_digest(state.frame.plan), reason=reason))
    return Transition(Aborted(state.frame, reason), (Abort(aborted, dropped(state)), *_tell_everyone(state, aborted)))


def _step_finished(state: Committed | Aborted, event: Event) -> Transition:
    if isinstance(event, UploadOffered):
        raise LateError(f"round {state.frame.key} is over")
    return Transition(state)


# --- telling members --------------------------------------------------------------------------------------------------


def _repeat_what_matters(state: OpenState, participant: ParticipantId) -> Transition:
    """Everything that a member with a new session may have missed."""
    told = conversation(state, participant)
    if told.phase is Phase.OUT:
        return Transition(state)
    if isinstance(state, Folding):
        listed = SurvivorList(state.attempt.value.key, tuple(kept.commit for kept in state.survivors.values()))
        return Transition(state, (Send(participant, listed),) if participant in state.survivors else ())
    planned = with_phase(state, participant, advance(Role.COORDINATOR, told.phase, Kind.ROUND_PLAN))
    messages: list[RoundBroadcast] = [state.frame.plan]
    if isinstance(state, Uploading) and participant in state.cohort:
        messages.append(state.attempt)
    return Transition(planned, tuple(Send(participant, message) for message in messages))


def _tell_everyone(state: OpenState, message: RoundBroadcast) -> tuple[Send, ...]:
    return tuple(
        Send(member, message) for member, told in state.conversations.items() if told.phase is not Phase.UNPLANNED
    )
