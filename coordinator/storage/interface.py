"""What the coordinator asks of its storage: a few verbs, each with its contract.

Two kinds of storage, because they fail differently:

* `Store` holds small records in a database. **Each verb is one transaction**: when it returns, its effect is durable;
  when it raises `StorageError`, nothing changed; when it raises `DurabilityUnknown`, nobody knows, and the process must
  end so that recovery finds out.
* `Blobs` holds large immutable files (models) and growing ones (spools). A write is durable only after `sync`.

Every audit entry is stored in the transaction of what it records. The store checks that it continues the log (its `seq`
is the number of entries so far) and treats anything else as a bug of the caller (`RuntimeError`). A verb that finds its
work already done stores no entry, does not look at the one it was given, and returns False: then the caller must not
`accept` that entry into its `AuditLog`.

After a `DurabilityUnknown` every further write raises it again: only a new process can know what is on disk.

A model is published *before* the transaction that names it. A published file that no record names is harmless (the fold
is deterministic, so a resumed round makes the same file again); a record without its file would be a lost model.

The verbs that write to `Store` are called from one thread, the conductor's. Of `Blobs`, the fold's thread stages,
publishes and reads models, and transfer threads open spools and read models; two of them never work on one name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.control import AS_SUBMITTED, JobControl, Pause
from shared.ids import AttemptKey, Digest, JobId, ParticipantId, RoundKey
from shared.reasons import AbortReason, JobState, Purpose

COMMITTED = "committed"  # the outcome of a round that has a result; any other outcome is the value of an AbortReason


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log: `line` is exactly what stands in the file, without the line feed."""

    seq: int
    line: bytes


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as submitted, and where it is in its life."""

    job: JobId
    spec: bytes
    submitted_by: str
    submitted_at: str
    """RFC 3339, UTC; for people."""
    state: JobState
    reason: str
    """Why it is in that state; empty when the state says it all."""
    control: JobControl = AS_SUBMITTED
    """Of the next round that is planned."""
    pause: Pause | None = None
    """Who had it paused, as long as nobody resumed it. A job that is running with one pauses after its open round."""

    @property
    def standing(self) -> JobState:
        """Where it is, for whoever looks: one that pauses after its open round is not merely running."""
        pausing = self.state is JobState.RUNNING and self.pause is not None
        return JobState.PAUSING if pausing else self.state


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One durable step of an open round. `kind` and `body` belong to `coordinator.round.journal`."""

    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TimerNote:
    """What was left of a wait of an open round when it was last looked at, in seconds of the coordinator's up time."""

    name: str
    """Which wait: the attempt's number and the phase. It belongs to `coordinator.round`."""
    remaining_s: float


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round as listed: open while `outcome` is empty."""

    key: RoundKey
    purpose: Purpose
    outcome: str
    """Empty while open, `committed`, or the value of an AbortReason."""
    summary: bytes
    """Canonical JSON: survivors, members out with reasons, totals, durations. Empty while open."""
    result: bytes
    """The sealed RoundResult or RoundAborted as broadcast. Empty while open."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model version: a published file plus its lineage (canonical JSON)."""

    digest: Digest
    manifest: bytes
    promoted: bool = False
    """Whether an operator said that it is to be kept."""
    pruned: bool = False
    """Whether its file was removed, or is about to be; the record stays."""


@dataclass(frozen=True, slots=True)
class SetBack:
    """How it was found that these records are an older copy of themselves."""

    why: str
    """For people: which backup, or who showed what."""
    lost: Digest | None = None
    """SHA-256 of the payload of the result that was shown and is not on record; None for a restored backup."""
    ended: bool = False
    """Whether every job that was open then has been ended."""


@dataclass(frozen=True, slots=True)
class RoundCommit:
    """Everything that becomes true at once when a round commits."""

    key: RoundKey
    summary: bytes
    result: bytes
    model: ModelRecord | None
    """The new version; None for a round of purpose `evaluate`."""
    job_state: JobState
    audit: AuditEntry
    forgotten: frozenset[str] = frozenset()
    """Kinds of entries of the round's journal that are deleted with this, in the same transaction."""


