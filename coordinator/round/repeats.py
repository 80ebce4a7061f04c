"""What a member with a new session is told again: everything that still matters, in the order in which it was said.

A lost message is no harm because of this. Members answer what they are told again with what they said before, and what
was counted already changes nothing.
"""

from __future__ import annotations

from typing import assert_never

from coordinator.round.effects import Send
from coordinator.round.exchanges import key_roster, share_delivery, survivor_list
from coordinator.round.members import conversation, with_phase
from coordinator.round.phases import (
    Advertising,
    Confirming,
    Folding,
    Gracing,
    OpenState,
    Recruiting,
    Sharing,
    Unmasking,
    Uploading,
)
from coordinator.round.transition import Transition
from shared.ids import ParticipantId
from shared.protocol.messages import ConsistencyBundle, RoundBroadcast
from shared.protocol.phases import Kind, Phase, Role, advance


def repeat_what_matters(state: OpenState, participant: ParticipantId) -> Transition:
    """Everything that a member with a new session may have missed: the plan, and where the attempt stands for it."""
    told = conversation(state, participant)
    if told.phase is Phase.OUT:
        return Transition(state)
    if isinstance(state, Folding):
        plain = state.opening is None and participant in state.survivors
        return Transition(state, (Send(participant, survivor_list(state)),) if plain else ())
    planned = with_phase(state, participant, advance(Role.COORDINATOR, told.phase, Kind.ROUND_PLAN))
    messages = (state.frame.plan, *_of_the_attempt(state, participant))
    return Transition(planned, tuple(Send(participant, message) for message in messages))


def _of_the_attempt(state: OpenState, participant: ParticipantId) -> tuple[RoundBroadcast, ...]:
    """The announcement comes first: a member that restarted, and lost its secrets, says so then."""
    match state:
        case Recruiting() | Gracing() | Folding():
            return ()
        case Advertising(cohort=cohort):
            return (state.attempt,) if participant in cohort else ()
        case Sharing(roster=roster):
            return (state.attempt, key_roster(state)) if participant in roster.adverts else ()
        case Uploading(cohort=cohort):
            if participant not in cohort:
                return ()
            return (state.attempt,) if state.masking is None else (state.attempt, share_delivery(state, participant))
        case Confirming(survivors=survivors):
            return (state.attempt, survivor_list(state)) if participant in survivors else ()
        case Unmasking(survivors=survivors):
            bundle = ConsistencyBundle(state.key, state.bundle)
            return (state.attempt, survivor_list(state), bundle) if participant in survivors else ()
        case _:
            assert_never(state)
