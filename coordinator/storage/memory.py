"""Storage in memory, for tests and simulation, with the durability of the real one.

*The store.* Each verb is one transaction, so everything in it is durable as soon as a verb returns; a crash loses
nothing but the process. *The blobs.* What was written but not synced or published is volatile: `crash()` hands out the
view of the next process, in which only durable bytes exist. The old object and its handles refuse every call from
then on, so that nothing of a dead process leaks into the next one unnoticed.

Failures are ordered from a `FaultPlan` by verb: the names of the methods of `Store` and `Blobs`, and `append`,
`truncate`, `sync`, `allocate`, `write_at`, `discard` and `read_at` of their handles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coordinator.storage.faults import FaultPlan, ProcessLife
from coordinator.storage.interface import (
    COMMITTED,
    AuditEntry,
    JobRecord,
    JournalEntry,
    ModelRecord,
    RoundAbort,
    RoundCommit,
    RoundRecord,
    SetBack,
    TimerNote,
)
from coordinator.storage.memory_blobs import MemoryBlobs
from shared.control import JobControl, Pause
from shared.errors import ConflictError, UnknownError
from shared.ids import Digest, JobId, RoundKey
from shared.reasons import JobState, Purpose

__all__ = ["MemoryBlobs", "MemoryStore"]

AUDIT_PAGE = 1000  # what one call of audit_entries returns at most (interface)


@dataclass(slots=True)
class _Records:
    jobs: dict[JobId, JobRecord] = field(default_factory=dict)
    rounds: dict[RoundKey, RoundRecord] = field(default_factory=dict)
    journals: dict[RoundKey, list[JournalEntry]] = field(default_factory=dict)
    timers: dict[RoundKey, TimerNote] = field(default_factory=dict)
    models: dict[Digest, ModelRecord] = field(default_factory=dict)
    set_backs: list[SetBack] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)

    def job(self, job: JobId) -> JobRecord:
        if job not in self.jobs:
            raise UnknownError(f"there is no job {job}")
        return self.jobs[job]

    def round(self, key: RoundKey) -> RoundRecord:
        if key not in self.rounds:
            raise UnknownError(f"there is no round {key}")
        return self.rounds[key]

    def model(self, digest: Digest) -> ModelRecord:
        if digest not in self.models:
            raise UnknownError(f"there is no model {digest}")
        return self.models[digest]

    def put_model(self, record: ModelRecord) -> None:
        """Its first record stays; a file that was pruned was published once more."""
        self.models[record.digest] = replace(self.models.get(record.digest, record), pruned=False)

    def append_audit(self, audit: AuditEntry) -> None:
        if audit.seq != len(self.audit):
            raise RuntimeError(f"the audit log goes on with entry {len(self.audit)}, got entry {audit.seq}")
        self.audit.append(audit)

    def open_to(self, key: RoundKey, outcome: str, result: bytes) -> bool:
        """Whether the round is still to be finished. Raises ConflictError when it was finished otherwise."""
        record = self.round(key)
        if not record.outcome:
            return True
        if (record.outcome, record.result) == (outcome, result):
            return False
        raise ConflictError(f"round {key} is finished ({record.outcome}); it cannot become {outcome}")


class MemoryStore:
    """A `Store` that lives as long as its references."""

    def __init__(self, *, faults: FaultPlan | None = None) -> None:
        self._records = _Records()
        self._life = ProcessLife(faults if faults is not None else FaultPlan())

    @property
    def faults(self) -> FaultPlan:
        """Where failures are ordered."""
        return self._life.faults

    def crash(self) -> MemoryStore:
        """End this process; the store as the next one finds it. It shares the fault plan."""
        self._life.end()
        successor = MemoryStore(faults=self._life.faults)
        successor._records = self._records
        return successor

    def submit_job(self, record: JobRecord, audit: AuditEntry) -> bool:
        def apply() -> bool:
            known = self._records.jobs.get(record.job)
            if known is None:
                self._records.append_audit(audit)
                self._records.jobs[record.job] = record
                return True
            if known.spec != record.spec:
                raise ConflictError(f"job {record.job} is known with another specification")
            return False

        return self._life.write("submit_job", apply)

    def job(self, job: JobId) -> JobRecord:
        self._life.read("job")
        return self._records.job(job)

    def jobs(self) -> Sequence[JobRecord]:
        self._life.read("jobs")
        return tuple(self._records.jobs.values())

    def set_job_state(self, job: JobId, state: JobState, reason: str, audit: AuditEntry) -> None:
        def apply() -> None:
            record = self._records.job(job)
            self._records.append_audit(audit)
            self._records.jobs[job] = replace(record, state=state, reason=reason)

        self._life.write("set_job_state", apply)

    def hold_job(self, job: JobId, pause: Pause | None, state: JobState, audit: AuditEntry) -> None:
        def apply() -> None:
            record = self._records.job(job)
            self._records.append_audit(audit)
            self._records.jobs[job] = replace(record, pause=pause, state=state)

        self._life.write("hold_job", apply)

    def control_job(self, job: JobId, control: JobControl, audit: AuditEntry) -> None:
        def apply() -> None:
            record = self._records.job(job)
            self._records.append_audit(audit)
            self._records.jobs[job] = replace(record, control=control)

        self._life.write("control_job", apply)

    def open_round(self, key: RoundKey, purpose: Purpose, entry: JournalEntry) -> None:
        def apply() -> None:
            self._records.job(key.job)
            if key in self._records.rounds:
                raise ConflictError(f"round {key} exists")
            self._records.rounds[key] = RoundRecord(key, purpose, outcome="", summary=b"", result=b"")
            self._records.journals[key] = [entry]

        self._life.write("open_round", apply)

    def journal(self, key: RoundKey, entry: JournalEntry) -> None:
        def apply() -> None:
            outcome = self._records.round(key).outcome
            if outcome:
                raise ConflictError(f"round {key} is finished ({outcome}); its journal is closed")
            self._records.journals[key].append(entry)

        self._life.write("journal", apply)

    def note_timer(self, key: RoundKey, note: TimerNote) -> None:
        def apply() -> None:
            outcome = self._records.round(key).outcome
            if outcome:
                raise ConflictError(f"round {key} is finished ({outcome}); it waits for nothing")
            self._records.timers[key] = note

        self._life.write("note_timer", apply)

    def timer_of(self, key: RoundKey) -> TimerNote | None:
        self._life.read("timer_of")
        self._records.round(key)
        return self._records.timers.get(key)

    def journal_of(self, key: RoundKey) -> Sequence[JournalEntry]:
        self._life.read("journal_of")
        self._records.round(key)
        return tuple(self._records.journals[key])

    def round(self, key: RoundKey) -> RoundRecord:
        self._life.read("round")
        return self._records.round(key)

    def rounds(self, job: JobId) -> Sequence[RoundRecord]:
        self._life.read("rounds")
        return tuple(self._records.rounds[key] for key in sorted(self._records.rounds) if key.job == job)

    def commit_round(self, commit: RoundCommit) -> bool:
        def apply() -> bool:
            if not self._records.open_to(commit.key, COMMITTED, commit.result):
                return False
            self._records.append_audit(commit.audit)
            if commit.model is not None:
                self._records.put_model(commit.model)
            self._close_round(commit.key, COMMITTED, commit)
            self._move_job(commit.key.job, commit.job_state, "")
            return True

        return self._life.write("commit_round", apply)

    def abort_round(self, abort: RoundAbort) -> bool:
        def apply() -> bool:
            if not self._records.open_to(abort.key, abort.reason.value, abort.result):
                return False
            self._records.append_audit(abort.audit)
            self._close_round(abort.key, abort.reason.value, abort)
            self._move_job(abort.key.job, abort.job_state, abort.job_reason)
            return True

        return self._life.write("abort_round", apply)

    def _close_round(self, key: RoundKey, outcome: str, end: RoundCommit | RoundAbort) -> None:
        record = self._records.rounds[key]
        self._records.rounds[key] = replace(record, outcome=outcome, summary=end.summary, result=end.result)
        kept = [entry for entry in self._records.journals[key] if entry.kind not in end.forgotten]
        self._records.journals[key] = kept
        self._records.timers.pop(key, None)

    def _move_job(self, job: JobId, state: JobState, reason: str) -> None:
        self._records.jobs[job] = replace(self._records.jobs[job], state=state, reason=reason)

    def add_model(self, record: ModelRecord, audit: AuditEntry) -> bool:
        def apply() -> bool:
            known = self._records.models.get(record.digest)
            if known is not None and not known.pruned:
                return False
            self._records.append_audit(audit)
            self._records.put_model(record)
            return True

        return self._life.write("add_model", apply)

    def model(self, digest: Digest) -> ModelRecord:
        self._life.read("model")
        return self._records.model(digest)

    def models(self) -> Sequence[ModelRecord]:
        self._life.read("models")
        return tuple(self._records.models.values())

    def promote_model(self, digest: Digest, audit: AuditEntry, *, promoted: bool) -> bool:
        def apply() -> bool:
            known = self._records.model(digest)
            if known.pruned:
                raise ConflictError(f"model {digest} was pruned: its file is no more here")
            if known.promoted is promoted:
                return False
            self._records.append_audit(audit)
            self._records.models[digest] = replace(known, promoted=promoted)
            return True

        return self._life.write("promote_model", apply)

    def prune_models(self, digests: Sequence[Digest], audit: AuditEntry) -> None:
        def apply() -> None:
            for known in map(self._records.model, digests):
                if known.promoted:
                    raise ConflictError(f"model {known.digest} is promoted: it is not pruned")
            self._records.append_audit(audit)
            for digest in digests:
                self._records.models[digest] = replace(self._records.models[digest], pruned=True)

        self._life.write("prune_models", apply)

    def note_set_back(self, found: SetBack, audit: AuditEntry) -> bool:
        def apply() -> bool:
            if found.lost is not None and any(known.lost == found.lost for known in self._records.set_backs):
                return False
            self._records.append_audit(audit)
            self._records.set_backs.append(found)
            return True

        return self._life.write("note_set_back", apply)

    def set_backs(self) -> Sequence[SetBack]:
        self._life.read("set_backs")
        return tuple(self._records.set_backs)

    def end_set_backs(self) -> None:
        def apply() -> None:
            self._records.set_backs = [replace(found, ended=True) for found in self._records.set_backs]

        self._life.write("end_set_backs", apply)

    def append_audit(self, audit: AuditEntry) -> None:
        self._life.write("append_audit", lambda: self._records.append_audit(audit))

    def audit_entries(self, start: int) -> Sequence[AuditEntry]:
        self._life.read("audit_entries")
        return tuple(self._records.audit[start : start + AUDIT_PAGE])
