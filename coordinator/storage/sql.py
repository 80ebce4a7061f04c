"""The coordinator's records in a database: SQLAlchemy Core over SQLite.

*One verb, one transaction.* `_write` opens it with BEGIN IMMEDIATE, so that a second writer is met at the start and not
at the commit. What fails before the commit is rolled back: StorageError. A commit that fails leaves nobody knowing:
DurabilityUnknown, and every later write says the same, because the truth is found by the next process.

*Durable* means: the write-ahead log was synced before the commit returned (`synchronous=FULL`). The database file is
this process's alone (`ProcessLock`); readers, such as a backup, are welcome.

*Deleted* means: gone from the disk. Shares that members sealed and revealed leave with the end of their round: their
pages are overwritten (`secure_delete`), and the write-ahead log, which has what was in them, is emptied after each
round and at each start.

*One connection*, made at the start and used by the driver's thread. It is the only module that knows SQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from coordinator.storage.interface import (
    COMMITTED,
    AuditEntry,
    JobRecord,
    JournalEntry,
    ModelRecord,
    RoundAbort,
    RoundCommit,
    RoundRecord,
)
from coordinator.storage.lock import ProcessLock
from shared.errors import ConfigError, ConflictError, DurabilityUnknown, StorageError, UnknownError
from shared.ids import Digest, JobId, RoundKey, parse_job_id, parse_round_number
from shared.reasons import JobState, Purpose

AUDIT_PAGE = 1000  # what one call of audit_entries returns at most (interface)
BUSY_TIMEOUT_S = 5.0  # a backup may hold the file this long; nobody else writes

SCHEMA_VERSION = 1  # the first; a later one comes with a migration from each before it

T = TypeVar("T")

metadata = sa.MetaData()
schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, nullable=False))
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("job", sa.String, nullable=False, unique=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("submitted_by", sa.String, nullable=False),
    sa.Column("submitted_at", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
)
rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("job", sa.String, sa.ForeignKey("jobs.job"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("summary", sa.LargeBinary, nullable=False),
    sa.Column("result", sa.LargeBinary, nullable=False),
)
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("job", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["job", "number"], ["rounds.job", "rounds.number"]),
    sa.Index("journal_of_round", "job", "number", "seq"),
)
models = sa.Table(
    "models",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("manifest", sa.LargeBinary, nullable=False),
)
audit_log = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("line", sa.LargeBinary, nullable=False),
)


class SqlStore:
    """A `Store` in a SQLite file."""

    def __init__(
        self,
        *,
        url: str,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        connection_factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        """Open, or create when absent. Raises ConfigError: another coordinator, a newer schema, no database of ours."""
        path = _sqlite_path(url)
        self._unknown = False
        self._lock = ProcessLock(path=path.with_name(path.name + ".lock"), guards=f"the database {path}")
        try:
            _create_private(path)
            self._engine = _engine(path, busy_timeout_s, connection_factory)
            self._connection = _connect(self._engine, path)
            self._check_schema(path)
            self._shed_deleted()  # of rounds that ended just before a crash
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Give the file back. Calling it again does nothing."""
        self._connection.close()
        self._engine.dispose()
        self._lock.close()

    def submit_job(self, record: JobRecord, audit: AuditEntry) -> bool:
        def work(connection: sa.Connection) -> bool:
            known = connection.execute(sa.select(jobs.c.spec).where(jobs.c.job == record.job)).one_or_none()
            if known is not None:
                if known.spec != record.spec:
                    raise ConflictError(f"job {record.job} is known with another specification")
                return False
            connection.execute(
                jobs.insert().values(
                    job=record.job,
                    spec=record.spec,
                    submitted_by=record.submitted_by,
                    submitted_at=record.submitted_at,
                    state=record.state.value,
                    reason=record.reason,
                )
            )
            _append_audit(connection, audit)
            return True

        return self._write("submit_job", work)

    def job(self, job: JobId) -> JobRecord:
        with self._read("job") as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.job == job)).one_or_none()
            if row is None:
                raise UnknownError(f"there is no job {job}")
            return _job_record(row)

    def jobs(self) -> Sequence[JobRecord]:
        with self._read("jobs") as connection:
            return tuple(_job_record(row) for row in connection.execute(sa.select(jobs).order_by(jobs.c.seq)))

    def set_job_state(self, job: JobId, state: JobState, reason: str, audit: AuditEntry) -> None:
        def work(connection: sa.Connection) -> None:
            _move_job(connection, job, state, reason)
            _append_audit(connection, audit)

        self._write("set_job_state", work)

    def open_round(self, key: RoundKey, purpose: Purpose, entry: JournalEntry) -> None:
        def work(connection: sa.Connection) -> None:
            if connection.execute(sa.select(jobs.c.seq).where(jobs.c.job == key.job)).one_or_none() is None:
                raise UnknownError(f"there is no job {key.job}")
            if connection.execute(sa.select(rounds.c.outcome).where(_is_round(key))).one_or_none() is not None:
                raise ConflictError(f"round {key} exists")
            connection.execute(
                rounds.insert().values(
                    job=key.job, number=key.number, purpose=purpose.value, outcome="", summary=b"", result=b""
                )
            )
            _append_journal(connection, key, entry)

        self._write("open_round", work)

    def journal(self, key: RoundKey, entry: JournalEntry) -> None:
        def work(connection: sa.Connection) -> None:
            outcome, _ = _known_round(connection, key)
            if outcome:
                raise ConflictError(f"round {key} is finished ({outcome}); its journal is closed")
            _append_journal(connection, key, entry)

        self._write("journal", work)

    def journal_of(self, key: RoundKey) -> Sequence[JournalEntry]:
        with self._read("journal_of") as connection:
            _known_round(connection, key)
            entries = sa.select(journal.c.kind, journal.c.body).where(_in_journal_of(key)).order_by(journal.c.seq)
            return tuple(JournalEntry(kind=row.kind, body=row.body) for row in connection.execute(entries))

    def round(self, key: RoundKey) -> RoundRecord:
        with self._read("round") as connection:
            row = connection.execute(sa.select(rounds).where(_is_round(key))).one_or_none()
            if row is None:
                raise UnknownError(f"there is no round {key}")
            return _round_record(row)

    def rounds(self, job: JobId) -> Sequence[RoundRecord]:
        with self._read("rounds") as connection:
            rows = connection.execute(sa.select(rounds).where(rounds.c.job == job).order_by(rounds.c.number))
            return tuple(_round_record(row) for row in rows)

    def commit_round(self, commit: RoundCommit) -> bool:
        def work(connection: sa.Connection) -> bool:
            if not _finish_round(connection, COMMITTED, commit):
                return False
            if commit.model is not None:
                _insert_model(connection, commit.model)
            _move_job(connection, commit.key.job, commit.job_state, "")
            _append_audit(connection, commit.audit)
            return True

        committed = self._write("commit_round", work)
        self._shed_deleted()
        return committed

    def abort_round(self, abort: RoundAbort) -> bool:
        def work(connection: sa.Connection) -> bool:
            if not _finish_round(connection, abort.reason.value, abort):
                return False
            _move_job(connection, abort.key.job, abort.job_state, abort.job_reason)
            _append_audit(connection, abort.audit)
            return True

        aborted = self._write("abort_round", work)
        self._shed_deleted()
        return aborted

    def add_model(self, record: ModelRecord, audit: AuditEntry) -> bool:
        def work(connection: sa.Connection) -> bool:
            added = _insert_model(connection, record)
            if added:
                _append_audit(connection, audit)
            return added

        return self._write("add_model", work)

    def model(self, digest: Digest) -> ModelRecord:
        with self._read("model") as connection:
            row = connection.execute(sa.select(models).where(models.c.digest == str(digest))).one_or_none()
            if row is None:
                raise UnknownError(f"there is no model {digest}")
            return _model_record(row)

    def models(self) -> Sequence[ModelRecord]:
        with self._read("models") as connection:
            return tuple(_model_record(row) for row in connection.execute(sa.select(models).order_by(models.c.seq)))

    def append_audit(self, audit: AuditEntry) -> None:
        self._write("append_audit", lambda connection: _append_audit(connection, audit))

    def audit_entries(self, start: int) -> Sequence[AuditEntry]:
        with self._read("audit_entries") as connection:
            wanted = sa.select(audit_log).where(audit_log.c.seq >= start).order_by(audit_log.c.seq).limit(AUDIT_PAGE)
            return tuple(AuditEntry(seq=row.seq, line=row.line) for row in connection.execute(wanted))

    def _write(self, verb: str, work: Callable[[sa.Connection], T]) -> T:
        if self._unknown:
            raise DurabilityUnknown(f"{verb}: an earlier write has an unknown fate; this process must end")
        transaction = None
        try:
            transaction = self._connection.begin()
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            result = work(self._connection)
        except SQLAlchemyError as error:
            self._roll_back(transaction)
            raise StorageError(f"{verb}: nothing was written: {_cause(error)}") from error
        except BaseException:
            self._roll_back(transaction)
            raise
        try:
            transaction.commit()
        except SQLAlchemyError as error:
            self._unknown = True
            self._roll_back(transaction)
            raise DurabilityUnknown(f"{verb}: the commit failed and may be on disk: {_cause(error)}") from error
        return result

    def _shed_deleted(self) -> None:
        """Nothing that was deleted stays in the write-ahead log, if nobody else reads; else the next time is in time.

        Best effort: what was written is durable, and a write must not be said to have failed for this.
        """
        try:
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
            self._connection.rollback()  # SQLAlchemy's own transaction; SQLite has none
        except SQLAlchemyError:
            self._roll_back(self._connection.get_transaction())

    @contextmanager
    def _read(self, verb: str) -> Iterator[sa.Connection]:
        transaction = None
        try:
            transaction = self._connection.begin()
            self._connection.exec_driver_sql("BEGIN")
            yield self._connection
        except (SQLAlchemyError, ValueError) as error:  # ValueError: a stored value that no parser of ours accepts
            raise StorageError(f"{verb}: the database cannot be read: {_cause(error)}") from error
        finally:
            self._roll_back(transaction)

    def _roll_back(self, transaction: sa.RootTransaction | None) -> None:
        """Best effort: without it the connection is of no more use, and the next verb says so."""
        try:
            if transaction is not None:
                transaction.rollback()
        except SQLAlchemyError:
            self._unknown = True

    def _check_schema(self, path: Path) -> None:
        try:
            names = set(sa.inspect(self._connection).get_table_names())
            self._connection.rollback()  # the inspection's own transaction
            if not names:
                self._write("create the schema", _create_schema)
                return
            if schema_version.name not in names:
                raise ConfigError(
                    f"expected a Consilo database at {path}, found tables {sorted(names)}: name another file"
                )
            with self._read("schema version") as connection:
                found = connection.execute(sa.select(schema_version.c.version)).scalar_one()
        except SQLAlchemyError as error:
            raise StorageError(f"the database {path} cannot be read: {_cause(error)}") from error
        if found != SCHEMA_VERSION:
            remedy = "install a newer Consilo" if found > SCHEMA_VERSION else "restore a backup of the data folder"
            raise ConfigError(
                f"{path}: expected database schema version {SCHEMA_VERSION}, found {found}: {remedy}, "
                "or name another data folder"
            )


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
        connection.isolation_level = None  # `_write` and `_read` say BEGIN, nothing else does
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _connect(engine: sa.Engine, path: Path) -> sa.Connection:
    try:
        return engine.connect()
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.OperationalError):
            raise StorageError(f"the database {path} cannot be opened: {_cause(error)}") from error
        raise ConfigError(f"expected a Consilo database at {path}: {_cause(error)}; name another file") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"expected a Consilo database at {path}: {error}; name another file") from error


