"""The operators' desk: what an operator may have done, and what one sees.

Each verb is a record first (the job, its end, the model, with who asked, in the audit log) and then a change of the
table of jobs; after it the conductor looks what can go on now. The desk runs on the conductor's thread like everything
that touches jobs.

An abort is for good, whatever state the job is in. Its open round ends with it, in the store and for the members, also
when the round cannot be taken up because its model is lost; a fold that waits for its turn is dropped. Only a journal
that cannot be read keeps a job from being aborted, with the error that says so: how far its round went is not known
then, and nothing may be said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from coordinator.checkpoints import describe_initial
from coordinator.cohort import assess, listed
from coordinator.intake import Intake
from coordinator.jobs import Jobs, RunningJob
from coordinator.planning import Planning
from coordinator.registry import Registry
from coordinator.retention import pruned
from coordinator.round.driver import RoundDriver
from coordinator.round.effects import AbortAsked
from coordinator.round.phases import RoundState
from coordinator.round.surroundings import Surroundings
from coordinator.storage.interface import AuditEntry, Blobs, JobRecord, ModelRecord, RoundRecord, Staged
from shared.control import ControlChange, Pause
from shared.errors import ConflictError, UnknownError, WireError
from shared.identity import Identity
from shared.ids import Digest, JobId, ParticipantId
from shared.job import jobspec_digest, parse_jobspec
from shared.reasons import AbortReason, JobState
from shared.tensors import ModelIndex


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as an operator sees it."""

    record: JobRecord
    waits_for: str
    rounds: Sequence[RoundRecord]
    live: RoundState | None
    progress: Mapping[ParticipantId, int]
    """How far members say that they are in the live round, in percent; only those whose policy lets them say it."""


@dataclass(frozen=True, slots=True)
class SteeredView:
    """A job after somebody asked for something, and whether that changed anything."""

    view: JobView
    changed: bool


