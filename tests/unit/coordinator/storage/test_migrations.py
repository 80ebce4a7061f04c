"""A database of the first version, from the SQL that it was: what becomes of it, and what is kept of it."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.audit import verify_lines
from coordinator.storage.database import schema_of
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.interface import AuditEntry, JournalEntry, ModelRecord, RoundRecord, TimerNote
from coordinator.storage.migrations import MIGRATIONS
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from shared.control import AS_SUBMITTED
from shared.errors import ConfigError, DurabilityUnknown, StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.reasons import JobState, Purpose
from tests.support.audit_log import KEY, as_file
from tests.support.migration_crash import DATABASE, make_database
from tests.unit.coordinator.storage.test_sql import file_size_limit

REPOSITORY = Path(__file__).parents[4]
VERSION_1 = Path(__file__).with_name("database_v1.sql")
HEART = JobId("heart-1")
OPEN = RoundKey(HEART, RoundNumber(3))
SHARE = b"a share of somebody's seed"


def version_1(folder: Path) -> Path:
    return make_database(VERSION_1, folder)


def opened(path: Path, **options: Any) -> SqlStore:
    return SqlStore(url=f"sqlite:///{path}", **options)


def copy_of(path: Path) -> Path:
    return path.with_name(path.name + ".before-v3")


def found_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (version,) = database.execute("SELECT version FROM schema_version").fetchone()
        return int(version)


def tables(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(name, *map(str, row)) for name in names for row in database.execute(f"PRAGMA table_info({name})")]
        keys = [
            (name, *map(str, row)) for name in names for row in database.execute(f"PRAGMA foreign_key_list({name})")
        ]
        indexes = database.execute("SELECT tbl_name, name, coalesce(sql, '') FROM sqlite_master WHERE type = 'index'")
        return sorted([*columns, *keys, *indexes.fetchall()])


def check_content(store: SqlStore) -> None:
    """Everything that the first version knew, and that what is new can be said of it."""
    assert [(job.job, job.state, job.reason) for job in store.jobs()] == [
        (HEART, JobState.RUNNING, ""),
        ("lung-1", JobState.ABORTED, "operator: it's over"),
        ("brain-1", JobState.QUEUED, ""),
    ]
    assert [record.outcome for record in store.rounds(HEART)] == ["committed", "below_quorum", ""]
    assert store.round(OPEN) == RoundRecord(OPEN, Purpose.TRAIN, "", b"", b"")
    kinds = [entry.kind for entry in store.journal_of(OPEN)]
    assert kinds == ["plan", "contributed", "contributed", "shares_fixed", "survivors_fixed", "shares_revealed"]
    assert store.journal_of(OPEN)[0] == JournalEntry("plan", b"plan 3\x00\xff")
    initial, trained = store.models()
    assert initial == ModelRecord(Digest.of(b"initial"), b'{"kind":"initial"}', promoted=False, pruned=False)
    assert trained.digest == Digest.of(b"model 1")
    entries = store.audit_entries(0)
    assert verify_lines(as_file(entries[:8]), verifying_key=KEY.verifying_key).size == 8
    assert store.timer_of(OPEN) is None
    assert {(job.control, job.pause) for job in store.jobs()} == {(AS_SUBMITTED, None)}


def use(store: SqlStore) -> None:
    store.note_timer(OPEN, TimerNote("1 sharing", 7.5))
    first = store.models()[0]
    assert store.promote_model(first.digest, AuditEntry(8, b"line"), promoted=True)
    assert store.models()[0] == replace(first, promoted=True)


def test_a_database_of_version_1_is_migrated_after_it_was_copied(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    with closing(opened(path)) as store:
        check_content(store)
        use(store)
    assert found_version(path) == SCHEMA_VERSION
    copy = copy_of(path)
    assert found_version(copy) == 1
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    taken = copy.stat()
    with closing(opened(path)) as store:
        assert store.timer_of(OPEN) == TimerNote("1 sharing", 7.5)
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (taken.st_ino, taken.st_mtime_ns), "once is enough"
    assert sorted(file.name for file in tmp_path.iterdir()) == [DATABASE, f"{DATABASE}.before-v3", f"{DATABASE}.lock"]


def test_every_version_after_the_first_has_a_step() -> None:
    assert list(MIGRATIONS) == list(range(2, SCHEMA_VERSION + 1))


def test_a_new_database_and_a_migrated_one_have_the_same_tables(tmp_path: Path) -> None:
    path, new = version_1(tmp_path), tmp_path / "new.db"
    opened(path).close()
    opened(new).close()
    assert tables(path) == tables(new)


def test_the_copy_is_what_the_first_version_can_go_on_with_and_holds_no_share(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    assert SHARE in path.read_bytes()
    opened(path).close()
    copy = copy_of(path)
    assert SHARE not in copy.read_bytes()
    with closing(sqlite3.connect(copy)) as database:
        kept = database.execute("SELECT number, kind FROM journal ORDER BY seq").fetchall()
        rows = database.execute("SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM jobs)").fetchone()
    assert kept == [(1, "plan"), (1, "ready"), (2, "plan"), *((3, kind) for kind in ("plan", *["contributed"] * 2))]
    assert rows == (8, 3)


def test_what_a_crash_left_of_a_copy_is_replaced(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    copy_of(path).write_bytes(b"of a migration that never came")
    aside = path.with_name(path.name + ".before-v3.new")
    aside.write_bytes(b"half of a copy")
    opened(path).close()
    assert found_version(copy_of(path)) == 1
    assert not aside.exists()


def test_looking_at_the_version_changes_nothing(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    assert schema_of(path) == 1
    assert found_version(path) == 1
    assert not copy_of(path).exists()
    opened(path).close()
    assert schema_of(path) == SCHEMA_VERSION
    with closing(opened(path)), pytest.raises(ConfigError, match="in use by another coordinator"):
        schema_of(path)


class FailingCalls(FileCalls):
    """One call that fails."""

    def __init__(self, call: str) -> None:
        self.call = call

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "call" and name == self.call:

            def fail(*_arguments: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            return fail
        return super().__getattribute__(name)


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "sync_folder"])
def test_a_copy_that_fails_changes_nothing(tmp_path: Path, call: str) -> None:
    path = version_1(tmp_path)
    with pytest.raises(StorageError, match=r"nothing was changed: No space left on device; make room"):
        opened(path, calls=FailingCalls(call))
    assert found_version(path) == 1
    assert not path.with_name(path.name + ".before-v3.new").exists()
    with closing(opened(path)) as store:
        check_content(store)


def test_a_disk_that_is_full_when_the_copy_is_made_changes_nothing(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE jobs SET spec = zeroblob(200000) WHERE seq = 2")
        database.commit()
    with file_size_limit(100_000), pytest.raises(StorageError, match=r"nothing was changed: .*; make room"):
        opened(path)
    assert found_version(path) == 1
    assert [file.name for file in tmp_path.iterdir() if "before" in file.name] == []
    with closing(opened(path)) as store:
        check_content(store)


def failing_commit(error: Callable[[], sqlite3.OperationalError]) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def commit(self) -> None:
            if self.in_transaction:
                raise error()
            super().commit()

    return Connection


def full() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def test_a_disk_that_is_full_when_the_migration_commits_changes_nothing(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    with pytest.raises(StorageError, match=r"migrate the schema of .*: nothing was written: .* full; make room"):
        opened(path, connection_factory=failing_commit(full))
    assert found_version(path) == 1
    with closing(opened(path)) as store:
        check_content(store)


def test_a_migration_of_unknown_fate_ends_the_process(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    factory = failing_commit(lambda: sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(DurabilityUnknown, match="migrate the schema"):
        opened(path, connection_factory=factory)
    with closing(opened(path)) as store:
        check_content(store)


@pytest.mark.cluster
def test_a_migration_killed_at_any_step_leaves_one_version_or_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.migration_crash", str(VERSION_1), str(tmp_path)]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=100, check=False)
    assert (process.returncode, process.stderr) == (0, b"")
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    left = []
    for folder in folders:
        path = folder / DATABASE
        left.append((found_version(path), copy_of(path).exists()))
        if copy_of(path).exists():
            assert found_version(copy_of(path)) == 1, "a copy of that name is whole"
        with closing(opened(path)) as store:
            check_content(store)
            use(store)
        assert found_version(copy_of(path)) == 1
        assert not path.with_name(path.name + ".before-v3.new").exists()
    assert len(folders) > 20
    assert set(left) == {(1, False), (1, True), (SCHEMA_VERSION, True)}, "never the new version without the copy"
