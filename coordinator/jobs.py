"""The jobs that are not over, and finding among them, and in the store, what a caller speaks of.

A caller names a round by its key. It may be open and going on, open and not to be taken up now, over, or none of the
caller's: each is another answer, and callers of the conductor get the same one everywhere because it is given here. A
member hears of the rounds of its own jobs only; for anybody else there is no such round.

Whoever changes the table is the conductor or its desk; what is found may be handed events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from coordinator.intake import UploadId
from coordinator.planning import History, Planning
from coordinator.round.driver import RoundDriver
from coordinator.round.phases import Uploading
from coordinator.storage.interface import COMMITTED, JobRecord, RoundRecord, Store
from shared.errors import LateError, PeerError, PhaseError, UnknownError, UnreachableError
from shared.ids import AttemptKey, JobId, ParticipantId, RoundKey
from shared.job import JobSpec, parse_jobspec
from shared.protocol.messages import RoundAborted, RoundResult, Sealed
from shared.reasons import JobState
from shared.update import UpdateLayout
from shared.wire.sealed import decode_envelope, reopen


@dataclass(frozen=True, slots=True)
class IdleJob:
    """A job of which no round is run: it waits for its turn, or is paused."""

    record: JobRecord
    spec: JobSpec
    bound: tuple[ParticipantId, ...] = ()
    """Whom its next round asks alone, of one that waits for its turn; see `History`."""


@dataclass(slots=True)
class RunningJob:
    """A job whose rounds are run."""

    record: JobRecord
    spec: JobSpec
    history: History
    driver: RoundDriver | None = None
    read: bool = False
    """Whether `history` and `driver` are what the store says."""
    trouble: str = ""
    retry_at: float = float("inf")
    progress: dict[ParticipantId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """Leave to send an update in an attempt."""

    upload: UploadId
    layout: UpdateLayout
    committed: bool
    """Whether this participant's update is in already."""


