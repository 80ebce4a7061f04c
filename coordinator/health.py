"""How this coordinator is, for whoever asks: the health service, the status page, the metrics.

Two questions, and no more. *Live*: do the event loop and the conductor's thread still go on? Whoever supervises a
process restarts one that is not. *Ready*: can rounds go on (`coordinator.readiness`)? That is for alerts; a coordinator
that waits for silos is as it should be, and a restart would bring nobody.

The conductor's thread says each change of readiness; from a drain on it is false, while the process stays live to its
end. Any thread may ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from coordinator.readiness import Readiness
from shared.health_report import HealthReport
from shared.heartbeat import Heartbeat

_STARTING = Readiness(ready=False, why="it is starting")
_DRAINING = Readiness(ready=False, why="it was told to end, and drains")


class Health:
    """The answers, as they are now."""

    def __init__(self, *, who: str) -> None:
        self._who = who
        self.loop = Heartbeat()
        self.conductor = Heartbeat()
        self._lock = threading.Lock()
        self._seen = _STARTING
        self._draining = False
        self._listeners: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Whoever asks can from here on; a start that took long was no hanging."""
        self.loop.beat()
        self.conductor.beat()

    @property
    def live(self) -> bool:
        return self.loop.alive and self.conductor.alive

    @property
    def why_not_live(self) -> str:
        """Empty when it is."""
        beats = {"the event loop": self.loop, "the conductor's thread": self.conductor}
        hanging = [f"{name} has not answered for {beat.age_s:.0f} s" for name, beat in beats.items() if not beat.alive]
        return "; ".join(hanging)

    @property
    def readiness(self) -> Readiness:
        return _DRAINING if self._draining else self._seen

    def report(self) -> HealthReport:
        """Both answers, for a reader."""
        live, readiness = self.live, self.readiness
        return HealthReport(
            who=self._who,
            live=live,
            ready=live and readiness.ready,
            why=readiness.why if live else self.why_not_live,
        )

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of readiness, on the thread that it came from."""
        self._listeners.append(listener)

    def see(self, readiness: Readiness) -> None:
        """What the conductor's thread found."""
        with self._lock:
            changed, self._seen = readiness != self._seen, readiness
        if changed:
            self._tell()

    def drain(self) -> None:
        """The process was told to end."""
        self._draining = True
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