class Desk:
    """The verbs of operators."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        around: Surroundings,
        planning: Planning,
        registry: Registry,
        blobs: Blobs,
        intake: Intake,
        go_on: Callable[[], None],
        kept_out: Callable[[Sequence[ParticipantId]], Sequence[ParticipantId]],
    ) -> None:
        """`kept_out`: whom of these the allow-list does not let in."""
        self._jobs = jobs
        self._around = around
        self._store = around.store
        self._audit = around.audit
        self._planning = planning
        self._registry = registry
        self._blobs = blobs
        self._intake = intake
        self._go_on = go_on
        self._kept_out = kept_out

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def submit_job(self, job: JobId, spec_bytes: bytes, submitter: Identity) -> JobView:
        """Queue a job. Raises WireError, ConflictError (known id, other bytes) or UnknownError (no initial model)."""
        spec = parse_jobspec(spec_bytes)
        known = self._jobs.known(job)
        if known is None:
            self._require_model(spec.initial_model)
            record = JobRecord(
                job=job,
                spec=spec_bytes,
                submitted_by=submitter.uri,
                submitted_at=self._now(),
                state=JobState.QUEUED,
                reason="",
            )
            facts = {"job": job, "jobspec": str(jobspec_digest(spec_bytes)), "by": submitter.uri}
            entry = self._audit.entry("job_submitted", facts)
            if self._store.submit_job(record, entry):
                self._audit.accept(entry)
            self._jobs.put(record)
            self._go_on()
        elif known.spec != spec_bytes:
            raise ConflictError(f"job {job} exists with another specification: choose another id")
        return self.job_view(job)

    def abort_job(self, job: JobId, reason: str, operator: Identity) -> JobView:
        """End a job now. Raises UnknownError, or ConflictError for one that has ended."""
        self._require_going(job)
        asked = self._audit.entry("job_abort_asked", {"job": job, "by": operator.uri, "reason": reason})
        self._store.append_audit(asked)  # first: whatever is aborted from here on, the log says who asked
        self._audit.accept(asked)
        self.end_job(job, AbortReason.OPERATOR, reason)
        self._go_on()
        return self.job_view(job)

    def end_job(self, job: JobId, why: AbortReason, detail: str) -> None:
        """End a job that is not over, its open round first. After an error the rest is done by calling it again."""
        running = self._jobs.running.get(job)
        driver = self._open_round(running) if running is not None else None
        if driver is not None:
            driver.handle(AbortAsked(why))
            self._around.folds.drop(driver.frame.key)  # not before the abort is true: without it the fold is needed
            self._intake.forget(driver.frame.key)
        entry = self._audit.entry("job_aborted", {"job": job})
        self._store.set_job_state(job, JobState.ABORTED, f"{why}: {detail}" if detail else str(why), entry)
        self._audit.accept(entry)
        self._jobs.end(job, JobState.ABORTED)

    def pause_job(self, job: JobId, reason: str, operator: Identity) -> SteeredView:
        """Plan no further round of a job; an open one goes to its end. Raises UnknownError or ConflictError."""
        record = self._require_going(job)
        if record.pause is not None:
            return SteeredView(self.job_view(job), changed=False)
        pause = Pause(by=operator.uri, at=self._now(), reason=reason)
        facts = {"job": job, "by": pause.by, "reason": reason}
        if record.state is JobState.QUEUED:
            state, entry = JobState.PAUSED, self._audit.entry("job_paused", facts)
        else:  # the conductor says when it is paused: now, or once the round that is open is over
            state, entry = JobState.RUNNING, self._audit.entry("job_pause_asked", facts)
        return self._hold(record, pause, state, entry)

    def resume_job(self, job: JobId, operator: Identity) -> SteeredView:
        """Let a job go on: back to its place in the queue, or before it was paused. Raises as `pause_job`."""
        record = self._require_going(job)
        if record.pause is None:
            return SteeredView(self.job_view(job), changed=False)
        entry = self._audit.entry("job_resumed", {"job": job, "by": operator.uri})
        state = JobState.QUEUED if record.state is JobState.PAUSED else record.state
        return self._hold(record, None, state, entry)

    def _hold(self, record: JobRecord, pause: Pause | None, state: JobState, entry: AuditEntry) -> SteeredView:
        self._store.hold_job(record.job, pause, state, entry)
        self._audit.accept(entry)
        self._jobs.put(replace(record, pause=pause, state=state))
        self._go_on()
        return SteeredView(self.job_view(record.job), changed=True)

    def control_job(self, job: JobId, change: ControlChange, operator: Identity) -> SteeredView:
        """Other rules for the rounds planned from now on. Raises as `pause_job`, and WireError for what the job does
        not allow.
        """
        record = self._require_going(job)
        control = record.control.changed(change)
        if control == record.control:
            return SteeredView(self.job_view(job), changed=False)
        if complaint := control.complaint(parse_jobspec(record.spec)):
            raise WireError(f"job {job}: {complaint}")
        facts = {"job": job, "by": operator.uri, **asdict(control)}
        entry = self._audit.entry("job_controlled", facts)
        self._store.control_job(job, control, entry)
        self._audit.accept(entry)
        self._jobs.put(replace(record, control=control))
        self._go_on()
        return SteeredView(self.job_view(job), changed=True)

    def _require_going(self, job: JobId) -> JobRecord:
        record = self._store.job(job)
        if record.state.over:
            raise ConflictError(f"job {job} is {record.state} already")
        return record

    def _now(self) -> str:
        return self._around.clock.now().isoformat(timespec="seconds")

    def jobs(self) -> Sequence[tuple[JobRecord, str]]:
        """All jobs, those that are over too, and what each of them waits for."""
        return [(record, self._waits_for(record.job)) for record in self._store.jobs()]

    def job_view(self, job: JobId) -> JobView:
        """Raises UnknownError."""
        record, running = self._store.job(job), self._jobs.running.get(job)
        live = running.driver.state if running is not None and running.driver is not None else None
        waits_for = self._waits_for(job)
        if waits_for and (strangers := self._kept_out(parse_jobspec(record.spec).members)):
            waits_for += f"; not on the allow-list: {listed(strangers)}"
        progress = dict(running.progress) if running is not None else {}
        return JobView(record, waits_for, self._store.rounds(job), live, progress)

    def _waits_for(self, job: JobId) -> str:
        """What keeps a queued job from its start, or a running one from its next round; empty when nothing does."""
        running = self._jobs.running.get(job)
        if running is None:
            return self._jobs.waits_for.get(job, "")
        if running.trouble:
            return f"cannot go on: {running.trouble}"
        if running.driver is not None:
            return ""
        control = running.record.control
        return assess(running.spec, self._registry.offers(), running.history.bound, control=control).explain()

    # --- models -------------------------------------------------------------------------------------------------------

    def has_model(self, model: Digest) -> bool:
        """Whether a model is on record, with its file: one that was pruned, or is lost, may be brought again."""
        try:
            record = self._store.model(model)
            self._blobs.model(model).close()
        except UnknownError:
            return False
        return not record.pruned

    def promote_model(self, model: Digest, operator: Identity, *, promoted: bool) -> bool:
        """Keep a version whatever the retention says, or no more: True. It is so already: False. Raises UnknownError,
        or ConflictError for one that was pruned.
        """
        facts = {"model": str(model), "by": operator.uri}
        entry = self._audit.entry("model_promoted", facts) if promoted else self._audit.entry("model_demoted", facts)
        changed = self._store.promote_model(model, entry, promoted=promoted)
        if changed:
            self._audit.accept(entry)
        return changed

    def _require_model(self, model: Digest) -> None:
        if self._store.model(model).pruned:
            raise UnknownError(f"{pruned(model)}: start from a version that is kept, or submit the job with its file")

    def add_model(self, staged: Staged, digest: Digest, index: ModelIndex, submitter: Identity) -> None:
        """Take an initial model: complete, verified to be `digest`, and accepted with this index."""
        self._blobs.publish(staged, digest)
        entry = self._audit.entry("model_added", {"model": str(digest), "by": submitter.uri})
        if self._store.add_model(ModelRecord(digest, describe_initial(digest=digest, index=index)), entry):
            self._audit.accept(entry)

    # --- ending a round -----------------------------------------------------------------------------------------------

    def _open_round(self, job: RunningJob) -> RoundDriver | None:
        """The open round of a job. One that cannot be taken up is restored as far as its journal goes, and not resumed:
        nothing is asked of its members, who only hear of its end.
        """
        if job.driver is not None or job.read:
            return job.driver
        taken = self._planning.take_up_to_abort(job.record.job, job.spec)
        if taken.open is None:
            return None
        present = self._registry.connected.keys() & set(job.spec.members)
        return RoundDriver.restored(taken.open, earlier=taken.history.finished, present=present, around=self._around)
