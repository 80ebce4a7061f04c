"""The SQLite file under the journal: its tables, how it is opened, and one transaction for each write.

WAL with synchronous=FULL: a transaction that ended well is on disk. One that could not begin, or was rolled back, is a
StorageError; of one whose end failed nobody knows, and the process must not go on (DurabilityUnknown).

The file has a name of its own, drawn when it is made, and a generation (`participant.marker`): with these a silo
notices that another journal, or an older copy of this one, lies where this one lay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import ConfigError, DurabilityUnknown, StorageError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0  # a check or a backup may hold the file this long

_SCHEMA = """
CREATE TABLE meta (
    schema_version INTEGER NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL
);
CREATE TABLE jobs (
    job TEXT PRIMARY KEY,
    jobspec BLOB NOT NULL,
    finished_round INTEGER NOT NULL,
    state_round INTEGER NOT NULL,
    misses INTEGER NOT NULL,
    stopped TEXT NOT NULL,
    verified_round INTEGER NOT NULL,
    verified_digest BLOB NOT NULL
);
CREATE TABLE rounds (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    plan BLOB NOT NULL,
    spooled BLOB NOT NULL,
    attempt BLOB NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE cores (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    core BLOB NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE aborts (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE openings (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    task TEXT NOT NULL,
    model BLOB NOT NULL,
    attempt BLOB NOT NULL,
    survivors BLOB NOT NULL,
    names TEXT NOT NULL,
    terms BLOB NOT NULL,
    reply BLOB NOT NULL,
    PRIMARY KEY (job, round, purpose)
);
CREATE INDEX openings_by_total ON openings (task, model);
"""


@dataclass(frozen=True, slots=True)
class JournalName:
    """Which journal this is, and how often it was taken into use."""

    name: str
    generation: int


class JournalFile:
    """The open file."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Opens or creates. Raises ConfigError for a file of a newer version, StorageError for one not readable."""
        try:
            self._database = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=busy_timeout_s
            )
            path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA secure_delete=ON")  # a deleted reply holds shares: nothing of it stays
            self._check_schema(path)
            self.shed_deleted()  # of an end that was committed before a crash, but not yet shed
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"the journal {path} cannot be opened: {error}") from error

    def _check_schema(self, path: Path) -> None:
        tables = self._database.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchall()
        if not tables:
            row = f"INSERT INTO meta VALUES ({SCHEMA_VERSION}, lower(hex(randomblob(16))), 0);"  # noqa: S608 - constants
            self._database.executescript(f"BEGIN; {_SCHEMA} {row} COMMIT;")
        (version,) = self._database.execute("SELECT schema_version FROM meta").fetchone()
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"the journal {path} has schema version {version}, this program knows {SCHEMA_VERSION}: "
                "run the version of Consilo that wrote it"
            )

    def name(self) -> JournalName:
        """Raises StorageError."""
        ((name, generation),) = self.read("SELECT name, generation FROM meta")
        return JournalName(name, generation)

    def set_generation(self, generation: int) -> None:
        """Durable on return. Raises StorageError or DurabilityUnknown."""
        with self.transaction() as database:
            database.execute("UPDATE meta SET generation = ?", (generation,))

    def close(self) -> None:
        self._database.close()

    def shed_deleted(self) -> None:
        """Nothing that was deleted is left in the write-ahead file. Raises StorageError."""
        ((busy, *_),) = self.read("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise StorageError("the journal's write-ahead file cannot be emptied: another process reads it (a backup?)")

    def read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows. Raises StorageError."""
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be read: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """On disk when the block ends well, undone when it does not. Raises StorageError or DurabilityUnknown."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be written: {error}") from error
        try:
            yield self._database
        except sqlite3.Error as error:
            self._database.execute("ROLLBACK")
            raise StorageError(f"the journal cannot be written: {error}") from error
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        try:
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise DurabilityUnknown(f"a write to the journal may or may not be on disk: {error}") from error
