"""Making room: versions that the policy does not keep are pruned, and files that nothing needs are swept.

*To prune* a version is to mark its record, with an audit entry, and to remove its file afterwards. A crash in between
leaves a file of a pruned version, which the next start sweeps. *To sweep*, once at each start and before any round goes
on, is to remove what earlier processes left: files of pruned versions, spools of rounds that are over and of attempts
before an open round's last one. What a round goes on with is never in it: its spools are of its last attempt.

A model that no record names is what a fold published and nobody committed; or it is a version whose record was lost,
because somebody set the database back and left the models. Only silos know which. So such models wait for the first
commit after the start: by then a quorum of silos has shown its heads, and where these prove that the records are an
older copy, the models stay. Where the policy keeps everything, they stay as well.

A version is not pruned while a fold is under way. It may just be making the same bytes again, and its record would
then name a file that is gone. The commit that the fold leads to is the next occasion.

On the conductor's thread. A disk that fails here costs room and nothing else: it is logged, and tried again later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog

from coordinator.audit import AuditLog
from coordinator.retention import KEEP_ALL, JobVersions, prunable
from coordinator.round.effects import AttemptBegun
from coordinator.round.journal import decode_record
from coordinator.storage.interface import (
    COMMITTED,
    Blobs,
    JobRecord,
    JournalEntry,
    ModelRecord,
    RoundRecord,
    SetBack,
    Store,
    StoredModel,
    StoredSpool,
)
from shared.errors import DurabilityUnknown, FederationError, UnknownError, WireError
from shared.ids import AttemptNumber, Digest, JobId, RoundKey
from shared.job import parse_jobspec
from shared.protocol.messages import RoundResult
from shared.reasons import Purpose
from shared.wire.sealed import decode_envelope, reopen

PRUNED_AT_ONCE = 256  # digests in one audit entry: it is one line that people read

_log = structlog.get_logger(__name__)


class Pruning:
    """Performs the policy of one data folder."""

    def __init__(self, *, store: Store, audit: AuditLog, blobs: Blobs, keep_versions: int) -> None:
        self._store = store
        self._audit = audit
        self._blobs = blobs
        self._keep_versions = keep_versions
        self._versions: dict[JobId, tuple[Digest, ...]] = {}
        self._marked: list[Digest] = []  # pruned on record, their files not yet removed
        self._strays: list[StoredModel] = []  # found at the start, named by no record then

    def start(self) -> None:
        """Sweep, then prune. Raises DurabilityUnknown alone."""
        with _harmless("sweep"):
            self._sweep()
        self.prune()

    def after(self, ended: RoundRecord, *, folding: bool) -> None:
        """A round is over. Raises DurabilityUnknown alone. `folding`: whether a fold is under way."""
        if ended.key.job in self._versions:
            with _harmless("prune"):
                self._versions[ended.key.job] += _made(ended)
        if not folding:
            self.prune()
            if ended.outcome == COMMITTED and self._keep_versions != KEEP_ALL:
                with _harmless("sweep"):
                    self._remove_strays()

    def prune(self) -> None:
        """Prune what the policy does not keep. Raises DurabilityUnknown alone."""
        if self._keep_versions == KEEP_ALL:
            return
        with _harmless("prune"):
            chosen = prunable(self._store.models(), self._jobs(), keep_versions=self._keep_versions)
            for start in range(0, len(chosen), PRUNED_AT_ONCE):
                self._mark(chosen[start : start + PRUNED_AT_ONCE])
            while self._marked:
                if self._store.model(self._marked[0]).pruned:  # it may have been brought again
                    self._blobs.remove_model(self._marked[0])
                self._marked.pop(0)

    def _mark(self, chosen: Sequence[Digest]) -> None:
        facts = {"models": [str(digest) for digest in chosen], "keep_versions": self._keep_versions}
        entry = self._audit.entry("model_pruned", facts)
        self._store.prune_models(chosen, entry)
        self._audit.accept(entry)
        self._marked += chosen
        _log.info("models_pruned", count=len(chosen), keep_versions=self._keep_versions)

    def _jobs(self) -> list[JobVersions]:
        """Read once, and kept up to date by `after`."""
        for job in self._store.jobs():
            if job.job not in self._versions:
                self._versions[job.job] = _versions_of(self._store, job)
        return [JobVersions(job.job, job.state, self._versions[job.job]) for job in self._store.jobs()]

    # --- sweeping -----------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        recorded = {model.digest: model.pruned for model in self._store.models()}
        published = self._blobs.published()
        self._strays = [model for model in published if model.digest not in recorded]
        pruned = [model for model in published if recorded.get(model.digest, False)]
        spools = unneeded(self._store, self._blobs.spooled())
        for model in pruned:
            self._blobs.remove_model(model.digest)
        for key in dict.fromkeys(spool.key for spool in spools):
            self._blobs.drop_attempt(key)
        left = self._blobs.leftovers
        if pruned or spools or left.files:
            size = sum(model.size for model in pruned) + sum(spool.size for spool in spools) + left.size
            _log.info("storage_swept", models=len(pruned), spools=len(spools), staged=left.files, bytes=size)

    def _remove_strays(self) -> None:
        if not self._strays or self._store.set_backs():
            return
        recorded = {model.digest for model in self._store.models()}
        strays = [model for model in self._strays if model.digest not in recorded]  # it may have been made again
        for model in strays:
            self._blobs.remove_model(model.digest)
        self._strays = []
        if strays:
            size = sum(model.size for model in strays)
            _log.info("storage_swept", models=len(strays), spools=0, staged=0, bytes=size)


class RecordReader(Protocol):
    """What a `Store` tells a reader."""

    def jobs(self) -> Sequence[JobRecord]: ...

    def rounds(self, job: JobId) -> Sequence[RoundRecord]: ...

    def round(self, key: RoundKey) -> RoundRecord: ...

    def journal_of(self, key: RoundKey) -> Sequence[JournalEntry]: ...

    def models(self) -> Sequence[ModelRecord]: ...

    def set_backs(self) -> Sequence[SetBack]: ...


def job_versions(records: RecordReader) -> list[JobVersions]:
    """Of every job, in the order of submission. Raises StorageError."""
    return [JobVersions(job.job, job.state, _versions_of(records, job)) for job in records.jobs()]


def _versions_of(records: RecordReader, job: JobRecord) -> tuple[Digest, ...]:
    made = [version for record in records.rounds(job.job) for version in _made(record)]
    return (parse_jobspec(job.spec).initial_model, *made)


def unneeded(records: RecordReader, spools: Sequence[StoredSpool]) -> list[StoredSpool]:
    """The spools with which no round goes on: of rounds that are over, and of attempts before an open round's last."""
    needed_from = {key: _needed_from(records, key) for key in {spool.key.round for spool in spools}}
    found = []
    for spool in spools:
        first = needed_from[spool.key.round]
        if first is None or spool.key.attempt < first:
            found.append(spool)
    return found


def _needed_from(records: RecordReader, key: RoundKey) -> AttemptNumber | None:
    """The attempt from which on spools are needed; None for a round that is over, or not on record."""
    try:
        if records.round(key).outcome:
            return None
        attempt = AttemptNumber(1)
        for entry in records.journal_of(key)[1:]:
            record = decode_record(entry)
            if isinstance(record, AttemptBegun):
                attempt = record.start.value.key.attempt
    except UnknownError:
        return None
    except WireError:
        return AttemptNumber(1)  # how far it went is not known
    return attempt


def _made(record: RoundRecord) -> tuple[Digest, ...]:
    """The version that a round made, if it made one."""
    if record.outcome != COMMITTED or record.purpose is not Purpose.TRAIN:
        return ()
    return (reopen(RoundResult, decode_envelope(record.result)).value.next_model,)


@contextmanager
def _harmless(doing: str) -> Iterator[None]:
    try:
        yield
    except DurabilityUnknown:
        raise
    except FederationError as error:
        _log.warning("making_room_failed", doing=doing, error=type(error).__name__, reason=str(error))
