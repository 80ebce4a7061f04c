"""A coordinator or a daemon of a campaign: the real one, with an appointment and a wall clock that jumps.

    python -P -m tests.faults.entry coordinator|participant CONFIG SOCKET OFFSET_S

Between a phase and the next lie milliseconds: from outside nobody hits them. So the process meets the campaign there by
itself: whoever is told how a round moves, for the metrics, sends the signal to its own process, or waits there until
the campaign has cut the link, filled the disk or flipped the byte.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from coordinator import app as coordinator_app
from coordinator.metrics import CoordinatorMetrics
from coordinator.round.phases import RoundState as CoordinatorState
from coordinator.round.phases import Uploading
from coordinator.rpc.opening import SessionTimes
from coordinator.settings import CoordinatorSettings
from coordinator.storage.interface import COMMITTED
from participant import app as participant_app
from participant.metrics import ParticipantMetrics
from participant.round.phases import RoundState, Working
from participant.rpc import session
from participant.settings import ParticipantSettings
from shared.allocator import keep_memory
from shared.build import BuildInfo
from shared.clock import SystemClock
from shared.config import load_config
from shared.errors import FederationError
from shared.ids import ParticipantId, RoundKey
from shared.log import configure_logging
from shared.reasons import Purpose
from tests.faults.wire import Appointment, received, send

# Scaled, so that a campaign does not spend its time on waiting: a dead peer is noticed in 3 s in place of 12, and a
# session that lasted for a second is a good one.
TIMES = SessionTimes(heartbeat_s=1.0, silence_s=3.0)
HEALTHY_S = 1.0


class JumpingClock(SystemClock):
    """The machine's clocks, with a wall clock that somebody sets."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset_s)


class Meeting:
    """The process's end of the line to the campaign."""

    def __init__(self, line: socket.socket, clock: JumpingClock) -> None:
        self._line = line
        self._clock = clock
        self._lock = threading.Lock()
        self._appointment: Appointment | None = None
        self._go = threading.Event()
        threading.Thread(target=self._listen, name="campaign", daemon=True).start()

    def say(self, **message: object) -> None:
        with self._lock:
            send(self._line, message)

    def moved(self, key: RoundKey, phase: str) -> None:
        """On the thread that moved the round, before anything else happens on it."""
        self.say(say="moved", job=key.job, round=key.number, phase=phase)
        due = self._due(key, phase)
        if due is None:
            return
        self.say(say="struck" if due.signal else "held", job=key.job, round=key.number, phase=phase)
        if due.signal:
            os.kill(os.getpid(), due.signal)
        else:
            self._go.wait()
            self._go.clear()

    def _due(self, key: RoundKey, phase: str) -> Appointment | None:
        with self._lock:
            due = self._appointment
            if due is None or due.job != key.job or due.phase != phase or key.number < due.round:
                return None
            self._appointment = None
            return due

    def _listen(self) -> None:
        for message in received(self._line):
            match message["say"]:
                case "meet":
                    with self._lock:
                        self._appointment = Appointment.of(message)
                case "go":
                    self._go.set()
                case "jump":
                    self._clock.offset_s = message["offset_s"]
                    self.say(say="jumped")
                case unknown:
                    raise RuntimeError(f"a campaign says {unknown!r}")


class CoordinatorObserver(CoordinatorMetrics):
    def __init__(self, *, build: BuildInfo, meeting: Meeting) -> None:
        super().__init__(build=build)
        self._meeting = meeting
        self._last: tuple[RoundKey, str] | None = None

    def moved(self, state: CoordinatorState) -> None:
        super().moved(state)
        received = isinstance(state, Uploading) and state.contributions
        reached = (state.frame.key, "Received" if received else type(state).__name__)
        if reached != self._last:
            self._last = reached
            self._meeting.moved(*reached)

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        super().finished(key, purpose, outcome, summary)
        if outcome == COMMITTED:
            self._meeting.moved(key, "Decided")

    def connected(self, participants: Collection[ParticipantId]) -> None:
        super().connected(participants)
        self._meeting.say(say="here", members=sorted(participants))


class ParticipantObserver(ParticipantMetrics):
    def __init__(self, *, build: BuildInfo, local_metrics: bool, meeting: Meeting, ledger: Path) -> None:
        super().__init__(build=build, local_metrics=local_metrics)
        self._meeting = meeting
        self._ledger = ledger
        self._last: tuple[RoundKey, str] | None = None

    def moved(self, state: RoundState) -> None:
        super().moved(state)
        key, phase = state.offer.key, type(state).__name__
        if isinstance(state, Working) and self._last in {(key, "Working"), (key, "Training")}:
            phase = "Training"  # the task says how far it is, which it does in the middle
        if (key, phase) == self._last:
            return
        self._last = (key, phase)
        self._note(phase, key)
        self._meeting.moved(key, phase)

    def session(self, *, open_now: bool) -> None:
        super().session(open_now=open_now)
        self._meeting.say(say="here", open=open_now)

    def _note(self, phase: str, key: RoundKey) -> None:
        """Into the task's ledger, in the order in which it happened."""
        ledger = os.open(self._ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(ledger, f"{phase} {key.job} {key.number}\n".encode())
        finally:
            os.close(ledger)


def main(arguments: Sequence[str]) -> None:
    role, config, descriptor, offset_s = arguments
    clock = JumpingClock(float(offset_s))
    meeting = Meeting(socket.socket(fileno=int(descriptor)), clock)
    try:
        if role == "coordinator":
            _coordinator(Path(config), clock, meeting)
        else:
            _participant(Path(config), clock, meeting)
    except FederationError as error:
        sys.exit(f"error: {error}")


def _coordinator(config: Path, clock: JumpingClock, meeting: Meeting) -> None:
    def metrics(*, build: BuildInfo) -> CoordinatorObserver:
        return CoordinatorObserver(build=build, meeting=meeting)

    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    coordinator_app.run(settings, clock=clock, metrics=metrics, times=TIMES)


def _participant(config: Path, clock: JumpingClock, meeting: Meeting) -> None:
    def metrics(*, build: BuildInfo, local_metrics: bool) -> ParticipantObserver:
        return ParticipantObserver(build=build, local_metrics=local_metrics, meeting=meeting, ledger=ledger)

    session.HEALTHY_S = HEALTHY_S
    keep_memory()
    settings = load_config(config, ParticipantSettings, environment=os.environ)
    ledger = Path(str(settings.tasks["study"].options["ledger"]))  # type: ignore[index]
    configure_logging(style=settings.log.format, level=settings.log.level)
    asyncio.run(participant_app.run_daemon(settings, environment=os.environ, metrics=metrics, clock=clock))


if __name__ == "__main__":
    main(sys.argv[1:])
