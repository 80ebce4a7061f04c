"""The round at the coordinator: `step(state, event)` gives the next state and what must be done about it.

Pure: no clock, no randomness, no I/O. Time comes in as `now` (monotonic seconds), signatures through `Seal`, which is a
function of its argument. What is refused raises a PeerError before anything changed; the caller charges it to the
identity on whose connection it came. The rules are PROTOCOL.md section 5, the order of effects is `effects`.

Here events meet states; what follows from them is in rooms of its own: `attempts` (from the plan to an attempt),
`answers` and `exchanges` (masking), `gathering` (who is waited for), `ending`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import assert_never

from coordinator.round.answers import ANSWERS, answered
from coordinator.round.attempts import attempt_failed, recruiting, settle_gracing, settle_recruiting
from coordinator.round.effects import (
    AbortAsked,
    AcknowledgeUpload,
    Connected,
    Contributed,
    Disconnected,
    Event,
    Folded,
    FoldFailed,
    Journal,
    MemberOut,
    RangeMissed,
    Replied,
    Revoked,
    Send,
    Tick,
    UploadOffered,
)
from coordinator.round.ending import abort, folded
from coordinator.round.exchanges import (
    fix_roster,
    fix_shares,
    fix_survivors,
    fold_entered,
    lost_before_shares,
    make_bundle,
    start_fold,
)
from coordinator.round.frame import RoundFrame
from coordinator.round.gathering import Gathering, Verdict, ends, late, owing, verdict
from coordinator.round.members import conversation, linked, with_phase, without
from coordinator.round.phases import (
    Aborted,
    Advertising,
    Away,
    Committed,
    Confirming,
    Contribution,
    Conversation,
    Fit,
    Folding,
    Gracing,
    NeverSeen,
    OpenState,
    Present,
    Recruiting,
    RoundState,
    Sharing,
    Unmasking,
    Uploading,
)
from coordinator.round.repeats import repeat_what_matters
from coordinator.round.transition import Seal, Transition
from shared.errors import ConflictError, LateError, PhaseError, WireError
from shared.ids import ParticipantId
from shared.protocol.messages import (
    AttemptAnswer,
    Consent,
    Decline,
    Progress,
    Ready,
    RoundReply,
    RoundResult,
    Withdraw,
    plan_digest,
)
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import AbortReason, ConsentRule, DropReason
from shared.update import Encoding
from shared.wire.sealed import decode_envelope, reopen


def begin(frame: RoundFrame, present: Collection[ParticipantId], now: float) -> Transition:
    """Plan the round with those who are there; the others are told when they come."""
    told = Conversation(advance(Role.COORDINATOR, Phase.UNPLANNED, Kind.ROUND_PLAN), Present())
    untold = Conversation(Phase.UNPLANNED, NeverSeen())
    conversations = {member: told if member in present else untold for member in frame.spec.members}
    state = recruiting(frame, conversations, now, grace_from=now)
    return Transition(
        state,
        tuple(Send(member, frame.plan) for member in conversations if member in present and member not in state.outs),
    )


def step(state: RoundState, event: Event, now: float, seal: Seal) -> Transition:
    """What happens next. Raises PeerError for what the sender may not do now."""
    if isinstance(state, Committed | Aborted):
        return _step_finished(state, event)
    match event:
        case Connected(participant):
            return repeat_what_matters(linked(state, participant, Present()), participant)
        case Disconnected(participant):
            moved = Transition(linked(state, participant, Away(now)))
        case Replied(participant, message):
            moved = _replied(state, participant, message)
        case UploadOffered():
            moved = _upload_offered(state, event)
        case Revoked(participant):
            moved = _out(state, participant, DropReason.REVOKED)
        case AbortAsked(reason):
            return abort(state, reason, seal)
        case Folded():
            return folded(state, event, seal)
        case FoldFailed(reason=reason):
            return abort(state, reason, seal)
        case Tick():
            moved = Transition(state)
        case _:
            assert_never(event)
    return moved.then(lambda reached: settle(reached, now, seal))


def settle(state: RoundState, now: float, seal: Seal) -> Transition:
    """Go on as far as what is known, and the time, allow."""
    match state:
        case Recruiting():
            return settle_recruiting(state, now, seal)
        case Gracing():
            return settle_gracing(state, now, seal)
        case Advertising() | Sharing() if lost_before_shares(state):
            return attempt_failed(state, now, seal)
        case Advertising() | Sharing() | Uploading() | Confirming() | Unmasking():
            return _settle_gathering(state, now, seal)
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
        case Advertising() | Sharing() | Uploading() | Confirming() | Unmasking():
            return ends(state)
        case Folding() | Committed() | Aborted():
            return float("inf")
        case _:
            assert_never(state)


# --- what members say -------------------------------------------------------------------------------------------------


def _replied(state: OpenState, participant: ParticipantId, message: RoundReply) -> Transition:
    told = conversation(state, participant)
    if isinstance(message, AttemptAnswer):
        return _attempt_answered(state, participant, told.phase, message)
    if message.plan != plan_digest(state.frame.plan):
        raise ConflictError(f"a reply to another plan for round {state.frame.key}: expected this round's plan digest")
    moved = with_phase(state, participant, advance(Role.PARTICIPANT, told.phase, _kind_of(message)))
    match message:
        case Decline(rule=rule):
            return _out(state, participant, DropReason.DECLINED, rule)
        case Withdraw(reason=reason):
            return _out(state, participant, reason)
        case Ready(fits=fits):
            return _ready(moved, participant, fits=fits)
        case Consent() | Progress():
            return Transition(moved)
        case _:
            assert_never(message)


def _attempt_answered(state: OpenState, participant: ParticipantId, phase: Phase, answer: AttemptAnswer) -> Transition:
    if not state.frame.spec.masking.masked:
        raise PhaseError(f"job {state.frame.key.job} is plain: its attempts exchange no keys and no shares")
    reached = advance(Role.PARTICIPANT, phase, ANSWERS[answer.kind])
    if isinstance(state, Recruiting | Gracing):
        raise LateError(f"an answer about attempt {answer.attempt}, which does not run")
    taken, effects = answered(state, participant, answer)  # before the phase moves: what is refused moves nothing
    return Transition(with_phase(taken, participant, reached), effects)


def _kind_of(message: Consent | Decline | Progress | Ready | Withdraw) -> Kind:
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


def _ready(state: OpenState, participant: ParticipantId, *, fits: bool) -> Transition:
    if not fits:
        if not state.encoding.masked:
            raise WireError("Ready.fits is always true for a plain update")
        found = Fit.MISSED if _knows_range(state, participant) else Fit.UNKNOWN
        if state.frame.encoding is not Encoding.U64 and state.fit not in {found, Fit.MISSED}:
            moved = replace(state, fit=found)
            return Transition(moved, (Journal(RangeMissed(found)), *_announced_again(moved, participant)))
    return Transition(state, _announced_again(state, participant))


def _knows_range(state: OpenState, participant: ParticipantId) -> bool:
    """Only who was in the previous result says no because of its data; the others say it whatever they have."""
    previous = state.frame.plan.value.previous_result
    index = state.frame.index_of(participant)
    return bool(previous) and index in reopen(RoundResult, decode_envelope(previous)).value.survivors


def _announced_again(state: OpenState, participant: ParticipantId) -> tuple[Send, ...]:
    """One that is Ready although its attempt asks it for something has missed the announcement, or trained again."""
    if isinstance(state, Advertising | Sharing | Uploading) and participant in owing(state):
        return (Send(participant, state.attempt),)
    return ()


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


def _out(
    state: OpenState, participant: ParticipantId, reason: DropReason, rule: ConsentRule | None = None
) -> Transition:
    """Off the round for good. A repeated word changes nothing. Once survivors are fixed their updates count whatever
    they say, and no more is asked of who is out; should another attempt be needed, it is without them.
    """
    if participant in state.outs or isinstance(state, Folding):
        return Transition(state)
    moved = without(with_phase(state, participant, Phase.OUT), participant)
    rules = moved.rules if rule is None else {**moved.rules, participant: rule}
    moved = replace(moved, outs={**moved.outs, participant: reason}, rules=rules)
    return Transition(moved, (Journal(MemberOut(participant, reason)),))


# --- going on ---------------------------------------------------------------------------------------------------------


def _settle_gathering(state: Gathering, now: float, seal: Seal) -> Transition:
    match verdict(state, now):
        case Verdict.WAIT:
            return Transition(state)
        case Verdict.GO:
            return _go_on(state, now)
        case Verdict.FAIL if isinstance(state, Unmasking):
            # Some silos may have opened their shares, and will not help with another total.
            return abort(state, AbortReason.UNOPENABLE, seal, late(state, now))
        case Verdict.FAIL:
            return attempt_failed(state, now, seal)


def _go_on(state: Gathering, now: float) -> Transition:
    match state:
        case Advertising():
            return fix_roster(state, now)
        case Sharing():
            return fix_shares(state, now)
        case Uploading():
            return fix_survivors(state, now)
        case Confirming():
            return make_bundle(state, now)
        case Unmasking():
            folding = fold_entered(state)
            return Transition(folding, (start_fold(folding),))
        case _:
            assert_never(state)


def _step_finished(state: Committed | Aborted, event: Event) -> Transition:
    if isinstance(event, UploadOffered):
        raise LateError(f"round {state.frame.key} is over")
    return Transition(state)
