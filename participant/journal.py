"""What this silo promised, in which round: the participant's durable memory.

Small records in one SQLite file of the data folder. Each verb is one transaction, on disk when it returns (WAL with
synchronous=FULL). What is recorded is what a restart may rely on: an accepted plan, a finished update, an announced
attempt, and for each job its specification and the last round that is over. The last two are never forgotten, so that a
job cannot come back with another specification and a round cannot be played again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from participant.consent import JobHistory
from participant.round.phases import SpooledUpdate
from shared.errors import ConfigError, DurabilityUnknown, StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.job import canonical_json
from shared.protocol.messages import AttemptStart, RoundPlan, Sealed
from shared.wire.sealed import decode_envelope, decode_update_header, encode_envelope, encode_update_header, reopen

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (schema_version INTEGER NOT NULL);
CREATE TABLE jobs (
    job TEXT PRIMARY KEY,
    jobspec BLOB NOT NULL,
    finished_round INTEGER NOT NULL,
    state_round INTEGER NOT NULL
);
CREATE TABLE rounds (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    plan BLOB NOT NULL,
    spooled BLOB NOT NULL,
    attempt BLOB NOT NULL,
    PRIMARY KEY (job, round)
);
"""


@dataclass(frozen=True, slots=True)
class OpenRound:
    """A round that is not over here, as recorded."""

    plan: Sealed[RoundPlan]
    update: SpooledUpdate | None
    attempt: Sealed[AttemptStart] | None


class Journal(Protocol):
    """The verbs. Each is durable on return; StorageError: nothing changed; DurabilityUnknown: end the process."""

    def record_plan(self, plan: Sealed[RoundPlan], jobspec: Digest) -> None:
        """A plan that this silo consents to. The same plan again changes nothing."""
        ...

    def record_update(self, key: RoundKey, update: SpooledUpdate) -> None:
        """The update is complete in the spool."""
        ...

    def record_attempt(self, key: RoundKey, attempt: Sealed[AttemptStart]) -> None:
        """The highest attempt that this silo takes part in."""
        ...

    def record_end(self, key: RoundKey, *, keep_state: bool) -> None:
        """The round is over, for good. `keep_state`: the task's state goes on from this round."""
        ...

    def open_rounds(self) -> Sequence[OpenRound]: ...

    def history(self, job: JobId) -> JobHistory | None:
        """None for a job that this silo never consented to."""
        ...

    def state_round(self, job: JobId) -> RoundNumber | None:
        """The round whose task state is the current one; None before the first."""
        ...


class SqliteJournal:
    """The journal in a file."""

    def __init__(self, path: Path) -> None:
        """Opens or creates. Raises ConfigError for a file of a newer version, StorageError for one not readable."""
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._check_schema(path)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"the journal {path} cannot be opened: {error}") from error

    def _check_schema(self, path: Path) -> None:
        tables = self._database.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchall()
        if not tables:
            self._database.executescript(
                f"BEGIN; {_SCHEMA} INSERT INTO meta VALUES ({SCHEMA_VERSION}); COMMIT;"  # noqa: S608 - constants only
            )
        (version,) = self._database.execute("SELECT schema_version FROM meta").fetchone()
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"the journal {path} has schema version {version}, this program knows {SCHEMA_VERSION}: "
                "run the version of Consilo that wrote it"
            )

    def record_plan(self, plan: Sealed[RoundPlan], jobspec: Digest) -> None:
        key = plan.value.key
        with self._transaction() as database:
            database.execute(
                "INSERT INTO jobs VALUES (?, ?, 0, 0) ON CONFLICT (job) DO NOTHING", (key.job, jobspec.raw)
            )
            database.execute(
                "INSERT INTO rounds VALUES (?, ?, ?, x'', x'') ON CONFLICT (job, round) DO NOTHING",
                (key.job, key.number, encode_envelope(plan.envelope)),
            )

    def record_update(self, key: RoundKey, update: SpooledUpdate) -> None:
        self._set(key, "UPDATE rounds SET spooled = ? WHERE job = ? AND round = ?", encode_spooled(update))

    def record_attempt(self, key: RoundKey, attempt: Sealed[AttemptStart]) -> None:
        self._set(key, "UPDATE rounds SET attempt = ? WHERE job = ? AND round = ?", encode_envelope(attempt.envelope))

    def _set(self, key: RoundKey, statement: str, value: bytes) -> None:
        with self._transaction() as database:
            if database.execute(statement, (value, key.job, key.number)).rowcount != 1:
                raise RuntimeError(f"round {key} is not open in the journal")

    def record_end(self, key: RoundKey, *, keep_state: bool) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM rounds WHERE job = ? AND round = ?", (key.job, key.number))
            database.execute(
                "UPDATE jobs SET finished_round = max(finished_round, ?) WHERE job = ?", (key.number, key.job)
            )
            if keep_state:
                database.execute("UPDATE jobs SET state_round = ? WHERE job = ?", (key.number, key.job))

    def open_rounds(self) -> Sequence[OpenRound]:
        rows = self._read("SELECT plan, spooled, attempt FROM rounds ORDER BY job, round")
        return [
            OpenRound(
                reopen(RoundPlan, decode_envelope(plan)),
                decode_spooled(spooled) if spooled else None,
                reopen(AttemptStart, decode_envelope(attempt)) if attempt else None,
            )
            for plan, spooled, attempt in rows
        ]

    def history(self, job: JobId) -> JobHistory | None:
        rows = self._read("SELECT jobspec, finished_round FROM jobs WHERE job = ?", job)
        return JobHistory(Digest(rows[0][0]), rows[0][1]) if rows else None

    def state_round(self, job: JobId) -> RoundNumber | None:
        rows = self._read("SELECT state_round FROM jobs WHERE job = ? AND state_round > 0", job)
        return RoundNumber(rows[0][0]) if rows else None

    def close(self) -> None:
        self._database.close()

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be read: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
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


def encode_spooled(update: SpooledUpdate) -> bytes:
    """Canonical JSON; floats survive exactly."""
    header = encode_update_header(update.header).hex()
    return canonical_json({"header": header, "statistics": update.statistics, "parameters": update.parameters})


def decode_spooled(data: bytes) -> SpooledUpdate:
    body = json.loads(data)
    return SpooledUpdate(
        decode_update_header(bytes.fromhex(body["header"])), tuple(body["statistics"]), body["parameters"]
    )
