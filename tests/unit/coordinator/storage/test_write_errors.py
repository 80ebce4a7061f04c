"""Each system call that writes, each way in which a disk fails: which error, what is on disk, what works afterwards."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator.storage.filecalls import FileCalls
from coordinator.storage.files import AppendFile, FileBlobs
from coordinator.storage.interface import AuditEntry, Spool, Staged
from coordinator.storage.sql import SqlStore
from shared.errors import DurabilityUnknown, StorageError
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber

ROUND = RoundKey(JobId("heart-1"), RoundNumber(1))
KEY = AttemptKey(ROUND, AttemptNumber(1))
OTHER = AttemptKey(ROUND, AttemptNumber(2))
ADA = ParticipantId("hospital-a")
MODEL, OLD = b"model" * 20, b"an older version"
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
SYNCS = frozenset({"fsync", "fdatasync", "sync_folder"})


class FailingCalls(FileCalls):
    """The coming call of a name fails, each time until it is told otherwise; one in the middle of its work if asked."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.struck: list[str] = []
        self.takes_half = False

    def __getattribute__(self, name: str) -> Any:
        real = super().__getattribute__(name)
        if name.startswith("_") or name in {"failing", "struck", "takes_half"} or name not in self.failing:
            return real

        def fail(*arguments: Any) -> Any:
            if name == "pwrite" and self.takes_half and not self.struck:
                self.struck.append(name)
                fd, data, offset = arguments
                return real(fd, data[: len(data) // 2], offset)
            self.struck.append(name)
            raise OSError(self.failing[name], os.strerror(self.failing[name]))

        return fail


@dataclass
class Disk:
    """Storage with something of everything in it."""

    folder: Path
    calls: FailingCalls
    blobs: FileBlobs
    log: AppendFile
    spool: Spool
    staged: Staged
    old: Digest

    def close(self) -> None:
        self.log.close()
        self.spool.close()
        self.blobs.close()

    def seen(self) -> dict[str, bytes]:
        """Every file that somebody would find, and what is in it."""
        files = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if not name.startswith(("staging", "removed"))}


def prepared(folder: Path) -> Disk:
    calls = FailingCalls()
    blobs = FileBlobs(root=folder, calls=calls)
    log = AppendFile(path=folder / "audit.log", calls=calls)
    log.append(b"one\n")
    old = blobs.stage("old")
    old.allocate(len(OLD))
    old.write_at(0, memoryview(OLD))
    blobs.publish(old, Digest.of(OLD))
    spool = blobs.spool(KEY, ADA)
    spool.append(memoryview(b"first"))
    spool.sync()
    staged = blobs.stage("new")
    staged.allocate(len(MODEL))
    staged.write_at(0, memoryview(MODEL))
    return Disk(folder, calls, blobs, log, spool, staged, Digest.of(OLD))


VERBS: dict[str, tuple[Callable[[Disk], object], tuple[str, ...]]] = {
    "spool": (lambda disk: disk.blobs.spool(OTHER, ADA).close(), ("open",)),
    "append": (lambda disk: disk.spool.append(memoryview(b"second")), ("pwrite",)),
    "truncate": (lambda disk: disk.spool.truncate(2), ("truncate",)),
    "sync": (lambda disk: disk.spool.sync(), ("fdatasync",)),
    "drop_spools": (lambda disk: disk.blobs.drop_spools(ROUND), ("remove_tree", "sync_folder")),
    "drop_attempt": (lambda disk: disk.blobs.drop_attempt(KEY), ("remove_tree", "sync_folder")),
    "stage": (lambda disk: disk.blobs.stage("third"), ("open",)),
    "allocate": (lambda disk: disk.staged.allocate(len(MODEL)), ("allocate",)),
    "write_at": (lambda disk: disk.staged.write_at(0, memoryview(MODEL)), ("pwrite",)),
    "publish": (lambda disk: disk.blobs.publish(disk.staged, Digest.of(MODEL)), ("fsync", "replace", "sync_folder")),
    "discard": (lambda disk: disk.staged.discard(), ("unlink",)),
    "remove_model": (lambda disk: disk.blobs.remove_model(disk.old), ("replace", "sync_folder")),
    "append to a log": (lambda disk: disk.log.append(b"two\n"), ("pwrite", "fdatasync")),
}
CASES = [(verb, call, code) for verb, (_, calls) in VERBS.items() for call in calls for code in ERRORS]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = prepared(tmp_path)
    yield made
    made.calls.failing.clear()
    made.close()


@pytest.mark.parametrize(("verb", "call", "code"), CASES)
def test_a_call_that_fails(disk: Disk, verb: str, call: str, code: int) -> None:
    perform, _ = VERBS[verb]
    before = disk.seen()
    disk.calls.failing[call] = code
    expected = DurabilityUnknown if call in SYNCS else StorageError
    with pytest.raises((StorageError, DurabilityUnknown)) as caught:
        perform(disk)
    assert disk.calls.struck, "it was this call that failed"
    assert caught.type is expected
    assert os.strerror(code) in str(caught.value)
    disk.calls.failing.clear()
    if expected is StorageError:
        assert disk.seen() == before
        perform(disk)
        return
    with pytest.raises(DurabilityUnknown, match="must end"):
        perform(disk)
    disk.close()
    again = FileBlobs(root=disk.folder)
    with closing(again):
        if verb != "remove_model":
            assert again.model_location(disk.old)
        if verb not in {"drop_spools", "drop_attempt"}:
            with closing(again.spool(KEY, ADA)) as spool, closing(spool.reader()) as reader:
                assert bytes(reader.read_at(0, 5)) == b"first"
    assert (disk.folder / "audit.log").read_bytes().startswith(b"one\n")


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("verb", ["append", "append to a log"])
def test_half_a_write_is_taken_back(disk: Disk, verb: str, code: int) -> None:
    before = disk.seen()
    disk.calls.failing["pwrite"] = code
    disk.calls.takes_half = True
    with pytest.raises(StorageError):
        VERBS[verb][0](disk)
    assert len(disk.calls.struck) == 2
    assert disk.seen() == before
    disk.calls.failing.clear()
    VERBS[verb][0](disk)


@pytest.mark.parametrize("verb", ["append", "append to a log"])
def test_half_a_write_that_cannot_be_taken_back_ends_the_process(disk: Disk, verb: str) -> None:
    disk.calls.failing.update(pwrite=errno.EIO, truncate=errno.EIO)
    disk.calls.takes_half = True
    with pytest.raises(DurabilityUnknown, match="cutting off what a failed write left"):
        VERBS[verb][0](disk)
    disk.calls.failing.clear()
    with pytest.raises(DurabilityUnknown, match="must end"):
        VERBS[verb][0](disk)


@pytest.mark.parametrize("verb", ["append", "append to a log"])
def test_a_disk_that_became_read_only_took_nothing(disk: Disk, verb: str) -> None:
    """Neither does it let anything be cut off; nothing has to be."""
    before = disk.seen()
    disk.calls.failing.update(pwrite=errno.EROFS, truncate=errno.EROFS)
    with pytest.raises(StorageError, match="Read-only"):
        VERBS[verb][0](disk)
    assert disk.seen() == before
    disk.calls.failing.clear()
    VERBS[verb][0](disk)


@pytest.mark.parametrize("call", ["pwrite", "allocate"])
def test_a_full_disk_says_how_much_room_was_needed(disk: Disk, call: str) -> None:
    disk.calls.failing[call] = errno.ENOSPC
    perform, _ = VERBS["write_at" if call == "pwrite" else "allocate"]
    with pytest.raises(StorageError, match=rf"{len(MODEL)} bytes were needed and \d+ are free; make room"):
        perform(disk)


def test_a_name_that_did_not_become_durable_ends_the_process(disk: Disk) -> None:
    """The first sync of a spool is that of its folders too."""
    disk.calls.failing["sync_folder"] = errno.EIO
    spool = disk.blobs.spool(OTHER, ADA)
    spool.append(memoryview(b"update"))
    with pytest.raises(DurabilityUnknown):
        spool.sync()
    spool.close()


# --- the database -----------------------------------------------------------------------------------------------------

STATEMENT = {
    sqlite3.SQLITE_FULL: StorageError,
    sqlite3.SQLITE_IOERR: StorageError,
    sqlite3.SQLITE_READONLY: StorageError,
    sqlite3.SQLITE_BUSY: StorageError,
}
COMMIT = {
    sqlite3.SQLITE_FULL: StorageError,  # what makes a transaction true is written last
    sqlite3.SQLITE_IOERR: DurabilityUnknown,
    sqlite3.SQLITE_IOERR_FSYNC: DurabilityUnknown,
    sqlite3.SQLITE_IOERR_WRITE: DurabilityUnknown,
    sqlite3.SQLITE_READONLY: DurabilityUnknown,
}


class FailingConnection(sqlite3.Connection):
    """SQLite whose next statement or commit fails with a code, and does nothing."""

    statement = commits = 0

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        if self.in_transaction and self.statement:
            code, self.statement = self.statement, 0
            raise _failed(code)
        return super().cursor(*arguments, **options)

    def commit(self) -> None:
        if self.in_transaction and self.commits:
            code, self.commits = self.commits, 0
            raise _failed(code)
        super().commit()


def _failed(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("planned")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("where", "code", "expected"),
    [
        *(("statement", code, expected) for code, expected in STATEMENT.items()),
        *(("commits", code, expected) for code, expected in COMMIT.items()),
    ],
)
def test_a_database_that_fails(tmp_path: Path, where: str, code: int, expected: type[Exception]) -> None:
    url = f"sqlite:///{tmp_path / 'consilo.db'}"
    with closing(SqlStore(url=url, connection_factory=FailingConnection)) as store:
        store.append_audit(AuditEntry(0, b"line"))
        setattr(store._database._driver(), where, code)
        with pytest.raises((StorageError, DurabilityUnknown)) as caught:
            store.append_audit(AuditEntry(1, b"line"))
        assert caught.type is expected
        assert ("make room" in str(caught.value)) == (code == sqlite3.SQLITE_FULL)
        assert len(store.audit_entries(0)) == 1
        if expected is StorageError:
            store.append_audit(AuditEntry(1, b"line"))
        else:
            with pytest.raises(DurabilityUnknown, match="must end"):
                store.append_audit(AuditEntry(1, b"line"))
    with closing(SqlStore(url=url)) as store:
        assert len(store.audit_entries(0)) == (2 if expected is StorageError else 1)
