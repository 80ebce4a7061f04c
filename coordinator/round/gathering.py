"""Waiting for answers: whom an attempt has asked, who answered, and whether to go on.

Every state of an attempt asks some members for one thing each. Advertising, Sharing and Uploading wait for everybody
who can still answer, since whoever is missing is missing from the total; a deadline bounds it, and once the floor is
reached, members that are away are waited for only a little. Confirming and Unmasking need the threshold and no more:
the survivors are fixed, and more answers would change nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import TypeAlias, assert_never

from coordinator.round.phases import Advertising, Away, Confirming, Sharing, Unmasking, Uploading
from shared.ids import ParticipantId

RECONNECT_WINDOW_S = 15.0  # how long an answer that only absent members owe is waited for, once the floor is reached

Gathering: TypeAlias = Advertising | Sharing | Uploading | Confirming | Unmasking


class Verdict(Enum):
    """What to do with what came so far."""

    WAIT = "wait"
    GO = "go"
    FAIL = "fail"


def verdict(state: Gathering, now: float) -> Verdict:
    arrived, needed = len(answered(state)), _needed(state)
    owe = owing(state)
    over = now >= ends(state)
    if arrived >= needed and (isinstance(state, Confirming | Unmasking) or not owe or over):
        return Verdict.GO
    return Verdict.FAIL if over or arrived + len(owe) < needed else Verdict.WAIT


def owing(state: Gathering) -> frozenset[ParticipantId]:
    """Who was asked, has not answered, and still may."""
    return frozenset(_asked(state)) - set(answered(state)) - state.outs.keys() - state.lefts.keys()


def late(state: Gathering, now: float) -> Collection[ParticipantId]:
    """Who owes an answer although waiting for it is over."""
    return owing(state) if now >= ends(state) else ()


def ends(state: Gathering) -> float:
    """When waiting is over (monotonic seconds)."""
    return min(state.deadline, _patience_ends(state))


def answered(state: Gathering) -> Collection[ParticipantId]:
    match state:
        case Advertising(adverts=adverts):
            return adverts.keys()
        case Sharing(dealt=dealt):
            return dealt.keys()
        case Uploading(contributions=contributions):
            return contributions.keys()
        case Confirming(signatures=signatures):
            return signatures.keys()
        case Unmasking(revealed=revealed):
            return revealed.keys()
        case _:
            assert_never(state)


def _asked(state: Gathering) -> Collection[ParticipantId]:
    match state:
        case Advertising(cohort=cohort) | Uploading(cohort=cohort):
            return cohort
        case Sharing(roster=roster):
            return roster.adverts.keys()
        case Confirming(survivors=survivors) | Unmasking(survivors=survivors):
            return survivors.keys()
        case _:
            assert_never(state)


def _needed(state: Gathering) -> int:
    frame = state.frame
    return frame.spec.threshold if isinstance(state, Confirming | Unmasking) else frame.floor


def _patience_ends(state: Gathering) -> float:
    """When the floor is reached and only absent members owe an answer, they are waited for a little; else no limit."""
    links = [state.conversations[member].link for member in owing(state)]
    if isinstance(state, Confirming | Unmasking) or len(answered(state)) < _needed(state) or not links:
        return float("inf")
    return max(link.since + RECONNECT_WINDOW_S if isinstance(link, Away) else float("inf") for link in links)
