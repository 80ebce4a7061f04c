"""The coordinator's heart: routes what happens to the rounds it belongs to, and starts what may start.

Theory of operation. One conductor, on one thread. It owns the jobs, the open rounds (one `RoundDriver` for each running
job) and the registry of sessions; everything from outside (sessions, uploads, operators, time) is a method call here,
in the order in which the calls arrive. What it knows is what the store says: `start` reads it, and nothing that matters
after a crash is only in memory. After each call it looks whether a job can start or a round has ended, so no state
waits for a poll.

A job that cannot go on (its model's file is gone, the disk is full) is that job's trouble alone: the others, whoever
called and the start go on. It is logged once, shown as what the job waits for, and tried again whenever something
happens, at the latest after `TROUBLE_RETRY_S`. What such a job looks like is read from the store again then.

Not here: bytes (rpc), files (storage), what a round does next (round.machine), which job is next (scheduler).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import structlog

from coordinator.audit import AuditLog
from coordinator.checkpoints import describe_initial
from coordinator.cohort import assess
from coordinator.intake import Intake, UploadId
from coordinator.registry import Enrolled, Registry
from coordinator.round.driver import RoundDriver, Surroundings
from coordinator.round.effects import (
    AbortAsked,
    Connected,
    Disconnected,
    Event,
    Folded,
    FoldFailed,
    Replied,
    Revoked,
    UploadOffered,
)
from coordinator.round.journal import decode_plan
from coordinator.round.phases import RoundFrame, RoundState, Uploading
from coordinator.scheduler import EndJob, FinishedRound, RunRound, next_step, startable
from coordinator.storage.interface import COMMITTED, Blobs, JobRecord, ModelRecord, RoundRecord, Staged, Store
from shared.errors import (
    ConflictError,
    DurabilityUnknown,
    FederationError,
    LateError,
    PeerError,
    PhaseError,
    UnknownError,
    UnreachableError,
    WireError,
)
from shared.identity import Identity, VerifyingKey
from shared.ids import AttemptKey, Digest, JobId, ParticipantId, RoundKey
from shared.job import JobSpec, jobspec_digest, parse_jobspec
from shared.protocol.messages import (
    Envelope,
    Progress,
    RoundAborted,
    RoundPlan,
    RoundReply,
    RoundResult,
    Sealed,
    UploadCommit,
    attempt_digest,
)
from shared.reasons import AbortReason, JobState, Purpose
from shared.tensors import ModelIndex, read_index
from shared.update import Encoding, StatisticsLayout, UpdateLayout
from shared.wire.sealed import (
    Signer,
    decode_envelope,
    decode_update_header,
    open_sealed,
    reopen,
    seal,
)

TROUBLE_RETRY_S = 5.0  # between two tries of a job that cannot go on, when nothing else happens

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """Leave to send an update in an attempt."""

    upload: UploadId
    layout: UpdateLayout
    committed: bool
    """Whether this participant's update is in already."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as an operator sees it."""

    record: JobRecord
    waits_for: str
    rounds: Sequence[RoundRecord]
    live: RoundState | None
    progress: Mapping[ParticipantId, int]
    """How far members say that they are in the live round, in percent; only those whose policy lets them say it."""


@dataclass(slots=True)
class _RunningJob:
    record: JobRecord
    spec: JobSpec
    finished: list[FinishedRound] = field(default_factory=list)
    previous_result: bytes = b""
    driver: RoundDriver | None = None
    read: bool = True
    """Whether `finished` and `driver` are what the store says."""
    trouble: str = ""
    retry_at: float = float("inf")
    progress: dict[ParticipantId, int] = field(default_factory=dict)


