"""Reading and moving what a round knows of its members."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar, assert_never

from coordinator.round.phases import Away, Conversation, Folding, Link, NeverSeen, OpenState, Present
from shared.errors import PhaseError
from shared.ids import ParticipantId
from shared.protocol.phases import Phase
from shared.reasons import DropReason

S = TypeVar("S", bound=OpenState)

_HOLDS_UPDATE = frozenset({Phase.READY, Phase.UPLOADING, Phase.COMMITTED})


def ready(state: OpenState) -> tuple[ParticipantId, ...]:
    """Members whose update is on their disk, in member order."""
    return tuple(member for member, told in state.conversations.items() if told.phase in _HOLDS_UPDATE)


def dropped(state: OpenState) -> Mapping[ParticipantId, DropReason]:
    """Every member that is missing from the result, each with its reason.

    In a round that aborts there is no result; then those are named that were not there with an update.
    """
    survivors: Collection[ParticipantId] = state.survivors if isinstance(state, Folding) else ready(state)
    reasons = {
        member: state.outs.get(member) or _why_missing(told)
        for member, told in state.conversations.items()
        if member not in survivors
    }
    late = {
        member: DropReason.DISCONNECTED
        for member in survivors
        if not isinstance(state, Folding) and not isinstance(state.conversations[member].link, Present)
    }
    return {**reasons, **late}


def _why_missing(told: Conversation) -> DropReason:
    match told.link:
        case NeverSeen():
            return DropReason.ABSENT
        case Away():
            return DropReason.DISCONNECTED
        case Present():
            return DropReason.UPLOAD_LATE if told.phase is Phase.UPLOADING else DropReason.NOT_READY
        case _:
            assert_never(told.link)


def conversation(state: OpenState, participant: ParticipantId) -> Conversation:
    """A member's conversation. Raises PhaseError for a stranger."""
    try:
        return state.conversations[participant]
    except KeyError:
        raise PhaseError(f"{participant} is not a member of job {state.frame.key.job}") from None


def with_phase(state: S, participant: ParticipantId, phase: Phase) -> S:
    told = replace(state.conversations[participant], phase=phase)
    return replace(state, conversations={**state.conversations, participant: told})


def linked(state: S, participant: ParticipantId, link: Link) -> S:
    told = replace(conversation(state, participant), link=link)
    return replace(state, conversations={**state.conversations, participant: told})