@dataclass(frozen=True, slots=True)
class RoundAbort:
    """Everything that becomes true at once when a round aborts."""

    key: RoundKey
    reason: AbortReason
    summary: bytes
    result: bytes
    job_state: JobState
    job_reason: str
    audit: AuditEntry
    forgotten: frozenset[str] = frozenset()
    """As in `RoundCommit`."""


class Store(Protocol):
    """The coordinator's records. Every verb may raise StorageError or DurabilityUnknown."""

    def submit_job(self, record: JobRecord, audit: AuditEntry) -> bool:
        """Store a new job: True. Present with the same `spec`: False, nothing changes. With another: ConflictError."""
        ...

    def job(self, job: JobId) -> JobRecord:
        """Absent: UnknownError."""
        ...

    def jobs(self) -> Sequence[JobRecord]:
        """All jobs, in the order of submission."""
        ...

    def set_job_state(self, job: JobId, state: JobState, reason: str, audit: AuditEntry) -> None:
        """Absent: UnknownError."""
        ...

    def hold_job(self, job: JobId, pause: Pause | None, state: JobState, audit: AuditEntry) -> None:
        """Note that a job is to pause, or with None that it is to go on; it gets `state` with that. Absent:
        UnknownError.
        """
        ...

    def control_job(self, job: JobId, control: JobControl, audit: AuditEntry) -> None:
        """Other rules for the rounds that are planned from now on. Absent: UnknownError."""
        ...

    def open_round(self, key: RoundKey, purpose: Purpose, entry: JournalEntry) -> None:
        """Start a round with the first entry of its journal. Present: ConflictError. No such job: UnknownError."""
        ...

    def journal(self, key: RoundKey, entry: JournalEntry) -> None:
        """Append to an open round's journal. Absent: UnknownError. Already finished: ConflictError."""
        ...

    def note_timer(self, key: RoundKey, note: TimerNote) -> None:
        """Keep what is left of an open round's wait, in place of the note before. Absent: UnknownError. Finished:
        ConflictError.
        """
        ...

    def timer_of(self, key: RoundKey) -> TimerNote | None:
        """The last note; None before the first, and after the end of the round. Absent: UnknownError."""
        ...

    def journal_of(self, key: RoundKey) -> Sequence[JournalEntry]:
        """The journal in order; of a finished round, without what was `forgotten`. Absent: UnknownError."""
        ...

    def round(self, key: RoundKey) -> RoundRecord:
        """Absent: UnknownError."""
        ...

    def rounds(self, job: JobId) -> Sequence[RoundRecord]:
        """All rounds of a job in order; empty when it has none."""
        ...

    def commit_round(self, commit: RoundCommit) -> bool:
        """The one commit point: True. Absent: UnknownError. Already committed with the same `result`: False, nothing
        changes; finished in any other way: ConflictError. The job gets `job_state` and an empty reason. A model whose
        digest is already recorded (a round that changed no weight) keeps its first record; one that was pruned is no
        more, since its file was published again. The timer's note is gone. The entries of the kinds in
        `forgotten` are no more in the round's journal, and nowhere on the disk: at once, or from the next start on when
        another process was reading the database.
        """
        ...

    def abort_round(self, abort: RoundAbort) -> bool:
        """As `commit_round`, for a round without a result."""
        ...

    def add_model(self, record: ModelRecord, audit: AuditEntry) -> bool:
        """Record an initial model whose file is published: True. Present: False, nothing changes. Pruned: True, it
        keeps its record and is pruned no more.
        """
        ...

    def model(self, digest: Digest) -> ModelRecord:
        """Absent: UnknownError."""
        ...

    def models(self) -> Sequence[ModelRecord]:
        """All versions, oldest first."""
        ...

    def promote_model(self, digest: Digest, audit: AuditEntry, *, promoted: bool) -> bool:
        """Say that a version is to be kept, or no more: True. It is so already: False, nothing changes. Absent:
        UnknownError. Pruned: ConflictError.
        """
        ...

    def prune_models(self, digests: Sequence[Digest], audit: AuditEntry) -> None:
        """Mark versions as pruned: all of them or none. Their files are removed afterwards. Absent: UnknownError.
        Promoted: ConflictError. One that is marked already stays so.
        """
        ...

    def note_set_back(self, found: SetBack, audit: AuditEntry) -> bool:
        """These records are an older copy: True. One with a `lost` that was noted before: False, nothing changes."""
        ...

    def set_backs(self) -> Sequence[SetBack]:
        """All that were noted, in order."""
        ...

    def end_set_backs(self) -> None:
        """Every job that was open when the records were found to be an older copy has been ended."""
        ...

    def append_audit(self, audit: AuditEntry) -> None:
        """Record something that changes nothing else (a start, a refused connection)."""
        ...

    def audit_entries(self, start: int) -> Sequence[AuditEntry]:
        """Entries from `seq >= start`, in order, at most 1,000; empty at the end."""
        ...


