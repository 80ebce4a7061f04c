"""Who is connected, and what was refused. On the event loop alone."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.metrics import declared
from shared.clock import Clock
from shared.ids import ParticipantId
from shared.metrics import Registered


class SessionMetrics:
    """Implements the counters of sessions and of what is refused."""

    def __init__(self, registered: Registered, clock: Clock) -> None:
        self._clock = clock
        self._count = registered.gauge(declared.CONNECTED_PARTICIPANTS)
        self._connected = registered.gauge(declared.PARTICIPANT_CONNECTED)
        self._start = registered.gauge(declared.SESSION_START)
        self._superseded = registered.counter(declared.SESSIONS_SUPERSEDED)
        self._ended = registered.counter(declared.SESSIONS_REFUSED)
        self._foreign = registered.counter(declared.HEADS_REFUSED)
        self._lost = registered.counter(declared.RESULTS_LOST)
        self._refused = registered.counter(declared.REFUSED)
        self._allowed: frozenset[ParticipantId] = frozenset()
        self._here: frozenset[ParticipantId] = frozenset()
        self._shown: frozenset[ParticipantId] = frozenset()

    def allowed(self, participants: Collection[ParticipantId]) -> None:
        """Who is on the allow-list now."""
        self._allowed = frozenset(participants)
        self._show()

    def connected(self, participants: Collection[ParticipantId]) -> None:
        before, self._here = self._here, frozenset(participants)
        self._count.set(len(self._here))
        for participant in before - self._here:
            self._start.remove(participant)
        for participant in self._here - before:
            self._start.labels(participant).set(self._clock.now().timestamp())
        self._show()

    def _show(self) -> None:
        wanted = self._allowed | self._here  # who was taken off the list a moment ago may still be here
        for participant in self._shown - wanted:
            self._connected.remove(participant)
        for participant in wanted:
            self._connected.labels(participant).set(participant in self._here)
        self._shown = wanted

    def superseded(self, participant: ParticipantId) -> None:
        self._superseded.inc()
        self._start.labels(participant).set(self._clock.now().timestamp())

    def session_ended(self, reason: str) -> None:
        self._ended.labels(reason).inc()

    def heads_refused(self, count: int) -> None:
        self._foreign.inc(count)

    def result_lost(self) -> None:
        self._lost.inc()

    def refused(self, method: str, error: str) -> None:
        self._refused.labels(method.rpartition("/")[2], error).inc()