class Conductor:
    """All jobs of one coordinator."""

    def __init__(self, *, around: Surroundings, blobs: Blobs, intake: Intake, signer: Signer) -> None:
        self._around = around
        self._store: Store = around.store
        self._audit: AuditLog = around.audit
        self._blobs = blobs
        self._intake = intake
        self._signer = signer
        self._registry = Registry()
        self._running: dict[JobId, _RunningJob] = {}
        self._queued: dict[JobId, tuple[JobRecord, JobSpec]] = {}
        self._waits_for: Mapping[JobId, str] = {}

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what is true, and go on with every open round."""
        for record in self._store.jobs():
            spec = parse_jobspec(record.spec)
            self._forget_last_round(record.job)
            if record.state is JobState.QUEUED:
                self._queued[record.job] = (record, spec)
            elif record.state is JobState.RUNNING:
                self._running[record.job] = _RunningJob(record, spec, read=False)
        self._go_on()

    def _forget_last_round(self, job: JobId) -> None:
        """A process that ended between a round's end and this left the updates on disk. Earlier rounds are clean."""
        rounds = self._store.rounds(job)
        for record in [record for record in rounds if record.outcome][-1:]:
            self._intake.forget(record.key)

    def tick(self) -> None:
        """Let rounds whose deadline is over go on."""
        now = self._around.clock.monotonic()
        for job in list(self._running.values()):
            if job.driver is not None and job.driver.deadline <= now:
                job.driver.tick()
        self._go_on()

    @property
    def next_deadline(self) -> float:
        """When `tick` is due (monotonic seconds; infinity for never)."""
        jobs = self._running.values()
        deadlines = (job.retry_at if job.driver is None else min(job.driver.deadline, job.retry_at) for job in jobs)
        return min(deadlines, default=float("inf"))

    # --- sessions -----------------------------------------------------------------------------------------------------

    def session_opened(
        self, participant: ParticipantId, enrolled: Enrolled, key: VerifyingKey, open_rounds: Sequence[RoundKey]
    ) -> None:
        """A participant is here; tell it how the rounds that it still holds ended, and what is going on."""
        self._registry.connect(participant, enrolled, key)
        for round_key in open_rounds:
            self._tell_outcome(participant, round_key)
        self._each_round_of(participant, Connected(participant))
        self._go_on()

    def session_closed(self, participant: ParticipantId, session: str) -> None:
        """A session ended. One that was superseded before changes nothing."""
        if self._registry.is_newest(participant, session):
            self._each_round_of(participant, Disconnected(participant))
            self._registry.disconnect(participant, session)  # last: a failed write is repeated with all of this
            self._go_on()

    def received(self, participant: ParticipantId, session: str, message: RoundReply) -> None:
        """A word about a round. Raises PeerError; words from a superseded session are ignored."""
        if not self._registry.is_newest(participant, session):
            return
        driver = self._driver_of(message.key)
        if driver is None:
            if self._require_known_round(participant, message.key).outcome:
                raise LateError(f"round {message.key} is over")
            return  # it cannot go on now; when it does, its members are told of it and say this again
        driver.handle(Replied(participant, message))
        if isinstance(message, Progress):
            self._running[message.key.job].progress[participant] = message.percent
        self._go_on()

    def revoked(self, participant: ParticipantId) -> None:
        """A participant is no longer on the allow-list: it is out of every open round."""
        self._each_round_of(participant, Revoked(participant))
        self._go_on()

    # --- uploads ------------------------------------------------------------------------------------------------------

    def may_upload(self, participant: ParticipantId, key: AttemptKey) -> UploadGrant:
        """Whether a participant may send its update. Raises LateError, PhaseError or UnknownError."""
        state = self._uploading(participant, key)
        committed = participant in state.contributions
        return UploadGrant(UploadId(key, participant), state.frame.layout, committed)

    def offer_upload(self, participant: ParticipantId, key: AttemptKey, envelope: Envelope, update: Digest) -> Digest:
        """A complete update, proven on disk to be `update`, with its signed word. Returns what is acknowledged."""
        state = self._uploading(participant, key)
        commit = open_sealed(
            UploadCommit,
            envelope,
            verifier=self._registry.key_of(participant),
            index=state.frame.index_of(participant),
        ).value
        if commit.attempt != attempt_digest(state.attempt) or commit.index != envelope.signer:
            raise ConflictError(f"the commitment is not for attempt {key} as it was announced")
        if commit.update != update or commit.chunks != state.frame.layout.chunks:
            raise ConflictError(f"the commitment names another update than the one that arrived, {update}")
        header = decode_update_header(commit.header)
        if header.encoding is not state.frame.layout.encoding:
            raise WireError(f"the update is encoded as {header.encoding}, expected {state.frame.layout.encoding}")
        driver = self._driver_of(key.round)
        if driver is None:
            raise LateError(f"round {key.round} is over")
        acknowledged = driver.handle(UploadOffered(participant, key, envelope, header, update))
        self._go_on()
        if acknowledged is None:
            raise RuntimeError("an upload was taken and not acknowledged")
        return acknowledged

    def fold_ended(self, key: RoundKey, outcome: Folded | FoldFailed) -> None:
        """A fold that this conductor started is done. One of a round that was aborted meanwhile is dropped."""
        driver = self._driver_of(key)
        if driver is not None:
            driver.handle(outcome)
        else:
            self._intake.forget(key)  # looking for its updates, the fold made empty spools
        self._go_on()

    def may_fetch(self, participant: ParticipantId, model: Digest) -> None:
        """Whether a participant may have a model: only that of a round it is invited to. Raises UnknownError."""
        for job in self._running.values():
            invited = job.driver is not None and participant in job.spec.members
            if job.driver is not None and invited and job.driver.frame.plan.value.model == model:
                return
        raise UnknownError(f"model {model} is not part of an open round of {participant}")

    # --- operators ----------------------------------------------------------------------------------------------------

    def submit_job(self, job: JobId, spec_bytes: bytes, submitter: Identity) -> JobView:
        """Queue a job. Raises WireError, ConflictError (known id, other bytes) or UnknownError (no initial model)."""
        spec = parse_jobspec(spec_bytes)
        known = self._known_job(job)
        if known is None:
            self._store.model(spec.initial_model)
            record = JobRecord(
                job=job,
                spec=spec_bytes,
                submitted_by=submitter.uri,
                submitted_at=self._around.clock.now().isoformat(timespec="seconds"),
                state=JobState.QUEUED,
                reason="",
            )
            facts = {"job": job, "jobspec": str(jobspec_digest(spec_bytes)), "by": submitter.uri}
            entry = self._audit.entry("job_submitted", facts)
            if self._store.submit_job(record, entry):
                self._audit.accept(entry)
            self._queued[job] = (record, spec)
            self._go_on()
        elif known.spec != spec_bytes:
            raise ConflictError(f"job {job} exists with another specification: choose another id")
        return self.job_view(job)

    def abort_job(self, job: JobId, reason: str, operator: Identity) -> JobView:
        """End a job now. Raises UnknownError, or ConflictError for one that has ended."""
        record = self._store.job(job)
        if record.state in {JobState.COMPLETED, JobState.ABORTED}:
            raise ConflictError(f"job {job} is {record.state} already")
        asked = self._audit.entry("job_abort_asked", {"job": job, "by": operator.uri, "reason": reason})
        self._store.append_audit(asked)  # first: whatever is aborted from here on, the log says who asked
        self._audit.accept(asked)
        running = self._running.get(job)
        said = f"{AbortReason.OPERATOR}: {reason}" if reason else str(AbortReason.OPERATOR)
        if running is not None and running.driver is not None:
            running.driver.handle(AbortAsked())
            self._close_round(running, running.driver)
        entry = self._audit.entry("job_aborted", {"job": job})
        self._store.set_job_state(job, JobState.ABORTED, said, entry)
        self._audit.accept(entry)
        self._running.pop(job, None)
        self._queued.pop(job, None)
        self._go_on()
        return self.job_view(job)

    def jobs(self) -> Sequence[JobRecord]:
        return self._store.jobs()

    def job_view(self, job: JobId) -> JobView:
        """Raises UnknownError."""
        record = self._store.job(job)
        waits_for, live = self._waits_for.get(job, ""), None
        running = self._running.get(job)
        if running is not None and running.driver is not None:
            live = running.driver.state
        if running is not None and running.trouble:
            waits_for = f"cannot go on: {running.trouble}"
        elif running is not None and running.driver is None:
            waits_for = assess(running.spec, self._registry.offers()).explain(running.spec)
        progress = dict(running.progress) if running is not None else {}
        return JobView(record, waits_for, self._store.rounds(job), live, progress)

    def has_model(self, model: Digest) -> bool:
        return any(record.digest == model for record in self._store.models())

    def add_model(self, staged: Staged, digest: Digest, index: ModelIndex, submitter: Identity) -> None:
        """Take an initial model: complete, verified to be `digest`, and accepted with this index."""
        self._blobs.publish(staged, digest)
        entry = self._audit.entry("model_added", {"model": str(digest), "by": submitter.uri})
        if self._store.add_model(ModelRecord(digest, describe_initial(digest=digest, index=index)), entry):
            self._audit.accept(entry)

    # --- going on -----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Start and continue whatever can be, until nothing more can."""
        for job in list(self._running.values()):
            self._continue_job(job)
        offers = self._registry.offers()
        queued = [(job, spec) for job, (_, spec) in self._queued.items()]
        start, self._waits_for = startable(queued, [job.spec for job in self._running.values()], offers)
        for name in start:
            record, spec = self._queued[name]
            entry = self._audit.entry("job_started", {"job": name})
            self._store.set_job_state(name, JobState.RUNNING, "", entry)
            self._audit.accept(entry)
            del self._queued[name]  # not before: a failed write leaves the job where it was
            self._running[name] = _RunningJob(record, spec)
            self._continue_job(self._running[name])

    def _continue_job(self, job: _RunningJob) -> None:
        try:
            self._advance(job)
        except DurabilityUnknown:
            raise
        except FederationError as error:
            if job.trouble != str(error):
                _log.warning("job_cannot_go_on", job=job.record.job, error=type(error).__name__, reason=str(error))
            job.trouble = str(error)
            job.retry_at = self._around.clock.monotonic() + TROUBLE_RETRY_S
        else:
            job.trouble, job.retry_at = "", float("inf")

    def _advance(self, job: _RunningJob) -> None:
        if not job.read:
            self._read_job(job)
        if job.driver is not None and job.driver.finished:
            self._close_round(job, job.driver)
        if job.driver is not None:
            return
        upcoming = next_step(job.spec, job.finished)
        if isinstance(upcoming, EndJob):
            self._running.pop(job.record.job, None)
            return
        if not assess(job.spec, self._registry.offers()).enough_for(job.spec.round.quorum):
            return
        frame = self._frame(job, self._plan(job, upcoming))
        job.read = False  # a round that was opened and not begun is found in the store
        job.driver = RoundDriver.plan(
            frame,
            earlier=tuple(job.finished),
            present=[member for member in job.spec.members if member in self._registry.connected],
            around=self._around,
        )
        job.read = True

    def _close_round(self, job: _RunningJob, driver: RoundDriver) -> None:
        record = self._store.round(driver.frame.key)
        self._intake.forget(record.key)  # may fail, and is then done again: nothing is noted before it
        job.finished.append(_finished(record, driver.frame.plan.value.model))
        if record.outcome == COMMITTED:
            job.previous_result = record.result
        job.driver = None
        job.progress.clear()

    def _plan(self, job: _RunningJob, upcoming: RunRound) -> Sealed[RoundPlan]:
        with closing(self._blobs.model(upcoming.model)) as reader:
            model_bytes = reader.size
        plan = RoundPlan(
            key=RoundKey(job.record.job, upcoming.number),
            purpose=upcoming.purpose,
            jobspec=job.record.spec,
            model=upcoming.model,
            model_bytes=model_bytes,
            previous_result=job.previous_result,
            deadline_s=job.spec.round.deadline_s,
        )
        return seal(plan, signer=self._signer, index=0)

    def _frame(self, job: _RunningJob, plan: Sealed[RoundPlan]) -> RoundFrame:
        with closing(self._blobs.model(plan.value.model)) as reader:
            index = read_index(reader)
        statistics = StatisticsLayout(job.spec.metrics)
        parameters = index.manifest.parameters if plan.value.purpose is Purpose.TRAIN else 0
        layout = UpdateLayout(Encoding.PLAIN, parameters, statistics.cells)
        return RoundFrame(spec=job.spec, plan=plan, index=index, layout=layout, statistics=statistics)

    def _read_job(self, job: _RunningJob) -> None:
        """Take a job up where the store has it: after a start, and after a round that could not begin."""
        finished: list[FinishedRound] = []
        model, driver = job.spec.initial_model, None
        for kept in self._store.rounds(job.record.job):
            if not kept.outcome:
                frame = self._frame(job, decode_plan(self._store.journal_of(kept.key)[0]))
                driver = RoundDriver.resume(frame, earlier=tuple(finished), around=self._around)
                for member in self._registry.connected.keys() & set(job.spec.members):
                    driver.handle(Connected(member))
                break
            finished.append(_finished(kept, model))
            model = finished[-1].next_model
            if not finished[-1].abort:
                job.previous_result = kept.result
        job.finished, job.driver, job.read = finished, driver, True

    # --- finding things -----------------------------------------------------------------------------------------------

    def _each_round_of(self, participant: ParticipantId, event: Event) -> None:
        for job in list(self._running.values()):
            if job.driver is not None and participant in job.spec.members:
                job.driver.handle(event)

    def _driver_of(self, key: RoundKey) -> RoundDriver | None:
        job = self._running.get(key.job)
        driver = job.driver if job is not None else None
        return driver if driver is not None and driver.frame.key == key and not driver.finished else None

    def _uploading(self, participant: ParticipantId, key: AttemptKey) -> Uploading:
        driver = self._driver_of(key.round)
        if driver is None:
            if self._require_known_round(participant, key.round).outcome:
                raise LateError(f"round {key.round} is over")
            raise UnreachableError(f"round {key.round} cannot go on now: try again")
        if participant not in driver.frame.spec.members:
            raise UnknownError(f"there is no round {key.round} for {participant}")
        state = driver.state
        if not isinstance(state, Uploading) or state.key != key:
            raise LateError(f"attempt {key} takes no uploads now")
        if participant not in state.cohort or participant in state.outs:
            raise PhaseError(f"{participant} is not in the cohort of attempt {key}")
        return state

    def _require_known_round(self, participant: ParticipantId, key: RoundKey) -> RoundRecord:
        """A word about a round that is over is late; about one that never was, or is not theirs, it is unknown."""
        known = self._known_job(key.job)
        if known is None or participant not in parse_jobspec(known.spec).members:
            raise UnknownError(f"there is no round {key} for {participant}")
        return self._store.round(key)

    def _tell_outcome(self, participant: ParticipantId, key: RoundKey) -> None:
        try:
            record = self._require_known_round(participant, key)
        except PeerError:
            return  # it holds a round that this coordinator never had; that is not ours to end
        if record.outcome:
            envelope = decode_envelope(record.result)
            committed = record.outcome == COMMITTED
            outcome = reopen(RoundResult, envelope) if committed else reopen(RoundAborted, envelope)
            self._around.outbox.send(participant, outcome)

    def _known_job(self, job: JobId) -> JobRecord | None:
        try:
            return self._store.job(job)
        except UnknownError:
            return None


def _finished(record: RoundRecord, model: Digest) -> FinishedRound:
    """A finished round as the scheduler sees it; `model` is what the job's model was before it."""
    if record.outcome != COMMITTED:
        return FinishedRound(record.key.number, record.purpose, AbortReason(record.outcome), model)
    result = reopen(RoundResult, decode_envelope(record.result)).value
    return FinishedRound(record.key.number, record.purpose, None, result.next_model)