class Reader(Protocol):
    """Random access to bytes that no longer change."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes, valid until the next call. Beyond the end or unreadable: StorageError."""
        ...

    def close(self) -> None: ...


class Spool(Protocol):
    """One participant's update on its way in. Growing, then committed, then dropped with its round.

    One open handle for one spool at a time. After a crash a spool holds at least what was last synced; what lies beyond
    may be there, torn or missing, so a reader trusts bytes only by their digest.
    """

    @property
    def size(self) -> int: ...

    def append(self, data: memoryview) -> None:
        """Write at the end; not durable yet."""
        ...

    def truncate(self, size: int) -> None:
        """Forget everything from `size` on; not durable yet. Beyond the end: a bug of the caller."""
        ...

    def sync(self) -> int:
        """Make what was appended durable; returns the durable size. Raises DurabilityUnknown, and is not retried."""
        ...

    def reader(self) -> Reader:
        """Reads what was appended so far; outlives the spool's handle."""
        ...

    def close(self) -> None: ...


class Staged(Protocol):
    """A file being written, which nobody can see until it is published."""

    def allocate(self, size: int) -> None:
        """Fix the size. A full disk is found here (StorageError) and not half way."""
        ...

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write inside the allocated size; outside it is a bug of the caller."""
        ...

    def reader(self) -> Reader: ...

    def discard(self) -> None:
        """Drop the file. Published or discarded before: nothing happens."""
        ...


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A published file."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class StoredSpool:
    """A spool as it lies there."""

    key: AttemptKey
    participant: ParticipantId
    size: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Files that nobody could see and that went: how many, and how many bytes."""

    files: int
    size: int


class Blobs(Protocol):
    """Large files."""

    @property
    def leftovers(self) -> Leftovers:
        """What this process found staged, or removed and not given back, by those before it."""
        ...

    def spool(self, key: AttemptKey, participant: ParticipantId) -> Spool:
        """Open for appending, created when absent."""
        ...

    def spooled(self) -> Sequence[StoredSpool]:
        """Every spool of every round, in the order of their keys."""
        ...

    def drop_spools(self, key: RoundKey) -> None:
        """Remove all spools of a round, durably. None there: nothing happens. Safe to call again after a crash."""
        ...

    def drop_attempt(self, key: AttemptKey) -> None:
        """As `drop_spools`, for one attempt of a round."""
        ...

    def stage(self, name: str) -> Staged:
        """A new staged file; one of the same name left over from before is replaced. `name` is a DNS label: it will be
        a file's name. Nothing staged outlives the process.
        """
        ...

    def publish(self, staged: Staged, digest: Digest) -> None:
        """Make a staged file the model `digest`: fsync, rename, fsync the folder. The caller computed the digest.
        Present: the staged file is dropped. Durable on return.
        """
        ...

    def published(self) -> Sequence[StoredModel]:
        """Every published model, in the order of their digests."""
        ...

    def remove_model(self, digest: Digest) -> None:
        """Remove a published model, durably: nobody finds it any more. Its bytes are given back soon after, without
        keeping the caller waiting. An open reader goes on. Absent: nothing happens. Safe to call again after a crash.
        """
        ...

    def model(self, digest: Digest) -> Reader:
        """Absent: UnknownError."""
        ...

    def model_location(self, digest: Digest) -> str:
        """Where a person finds the file (a path, for files). Absent: UnknownError."""
        ...
