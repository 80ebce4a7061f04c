"""From an older schema to the newest: one function for each version, all of them in one transaction.

Before they run, the whole database is copied beside itself (`NAME.before-vN`, for version N to come), so that whoever
has to go back to the program of before has its data. The copy is made aside, synced and renamed: a file of that name
is whole. A crash leaves either the old version, and the next start begins again, or the new one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa

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


def _timers_set_backs_and_kept_models(connection: sa.Connection) -> None:
    for statement in _TO_2:
        connection.exec_driver_sql(statement)


MIGRATIONS: Mapping[int, Callable[[sa.Connection], None]] = {2: _timers_set_backs_and_kept_models}
"""The version that a step makes: the step. One for each version after the first."""


def migrate(connection: sa.Connection, *, found: int) -> None:
    """Every step from `found` to the newest version. Runs inside the caller's transaction."""
    for version in range(found + 1, SCHEMA_VERSION + 1):
        MIGRATIONS[version](connection)
    connection.execute(schema_version.update().values(version=SCHEMA_VERSION))


def backup_path(path: Path) -> Path:
    """Where the database as it was before this version's schema is kept."""
    return path.with_name(f"{path.name}.before-v{SCHEMA_VERSION}")


def copy_before_migration(source: sqlite3.Connection, path: Path) -> None:
    """Copy the database whole to `backup_path`, durably and for this user alone. Raises StorageError."""
    target = backup_path(path)
    aside = target.with_name(target.name + ".new")
    try:
        aside.unlink(missing_ok=True)
        os.close(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(aside)) as copy:
            source.backup(copy)
        _sync(aside)
        aside.replace(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StorageError(
            f"the database {path} has to be copied to {target} before its schema is migrated, and the copy failed, "
            f"nothing was changed: {error}; make room and start again"
        ) from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
