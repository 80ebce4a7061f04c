"""How a round ends: with a result, or with a reason. Everybody who was told of it is told how it ended."""

from __future__ import annotations

from coordinator.round.effects import Abort, Commit, Folded, Send
from coordinator.round.members import dropped
from coordinator.round.phases import Aborted, Committed, Folding, OpenState
from coordinator.round.transition import Seal, Transition
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
        (Commit(sealed, dropped(state), result.totals), *_tell_everyone(state, sealed)),
    )


def abort(state: OpenState, reason: AbortReason, seal: Seal) -> Transition:
    """No result; the model is what it was."""
    aborted = seal(RoundAborted(key=state.frame.key, plan=plan_digest(state.frame.plan), reason=reason))
    return Transition(Aborted(state.frame, reason), (Abort(aborted, dropped(state)), *_tell_everyone(state, aborted)))


def _tell_everyone(state: OpenState, message: RoundBroadcast) -> tuple[Send, ...]:
    return tuple(
        Send(member, message) for member, told in state.conversations.items() if told.phase is not Phase.UNPLANNED
    )
