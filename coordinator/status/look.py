"""What the status pages read on the conductor's thread: a moment's truth, handed out as values that nobody changes.

Small on purpose: no specification is parsed here and nothing is worded, since a page must not slow a round. A look at
all jobs reads no rounds from the store; a look at one job reads what `GetJob` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from coordinator.audit import AuditLog
from coordinator.desk import Desk, JobView
from coordinator.jobs import Jobs, RunningJob
from coordinator.registry import Enrolled, Registry
from coordinator.round.driver import RoundTimes
from coordinator.round.phases import Aborted, Committed, OpenState
from coordinator.round.surroundings import Surroundings
from coordinator.scheduler import FinishedRound
from coordinator.storage.interface import JobRecord, ModelRecord, Store
from shared.ids import Digest, JobId, ParticipantId


@dataclass(frozen=True, slots=True)
class LiveRoundSeen:
    """The open round of a job."""

    state: OpenState
    times: RoundTimes
    progress: Mapping[ParticipantId, int]


@dataclass(frozen=True, slots=True)
class RunningSeen:
    """A job whose rounds are run."""

    finished: Sequence[FinishedRound]
    live: LiveRoundSeen | None
    """None between two rounds, and for a job that cannot go on."""
    trouble: str


@dataclass(frozen=True, slots=True)
class AuditSeen:
    """The audit log at this moment."""

    size: int
    head: Digest
    last_at: str
    """RFC 3339; empty before the first entry."""


@dataclass(frozen=True, slots=True)
class FederationSeen:
    """Everything at a glance."""

    at: datetime
    monotonic: float
    jobs: Sequence[tuple[JobRecord, str]]
    """In the order of submission, each with what it waits for."""
    running: Mapping[JobId, RunningSeen]
    connected: Mapping[ParticipantId, Enrolled]
    changed: Mapping[ParticipantId, datetime]
    audit: AuditSeen


@dataclass(frozen=True, slots=True)
class JobSeen:
    """One job with its rounds, and all versions."""

    at: datetime
    monotonic: float
    view: JobView
    running: RunningSeen | None
    connected: frozenset[ParticipantId]
    models: Sequence[ModelRecord]


class Look:
    """Reads, on the conductor's thread; changes nothing."""

    def __init__(self, *, jobs: Jobs, registry: Registry, around: Surroundings, desk: Desk) -> None:
        self._jobs = jobs
        self._registry = registry
        self._store: Store = around.store
        self._audit: AuditLog = around.audit
        self._clock = around.clock
        self._desk = desk

    def federation(self) -> FederationSeen:
        """Raises StorageError."""
        return FederationSeen(
            at=self._clock.now(),
            monotonic=self._clock.monotonic(),
            jobs=tuple(self._desk.jobs()),
            running={name: _running(job) for name, job in self._jobs.running.items()},
            connected=dict(self._registry.connected),
            changed=dict(self._registry.changed),
            audit=AuditSeen(self._audit.size, self._audit.head, self._audit.head_time),
        )

    def job(self, job: JobId) -> JobSeen:
        """Raises UnknownError or StorageError."""
        view, running = self._desk.job_view(job), self._jobs.running.get(job)
        return JobSeen(
            at=self._clock.now(),
            monotonic=self._clock.monotonic(),
            view=view,
            running=None if running is None else _running(running),
            connected=frozenset(self._registry.connected),
            models=tuple(self._store.models()),
        )

    def models(self) -> Sequence[ModelRecord]:
        """Raises StorageError."""
        return tuple(self._store.models())


def _running(job: RunningJob) -> RunningSeen:
    driver = job.driver
    live = None
    if driver is not None and not isinstance(driver.state, Committed | Aborted):
        live = LiveRoundSeen(driver.state, driver.times, dict(job.progress))
    return RunningSeen(job.history.finished, live, job.trouble)