class Jobs:
    """The table. Its store is only read."""

    def __init__(self, store: Store, planning: Planning) -> None:
        self._store = store
        self._planning = planning
        self._places: dict[JobId, int] = {}
        self.running: dict[JobId, RunningJob] = {}
        self.queued: dict[JobId, IdleJob] = {}
        """In the order of submission."""
        self.paused: dict[JobId, IdleJob] = {}
        self.over: dict[JobId, JobState] = {}
        """How each job ended that is in none of these any more."""
        self.waits_for: Mapping[JobId, str] = {}
        """Why each queued job waits."""

    def known(self, job: JobId) -> JobRecord | None:
        """A job's record, whatever became of it."""
        try:
            return self._store.job(job)
        except UnknownError:
            return None

    # --- the table ----------------------------------------------------------------------------------------------------

    def put(self, record: JobRecord) -> None:
        """Put a job where its record says that it is; one that comes for the first time stands behind all others."""
        job, running = record.job, self.running.get(record.job)
        if running is not None and record.state is JobState.RUNNING:
            running.record = record
            return
        self._places.setdefault(job, len(self._places))
        self._take_out(job)
        spec = parse_jobspec(record.spec)
        match record.state:
            case JobState.QUEUED:
                waiting = IdleJob(record, spec, self._planning.bound(job, spec))
                idle = sorted([*self.queued.values(), waiting], key=self._place)
                self.queued = {each.record.job: each for each in idle}
            case JobState.PAUSED:
                self.paused[job] = IdleJob(record, spec)
            case JobState.RUNNING:
                self.running[job] = RunningJob(record, spec, History(spec.initial_model))
            case JobState.COMPLETED | JobState.ABORTED:
                self.over[job] = record.state
            case JobState.PAUSING:
                raise RuntimeError(f"job {job} is stored as {record.state}, which is shown only")
            case _:
                assert_never(record.state)

    def end(self, job: JobId, state: JobState) -> None:
        """A job that is over is no more in the table."""
        self._take_out(job)
        self.over[job] = state

    def _take_out(self, job: JobId) -> None:
        for table in (self.running, self.queued, self.paused):
            table.pop(job, None)

    def specs(self) -> Mapping[JobId, JobSpec]:
        """Of all jobs that are not over."""
        return {job: each.spec for table in (self.running, self.queued, self.paused) for job, each in table.items()}

    def _place(self, idle: IdleJob) -> int:
        return self._places[idle.record.job]

    # --- rounds -------------------------------------------------------------------------------------------------------

    def driver_of(self, key: RoundKey) -> RoundDriver | None:
        """What drives a round, while it is open and going on."""
        job = self.running.get(key.job)
        driver = job.driver if job is not None else None
        return driver if driver is not None and driver.frame.key == key and not driver.finished else None

    def drivers(self) -> Sequence[RoundDriver]:
        """Of all rounds at hand."""
        return [job.driver for job in self.running.values() if job.driver is not None]

    def rounds_of(self, participant: ParticipantId) -> Sequence[RoundDriver]:
        """The rounds at hand in jobs that this participant is a member of."""
        jobs = [job for job in self.running.values() if participant in job.spec.members]
        return [job.driver for job in jobs if job.driver is not None]

    def require_round(self, participant: ParticipantId, key: RoundKey) -> RoundRecord:
        """A word about a round that is over is late; about one that never was, or is not theirs, it is unknown."""
        known = self.known(key.job)
        if known is None or participant not in parse_jobspec(known.spec).members:
            raise UnknownError(f"there is no round {key} for {participant}")
        return self._store.round(key)

    def outcome_of(
        self, participant: ParticipantId, key: RoundKey
    ) -> Sealed[RoundResult] | Sealed[RoundAborted] | None:
        """How a round ended, in the bytes in which it was broadcast. None while it is open, and for one that this
        coordinator never had: that is not ours to end.
        """
        try:
            record = self.require_round(participant, key)
        except PeerError:
            return None
        if not record.outcome:
            return None
        envelope = decode_envelope(record.result)
        return reopen(RoundResult, envelope) if record.outcome == COMMITTED else reopen(RoundAborted, envelope)

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """When a round goes on, or a job is tried again, at the latest (monotonic seconds; infinity for never)."""
        retries = (job.retry_at for job in self.running.values())
        return min((*retries, *(driver.deadline for driver in self.drivers())), default=float("inf"))

    @property
    def next_tick(self) -> float:
        """When one of the rounds wants a tick, for a note of what is left or for its deadline."""
        return min((driver.next_tick for driver in self.drivers()), default=float("inf"))

    # --- uploads ------------------------------------------------------------------------------------------------------

    def grant(self, participant: ParticipantId, key: AttemptKey) -> UploadGrant:
        """Leave for an upload; raises as `uploading`."""
        state = self.uploading(participant, key)
        return UploadGrant(UploadId(key, participant), state.layout, participant in state.contributions)

    def uploading(self, participant: ParticipantId, key: AttemptKey) -> Uploading:
        """The attempt in which a participant may send its update.

        Raises LateError, PhaseError, UnknownError, or UnreachableError while the round cannot go on.
        """
        driver = self.driver_of(key.round)
        if driver is None:
            if self.require_round(participant, key.round).outcome:
                raise LateError(f"round {key.round} is over")
            raise UnreachableError(f"round {key.round} cannot go on now: try again")
        if participant not in driver.frame.spec.members:
            raise UnknownError(f"there is no round {key.round} for {participant}")
        state = driver.state
        if not isinstance(state, Uploading) or state.key != key:
            raise LateError(f"attempt {key} takes no uploads now")
        if participant not in state.cohort or participant in state.outs:
            raise PhaseError(f"{participant} is not in the cohort of attempt {key}")
        if participant in state.lefts and participant not in state.contributions:
            raise LateError(f"{participant} left attempt {key}")
        return state
