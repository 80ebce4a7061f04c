"""The SQLite file under the journal: its tables, how it is opened, and one transaction for each write.

WAL with synchronous=FULL: a transaction that ended well is on disk. One that could not begin, or was rolled back, is a
StorageError; of one whose end failed nobody knows, and the process must not go on (DurabilityUnknown). A full disk is
of the first kind, at the end of a transaction too: what makes it count is written last, so it is not there, and SQLite
has rolled it back.

The file has a name of its own, drawn when it is made, and a generation (`participant.marker`): with these a silo
notices that another journal, or an older copy of this one, lies where this one lay.

A file of an older version is brought to this one's when it is opened, in one transaction, after it was copied to
`<name>.before-v<version>`. The copy is for going back by hand; it is as secret as the journal.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from participant.journal_schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION
from shared.durable import sync_path
from shared.errors import ConfigError, DurabilityUnknown, StorageError

log = structlog.get_logger()

JOURNAL_FILE = "journal.sqlite"  # in the data folder
COPY_MARK = ".before-v"  # after the journal's name, before the version for which it was copied
BUSY_TIMEOUT_S = 5.0  # a check or a backup may hold the file this long

_VERSION = "schema_version"
_REPLACE = (
    "bring it back from a backup of it, or move it away and see `consilo participant confirm-journal --help` before "
    "the daemon is started without it"
)


@dataclass(frozen=True, slots=True)
class JournalName:
    """Which journal this is, and how often it was taken into use."""

    name: str
    generation: int


class OlderJournalError(ConfigError):
    """A journal of an older version, opened by somebody who may not bring it up to date."""


class JournalFile:
    """The open file."""

    def __init__(self, path: Path, *, may_migrate: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Opens, brings up to date or creates. Raises ConfigError for a file of a newer version or of something else,
        StorageError for one that cannot be read or brought up to date, DurabilityUnknown when nobody knows whether it
        was.

        `may_migrate`: who does not hold the data folder must not, since a daemon of the older version may be at work in
        the file; then an older one raises OlderJournalError, and an empty one ConfigError.
        """
        self._may_migrate = may_migrate
        with ExitStack() as opening:
            try:
                self._database = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False, timeout=busy_timeout_s
                )
                opening.callback(self._database.close)
                is_new = self._is_new(path)
                path.chmod(0o600)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.execute("PRAGMA secure_delete=ON")  # a deleted reply holds shares: nothing of it stays
                if is_new:
                    self._create()
                self._check_schema(path)
                self.shed_deleted()  # of an end that was committed before a crash, but not yet shed
            except (OSError, sqlite3.OperationalError) as error:
                raise StorageError(
                    f"the journal {path} cannot be opened: {error}: see whether its disk is full, read-only or failing"
                ) from error
            except sqlite3.Error as error:
                raise StorageError(f"expected this silo's journal at {path}: {error}: {_REPLACE}") from error
            opening.pop_all()

    def _is_new(self, path: Path) -> bool:
        """Whether the tables are to be made. Nothing is written yet, since the file may be somebody else's."""
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master")}
        if "meta" in tables:
            return False
        if tables or not self._may_migrate:
            found = "another database" if tables else "an empty file"
            raise ConfigError(f"expected this silo's journal at {path}, found {found}: {_REPLACE}")
        return True

    def _create(self) -> None:
        row = f"INSERT INTO meta VALUES ({SCHEMA_VERSION}, lower(hex(randomblob(16))), 0);"  # noqa: S608 - constants
        self._database.executescript(f"BEGIN; {SCHEMA} {row} COMMIT;")

    def _check_schema(self, path: Path) -> None:
        version = self._version(path)
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"the journal {path} has schema version {version}, this program knows {SCHEMA_VERSION}: "
                "run the version of Consilo that wrote it, or a newer one"
            )
        if version < SCHEMA_VERSION and not self._may_migrate:
            raise OlderJournalError(
                f"the journal {path} has schema version {version}, this program writes {SCHEMA_VERSION}: "
                "start the daemon of this version first, which brings the journal up to date"
            )
        if version < SCHEMA_VERSION:
            self._migrate(path, version)

    def _version(self, path: Path) -> int:
        columns = {name for _, name, *_ in self._database.execute("PRAGMA table_info(meta)")}
        row = self._database.execute("SELECT schema_version FROM meta").fetchone() if _VERSION in columns else None
        if row is None or not isinstance(row[0], int):
            raise ConfigError(f"expected this silo's journal at {path}, found another database: {_REPLACE}")
        return row[0]

    def _migrate(self, path: Path, version: int) -> None:
        copy = _keep_copy(self._database, path)
        with self.transaction() as database:
            for step in range(version, SCHEMA_VERSION):
                MIGRATIONS[step](database)
            database.execute("UPDATE meta SET schema_version = ?", (SCHEMA_VERSION,))
        log.info(
            "journal_migrated", path=str(path), from_version=version, to_version=SCHEMA_VERSION, copy=str(copy),
            advice="the copy is as it was before, and as secret: delete it once this version is seen to work",
        )  # fmt: skip

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
            self._roll_back()
            raise StorageError(f"the journal cannot be written: {error}") from error
        except BaseException:
            self._roll_back()
            raise
        try:
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise DurabilityUnknown(f"a write to the journal may or may not be on disk: {error}") from error
            self._roll_back()
            raise StorageError(f"the journal cannot be written: {error}; make room in its folder") from error

    def _roll_back(self) -> None:
        if self._database.in_transaction:  # SQLite may have done it by itself
            self._database.execute("ROLLBACK")


def _keep_copy(database: sqlite3.Connection, path: Path) -> Path:
    """The whole journal beside itself, durably, but for the replies that the end of a round deletes: nobody would
    delete them there. Raises StorageError.
    """
    copy = path.with_name(f"{path.name}{COPY_MARK}{SCHEMA_VERSION}")
    fresh = copy.with_name(copy.name + ".new")
    try:
        fresh.unlink(missing_ok=True)  # of a migration that a crash ended
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(fresh, isolation_level=None)) as made:
            database.backup(made)
            made.execute("PRAGMA journal_mode=MEMORY")
            made.execute("PRAGMA secure_delete=ON")
            made.execute("UPDATE openings SET reply = x''")
        sync_path(fresh)
        fresh.replace(copy)
        sync_path(path.parent)
    except (OSError, sqlite3.Error) as error:
        fresh.unlink(missing_ok=True)
        raise StorageError(
            f"the journal {path} is of an older version, and cannot be copied to {copy} before it is brought up to "
            f"date ({error}): make room there, or make the folder writable"
        ) from error
    return copy
