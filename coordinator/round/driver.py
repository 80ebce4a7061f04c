"""The one place that performs a round's effects.

`RoundDriver` holds the state of one open round. Each event goes through the machine; the effects are performed in their
order, and only when all of them are done is the new state in force. A StorageError on the way leaves the old state, and
the caller may send the event again. DurabilityUnknown must end the process: the next start reads what is true.

Beside that the driver notes what is left of the wait at hand (`timers`). A note that cannot be stored hurts no round:
the one before it stands, and a restart would wait a little longer.

Everything runs on one thread. A fold is handed to `Folds` and comes back as an event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import assert_never

import structlog

from coordinator.round.effects import (
    Abort,
    AcknowledgeUpload,
    Commit,
    Event,
    Journal,
    Send,
    StartFold,
    Tick,
)
from coordinator.round.frame import RoundFrame
from coordinator.round.gathering import RECONNECT_WINDOW_S
from coordinator.round.journal import decode_record, encode_plan, encode_record
from coordinator.round.machine import begin, next_deadline, step
from coordinator.round.members import linked
from coordinator.round.phases import Aborted, Committed, Present, RoundState, phase_name
from coordinator.round.recording import record_abort, record_commit
from coordinator.round.restore import restore
from coordinator.round.surroundings import FoldOrder, Surroundings
from coordinator.round.timers import TIMER_NOTE_S, note_of
from coordinator.round.transition import Transition
from coordinator.scheduler import FinishedRound
from coordinator.storage.interface import TimerNote
from shared.errors import StorageError
from shared.ids import Digest, ParticipantId

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Timing:
    """When the round entered each phase, for its summary."""

    started: float
    phase: str
    since: float
    spent_s: dict[str, float] = field(default_factory=dict)

    def move(self, phase: str, now: float) -> None:
        if phase != self.phase:
            self.spent_s[self.phase] = self.spent_s.get(self.phase, 0.0) + now - self.since
            self.phase, self.since = phase, now


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """When a round came to where it is (monotonic seconds); after a restart, since that."""

    started: float
    phase_since: float
    deadline: float
    """When it goes on at the latest; infinity for never."""
    spent_s: Mapping[str, float]
    """In the phases before."""


class RoundDriver:
    """One open round."""

    def __init__(
        self,
        *,
        state: RoundState,
        earlier: tuple[FinishedRound, ...],
        around: Surroundings,
        noted: TimerNote | None = None,
    ) -> None:
        self.state = state
        self._earlier = earlier
        self._around = around
        now = around.clock.monotonic()
        self._timing = _Timing(now, phase_name(state), now)
        self._noted = noted
        self._note_at = now + TIMER_NOTE_S
        self._notes_fail = False

    @classmethod
    def plan(
        cls,
        frame: RoundFrame,
        *,
        earlier: tuple[FinishedRound, ...],
        present: Collection[ParticipantId],
        around: Surroundings,
    ) -> RoundDriver:
        """Open a round: the plan is durable before anyone hears of it."""
        around.store.open_round(frame.key, frame.plan.value.purpose, encode_plan(frame.plan))
        begun = begin(frame, present, around.clock.monotonic())
        driver = cls(state=begun.state, earlier=earlier, around=around)
        driver.apply(begun)
        return driver

    @classmethod
    def resume(cls, frame: RoundFrame, *, earlier: tuple[FinishedRound, ...], around: Surroundings) -> RoundDriver:
        """Go on with a round that a former process left open."""
        restored = _restore(frame, around)
        # What a restart goes on with stands in no deadline: the window is on top of it, and not charged to any note.
        noted = note_of(restored.state, None, around.clock.monotonic() + RECONNECT_WINDOW_S)
        driver = cls(state=restored.state, earlier=earlier, around=around, noted=noted)
        driver.apply(restored)
        return driver

    @classmethod
    def restored(
        cls,
        frame: RoundFrame,
        *,
        earlier: tuple[FinishedRound, ...],
        present: Collection[ParticipantId],
        around: Surroundings,
    ) -> RoundDriver:
        """A round that a former process left open and that only is to be ended: nothing of it is started again."""
        state = _restore(frame, around).state
        for member in present:
            if not isinstance(state, Committed | Aborted):
                state = linked(state, member, Present())
        return cls(state=state, earlier=earlier, around=around)

    @property
    def frame(self) -> RoundFrame:
        return self.state.frame

    @property
    def finished(self) -> bool:
        return isinstance(self.state, Committed | Aborted)

    @property
    def deadline(self) -> float:
        """When the round goes on at the latest, whatever comes (monotonic seconds; infinity for never)."""
        return next_deadline(self.state)

    @property
    def times(self) -> RoundTimes:
        timing = self._timing
        return RoundTimes(timing.started, timing.since, self.deadline, dict(timing.spent_s))

    @property
    def next_tick(self) -> float:
        """When `tick` is due: at the deadline, and before it for the notes."""
        return min(self.deadline, self._note_at) if self.deadline < float("inf") else self.deadline

    def handle(self, event: Event) -> Digest | None:
        """Take one event. Returns the digest of the update that was acknowledged, if one was. Raises PeerError."""
        return self.apply(step(self.state, event, self._around.clock.monotonic(), self._around.seal))

    def tick(self) -> None:
        now = self._around.clock.monotonic()
        if self.deadline <= now:
            self.handle(Tick())
        if self._note_at <= now:
            self.note_timer()

    def note_timer(self) -> None:
        """Note what is left of the wait at hand. Raises DurabilityUnknown alone."""
        now = self._around.clock.monotonic()
        self._note_at = now + TIMER_NOTE_S
        note = note_of(self.state, self._noted, now)
        if note is None:
            return
        try:
            self._around.store.note_timer(self.frame.key, note)
        except StorageError as error:
            if not self._notes_fail:
                key = self.frame.key
                _log.warning("timer_not_noted", job=key.job, round=key.number, wait=note.name, reason=str(error))
            self._notes_fail = True
        else:
            self._noted, self._notes_fail = note, False

    def apply(self, transition: Transition) -> Digest | None:
        acknowledged = None
        for effect in transition.effects:
            if isinstance(effect, AcknowledgeUpload):
                acknowledged = effect.update
            else:
                self._perform(effect)
        self.state = transition.state
        self._timing.move(phase_name(self.state), self._around.clock.monotonic())
        self._around.observer.moved(self.state)
        return acknowledged

    def _perform(self, effect: Journal | Send | StartFold | Commit | Abort) -> None:
        match effect:
            case Journal(record):
                self._around.store.journal(self.frame.key, encode_record(record))
            case Send(participant, message):
                self._around.outbox.send(participant, message)
            case StartFold(attempt, encoding, survivors, opening):
                self._around.folds.start(FoldOrder(self.frame, attempt, encoding, survivors, opening))
            case Commit():
                durations = self._durations()
                record_commit(effect, frame=self.frame, earlier=self._earlier, around=self._around, durations=durations)
            case Abort():
                durations = self._durations()
                record_abort(effect, frame=self.frame, earlier=self._earlier, around=self._around, durations=durations)
            case _:
                assert_never(effect)

    def _durations(self) -> dict[str, object]:
        now = self._around.clock.monotonic()
        self._timing.move("ending", now)
        spent = {phase: round(seconds, 6) for phase, seconds in self._timing.spent_s.items()}
        return {"phases_s": spent, "duration_s": round(now - self._timing.started, 6)}


def _restore(frame: RoundFrame, around: Surroundings) -> Transition:
    records = [decode_record(entry) for entry in around.store.journal_of(frame.key)[1:]]
    return restore(frame, records, around.clock.monotonic(), around.store.timer_of(frame.key))
