"""How a round ends: with a result, or with a reason. Everybody who was told of it is told how it ended."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.round.effects import Abort, Commit, Folded, Protection, Send
from coordinator.round.members import dropped, lefts
from coordinator.round.phases import Aborted, Committed, Fit, Folding, Gracing, OpenState, Recruiting, Unmasking
from coordinator.round.transition import Seal, Transition
from shared.ids import ParticipantId
from shared.protocol.messages import RoundAborted, RoundBroadcast, RoundResult, plan_digest
from shared.protocol.phases import Phase
from shared.reasons import AbortReason


def folded(state: OpenState, result: Folded, seal: Seal) -> Transition:
    """The fold is done: the round's one commit."""
    if not isinstance(state, Folding):
        raise RuntimeError(f"a fold ended in phase {type(state).__name__}")  # noqa: TRY004 - a bug, not a type
    plan = state.frame.plan.value
    sealed = seal(
        RoundResult(
            key=plan.key,
            purpose=plan.purpose,
            attempt=state.h0,
            transcript=state.transcript,
            survivors=tuple(state.frame.index_of(member) for member in state.survivors),
            weight_total=result.weight_total,
            top_cells=result.top_cells,
            aggregate=result.aggregate,
            next_model=result.next_model,
        )
    )
    return Transition(
        Committed(state.frame, result.next_model),
        (
            Commit(sealed, dropped(state), state.rules, lefts(state), result.totals, _protection(state)),
            *_tell_everyone(state, sealed),
        ),
    )


def abort(state: OpenState, reason: AbortReason, seal: Seal, late: Collection[ParticipantId] = ()) -> Transition:
    """No result; the model is what it was. `late` are those who did not answer in time, if that is why."""
    aborted = seal(RoundAborted(key=state.frame.key, plan=plan_digest(state.frame.plan), reason=reason))
    ended = Abort(aborted, dropped(state, late), state.rules, lefts(state), _protection(state), _opened(state))
    return Transition(Aborted(state.frame, reason), (ended, *_tell_everyone(state, aborted)))


def _protection(state: OpenState) -> Protection:
    used = state.encoding if isinstance(state, Recruiting | Gracing) else state.attempt.value.encoding
    return Protection(used, missed=state.fit is Fit.MISSED)


def _opened(state: OpenState) -> tuple[ParticipantId, ...]:
    """From the bundle on survivors may have opened their shares, whether these came or not."""
    if isinstance(state, Unmasking) or (isinstance(state, Folding) and state.opening is not None):
        return tuple(state.survivors)
    return ()


def _tell_everyone(state: OpenState, message: RoundBroadcast) -> tuple[Send, ...]:
    asked = ((member, told) for member, told in state.conversations.items() if member not in state.frame.not_asked)
    return tuple(Send(member, message) for member, told in asked if told.phase is not Phase.UNPLANNED)
