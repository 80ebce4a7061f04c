"""The coordinator's metrics as one object: what its parts are given to count with, and what is read from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Protocol

from coordinator.disk_use import DiskKind
from coordinator.metrics import declared
from coordinator.metrics.rounds import JobMetrics, RoundMetrics
from coordinator.metrics.sessions import SessionMetrics
from coordinator.round.phases import RoundState
from coordinator.standings import Standings
from shared.build import BuildInfo
from shared.clock import Clock, SystemClock
from shared.ids import ParticipantId, RoundKey
from shared.process_metrics import ProcessMetrics
from shared.reasons import Purpose

_CLOCK = SystemClock()


class AuditState(Protocol):
    """What is read of `coordinator.audit.AuditLog`."""

    @property
    def size(self) -> int: ...

    @property
    def head_time(self) -> str: ...


class Busy(Protocol):
    """What is read of a thread (`coordinator.fold_thread.FoldThread`). Any thread asks, here and below."""

    @property
    def busy_s(self) -> float: ...


class Conducts(Busy, Protocol):
    """What is read of `coordinator.conducting.ConductorThread`."""

    @property
    def waiting(self) -> int: ...


class Pool(Protocol):
    """What is read of `shared.busy.CountedThreads`."""

    threads: int

    @property
    def busy(self) -> int: ...


class Calls(Protocol):
    """What is read of `coordinator.rpc.authorization.Wall`."""

    open_calls: int


class CoordinatorMetrics(ProcessMetrics[DiskKind]):
    """Implements `Observer` of the driver and the counters of the rpc package."""

    def __init__(self, *, build: BuildInfo, clock: Clock = _CLOCK) -> None:
        super().__init__(
            declared.METRICS,
            prefix=declared.PREFIX,
            build=build,
            ready=declared.READY,
            disk=declared.DISK,
            disk_free=declared.DISK_FREE,
        )
        registered = self._registered
        self._rounds = RoundMetrics(registered, clock)
        self._jobs = JobMetrics(registered)
        self._sessions = SessionMetrics(registered, clock)
        self._received = registered.counter(declared.RECEIVED_BYTES)
        self._sent = registered.counter(declared.SENT_BYTES)

    # --- rounds and jobs: on the conductor's thread -------------------------------------------------------------------

    def moved(self, state: RoundState) -> None:
        self._rounds.moved(state)

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        self._rounds.finished(key, purpose, outcome, summary)

    def jobs_stand(self, now: Standings) -> None:
        self._jobs.stand(now)

    # --- sessions and calls: on the event loop ------------------------------------------------------------------------

    def allowed(self, participants: Collection[ParticipantId]) -> None:
        """Who is on the allow-list now."""
        self._sessions.allowed(participants)

    def connected(self, participants: Collection[ParticipantId]) -> None:
        self._sessions.connected(participants)

    def superseded(self, participant: ParticipantId) -> None:
        self._sessions.superseded(participant)

    def session_ended(self, reason: str) -> None:
        self._sessions.session_ended(reason)

    def heads_refused(self, count: int) -> None:
        self._sessions.heads_refused(count)

    def result_lost(self) -> None:
        self._sessions.result_lost()

    def refused(self, method: str, error: str) -> None:
        self._sessions.refused(method, error)

    def received(self, kind: str, count: int) -> None:
        self._received.labels(kind).inc(count)

    def sent(self, kind: str, count: int) -> None:
        self._sent.labels(kind).inc(count)

    # --- read at each scrape ------------------------------------------------------------------------------------------

    def log_values_refused(self, count: Callable[[], int]) -> None:
        """Follow the log guard's count of secrets that it stopped; it has to stay at zero."""
        self._registered.read(declared.LOG_SECRETS_REFUSED, count)

    def audit(self, log: AuditState, published: Callable[[], int]) -> None:
        """Follow the audit log, and how far the file that people read has come."""

        def head_time() -> float | None:
            time = log.head_time
            return datetime.fromisoformat(time).timestamp() if time else None

        self._registered.read(declared.AUDIT_ENTRIES, lambda: log.size)
        self._registered.read(declared.AUDIT_PUBLISHED, published)
        self._registered.read(declared.AUDIT_HEAD_TIME, head_time)

    def saturation(self, *, conductor: Conducts, folds: Busy, threads: Pool, calls: Calls) -> None:
        """Follow how much of this process is in use."""
        read = self._registered.read
        read(declared.CONDUCTOR_WAITING, lambda: conductor.waiting)
        read(declared.CONDUCTOR_BUSY, lambda: conductor.busy_s)
        read(declared.FOLD_BUSY, lambda: folds.busy_s)
        read(declared.TRANSFER_THREADS, lambda: threads.threads)
        read(declared.TRANSFER_THREADS_BUSY, lambda: threads.busy)
        read(declared.CALLS_OPEN, lambda: calls.open_calls)