def _create_schema(connection: sa.Connection) -> None:
    metadata.create_all(connection, checkfirst=False)
    connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))


def _cause(error: Exception) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def _append_audit(connection: sa.Connection, entry: AuditEntry) -> None:
    last = connection.execute(sa.select(sa.func.max(audit_log.c.seq))).scalar_one()
    expected = 0 if last is None else last + 1
    if entry.seq != expected:
        raise RuntimeError(f"the audit log goes on with entry {expected}, got entry {entry.seq}")
    connection.execute(audit_log.insert().values(seq=entry.seq, line=entry.line))


def _append_journal(connection: sa.Connection, key: RoundKey, entry: JournalEntry) -> None:
    connection.execute(journal.insert().values(job=key.job, number=key.number, kind=entry.kind, body=entry.body))


def _is_round(key: RoundKey) -> sa.ColumnElement[bool]:
    return (rounds.c.job == key.job) & (rounds.c.number == key.number)


def _in_journal_of(key: RoundKey) -> sa.ColumnElement[bool]:
    return (journal.c.job == key.job) & (journal.c.number == key.number)


def _known_round(connection: sa.Connection, key: RoundKey) -> tuple[str, bytes]:
    """Outcome and result. Raises UnknownError."""
    row = connection.execute(sa.select(rounds.c.outcome, rounds.c.result).where(_is_round(key))).one_or_none()
    if row is None:
        raise UnknownError(f"there is no round {key}")
    return row.outcome, row.result


