"""The state that a restart goes on from: what the journal's records lead to, with everybody away.

The time that a coordinator was down is not charged to its members: `timers` says how long the wait at hand goes on, and
the grace for the last ones to be Ready does not begin before they had time to come back. What was not journaled was not
told to anybody, and is asked for again: keys and shares while their lists were not fixed, signatures before the
bundle. The coordinator holds no secret of masking, so an attempt goes on wherever its participants still have theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, assert_never

from coordinator.round.attempts import entered, recruiting
from coordinator.round.effects import (
    AttemptBegun,
    BundleMade,
    Contributed,
    MemberOut,
    RangeMissed,
    Record,
    RosterFixed,
    SharesFixed,
    SharesRevealed,
    SurvivorsFixed,
)
from coordinator.round.exchanges import (
    bundle_entered,
    delivery_entered,
    fold_entered,
    roster_entered,
    start_fold,
    survivors_entered,
)
from coordinator.round.frame import RoundFrame
from coordinator.round.gathering import RECONNECT_WINDOW_S
from coordinator.round.members import with_phase, without
from coordinator.round.phases import (
    Advertising,
    Away,
    Confirming,
    Conversation,
    Folding,
    OpenState,
    Sharing,
    Unmasking,
    Uploading,
)
from coordinator.round.timers import went_on
from coordinator.round.transition import Transition
from coordinator.storage.interface import TimerNote
from shared.ids import ParticipantId
from shared.protocol.messages import AttemptStart, Sealed
from shared.protocol.phases import Phase
from shared.reasons import DropReason

S = TypeVar("S", bound=OpenState)


def restore(frame: RoundFrame, records: Sequence[Record], now: float, note: TimerNote | None) -> Transition:
    """Where an open round stands, and what to start again. `note`: what was noted of its wait at last."""
    everybody = {member: Conversation(Phase.PLANNED, Away(now)) for member in frame.spec.members}
    state: OpenState = recruiting(frame, everybody, now, grace_from=now + RECONNECT_WINDOW_S)
    for record in records:
        state = _after(state, record, now)
    if isinstance(state, Unmasking) and len(state.revealed) >= frame.spec.threshold:
        state = fold_entered(state)
    state = went_on(state, note, now)
    return Transition(state, (start_fold(state),) if isinstance(state, Folding) else ())


def _after(state: OpenState, record: Record, now: float) -> OpenState:
    match record:
        case MemberOut(participant, reason):
            return _out(state, participant, reason)
        case RangeMissed(fit):
            return replace(state, fit=fit)
        case AttemptBegun(start, cohort):
            return _begun(state, start, cohort, now)
        case RosterFixed(adverts):
            return roster_entered(_in(Advertising, state), adverts, now)
        case SharesFixed(dealt):
            return delivery_entered(_in(Sharing, state), dealt, now)
        case Contributed(participant, contribution):
            uploading = with_phase(_in(Uploading, state), participant, Phase.COMMITTED)
            return replace(uploading, contributions={**uploading.contributions, participant: contribution})
        case SurvivorsFixed(survivors):
            uploading = _in(Uploading, state)
            return survivors_entered(uploading, {name: uploading.contributions[name] for name in survivors}, now)
        case BundleMade(signatures):
            return bundle_entered(_in(Confirming, state), signatures, now)
        case SharesRevealed(participant, word):
            unmasking = _in(Unmasking, state)
            return replace(unmasking, revealed={**unmasking.revealed, participant: word.value})
        case _:
            assert_never(record)


def _begun(
    state: OpenState, start: Sealed[AttemptStart], cohort: Sequence[ParticipantId], now: float
) -> Advertising | Uploading:
    if isinstance(state, Unmasking | Folding):
        raise RuntimeError("the journal begins an attempt after its round began to open")  # noqa: TRY004 - a bug
    phase = Phase.ADVERTISING if start.value.encoding.masked else Phase.UPLOADING
    for member in cohort:
        state = with_phase(state, member, phase)
    return entered(state, start, frozenset(cohort), now)


def _out(state: OpenState, participant: ParticipantId, reason: DropReason) -> OpenState:
    if isinstance(state, Folding):
        raise RuntimeError("the journal drops a member after its updates were combined")  # noqa: TRY004 - a bug
    moved = without(with_phase(state, participant, Phase.OUT), participant)
    return replace(moved, outs={**moved.outs, participant: reason})


def _in(kind: type[S], state: OpenState) -> S:
    """The state, which the record that comes now has to find."""
    if not isinstance(state, kind):
        raise RuntimeError(f"the journal has a record that does not follow {type(state).__name__}")  # noqa: TRY004
    return state
