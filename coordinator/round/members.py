"""Reading and moving what a round knows of its members."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar, assert_never

from coordinator.round.phases import (
    Advertising,
    Away,
    Confirming,
    Conversation,
    Conversations,
    Folding,
    Gracing,
    Lefts,
    Link,
    NeverSeen,
    OpenState,
    Present,
    Recruiting,
    Sharing,
    Unmasking,
    Uploading,
)
from shared.errors import PhaseError
from shared.ids import ParticipantId
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import DropReason

S = TypeVar("S", bound=OpenState)
V = TypeVar("V")

_HOLDS_UPDATE = frozenset(
    {Phase.READY, Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED}
)


def ready(state: OpenState) -> tuple[ParticipantId, ...]:
    """Members whose update is on their disk, in member order."""
    return tuple(member for member, told in state.conversations.items() if told.phase in _HOLDS_UPDATE)


def dropped(state: OpenState, late: Collection[ParticipantId] = ()) -> Mapping[ParticipantId, DropReason]:
    """Every member that is missing from the result, each with its reason.

    In a round that aborts there is no result; then those are named that were not there with an update, left the last
    attempt, or were `late` in it.
    """
    if isinstance(state, Folding):
        there: Collection[ParticipantId] = state.survivors
    else:
        there = [member for member in state.conversations if _took_part(state, member) and member not in late]
    missing = (member for member in state.conversations if member not in there)
    return {member: state.outs.get(member) or _why_missing(state, member) for member in missing}


def _took_part(state: OpenState, member: ParticipantId) -> bool:
    told = state.conversations[member]
    return told.phase in _kept_up(state) and isinstance(told.link, Present) and member not in lefts(state)


def _kept_up(state: OpenState) -> Collection[Phase]:
    """Where members are that nothing is missing of: as far as the round, or Ready for the next attempt."""
    match state:
        case Recruiting() | Gracing():
            return {Phase.READY}
        case Advertising():
            return {Phase.READY, Phase.ADVERTISING}
        case Sharing():
            return {Phase.READY, Phase.SHARING}
        case Uploading():
            return {Phase.READY, Phase.UPLOADING, Phase.COMMITTED}
        case Confirming() | Folding():
            return {Phase.READY, Phase.FIXED}
        case Unmasking():
            return {Phase.READY, Phase.OPENING}
        case _:
            assert_never(state)


def lefts(state: OpenState) -> Lefts:
    """Who left the attempt that runs, and for what check; a member whose update was in by then may be a survivor."""
    return {} if isinstance(state, Recruiting | Gracing) else state.lefts


def _why_missing(state: OpenState, member: ParticipantId) -> DropReason:
    told = state.conversations[member]
    if member in lefts(state):
        return DropReason.ATTEMPT_LEFT
    match told.link:
        case NeverSeen():
            return DropReason.ABSENT
        case Away():
            return DropReason.DISCONNECTED
        case Present():
            return _LATE_IN.get(told.phase, DropReason.NOT_READY)
        case _:
            assert_never(told.link)


_LATE_IN = {
    Phase.ADVERTISING: DropReason.EXCHANGE_LATE,
    Phase.SHARING: DropReason.EXCHANGE_LATE,
    Phase.UPLOADING: DropReason.UPLOAD_LATE,
    Phase.FIXED: DropReason.EXCHANGE_LATE,
    Phase.OPENING: DropReason.EXCHANGE_LATE,
}


def without(state: S, participant: ParticipantId) -> S:
    """What this member gave to the attempt is taken out again. What others were told of it already stays."""
    if isinstance(state, Advertising):
        return replace(state, adverts=_less(state.adverts, participant))
    if isinstance(state, Sharing):
        return replace(state, dealt=_less(state.dealt, participant))
    if isinstance(state, Uploading):
        return replace(state, contributions=_less(state.contributions, participant))
    return state


def _less(given: Mapping[ParticipantId, V], participant: ParticipantId) -> Mapping[ParticipantId, V]:
    return {name: kept for name, kept in given.items() if name != participant}


def moved_phases(state: OpenState, members: Collection[ParticipantId], said: Kind) -> Conversations:
    """The conversations after the coordinator says this to these members."""
    return {
        member: replace(told, phase=advance(Role.COORDINATOR, told.phase, said)) if member in members else told
        for member, told in state.conversations.items()
    }


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
