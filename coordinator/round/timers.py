"""What is left of the waits of a round, across restarts (pure).

A deadline counts the time in which the coordinator is up: what it was down is not charged to members, and no wall clock
is looked at. So of the wait that a round is in, what is left is noted every `TIMER_NOTE_S` and when the process ends.
After a restart the wait that the note names goes on with what was left, any other one starts afresh, and either gets
`RECONNECT_WINDOW_S` on top, in which members come back. That window is not charged to the note, so a note of one wait
only ever falls.

A wait is a phase of an attempt, so that its name never comes back in the same round; Recruiting and Gracing are one
wait, with one deadline. From this follows, for a wait with deadline D in whose time the coordinator was started anew n
times, that it lasts D of up time at the least, and D + n * (RECONNECT_WINDOW_S + TIMER_NOTE_S) at the most.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias, TypeVar

from coordinator.round.gathering import RECONNECT_WINDOW_S, Gathering
from coordinator.round.phases import (
    Aborted,
    Committed,
    Folding,
    Gracing,
    OpenState,
    Recruiting,
    RoundState,
    phase_name,
)
from coordinator.storage.interface import TimerNote

TIMER_NOTE_S = 5.0  # between two notes: what a crash makes a wait longer, at most

Waiting: TypeAlias = Recruiting | Gracing | Gathering
S = TypeVar("S", bound=OpenState)


def note_of(state: RoundState, noted: TimerNote | None, now: float) -> TimerNote | None:
    """What is to be noted of the wait that the round is in, after this note; None where nothing is new."""
    if isinstance(state, Folding | Committed | Aborted):
        return None  # a fold has no deadline: it ends by itself
    left, name = max(0.0, state.deadline - now), wait_name(state)
    if noted is not None and noted.name == name and noted.remaining_s <= left:
        return None
    return TimerNote(name, left)


def went_on(state: S, noted: TimerNote | None, now: float) -> S:
    """A restored state, whose wait was begun afresh, with the deadline that a restart gives it."""
    if isinstance(state, Folding):
        return state
    afresh = state.deadline - now
    left = min(afresh, noted.remaining_s) if noted is not None and noted.name == wait_name(state) else afresh
    return replace(state, deadline=now + left + RECONNECT_WINDOW_S)


def wait_name(state: Waiting) -> str:
    if isinstance(state, Recruiting | Gracing):
        return "0 recruiting"
    return f"{state.key.attempt} {phase_name(state)}"
