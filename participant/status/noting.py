"""What happened here since the start, kept for the status page: an observer between the rounds and the metrics.

On the daemon's event loop only. Each list is short: what has to last is in the journal, in the record of what was sent,
and in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from participant.round.phases import Finished, Out, RoundState, phase_of
from participant.round.surroundings import Observer
from participant.status.advice import ALARMS, for_declined, for_withdrawn
from shared.clock import Clock
from shared.ids import RoundKey
from shared.protocol.messages import Decline

KEPT = 50


@dataclass(frozen=True, slots=True)
class LeftRound:
    """A round that this silo declined or withdrew from."""

    at: datetime
    job: str
    round: int
    how: str
    """`declined` or `withdrew`."""
    reason: str
    meaning: str


@dataclass(frozen=True, slots=True)
class EndedRound:
    """A round that is over here."""

    at: datetime
    job: str
    round: int
    survived: bool
    """Whether this silo's update is in a committed result."""


@dataclass(frozen=True, slots=True)
class Alarmed:
    """A word of the coordinator that an honest one does not say."""

    at: datetime
    what: str
    meaning: str


class Noted:
    """An `Observer` that notes, and passes everything on to the next one."""

    def __init__(self, *, following: Observer, clock: Clock) -> None:
        self._following = following
        self._clock = clock
        self._phases: dict[RoundKey, tuple[str, datetime]] = {}
        self.left: deque[LeftRound] = deque(maxlen=KEPT)
        self.ended: deque[EndedRound] = deque(maxlen=KEPT)
        self.alarms: deque[Alarmed] = deque(maxlen=KEPT)

    @property
    def phases(self) -> Mapping[RoundKey, tuple[str, datetime]]:
        """Of each open round its phase, and since when."""
        return self._phases

    def moved(self, state: RoundState) -> None:
        key, now = state.offer.key, self._clock.now()
        match state:
            case Finished(survived=survived):
                self._phases.pop(key, None)
                self.ended.append(EndedRound(now, key.job, key.number, survived))
            case Out():
                self._phases.pop(key, None)
                self._note_left(state, now)
            case _:
                phase = str(phase_of(state))
                if self._phases.get(key, ("",))[0] != phase:
                    self._phases[key] = (phase, now)
        self._following.moved(state)

    def _note_left(self, state: Out, now: datetime) -> None:
        """Said again when the plan is repeated; noted once."""
        said, key = state.said, state.offer.key
        declined = isinstance(said, Decline)
        reason = str(said.rule if isinstance(said, Decline) else said.reason)
        meaning = for_declined(said.rule) if isinstance(said, Decline) else for_withdrawn(said.reason)
        if not any((each.job, each.round, each.reason) == (key.job, key.number, reason) for each in self.left):
            how = "declined" if declined else "withdrew"
            self.left.append(LeftRound(now, key.job, key.number, how, reason, meaning))

    def alarmed(self, what: str) -> None:
        self.alarms.append(Alarmed(self._clock.now(), what, ALARMS.get(what, "")))
        self._following.alarmed(what)
