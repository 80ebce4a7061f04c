"""One SQLite file: opening it, and transactions on it whose fate is told truly.

*One verb, one transaction.* `write` opens it with BEGIN IMMEDIATE, so that a second writer is met at the start and not
at the commit. What fails before the commit is rolled back: StorageError. So is a commit for which the disk had no room:
SQLite writes the frame that makes a transaction true last, and says `SQLITE_FULL` only when it did not get that far.
Any other commit that fails leaves nobody knowing: DurabilityUnknown, and every later write says the same, because the
truth is found by the next process.

*Durable* means: the write-ahead log was synced before the commit returned (`synchronous=FULL`). The file is this
process's alone (`ProcessLock`); readers, such as a backup, are welcome.

*Deleted* means: gone from the disk. What is deleted is overwritten (`secure_delete`), and the write-ahead log, which
has what was there, is emptied by `shed_deleted`.

*One connection*, made at the start and used by the driver's thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from coordinator.storage.filecalls import FileCalls
from coordinator.storage.lock import ProcessLock
from coordinator.storage.migrations import copy_before_migration, copy_path, migrate
from coordinator.storage.schema import SCHEMA_VERSION, create_schema, schema_version
from shared.errors import ConfigError, DurabilityUnknown, StorageError

BUSY_TIMEOUT_S = 5.0  # a backup may hold the file this long; nobody else writes
SHED_TIMEOUT_S = 0.1  # a backup reads for as long as its disk takes, and the end of each round would wait for it

_REPLACE = "restore a backup of the data folder, or name another data folder"

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Database:
    """An open database of the newest schema."""

    def __init__(
        self,
        *,
        url: str,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        connection_factory: type[sqlite3.Connection] = sqlite3.Connection,
        calls: FileCalls | None = None,
    ) -> None:
        """Open, create when absent, migrate when older. Raises ConfigError: another coordinator, a newer schema, no
        database of ours; StorageError: it cannot be had, or not be migrated, and is as it was.
        """
        path = _sqlite_path(url)
        self._calls = calls if calls is not None else FileCalls()
        self._busy_timeout_s = busy_timeout_s
        self._unknown = False
        lock = ProcessLock(path=path.with_name(path.name + ".lock"), guards=f"the database {path}")
        with ExitStack() as closing:
            closing.callback(lock.close)
            _create_private(path)
            engine = _engine(path, busy_timeout_s, connection_factory)
            closing.callback(engine.dispose)
            self._connection = closing.enter_context(_connect(engine, path))
            self._bring_up_to_date(path)
            self.shed_deleted()  # of rounds that ended just before a crash
            self._closing = closing.pop_all()

    def close(self) -> None:
        """Give the file back. Calling it again does nothing."""
        self._closing.close()

    def write(self, verb: str, work: Callable[[sa.Connection], T]) -> T:
        """One transaction. Raises what `work` raises, StorageError (nothing changed) or DurabilityUnknown."""
        if self._unknown:
            raise DurabilityUnknown(f"{verb}: an earlier write has an unknown fate; this process must end")
        transaction = None
        try:
            transaction = self._connection.begin()
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            result = work(self._connection)
        except SQLAlchemyError as error:
            self._roll_back(transaction)
            raise StorageError(f"{verb}: nothing was written: {_cause(error)}{_remedy(error)}") from error
        except BaseException:
            self._roll_back(transaction)
            raise
        try:
            transaction.commit()
        except SQLAlchemyError as error:
            self._roll_back(transaction)
            self._unknown = not (self._taken_back() and _is_full(error))
            if self._unknown:
                raise DurabilityUnknown(f"{verb}: the commit failed and may be on disk: {_cause(error)}") from error
            raise StorageError(f"{verb}: nothing was written: {_cause(error)}{_remedy(error)}") from error
        return result

    def _taken_back(self) -> bool:
        """Whether a transaction that SQLite did not commit is surely gone; SQLAlchemy takes it for over."""
        try:
            self._driver().rollback()
        except sqlite3.Error:
            return False
        return True

    def _driver(self) -> sqlite3.Connection:
        raw = self._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - `_engine` says which driver
        return raw

    @contextmanager
    def read(self, verb: str) -> Iterator[sa.Connection]:
        """One reading transaction. Raises StorageError, also for a stored value that no parser of ours accepts."""
        transaction = None
        try:
            transaction = self._connection.begin()
            self._connection.exec_driver_sql("BEGIN")
            yield self._connection
        except (SQLAlchemyError, ValueError) as error:
            raise StorageError(f"{verb}: the database cannot be read: {_cause(error)}") from error
        finally:
            self._roll_back(transaction)

    def shed_deleted(self) -> None:
        """Nothing that was deleted stays in the write-ahead log, if nobody else reads; else the next time is in time.

        Best effort: what was written is durable, and a write must not be said to have failed for this. It does not wait
        for who reads: the driver's thread has other rounds.
        """
        self._wait_for_others(min(SHED_TIMEOUT_S, self._busy_timeout_s))
        try:
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
            self._connection.rollback()  # SQLAlchemy's own transaction; SQLite has none
        except SQLAlchemyError:
            self._roll_back(self._connection.get_transaction())
        finally:
            self._wait_for_others(self._busy_timeout_s)

    def _wait_for_others(self, at_most_s: float) -> None:
        self._driver().execute(f"PRAGMA busy_timeout = {round(1000 * at_most_s)}").close()

    def _roll_back(self, transaction: sa.RootTransaction | None) -> None:
        """Best effort: without it the connection is of no more use, and the next verb says so."""
        try:
            if transaction is not None:
                transaction.rollback()
        except SQLAlchemyError:
            self._unknown = True

    def _bring_up_to_date(self, path: Path) -> None:
        found = _found_version(self._connection, path)
        if found is None:
            self.write("create the schema", create_schema)
        elif not 1 <= found <= SCHEMA_VERSION:
            remedy = "install a newer Consilo" if found > SCHEMA_VERSION else "restore a backup of the data folder"
            raise ConfigError(
                f"{path}: expected database schema version {SCHEMA_VERSION} or older, found {found}: {remedy}, "
                "or name another data folder"
            )
        elif found < SCHEMA_VERSION:
            self._migrate(path, found)

    def _migrate(self, path: Path, found: int) -> None:
        copy = copy_path(path)
        copy_before_migration(self._driver(), path, self._calls)
        self._connection.rollback()  # SQLAlchemy's own transaction; SQLite has none
        _log.info("database_copied", database=str(path), schema=found, copy=str(copy))
        self.write(f"migrate the schema of {path}", lambda connection: migrate(connection, found=found))
        _log.info("database_migrated", database=str(path), schema_before=found, schema=SCHEMA_VERSION, copy=str(copy))


class DatabaseBeside(Database):
    """The file of a coordinator that may be running, opened for reading: no lock is taken, and SQLite itself refuses
    every write. Each reading transaction sees the database as it was at one moment, whoever writes meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for one of another schema than this program's, StorageError."""
        self._unknown = False
        with ExitStack() as closing:
            engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, creator=lambda: _opened_to_read(path))
            closing.callback(engine.dispose)
            self._connection = closing.enter_context(_connect(engine, path))
            require_this_schema(path, _found_version(self._connection, path))
            self._closing = closing.pop_all()


