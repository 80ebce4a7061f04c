"""The coordinator's records in a database: SQLAlchemy Core over SQLite.

Each verb is one transaction of `coordinator.storage.database`, which says what *durable*, *deleted* and *nobody knows*
mean; the tables are in `coordinator.storage.schema`. Shares that members sealed and revealed leave with the end of
their round: they are deleted in its transaction, and the write-ahead log is emptied after each round and at each start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from coordinator.storage.database import BUSY_TIMEOUT_S, Database
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.interface import (
    COMMITTED,
    AuditEntry,
    JobRecord,
    JournalEntry,
    ModelRecord,
    RoundAbort,
    RoundCommit,
    RoundRecord,
    SetBack,
    TimerNote,
)
from coordinator.storage.schema import audit_log, jobs, journal, models, rounds, set_backs, timers
from shared.control import JobControl, Pause
from shared.errors import ConflictError, UnknownError
from shared.ids import Digest, JobId, RoundKey, parse_job_id, parse_round_number
from shared.reasons import JobState, Purpose

AUDIT_PAGE = 1000  # what one call of audit_entries returns at most (interface)

_NOTHING_LOST = ""  # set_backs.lost of a restored backup


class SqlStore:
    """A `Store` in a SQLite file."""

    def __init__(
        self,
        *,
        url: str,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        connection_factory: type[sqlite3.Connection] = sqlite3.Connection,
        calls: FileCalls | None = None,
    ) -> None:
        """Open, create when absent, migrate when older: `Database` says what is raised."""
        self._database = Database(
            url=url, busy_timeout_s=busy_timeout_s, connection_factory=connection_factory, calls=calls
        )

    def close(self) -> None:
        """Give the file back. Calling it again does nothing."""
        self._database.close()

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
                    **_control_columns(record.control),
                    **_pause_columns(record.pause),
                )
            )
            _append_audit(connection, audit)
            return True

        return self._database.write("submit_job", work)

    def job(self, job: JobId) -> JobRecord:
        with self._database.read("job") as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.job == job)).one_or_none()
            if row is None:
                raise UnknownError(f"there is no job {job}")
            return _job_record(row)

    def jobs(self) -> Sequence[JobRecord]:
        with self._database.read("jobs") as connection:
            return tuple(_job_record(row) for row in connection.execute(sa.select(jobs).order_by(jobs.c.seq)))

    def set_job_state(self, job: JobId, state: JobState, reason: str, audit: AuditEntry) -> None:
        def work(connection: sa.Connection) -> None:
            _change_job(connection, job, state=state.value, reason=reason)
            _append_audit(connection, audit)

        self._database.write("set_job_state", work)

    def hold_job(self, job: JobId, pause: Pause | None, state: JobState, audit: AuditEntry) -> None:
        def work(connection: sa.Connection) -> None:
            _change_job(connection, job, state=state.value, **_pause_columns(pause))
            _append_audit(connection, audit)

        self._database.write("hold_job", work)

    def control_job(self, job: JobId, control: JobControl, audit: AuditEntry) -> None:
        def work(connection: sa.Connection) -> None:
            _change_job(connection, job, **_control_columns(control))
            _append_audit(connection, audit)

        self._database.write("control_job", work)

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

        self._database.write("open_round", work)

    def journal(self, key: RoundKey, entry: JournalEntry) -> None:
        def work(connection: sa.Connection) -> None:
            outcome, _ = _known_round(connection, key)
            if outcome:
                raise ConflictError(f"round {key} is finished ({outcome}); its journal is closed")
            _append_journal(connection, key, entry)

        self._database.write("journal", work)

    def note_timer(self, key: RoundKey, note: TimerNote) -> None:
        def work(connection: sa.Connection) -> None:
            outcome, _ = _known_round(connection, key)
            if outcome:
                raise ConflictError(f"round {key} is finished ({outcome}); it waits for nothing")
            _forget_timer(connection, key)
            connection.execute(
                timers.insert().values(job=key.job, number=key.number, name=note.name, remaining_s=note.remaining_s)
            )

        self._database.write("note_timer", work)

    def timer_of(self, key: RoundKey) -> TimerNote | None:
        with self._database.read("timer_of") as connection:
            _known_round(connection, key)
            row = connection.execute(sa.select(timers).where(_is_timer_of(key))).one_or_none()
            return None if row is None else TimerNote(name=row.name, remaining_s=row.remaining_s)

    def journal_of(self, key: RoundKey) -> Sequence[JournalEntry]:
        with self._database.read("journal_of") as connection:
            _known_round(connection, key)
            entries = sa.select(journal.c.kind, journal.c.body).where(_in_journal_of(key)).order_by(journal.c.seq)
            return tuple(JournalEntry(kind=row.kind, body=row.body) for row in connection.execute(entries))

    def round(self, key: RoundKey) -> RoundRecord:
        with self._database.read("round") as connection:
            row = connection.execute(sa.select(rounds).where(_is_round(key))).one_or_none()
            if row is None:
                raise UnknownError(f"there is no round {key}")
            return _round_record(row)

    def rounds(self, job: JobId) -> Sequence[RoundRecord]:
        with self._database.read("rounds") as connection:
            rows = connection.execute(sa.select(rounds).where(rounds.c.job == job).order_by(rounds.c.number))
            return tuple(_round_record(row) for row in rows)

    def commit_round(self, commit: RoundCommit) -> bool:
        def work(connection: sa.Connection) -> bool:
            if not _finish_round(connection, COMMITTED, commit):
                return False
            if commit.model is not None:
                _insert_model(connection, commit.model)
            _change_job(connection, commit.key.job, state=commit.job_state.value, reason="")
            _append_audit(connection, commit.audit)
            return True

        committed = self._database.write("commit_round", work)
        self._database.shed_deleted()
        return committed

    def abort_round(self, abort: RoundAbort) -> bool:
        def work(connection: sa.Connection) -> bool:
            if not _finish_round(connection, abort.reason.value, abort):
                return False
            _change_job(connection, abort.key.job, state=abort.job_state.value, reason=abort.job_reason)
            _append_audit(connection, abort.audit)
            return True

        aborted = self._database.write("abort_round", work)
        self._database.shed_deleted()
        return aborted

    def add_model(self, record: ModelRecord, audit: AuditEntry) -> bool:
        def work(connection: sa.Connection) -> bool:
            added = _insert_model(connection, record)
            if added:
                _append_audit(connection, audit)
            return added

        return self._database.write("add_model", work)

    def model(self, digest: Digest) -> ModelRecord:
        with self._database.read("model") as connection:
            return _known_model(connection, digest)

    def models(self) -> Sequence[ModelRecord]:
        with self._database.read("models") as connection:
            return tuple(_model_record(row) for row in connection.execute(sa.select(models).order_by(models.c.seq)))

    def promote_model(self, digest: Digest, audit: AuditEntry, *, promoted: bool) -> bool:
        def work(connection: sa.Connection) -> bool:
            known = _known_model(connection, digest)
            if known.pruned:
                raise ConflictError(f"model {digest} was pruned: its file is no more here")
            if known.promoted is promoted:
                return False
            changed = models.update().where(models.c.digest == str(digest))
            connection.execute(changed.values(promoted=int(promoted)))
            _append_audit(connection, audit)
            return True

        return self._database.write("promote_model", work)

    def prune_models(self, digests: Sequence[Digest], audit: AuditEntry) -> None:
        def work(connection: sa.Connection) -> None:
            for digest in digests:
                if _known_model(connection, digest).promoted:
                    raise ConflictError(f"model {digest} is promoted: it is not pruned")
                connection.execute(models.update().where(models.c.digest == str(digest)).values(pruned=1))
            _append_audit(connection, audit)

        self._database.write("prune_models", work)

    def note_set_back(self, found: SetBack, audit: AuditEntry) -> bool:
        def work(connection: sa.Connection) -> bool:
            lost = _NOTHING_LOST if found.lost is None else str(found.lost)
            known = sa.select(set_backs.c.seq).where(set_backs.c.lost == lost)
            if found.lost is not None and connection.execute(known).first() is not None:
                return False
            connection.execute(set_backs.insert().values(why=found.why, lost=lost, ended=int(found.ended)))
            _append_audit(connection, audit)
            return True

        return self._database.write("note_set_back", work)

    def set_backs(self) -> Sequence[SetBack]:
        with self._database.read("set_backs") as connection:
            rows = connection.execute(sa.select(set_backs).order_by(set_backs.c.seq))
            return tuple(_set_back(row) for row in rows)

    def end_set_backs(self) -> None:
        self._database.write("end_set_backs", lambda connection: connection.execute(set_backs.update().values(ended=1)))

    def append_audit(self, audit: AuditEntry) -> None:
        self._database.write("append_audit", lambda connection: _append_audit(connection, audit))

    def audit_entries(self, start: int) -> Sequence[AuditEntry]:
        with self._database.read("audit_entries") as connection:
            wanted = sa.select(audit_log).where(audit_log.c.seq >= start).order_by(audit_log.c.seq).limit(AUDIT_PAGE)
            return tuple(AuditEntry(seq=row.seq, line=row.line) for row in connection.execute(wanted))


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
        _forget_timer(connection, key)
        return True
    if (known_outcome, known_result) == (outcome, end.result):
        return False
    raise ConflictError(f"round {key} is finished ({known_outcome}); it cannot become {outcome}")


def _change_job(connection: sa.Connection, job: JobId, **columns: object) -> None:
    changed = connection.execute(jobs.update().where(jobs.c.job == job).values(**columns))
    if changed.rowcount != 1:
        raise UnknownError(f"there is no job {job}")


def _control_columns(control: JobControl) -> dict[str, object]:
    return {
        "control_revision": control.revision,
        "control_deadline_s": control.deadline_s,
        "control_quorum": control.quorum,
    }


def _pause_columns(pause: Pause | None) -> dict[str, object]:
    if pause is None:
        return {"paused_by": None, "paused_at": None, "pause_reason": None}
    return {"paused_by": pause.by, "paused_at": pause.at, "pause_reason": pause.reason}


def _insert_model(connection: sa.Connection, record: ModelRecord) -> bool:
    """Whether anything changed: a version that was pruned is whole again, its file was published once more."""
    digest = str(record.digest)
    known = connection.execute(sa.select(models.c.pruned).where(models.c.digest == digest)).one_or_none()
    if known is None:
        connection.execute(models.insert().values(digest=digest, manifest=record.manifest))
    elif known.pruned:
        connection.execute(models.update().where(models.c.digest == digest).values(pruned=0))
    return known is None or bool(known.pruned)


def _known_model(connection: sa.Connection, digest: Digest) -> ModelRecord:
    """Raises UnknownError."""
    row = connection.execute(sa.select(models).where(models.c.digest == str(digest))).one_or_none()
    if row is None:
        raise UnknownError(f"there is no model {digest}")
    return _model_record(row)


def _is_timer_of(key: RoundKey) -> sa.ColumnElement[bool]:
    return (timers.c.job == key.job) & (timers.c.number == key.number)


def _forget_timer(connection: sa.Connection, key: RoundKey) -> None:
    connection.execute(timers.delete().where(_is_timer_of(key)))


def _job_record(row: sa.Row[Any]) -> JobRecord:
    return JobRecord(
        job=parse_job_id(row.job),
        spec=row.spec,
        submitted_by=row.submitted_by,
        submitted_at=row.submitted_at,
        state=JobState(row.state),
        reason=row.reason,
        control=JobControl(row.control_revision, row.control_deadline_s, row.control_quorum),
        pause=None if row.paused_by is None else Pause(row.paused_by, row.paused_at, row.pause_reason),
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
    return ModelRecord(
        digest=Digest.parse(row.digest),
        manifest=row.manifest,
        promoted=bool(row.promoted),
        pruned=bool(row.pruned),
    )


def _set_back(row: sa.Row[Any]) -> SetBack:
    return SetBack(row.why, Digest.parse(row.lost) if row.lost != _NOTHING_LOST else None, ended=bool(row.ended))