def _finish_round(connection: sa.Connection, outcome: str, end: RoundCommit | RoundAbort) -> bool:
    key = end.key
    known_outcome, known_result = _known_round(connection, key)
    if not known_outcome:
        ended = rounds.update().where(_is_round(key))
        connection.execute(ended.values(outcome=outcome, summary=end.summary, result=end.result))
        forgotten = journal.c.kind.in_(sorted(end.forgotten))
        connection.execute(journal.delete().where(_in_journal_of(key) & forgotten))
        return True
    if (known_outcome, known_result) == (outcome, end.result):
        return False
    raise ConflictError(f"round {key} is finished ({known_outcome}); it cannot become {outcome}")


def _move_job(connection: sa.Connection, job: JobId, state: JobState, reason: str) -> None:
    moved = connection.execute(jobs.update().where(jobs.c.job == job).values(state=state.value, reason=reason))
    if moved.rowcount != 1:
        raise UnknownError(f"there is no job {job}")


def _insert_model(connection: sa.Connection, record: ModelRecord) -> bool:
    digest = str(record.digest)
    if connection.execute(sa.select(models.c.seq).where(models.c.digest == digest)).one_or_none() is not None:
        return False
    connection.execute(models.insert().values(digest=digest, manifest=record.manifest))
    return True


def _job_record(row: sa.Row[Any]) -> JobRecord:
    return JobRecord(
        job=parse_job_id(row.job),
        spec=row.spec,
        submitted_by=row.submitted_by,
        submitted_at=row.submitted_at,
        state=JobState(row.state),
        reason=row.reason,
    )


def _round_record(row: sa.Row[Any]) -> RoundRecord:
    return RoundRecord(
        key=RoundKey(parse_job_id(row.job), parse_round_number(row.number)),
        purpose=Purpose(row.purpose),
        outcome=row.outcome,
        summary=row.summary,
        result=row.result,
    )


def _model_record(row: sa.Row[Any]) -> ModelRecord:
    return ModelRecord(digest=Digest.parse(row.digest), manifest=row.manifest)
