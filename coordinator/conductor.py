"""The coordinator's heart: routes what happens to the rounds it belongs to, and starts what may start.

Theory of operation. One conductor, on one thread. It owns the jobs, the open rounds (one `RoundDriver` for each running
job) and the registry of sessions; everything from outside (sessions, uploads, time) is a method call here, what
operators ask one at its `desk`, in the order in which the calls arrive. What it knows is what the store says: `start`
reads it, and nothing that matters after a crash is only in memory. After each call it looks whether a job can start or
a round has ended, so no state waits for a poll.

A job that cannot go on (its model's file is gone, the disk is full) is that job's trouble alone: the others, whoever
called and the start go on. It is logged once, shown as what the job waits for, and tried again whenever something
happens, at the latest after `TROUBLE_RETRY_S`. What such a job looks like is read from the store again then.

Not here: bytes (rpc), files (storage), what a round does next (round.machine), which job is next (scheduler), what the
next round is made of (planning), which round a caller means (jobs), whether a signed word is its member's (replies).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from coordinator.audit import AuditLog
from coordinator.cohort import assess
from coordinator.desk import Desk
from coordinator.intake import Intake
from coordinator.jobs import Jobs, RunningJob, UploadGrant
from coordinator.older_copy import Head, OlderCopy
from coordinator.planning import Planning
from coordinator.pruning import Pruning
from coordinator.readiness import Readiness, readiness
from coordinator.registry import Enrolled, Registry
from coordinator.replies import open_upload_commit
from coordinator.retention import KEEP_ALL
from coordinator.round.driver import RoundDriver
from coordinator.round.effects import (
    Connected,
    Disconnected,
    Event,
    Folded,
    FoldFailed,
    Replied,
    Revoked,
    UploadOffered,
)
from coordinator.round.phases import Folding
from coordinator.round.surroundings import Surroundings
from coordinator.round_log import log_who_leaves
from coordinator.scheduler import Candidate, EndJob, next_step, startable
from coordinator.storage.interface import AuditEntry, Blobs, JobRecord, Store
from shared.consortium import Consortium
from shared.control import Pause
from shared.errors import ConfigError, DurabilityUnknown, FederationError, LateError, UnknownError
from shared.identity import VerifyingKey
from shared.ids import AttemptKey, Digest, JobId, ParticipantId, RoundKey
from shared.protocol.messages import Envelope, Progress, RoundReply
from shared.reasons import JobState
from shared.wire.sealed import Signer

TROUBLE_RETRY_S = 5.0  # between two tries of a job that cannot go on, when nothing else happens

_log = structlog.get_logger(__name__)


class Conductor:
    """All jobs of one coordinator."""

    def __init__(
        self,
        *,
        around: Surroundings,
        blobs: Blobs,
        intake: Intake,
        signer: Signer,
        consortium: Consortium | None = None,
        keep_versions: int = KEEP_ALL,
        kept_out: Callable[[Sequence[ParticipantId]], Sequence[ParticipantId]] = lambda _: (),
    ) -> None:
        """`kept_out`: whom of these the allow-list does not let in, for whoever asks why a job waits."""
        self._around = around
        self._store: Store = around.store
        self._audit: AuditLog = around.audit
        self._intake = intake
        self._registry = Registry()
        self._planning = Planning(store=around.store, blobs=blobs, signer=signer, consortium=consortium)
        self._jobs = Jobs(around.store, self._planning)
        self.desk = Desk(
            jobs=self._jobs,
            around=around,
            planning=self._planning,
            registry=self._registry,
            blobs=blobs,
            intake=intake,
            go_on=self._go_on,
            kept_out=kept_out,
        )
        """What operators may ask; on this conductor's thread too."""
        self._pruning = Pruning(store=around.store, audit=around.audit, blobs=blobs, keep_versions=keep_versions)
        self._older = OlderCopy(
            store=around.store,
            audit=around.audit,
            jobs=self._jobs,
            planning=self._planning,
            end_job=self.desk.end_job,
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what is true, make room, and go on with every open round."""
        self._pruning.start()
        for record in self._store.jobs():
            self._forget_last_round(record.job)
            self._jobs.put(record)
        self._older.start()
        self._go_on()

    def _forget_last_round(self, job: JobId) -> None:
        """A process that ended between a round's end and this left the updates on disk. Earlier rounds are clean."""
        rounds = self._store.rounds(job)
        for record in [record for record in rounds if record.outcome][-1:]:
            self._intake.forget(record.key)

    def tick(self) -> None:
        """Let rounds whose deadline is over go on, and note the timers of those that wait."""
        now = self._around.clock.monotonic()
        for driver in self._jobs.drivers():
            if driver.next_tick <= now:
                driver.tick()
        self._go_on()

    @property
    def next_tick(self) -> float:
        """When `tick` is due (monotonic seconds; infinity for never)."""
        return min(self.next_deadline, self._jobs.next_tick)

    @property
    def next_deadline(self) -> float:
        """When something goes on at the latest, whatever comes."""
        if self._older.pending:
            return float("-inf")
        return self._jobs.next_deadline

    def note_timers(self) -> None:
        """The process ends: note what is left of every wait. Raises DurabilityUnknown alone."""
        for driver in self._jobs.drivers():
            driver.note_timer()

    @property
    def readiness(self) -> Readiness:
        """Whether rounds can go on."""
        running = [
            Candidate(name, job.spec, job.history.bound, job.record.control) for name, job in self._jobs.running.items()
        ]
        return readiness(running, self._waiting(), self._registry.offers())

    # --- sessions -----------------------------------------------------------------------------------------------------

    def heads_shown(self, participant: ParticipantId, heads: Sequence[Head]) -> int:
        """Results of this coordinator's own that a participant verified; before its session counts as open. How many of
        them are lost: then the records are an older copy, and open jobs end.
        """
        lost = self._older.shown(participant, heads)
        self._go_on()
        return lost

    def session_opened(
        self, participant: ParticipantId, enrolled: Enrolled, key: VerifyingKey, open_rounds: Sequence[RoundKey]
    ) -> None:
        """A participant is here; tell it how the rounds that it still holds ended, and what is going on."""
        self._registry.connect(participant, enrolled, key)
        for round_key in open_rounds:
            outcome = self._jobs.outcome_of(participant, round_key)
            if outcome is not None:
                self._around.outbox.send(participant, outcome)
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
        driver = self._jobs.driver_of(message.key)
        if driver is None:
            if self._jobs.require_round(participant, message.key).outcome:
                raise LateError(f"round {message.key} is over")
            return  # it cannot go on now; when it does, its members are told of it and say this again
        driver.handle(Replied(participant, message))
        log_who_leaves(participant, message)
        if isinstance(message, Progress):
            self._jobs.running[message.key.job].progress[participant] = message.percent
        self._go_on()

    def revoked(self, participant: ParticipantId) -> None:
        """A participant is no longer on the allow-list: it is out of every open round."""
        self._each_round_of(participant, Revoked(participant))
        self._go_on()

    # --- uploads ------------------------------------------------------------------------------------------------------

    def may_upload(self, participant: ParticipantId, key: AttemptKey) -> UploadGrant:
        """Whether a participant may send its update. Raises LateError, PhaseError or UnknownError."""
        return self._jobs.grant(participant, key)

    def offer_upload(self, participant: ParticipantId, key: AttemptKey, envelope: Envelope, update: Digest) -> Digest:
        """A complete update, proven on disk to be `update`, with its signed word. Returns what is acknowledged."""
        state = self._jobs.uploading(participant, key)
        # In a masked round the manifest says whose key it is: the silos check the same word with that one.
        verifier = state.frame.keys.get(participant) or self._registry.key_of(participant)
        header = open_upload_commit(envelope, state=state, participant=participant, verifier=verifier, update=update)
        driver = self._jobs.driver_of(key.round)
        if driver is None:
            raise LateError(f"round {key.round} is over")
        acknowledged = driver.handle(UploadOffered(participant, key, envelope, header, update))
        self._go_on()
        if acknowledged is None:
            raise RuntimeError("an upload was taken and not acknowledged")
        return acknowledged

    def fold_ended(self, key: RoundKey, outcome: Folded | FoldFailed) -> None:
        """A fold that this conductor started is done. One of a round that was aborted meanwhile is dropped."""
        driver = self._jobs.driver_of(key)
        if driver is not None:
            driver.handle(outcome)
        else:
            self._intake.forget(key)  # looking for its updates, the fold made empty spools
        self._go_on()

    def may_fetch(self, participant: ParticipantId, model: Digest) -> None:
        """Whether a participant may have a model: only that of a round it is invited to. Raises UnknownError."""
        models = {driver.frame.plan.value.model for driver in self._jobs.rounds_of(participant)}
        if model not in models:
            raise UnknownError(f"model {model} is not part of an open round of {participant}")

    # --- going on -----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Start and continue whatever can be, until nothing more can."""
        if self._older.pending:
            self._older.end_jobs()
        for job in list(self._jobs.running.values()):
            self._continue_job(job)
        obstacles = {name: self._planning.obstacle(job.spec) for name, job in self._jobs.queued.items()}
        running = {name: job.spec for name, job in self._jobs.running.items()}
        start, waits_for = startable(self._waiting(), running, self._registry.offers())
        self._jobs.waits_for = {**waits_for, **{name: why for name, why in obstacles.items() if why}}
        for name in start:
            self._move(
                self._jobs.queued[name].record, JobState.RUNNING, self._audit.entry("job_started", {"job": name})
            )
            self._continue_job(self._jobs.running[name])

    def _waiting(self) -> Sequence[Candidate]:
        """The queued jobs that could run here, in order."""
        return [
            Candidate(name, job.spec, job.bound, job.record.control)
            for name, job in self._jobs.queued.items()
            if not self._planning.obstacle(job.spec)
        ]

    def _move(self, record: JobRecord, state: JobState, entry: AuditEntry) -> None:
        """To another state; a failed write leaves the job where it was."""
        self._store.set_job_state(record.job, state, "", entry)
        self._audit.accept(entry)
        self._jobs.put(replace(record, state=state, reason=""))

    def _continue_job(self, job: RunningJob) -> None:
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

    def _advance(self, job: RunningJob) -> None:
        if not job.read:
            self._take_up(job)
        if job.driver is not None and job.driver.finished:
            self._close_round(job, job.driver)
        if job.driver is not None:
            return
        upcoming = next_step(job.spec, job.history.finished)
        if isinstance(upcoming, EndJob):
            self._jobs.drop(job.record.job)
            return
        if job.record.pause is not None:
            self._set_aside(job.record, job.record.pause)
            return
        if obstacle := self._planning.obstacle(job.spec):
            raise ConfigError(f"the job cannot run here: {obstacle}")
        control = job.record.control
        if not assess(job.spec, self._registry.offers(), job.history.bound, control=control).enough():
            return
        frame = self._planning.next_round(job.record, job.spec, job.history, upcoming)
        job.read = False  # a round that was opened and not begun is found in the store
        job.driver = RoundDriver.plan(
            frame,
            earlier=job.history.finished,
            present=[member for member in job.spec.members if member in self._registry.connected],
            around=self._around,
        )
        job.read = True

    def _set_aside(self, record: JobRecord, pause: Pause) -> None:
        """A job that was to pause after its round, and has none open now. Its members are free for others."""
        entry = self._audit.entry("job_paused", {"job": record.job, "by": pause.by, "reason": pause.reason})
        self._move(record, JobState.PAUSED, entry)

    def _close_round(self, job: RunningJob, driver: RoundDriver) -> None:
        record = self._store.round(driver.frame.key)
        self._intake.forget(record.key)  # may fail, and is then done again: nothing is noted before it
        job.history = job.history.after(record, job.spec)
        job.driver = None
        job.progress.clear()
        self._pruning.after(record, folding=any(isinstance(other.state, Folding) for other in self._jobs.drivers()))

    def _take_up(self, job: RunningJob) -> None:
        """Go on with a job where the store has it: after a start, and after a round that could not begin."""
        taken, driver = self._planning.take_up(job.record.job, job.spec), None
        if taken.open is not None:
            driver = RoundDriver.resume(taken.open, earlier=taken.history.finished, around=self._around)
            for member in self._registry.connected.keys() & set(job.spec.members):
                driver.handle(Connected(member))
        job.history, job.driver, job.read = taken.history, driver, True

    def _each_round_of(self, participant: ParticipantId, event: Event) -> None:
        for driver in self._jobs.rounds_of(participant):
            driver.handle(event)
