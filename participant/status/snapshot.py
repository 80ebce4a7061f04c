"""A moment of this silo, read on the daemon's event loop and handed out as values that nobody changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from participant.consent import JobHistory
from participant.journal import SqliteJournal
from participant.round.driver import Driver
from participant.round.phases import Finished, Offer, Out
from participant.rpc.session import SessionLoop
from participant.settings import ParticipantSettings
from participant.status.noting import Alarmed, EndedRound, LeftRound, Noted
from participant.tasks.contract import TaskFailed, TaskReady
from participant.work import AsyncWork
from shared.clock import Clock
from shared.ids import JobId, TaskName

JOBS_SHOWN = 20
APPROVED_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Session:
    """The way to the coordinator."""

    open: bool
    address: str
    addresses: tuple[str, ...]
    since: datetime | None
    age_s: float
    coordinator: str
    """Its software, as it says; empty before the first session."""
    failed_at: datetime | None
    failure: str
    tries: int


@dataclass(frozen=True, slots=True)
class Running:
    """A round that is open here."""

    job: str
    name: str
    task: str
    round: int
    purpose: str
    phase: str
    since: datetime | None
    age_s: float
    percent: int | None
    """Of its training; None before the task said how far it is."""
    device: str
    deadline_s: float
    members: int
    masked: bool


@dataclass(frozen=True, slots=True)
class Task:
    """An installed task."""

    name: str
    entry: str
    state: str
    """`loaded`, `loading` or `failed`."""
    device: str
    note: str
    """What to know of the choice of the device; of one that failed, the reason as one word."""
    parameters: int


@dataclass(frozen=True, slots=True)
class JobOnRecord:
    """What the journal has of a job."""

    job: str
    specification: str
    finished_round: int
    verified_round: int
    """The last round whose result this silo verified; 0 before the first."""
    stopped: str
    """Why this silo stopped it for itself; empty while it takes part."""


@dataclass(frozen=True, slots=True)
class Approved:
    """A specification that this silo approved."""

    specification: str
    jobs: tuple[str, ...]
    """Under which it came."""


@dataclass(frozen=True, slots=True)
class Silo:
    """Everything at a glance."""

    at: datetime
    session: Session
    running: tuple[Running, ...]
    tasks: tuple[Task, ...]
    left: tuple[LeftRound, ...]
    ended: tuple[EndedRound, ...]
    alarms: tuple[Alarmed, ...]
    jobs: tuple[JobOnRecord, ...]
    jobs_in_all: int
    approved: tuple[Approved, ...]
    """`APPROVED_SHOWN` at most: each is looked for in the journal."""
    approved_in_all: int
    allowed_repeats: tuple[str, ...]
    """Said with `consilo participant allow`."""


class Look:
    """Reads, on the event loop; changes nothing."""

    def __init__(
        self,
        *,
        settings: ParticipantSettings,
        driver: Driver,
        work: AsyncWork,
        session: SessionLoop,
        journal: SqliteJournal,
        noted: Noted,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._work = work
        self._session = session
        self._journal = journal
        self._noted = noted
        self._clock = clock

    def silo(self) -> Silo:
        """Raises StorageError."""
        now = self._clock.now()
        policy = self._settings.policy
        return Silo(
            at=now,
            session=self._session_seen(now),
            running=tuple(
                self._running(state.offer, now)
                for state in self._driver.states
                if not isinstance(state, Out | Finished)
            ),
            tasks=tuple(self._task(name) for name in sorted(self._settings.tasks)),
            left=tuple(reversed(self._noted.left)),
            ended=tuple(reversed(self._noted.ended)),
            alarms=tuple(reversed(self._noted.alarms)),
            jobs=tuple(_on_record(job, history) for job, history in self._journal.newest_jobs(JOBS_SHOWN)),
            jobs_in_all=self._journal.jobs_on_record(),
            approved=tuple(
                Approved(str(each), tuple(self._journal.jobs_with(each))) for each in policy.approved[:APPROVED_SHOWN]
            ),
            approved_in_all=len(policy.approved),
            allowed_repeats=tuple(self._journal.allowances()),
        )

    def _session_seen(self, now: datetime) -> Session:
        standing = self._session.standing
        since = standing.open_since
        return Session(
            open=since is not None,
            address=self._session.address,
            addresses=tuple(self._settings.participant.coordinators),
            since=since,
            age_s=0.0 if since is None else (now - since).total_seconds(),
            coordinator=standing.coordinator,
            failed_at=standing.failed_at,
            failure=standing.failure,
            tries=standing.tries,
        )

    def _running(self, offer: Offer, now: datetime) -> Running:
        phase, since = self._noted.phases.get(offer.key, ("", None))
        plan, loaded = offer.plan.value, self._work.loaded(offer.spec.task)
        return Running(
            job=offer.key.job,
            name=offer.spec.name,
            task=offer.spec.task,
            round=offer.key.number,
            purpose=str(plan.purpose),
            phase=phase,
            since=since,
            age_s=0.0 if since is None else (now - since).total_seconds(),
            percent=self._work.percent(offer.key),
            device=loaded.device if isinstance(loaded, TaskReady) else "",
            deadline_s=plan.deadline_s,
            members=len(offer.spec.members),
            masked=offer.masked,
        )

    def _task(self, name: TaskName) -> Task:
        table, loaded = self._settings.tasks[name], self._work.loaded(name)
        match loaded:
            case None:
                return Task(name, table.entry, "loading", "", "", 0)
            case TaskFailed():
                return Task(name, table.entry, "failed", "", str(loaded.reason), 0)
            case TaskReady():
                return Task(name, table.entry, "loaded", loaded.device, loaded.device_note or "", loaded.parameters)


def _on_record(job: JobId, history: JobHistory) -> JobOnRecord:
    verified = history.verified.number if history.verified is not None else 0
    return JobOnRecord(job, str(history.jobspec), history.finished_round, verified, history.stopped)
