"""What is particular to the database: who may open it, what it refuses, how it fails for real."""

from __future__ import annotations

import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator.storage.database import BUSY_TIMEOUT_S
from coordinator.storage.interface import AuditEntry, JobRecord, JournalEntry, RoundAbort
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from shared.errors import ConfigError, DurabilityUnknown, StorageError
from shared.ids import JobId, RoundKey, RoundNumber
from shared.reasons import AbortReason, JobState, Purpose


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def execute(path: Path, statement: str, *parameters: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, parameters)
        connection.commit()


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """A disk that is full: no file of this process grows beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_database_is_durable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "consilo.db"
    store = SqlStore(url=url(path))
    try:
        store.append_audit(AuditEntry(0, b"line"))
        pragma = {
            name: store._database._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
        store._database._connection.rollback()
        assert pragma == {
            "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000, "secure_delete": 1,
        }  # fmt: skip
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    finally:
        store.close()
        store.close()


def test_the_end_of_a_round_does_not_wait_for_who_reads(tmp_path: Path) -> None:
    """A backup, as long as the disk takes that it goes to; the next end finds the log to empty."""
    path = tmp_path / "consilo.db"
    wal = path.with_name("consilo.db-wal")
    with closing(SqlStore(url=url(path))) as store, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM audit").fetchall()
        store.append_audit(AuditEntry(0, b"line"))
        began = time.monotonic()
        store._database.shed_deleted()
        assert time.monotonic() - began < BUSY_TIMEOUT_S / 2
        assert wal.stat().st_size > 0
        reader.execute("COMMIT")
        store._database.shed_deleted()
        assert wal.stat().st_size == 0
        timeout_ms = store._database._connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        assert timeout_ms == 1000 * BUSY_TIMEOUT_S  # as ever for what has to wait


def test_a_second_coordinator_is_refused_and_told_why(tmp_path: Path) -> None:
    path = tmp_path / "consilo.db"
    with closing(SqlStore(url=url(path))), pytest.raises(ConfigError, match=r"in use by another coordinator \(process"):
        SqlStore(url=url(path))
    SqlStore(url=url(path)).close()


@pytest.mark.parametrize(
    ("version", "remedy"), [(SCHEMA_VERSION + 1, "install a newer Consilo"), (0, "restore a backup")]
)
def test_another_schema_version_is_refused(tmp_path: Path, version: int, remedy: str) -> None:
    path = tmp_path / "consilo.db"
    SqlStore(url=url(path)).close()
    execute(path, "UPDATE schema_version SET version = ?", version)
    with pytest.raises(ConfigError, match=f"schema version {SCHEMA_VERSION} or older, found {version}: {remedy}"):
        SqlStore(url=url(path))
    with pytest.raises(ConfigError, match="expected database schema version"):  # and the lock was given back
        SqlStore(url=url(path))


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    execute(path, "CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(ConfigError, match=r"found tables \['recipes'\]"):
        SqlStore(url=url(path))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"not a database at all, whatever its name says " * 50)
    with pytest.raises(ConfigError, match="not a database"):
        SqlStore(url=url(path))


def test_a_folder_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        SqlStore(url=url(tmp_path / "nowhere" / "consilo.db"))


@pytest.mark.parametrize("wrong", ["postgresql://u:secret@h/db", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_only_a_sqlite_file_is_accepted(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected") as caught:
        SqlStore(url=wrong)
    assert "secret" not in str(caught.value)


def test_a_database_held_by_another_writer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "consilo.db"
    with closing(SqlStore(url=url(path), busy_timeout_s=0.01)) as store:
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="locked"):
                store.append_audit(AuditEntry(0, b"line"))
        store.append_audit(AuditEntry(0, b"line"))
        assert len(store.audit_entries(0)) == 1


def test_a_full_disk_never_passes_for_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "consilo.db"
    with closing(SqlStore(url=url(path))) as store:
        store.append_audit(AuditEntry(0, b"line"))
        limit = (tmp_path / "consilo.db-wal").stat().st_size
        with file_size_limit(limit), pytest.raises(DurabilityUnknown, match="append_audit"):
            store.append_audit(AuditEntry(1, b"x" * 100_000))
        with pytest.raises(DurabilityUnknown, match="must end"):
            store.append_audit(AuditEntry(1, b"line"))
    with closing(SqlStore(url=url(path))) as store:
        assert store.audit_entries(0) == (AuditEntry(0, b"line"),)
        store.append_audit(AuditEntry(1, b"line"))


JOB = JobId("heart-1")
FIRST = RoundKey(JOB, RoundNumber(1))
SHARES = b"a share of somebody's seed " * 400  # longer than a page, so that it has pages of its own
END = RoundAbort(
    FIRST, AbortReason.OPERATOR, b"{}", b"result", JobState.ABORTED, "", AuditEntry(1, b"line"), frozenset({"shares"})
)


def with_shares(store: SqlStore) -> None:
    record = JobRecord(JOB, b"spec", "ada", "2026-11-22T10:00:00Z", JobState.RUNNING, "")
    store.submit_job(record, AuditEntry(0, b"line"))
    store.open_round(FIRST, Purpose.TRAIN, JournalEntry("plan", b"plan"))
    store.journal(FIRST, JournalEntry("shares", SHARES))


def files_with_shares(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if b"somebody's seed" in file.read_bytes()]


def test_what_is_forgotten_leaves_the_disk_with_the_end_of_the_round(tmp_path: Path) -> None:
    with closing(SqlStore(url=url(tmp_path / "consilo.db"))) as store:
        with_shares(store)
        assert files_with_shares(tmp_path) != [], "it was there to be found"
        store.abort_round(END)
        assert files_with_shares(tmp_path) == []


def test_what_is_forgotten_leaves_the_disk_at_the_next_start_when_somebody_reads(tmp_path: Path) -> None:
    """A backup that is being made holds the old pages; the round ends all the same."""
    path = tmp_path / "consilo.db"
    store = SqlStore(url=url(path), busy_timeout_s=0.01)
    with_shares(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT * FROM journal").fetchall()
        assert store.abort_round(END)
        assert files_with_shares(tmp_path) != []
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in (path, path.with_name("consilo.db-wal")):
            (killed / file.name).write_bytes(file.read_bytes())
    store.close()
    with closing(SqlStore(url=url(killed / "consilo.db"))) as restarted:
        assert restarted.round(FIRST).outcome == "operator"
        assert files_with_shares(killed) == []


def test_a_stored_value_that_nobody_can_read_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "consilo.db"
    SqlStore(url=url(path)).close()
    execute(path, "INSERT INTO models (digest, manifest) VALUES ('../etc', x'00')")
    with closing(SqlStore(url=url(path))) as store, pytest.raises(StorageError, match="64 lower-case"):
        store.models()
