"""From an older schema to the newest: one function for each version, all of them in one transaction.

Before they run, the database is copied beside itself (`NAME.before-vN`, for version N to come), so that whoever has to
go back to the program of before has its data. The copy is made aside, synced and renamed: a file of that name is whole.
What it has not is shares of members: those leave the disk with their round, which the copy would outlive.

A crash leaves either the old version, and the next start begins again, or the new one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa

from coordinator.storage.filecalls import FileCalls, describe
from coordinator.storage.listing import COPY_MARK
from coordinator.storage.schema import SCHEMA_VERSION, schema_version
from shared.errors import StorageError

_TO_2 = (
    """
    CREATE TABLE timers (
        job VARCHAR NOT NULL, number INTEGER NOT NULL, name VARCHAR NOT NULL, remaining_s FLOAT NOT NULL,
        PRIMARY KEY (job, number), FOREIGN KEY (job, number) REFERENCES rounds (job, number)
    )
    """,
    """
    CREATE TABLE set_backs (
        seq INTEGER NOT NULL, why VARCHAR NOT NULL, lost VARCHAR NOT NULL, ended INTEGER NOT NULL, PRIMARY KEY (seq)
    )
    """,
    "ALTER TABLE models ADD COLUMN promoted INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE models ADD COLUMN pruned INTEGER DEFAULT '0' NOT NULL",
)
_TO_3 = (
    "ALTER TABLE jobs ADD COLUMN control_revision INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE jobs ADD COLUMN control_deadline_s FLOAT",
    "ALTER TABLE jobs ADD COLUMN control_quorum INTEGER",
    "ALTER TABLE jobs ADD COLUMN paused_by VARCHAR",
    "ALTER TABLE jobs ADD COLUMN paused_at VARCHAR",
    "ALTER TABLE jobs ADD COLUMN pause_reason VARCHAR",
)


_SHARES_AND_AFTER = """
    DELETE FROM journal WHERE seq >= (
        SELECT min(shares.seq) FROM journal AS shares
        WHERE shares.job = journal.job AND shares.number = journal.number
        AND shares.kind IN ('shares_fixed', 'shares_revealed')
    )
"""


def _timers_set_backs_and_kept_models(connection: sa.Connection) -> None:
    for statement in _TO_2:
        connection.exec_driver_sql(statement)


def _controls_and_pauses(connection: sa.Connection) -> None:
    for statement in _TO_3:
        connection.exec_driver_sql(statement)


MIGRATIONS: Mapping[int, Callable[[sa.Connection], None]] = {
    2: _timers_set_backs_and_kept_models,
    3: _controls_and_pauses,
}
"""The version that a step makes: the step. One for each version after the first."""


def migrate(connection: sa.Connection, *, found: int) -> None:
    """Every step from `found` to the newest version. Runs inside the caller's transaction."""
    for version in range(found + 1, SCHEMA_VERSION + 1):
        MIGRATIONS[version](connection)
    connection.execute(schema_version.update().values(version=SCHEMA_VERSION))


def copy_path(path: Path) -> Path:
    """Where the database as it was before this version's schema is kept."""
    return path.with_name(f"{path.name}{COPY_MARK}{SCHEMA_VERSION}")


def copy_before_migration(source: sqlite3.Connection, path: Path, calls: FileCalls) -> None:
    """Copy the database to `copy_path`, durably and for this user alone. Raises StorageError."""
    target = copy_path(path)
    aside = target.with_name(target.name + ".new")
    try:
        calls.unlink(aside)
        os.close(calls.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(aside)) as copy:
            source.backup(copy)
            _leave_out_shares(copy)
        _sync(aside, calls.fsync)
        calls.replace(aside, target)
        _sync(target.parent, calls.sync_folder)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            calls.unlink(aside)
        cause = describe(error) if isinstance(error, OSError) else str(error)
        raise StorageError(
            f"{path} cannot be copied to {target}, which comes before its schema is migrated; nothing was changed: "
            f"{cause}; make room and start again"
        ) from error


def _leave_out_shares(copy: sqlite3.Connection) -> None:
    """Shares leave the disk with their round, and nobody would look for them in a copy: each journal in it ends before
    its first entry with shares, as after a crash at that moment.
    """
    copy.execute("PRAGMA journal_mode=MEMORY")  # nor in a journal of SQLite's own
    copy.execute("PRAGMA secure_delete=ON")
    copy.execute(_SHARES_AND_AFTER)
    copy.commit()


def _sync(path: Path, sync: Callable[[int], None]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
