"""What this silo promised, in which round: the participant's durable memory.

Small records in one SQLite file of the data folder. Each verb is one transaction, on disk when it returns
(`participant.journal_file`). What is recorded is what a restart may rely on, and what must never happen twice:

* of an open round: its accepted plan, the finished update, the highest attempt taken part in. Gone at its end.
* of a job: its specification, the last round that is over, the task's state, how often an update did not fit, the last
  result that was verified (with the coordinator's signature: its *head*), which rounds were said to be aborted, whether
  this silo stopped it for itself, and whether a person allowed it to repeat a total. Never forgotten, so that a job
  cannot come back with another specification and a round cannot be played again.
* of a masked round: its core (what all its attempts have in common), and the one total that this silo helped to open.
  Never forgotten: a second total of one round, or of one model, would give an update away by subtraction. The exact
  reply is kept until the round's end, because after a crash these bytes and no others may be said again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from participant.consent import JobHistory, VerifiedResult
from participant.journal_file import JournalFile, JournalName
from participant.journal_records import decode_names, decode_spooled, encode_names, encode_spooled
from participant.round.checks import verified_result
from participant.round.phases import Opening, SpooledUpdate, Total
from shared.errors import ConflictError
from shared.ids import Digest, JobId, RoundKey, RoundNumber, TaskName
from shared.protocol.messages import AttemptStart, Envelope, RoundPlan, RoundResult, Sealed
from shared.reasons import Purpose
from shared.wire.sealed import decode_envelope, encode_envelope, reopen

HEADS_KEPT = 256  # each of another job; a session shows the newest few of them; each may have 100 KiB


@dataclass(frozen=True, slots=True)
class OpenRound:
    """A round that is not over here, as recorded."""

    plan: Sealed[RoundPlan]
    update: SpooledUpdate | None
    attempt: Sealed[AttemptStart] | None
    opening: Opening | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a journal has on record as going on."""

    rounds: tuple[RoundKey, ...]
    jobs: tuple[JobId, ...]
    """Those that this silo has not stopped for itself; whether a job is over nobody tells a silo."""


class Journal(Protocol):
    """The verbs. Each is durable on return; StorageError: nothing changed; DurabilityUnknown: end the process."""

    def record_plan(self, plan: Sealed[RoundPlan], jobspec: Digest) -> None:
        """A plan that this silo consents to. The same plan again changes nothing."""
        ...

    def record_update(self, key: RoundKey, update: SpooledUpdate) -> None:
        """The update is complete in the spool. One that does not fit is a miss of its job, counted once."""
        ...

    def record_attempt(self, key: RoundKey, attempt: Sealed[AttemptStart], core: Digest | None) -> None:
        """The highest attempt that this silo takes part in; with masking also what all attempts at the round have in
        common. Raises ConflictError when the round has another core on record, for ever.
        """
        ...

    def record_opening(self, key: RoundKey, purpose: Purpose, task: TaskName, model: Digest, opening: Opening) -> None:
        """A total that this silo helps to open. The same again changes nothing; raises ConflictError for
        another one, for ever.
        """
        ...

    def totals(self, task: TaskName, model: Digest) -> Sequence[Total]:
        """What this silo helped to open on this model, in any job and for either purpose."""
        ...

    def record_end(
        self, key: RoundKey, *, keep_state: bool, verified: Sealed[RoundResult] | None = None, aborted: bool = False
    ) -> None:
        """The round is over, for good. `keep_state`: the task's state goes on from this round. `verified`: its result,
        which then is the job's last one, and its head. `aborted`: the coordinator said that there is none.
        """
        ...

    def was_aborted(self, key: RoundKey) -> bool:
        """Whether this silo was told so at the round's end."""
        ...

    def heads(self, limit: int) -> Sequence[Envelope]:
        """The last result that was verified in each job, as the coordinator signed it, the newest first: `limit` at
        most, of the `HEADS_KEPT` that are kept. A job whose last one was verified by a version that kept no envelopes
        has none.
        """
        ...

    def allow_repeat(self, job: JobId) -> bool:
        """A person at the silo lets this job open another total on a model of which one was opened. The job need not be
        known yet. False when it was allowed before.
        """
        ...

    def repeat_allowed(self, job: JobId) -> bool: ...

    def stop_job(self, job: JobId, reason: str) -> None:
        """From now on this silo takes no part in the job. The first reason is the one that is kept."""
        ...

    def open_rounds(self) -> Sequence[OpenRound]: ...

    def history(self, job: JobId) -> JobHistory | None:
        """None for a job that this silo never consented to."""
        ...

    def jobs_with(self, jobspec: Digest) -> Sequence[JobId]:
        """The jobs with this specification that this silo consented to."""
        ...

    def jobs_on_record(self) -> int:
        """How many jobs this silo ever consented to."""
        ...

    def state_round(self, job: JobId) -> RoundNumber | None:
        """The round whose task state is the current one; None before the first."""
        ...