def require_database(path: Path) -> None:
    """Raises ConfigError when there is none."""
    if not path.is_file():
        raise ConfigError(f"expected the database {path}, which is not there: has a coordinator run in this folder?")


def require_this_schema(path: Path, found: int | None) -> None:
    """Raises ConfigError for records that a start of this version would change first, or refuse."""
    if found != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {found or 0}, this program works with version {SCHEMA_VERSION}: start the "
            "coordinator of this version once, which brings an older one up to date, or use the program that wrote it"
        )


def schema_of(path: Path) -> int:
    """The schema version of a database that is not in use; nothing is changed. Raises ConfigError, StorageError."""
    lock = ProcessLock(path=path.with_name(path.name + ".lock"), guards=f"the database {path}")
    try:
        engine = _engine(path, BUSY_TIMEOUT_S, sqlite3.Connection)
        with _connect(engine, path) as connection:
            found = _found_version(connection, path)
        engine.dispose()
    finally:
        lock.close()
    return SCHEMA_VERSION if found is None else found  # one without tables is made at the start


def _found_version(connection: sa.Connection, path: Path) -> int | None:
    """None for a database that holds nothing yet."""
    try:
        names = set(sa.inspect(connection).get_table_names())
        if not names:
            return None
        if schema_version.name not in names:
            raise ConfigError(f"expected a Consilo database at {path}, found tables {sorted(names)}: {_REPLACE}")
        found = connection.execute(sa.select(schema_version.c.version)).scalar()
        if found is None:
            raise ConfigError(f"expected a Consilo database at {path}, found one without a schema version: {_REPLACE}")
    except SQLAlchemyError as error:
        raise StorageError(f"the database {path} cannot be read: {_cause(error)}: {_REPLACE}") from error
    finally:
        connection.rollback()  # the reading's own transaction
    return int(found)


def _sqlite_path(url: str) -> Path:
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        raise ConfigError(f"expected a database URL such as sqlite:///consilo.db, got {url!r}") from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:" or parsed.query:
        shown = parsed.render_as_string(hide_password=True)
        raise ConfigError(f"expected sqlite:///PATH (the only database in this version), got {shown!r}")
    return Path(parsed.database)


def _create_private(path: Path) -> None:
    """SQLite would create the file readable for all; its -wal and -shm files take the mode of this one."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"cannot create the database {path}: {error.strerror}") from error


def _engine(path: Path, busy_timeout_s: float, connection_factory: type[sqlite3.Connection]) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.StaticPool,
        connect_args={"timeout": busy_timeout_s, "factory": connection_factory, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # `write` and `read` say BEGIN, nothing else does
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _opened_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)


def _connect(engine: sa.Engine, path: Path) -> sa.Connection:
    try:
        return engine.connect()
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.OperationalError):
            raise StorageError(
                f"the database {path} cannot be opened: {_cause(error)}: see whether its disk is full, or read-only"
            ) from error
        raise ConfigError(f"expected a Consilo database at {path}: {_cause(error)}: {_REPLACE}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"expected a Consilo database at {path}: {error}: {_REPLACE}") from error


def _cause(error: Exception) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def _is_full(error: SQLAlchemyError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None) if isinstance(error, DBAPIError) else None
    return code == sqlite3.SQLITE_FULL


def _remedy(error: SQLAlchemyError) -> str:
    return "; make room and try again" if _is_full(error) else ""
