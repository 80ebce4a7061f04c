"""A real disk without room: the records say so and change nothing, and go on when there is some.

Where nobody may mount one these are skipped; `test_write_errors` plans the same errors everywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import pytest

from coordinator.audit import MESSAGE_TYPE, AuditLog, AuditProjection, resume, verify_lines
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.files import AppendFile
from coordinator.storage.sql import SqlStore
from shared.clock import SystemClock
from shared.errors import StorageError
from tests.support.audit_log import KEY
from tests.support.migration_crash import make_database
from tests.support.small_disk import SmallDisk, small_disk
from tests.unit.coordinator.storage.test_migrations import VERSION_1, check_content, found_version

DISK_BYTES = 1 << 20
WORDS = "x" * 4000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "data", size=DISK_BYTES) as made:
        yield made


def opened(folder: Path) -> SqlStore:
    return SqlStore(url=f"sqlite:///{folder / 'coordinator.db'}")


def resumed(store: SqlStore) -> AuditLog:
    return resume(store.audit_entries, sign=partial(KEY.sign, MESSAGE_TYPE), clock=SystemClock())


def say(store: SqlStore, log: AuditLog, number: int) -> None:
    entry = log.entry("round_committed", {"round": number, "words": WORDS})
    store.append_audit(entry)
    log.accept(entry)


def say_until_full(store: SqlStore, log: AuditLog) -> None:
    while True:
        say(store, log, log.size)


def test_a_transaction_without_room_changes_nothing_and_goes_on_with_room(disk: SmallDisk, tmp_path: Path) -> None:
    with closing(opened(disk.folder)) as store, closing(AppendFile(path=disk.folder / "audit.log")) as file:
        log, projection = resumed(store), AuditProjection(file=file)
        say(store, log, 0)
        disk.leave(100_000)
        for _ in range(3):
            with pytest.raises(StorageError, match=r"nothing was written: .* full; make room and try again"):
                say_until_full(store, log)
        said = log.size
        assert said > 1
        crashed = tmp_path / "crashed"  # what a process that ended now would leave
        crashed.mkdir()
        for name in ("coordinator.db", "coordinator.db-wal"):
            shutil.copy(disk.folder / name, crashed / name)
        with closing(opened(crashed)) as left:
            assert resumed(left).head == log.head
        with pytest.raises(StorageError, match="bytes were needed"):
            projection.project(store.audit_entries)
        disk.make_room()
        say(store, log, said)
        assert projection.project(store.audit_entries) > 0
        verified = verify_lines((disk.folder / "audit.log").read_bytes(), verifying_key=KEY.verifying_key)
        assert (verified.size, verified.head) == (said + 1, log.head)


@pytest.mark.parametrize("left", [0, 40_000, 100_000])
def test_a_migration_without_room_changes_nothing(disk: SmallDisk, left: int) -> None:
    path = make_database(VERSION_1, disk.folder)
    disk.leave(left)
    with pytest.raises(StorageError, match=r"nothing was changed: .* make room|see whether its disk is full"):
        opened(disk.folder)
    disk.make_room()
    assert found_version(path) == 1
    with closing(opened(disk.folder)) as store:
        check_content(store)


class FullForTheLog(FileCalls):
    """No room for the audit file alone."""

    def __init__(self) -> None:
        self.room = True

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)


def test_rounds_do_not_wait_for_the_audit_file_which_catches_up(tmp_path: Path) -> None:
    """Entries live in the database, in the transaction of what they record; the file is written from there."""
    calls = FullForTheLog()
    with closing(opened(tmp_path)) as store, closing(AppendFile(path=tmp_path / "audit.log", calls=calls)) as file:
        log, projection = resumed(store), AuditProjection(file=file)
        for number in range(4):
            calls.room = number in {0, 3}
            say(store, log, number)
            with nullcontext() if calls.room else pytest.raises(StorageError, match="No space left"):
                projection.project(store.audit_entries)
        verified = verify_lines((tmp_path / "audit.log").read_bytes(), verifying_key=KEY.verifying_key)
        assert (verified.size, verified.head) == (4, log.head)