class SqliteJournal:
    """The journal in a file."""

    def __init__(
        self,
        path: Path,
        *,
        may_migrate: bool = True,
        on_opening: Callable[[SqliteJournal], None] | None = None,
    ) -> None:
        """Opens, brings up to date or creates, and raises, as `JournalFile`.

        `on_opening` is called after an opening is on record and before `record_opening` returns.
        """
        self._file = JournalFile(path, may_migrate=may_migrate)
        self._on_opening = on_opening

    def name(self) -> JournalName:
        return self._file.name()

    def set_generation(self, generation: int) -> None:
        self._file.set_generation(generation)

    def unfinished(self) -> Unfinished:
        """What `end_everything` would end. Raises StorageError."""
        rounds = self._file.read("SELECT job, round FROM rounds ORDER BY job, round")
        jobs = self._file.read("SELECT job FROM jobs WHERE stopped = '' ORDER BY job")
        return Unfinished(
            tuple(RoundKey(JobId(job), RoundNumber(number)) for job, number in rounds),
            tuple(JobId(job) for (job,) in jobs),
        )

    def end_everything(self, reason: str) -> None:
        """All open rounds are over, for good, all jobs are stopped, and nothing is allowed any more: what was said
        since this copy was made is known to nobody. Raises StorageError or DurabilityUnknown.
        """
        with self._file.transaction() as database:
            database.execute(
                "UPDATE jobs SET stopped = iif(stopped = '', ?, stopped), finished_round = max(finished_round, "
                "coalesce((SELECT max(round) FROM rounds WHERE rounds.job = jobs.job), 0))",
                (reason,),
            )
            database.execute("DELETE FROM rounds")
            database.execute("UPDATE openings SET reply = x''")
            database.execute("DELETE FROM allowances")
        self._file.shed_deleted()

    def allowances(self) -> Sequence[JobId]:
        """The jobs that a person lets open another total on a model. Raises StorageError."""
        return [JobId(job) for (job,) in self._file.read("SELECT job FROM allowances ORDER BY job")]

    def forbid_repeat(self, job: JobId) -> bool:
        """Take `allow_repeat` back; what was opened meanwhile stays so. False when it was not allowed."""
        with self._file.transaction() as database:
            return database.execute("DELETE FROM allowances WHERE job = ?", (job,)).rowcount == 1

    def newest_jobs(self, limit: int) -> Sequence[tuple[JobId, JobHistory]]:
        """Jobs that this silo consented to, the last one first. Raises StorageError."""
        rows = self._file.read("SELECT job FROM jobs ORDER BY rowid DESC LIMIT ?", limit)
        found = [(JobId(job), self.history(JobId(job))) for (job,) in rows]
        return [(job, history) for job, history in found if history is not None]

    def close(self) -> None:
        self._file.close()

    def record_plan(self, plan: Sealed[RoundPlan], jobspec: Digest) -> None:
        key = plan.value.key
        with self._file.transaction() as database:
            database.execute(
                "INSERT INTO jobs VALUES (?, ?, 0, 0, 0, '', 0, x'') ON CONFLICT (job) DO NOTHING",
                (key.job, jobspec.raw),
            )
            database.execute(
                "INSERT INTO rounds VALUES (?, ?, ?, x'', x'') ON CONFLICT (job, round) DO NOTHING",
                (key.job, key.number, encode_envelope(plan.envelope)),
            )

    def record_update(self, key: RoundKey, update: SpooledUpdate) -> None:
        with self._file.transaction() as database:
            if not update.fits:
                database.execute(
                    "UPDATE jobs SET misses = misses + 1 WHERE job = ?1 AND EXISTS "
                    "(SELECT * FROM rounds WHERE job = ?1 AND round = ?2 AND spooled = x'')",
                    (key.job, key.number),
                )
            _set(database, key, "UPDATE rounds SET spooled = ? WHERE job = ? AND round = ?", encode_spooled(update))

    def record_attempt(self, key: RoundKey, attempt: Sealed[AttemptStart], core: Digest | None) -> None:
        with self._file.transaction() as database:
            if core is not None:
                _keep_core(database, key, core)
            said = encode_envelope(attempt.envelope)
            _set(database, key, "UPDATE rounds SET attempt = ? WHERE job = ? AND round = ?", said)

    def record_opening(self, key: RoundKey, purpose: Purpose, task: TaskName, model: Digest, opening: Opening) -> None:
        over = (encode_names(opening.names), opening.terms.raw)
        facts = (task, model.raw, opening.attempt.raw, opening.survivors.raw, *over)
        reply = encode_envelope(opening.reply)
        with self._file.transaction() as database:
            known = database.execute(
                "SELECT task, model, attempt, survivors, names, terms, reply FROM openings "
                "WHERE job = ? AND round = ? AND purpose = ?",
                (key.job, key.number, purpose),
            ).fetchone()
            if known is None:
                place = (key.job, key.number, purpose)
                database.execute("INSERT INTO openings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*place, *facts, reply))
            elif known[:-1] != facts or known[-1] not in {b"", reply}:
                raise ConflictError(f"round {key} was opened before, as another total or in another attempt")
        if self._on_opening is not None:
            self._on_opening(self)

    def totals(self, task: TaskName, model: Digest) -> Sequence[Total]:
        rows = self._file.read(
            "SELECT names, terms FROM openings WHERE task = ? AND model = ? ORDER BY job, round", task, model.raw
        )
        return [Total(decode_names(names), Digest(terms)) for names, terms in rows]

    def record_end(
        self, key: RoundKey, *, keep_state: bool, verified: Sealed[RoundResult] | None = None, aborted: bool = False
    ) -> None:
        with self._file.transaction() as database:
            database.execute("DELETE FROM rounds WHERE job = ? AND round = ?", (key.job, key.number))
            database.execute("UPDATE openings SET reply = x'' WHERE job = ? AND round = ?", (key.job, key.number))
            database.execute(
                "UPDATE jobs SET finished_round = max(finished_round, ?) WHERE job = ?", (key.number, key.job)
            )
            if keep_state:
                database.execute("UPDATE jobs SET state_round = ? WHERE job = ?", (key.number, key.job))
            if verified is not None:
                _keep_head(database, key.job, verified)
            if aborted:
                database.execute("INSERT INTO aborts VALUES (?, ?) ON CONFLICT DO NOTHING", (key.job, key.number))
        self._file.shed_deleted()  # a reply, for one; when this fails, all of it is done again

    def was_aborted(self, key: RoundKey) -> bool:
        return bool(self._file.read("SELECT * FROM aborts WHERE job = ? AND round = ?", key.job, key.number))

    def heads(self, limit: int) -> Sequence[Envelope]:
        rows = self._file.read("SELECT result FROM heads ORDER BY position DESC LIMIT ?", limit)
        return [decode_envelope(result) for (result,) in rows]

    def allow_repeat(self, job: JobId) -> bool:
        with self._file.transaction() as database:
            added = database.execute("INSERT INTO allowances VALUES (?) ON CONFLICT DO NOTHING", (job,)).rowcount
        return added == 1

    def repeat_allowed(self, job: JobId) -> bool:
        return bool(self._file.read("SELECT * FROM allowances WHERE job = ?", job))

    def stop_job(self, job: JobId, reason: str) -> None:
        with self._file.transaction() as database:
            stopped = "UPDATE jobs SET stopped = iif(stopped = '', ?, stopped) WHERE job = ?"
            if database.execute(stopped, (reason, job)).rowcount != 1:
                raise RuntimeError(f"job {job} is not in the journal")

    def open_rounds(self) -> Sequence[OpenRound]:
        rows = self._file.read(
            "SELECT plan, spooled, rounds.attempt, openings.attempt, survivors, names, terms, reply "
            "FROM rounds LEFT JOIN openings USING (job, round) ORDER BY job, round"
        )
        return [
            OpenRound(
                plan=reopen(RoundPlan, decode_envelope(plan)),
                update=decode_spooled(spooled) if spooled else None,
                attempt=reopen(AttemptStart, decode_envelope(attempt)) if attempt else None,
                opening=Opening(
                    Digest(opened), Digest(survivors), decode_names(names), Digest(terms), decode_envelope(reply)
                )
                if reply
                else None,
            )
            for plan, spooled, attempt, opened, survivors, names, terms, reply in rows
        ]

    def history(self, job: JobId) -> JobHistory | None:
        rows = self._file.read(
            "SELECT jobspec, finished_round, stopped, verified_round, verified_digest, misses FROM jobs WHERE job = ?",
            job,
        )
        for jobspec, finished, stopped, number, digest, misses in rows:
            verified = VerifiedResult(number, Digest(digest)) if number else None
            return JobHistory(Digest(jobspec), finished, stopped=stopped, verified=verified, misses=misses)
        return None

    def jobs_with(self, jobspec: Digest) -> Sequence[JobId]:
        return [JobId(job) for (job,) in self._file.read("SELECT job FROM jobs WHERE jobspec = ?", jobspec.raw)]

    def jobs_on_record(self) -> int:
        ((count,),) = self._file.read("SELECT count(*) FROM jobs")
        return int(count)

    def state_round(self, job: JobId) -> RoundNumber | None:
        rows = self._file.read("SELECT state_round FROM jobs WHERE job = ? AND state_round > 0", job)
        return RoundNumber(rows[0][0]) if rows else None


def _set(database: sqlite3.Connection, key: RoundKey, statement: str, value: bytes) -> None:
    if database.execute(statement, (value, key.job, key.number)).rowcount != 1:
        raise RuntimeError(f"round {key} is not open in the journal")


def _keep_core(database: sqlite3.Connection, key: RoundKey, core: Digest) -> None:
    place = (key.job, key.number)
    known = database.execute("SELECT core FROM cores WHERE job = ? AND round = ?", place).fetchone()
    if known is None:
        database.execute("INSERT INTO cores VALUES (?, ?, ?)", (*place, core.raw))
    elif known[0] != core.raw:
        raise ConflictError(f"an attempt at round {key} differs from an earlier one in what all of them share")


def _keep_head(database: sqlite3.Connection, job: JobId, verified: Sealed[RoundResult]) -> None:
    """The job's last verified result, unless a later one is on record."""
    result = verified_result(verified.value, verified.envelope)
    known = database.execute(
        "UPDATE jobs SET verified_round = ?1, verified_digest = ?2 WHERE job = ?3 AND verified_round < ?1",
        (result.number, result.digest.raw, job),
    )
    if known.rowcount == 1:
        database.execute(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, (SELECT coalesce(max(position), 0) + 1 FROM heads))",
            (job, encode_envelope(verified.envelope)),
        )
        database.execute(
            "DELETE FROM heads WHERE job NOT IN (SELECT job FROM heads ORDER BY position DESC LIMIT ?)", (HEADS_KEPT,)
        )
