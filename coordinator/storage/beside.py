"""The records, read beside the coordinator that they belong to: no lock is taken, and nothing of them is written.

SQLite shows each reading transaction the database as it was at one moment, whoever writes meanwhile. Where no
coordinator runs it may make the two files that go with a write-ahead log, empty: so who reads is the coordinator's own
user, else the next start could not open them.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa

from coordinator.storage.database import BUSY_TIMEOUT_S, Database, connect, found_version
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from shared.errors import ConfigError


class DatabaseBeside(Database):
    """The file, opened for reading: SQLite itself refuses every write."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for one of another schema than this program's, StorageError."""
        self._unknown = False
        with ExitStack() as closing:
            engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, creator=lambda: _opened(path))
            closing.callback(engine.dispose)
            self._connection = closing.enter_context(connect(engine, path))
            found = found_version(self._connection, path)
            if found != SCHEMA_VERSION:
                raise ConfigError(
                    f"{path} has schema version {found or 0}, this program reads version {SCHEMA_VERSION}: start the "
                    "coordinator of this version once, which brings an older one up to date, or use the program that "
                    "wrote it"
                )
            self._closing = closing.pop_all()


class RecordsBeside(SqlStore):
    """The reading verbs of a `Store`."""

    def __init__(self, path: Path) -> None:
        """As `DatabaseBeside`."""
        self._database = DatabaseBeside(path)


def _opened(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
