"""A small campaign over the real storage that can be killed at every step, and goes on where it was killed.

`python -m tests.support.storage_crash steps FOLDER` runs it once for each step N in a process of its own, which is
killed (SIGKILL) on reaching that step, in FOLDER/N. A step is each moment before and after a system call or a commit.
`python -m tests.support.storage_crash endless FOLDER` runs rounds until somebody kills
it, and says on standard output what it notes.

What a process was told to be durable it notes in FOLDER/acknowledged, a line each.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from coordinator.audit import MESSAGE_TYPE, AuditLog, AuditProjection, resume
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.files import AppendFile, FileBlobs
from coordinator.storage.interface import JobRecord, JournalEntry, ModelRecord, RoundCommit
from coordinator.storage.sql import SqlStore
from shared.clock import SystemClock
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.reasons import JobState, Purpose
from tests.support.audit_log import KEY

JOB = JobId("heart-1")
ADA = ParticipantId("hospital-a")
STEPS_MAX = 400

Step = Callable[[], None]


def update_of(number: int) -> bytes:
    return b"update %d " % number * 100


def shares_of(number: int) -> bytes:
    """What is forgotten with the round."""
    return b"shares of round %d " % number * 400


def model_of(number: int) -> bytes:
    return b"model %d " % number * 100


def attempt_of(number: int) -> AttemptKey:
    return AttemptKey(RoundKey(JOB, RoundNumber(number)), AttemptNumber(1))


class Campaign:
    """One process's view: opens the storage, recovers, and goes on."""

    def __init__(self, folder: Path, *, step: Step = lambda: None, listeners: Sequence[int] = ()) -> None:
        """`listeners` are file descriptors that hear of each acknowledgement."""
        self._acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._listeners = (self._acknowledged, *listeners)
        calls = stepping_calls(step)
        self._open = ExitStack()
        self.blobs = self._open.enter_context(closing(FileBlobs(root=folder / "data", calls=calls)))
        url = f"sqlite:///{folder / 'data' / 'consilo.db'}"
        self.store = self._open.enter_context(closing(SqlStore(url=url, connection_factory=stepping_connection(step))))
        self.log: AuditLog = resume(self.store.audit_entries, sign=partial(KEY.sign, MESSAGE_TYPE), clock=SystemClock())
        self._file = self._open.enter_context(closing(AppendFile(path=folder / "data" / "audit.log", calls=calls)))
        self._projection = AuditProjection(file=self._file)
        self._projection.project(self.store.audit_entries)

    def close(self) -> None:
        self._open.close()
        os.close(self._acknowledged)

    def acknowledge(self, what: str) -> None:
        for listener in self._listeners:
            os.write(listener, what.encode() + b"\n")

    def run(self, rounds: int) -> None:
        entry = self.log.entry("job_submitted", {"job": JOB})
        if self.store.submit_job(JobRecord(JOB, b"spec", "ada", "2026", JobState.QUEUED, ""), entry):
            self.log.accept(entry)
        self.acknowledge("job")
        for number in range(1, rounds + 1):
            self.run_round(number)

    def run_round(self, number: int) -> None:
        key = attempt_of(number).round
        known = {record.key: record for record in self.store.rounds(JOB)}
        if key not in known:
            self.store.open_round(key, Purpose.TRAIN, JournalEntry("plan", b"plan"))
        if key not in known or not known[key].outcome:
            self._receive(number)
            self._commit(number)
        self._projection.project(self.store.audit_entries)
        self.blobs.drop_spools(key)
        self.acknowledge(f"dropped {number}")

    def _receive(self, number: int) -> None:
        with closing(self.blobs.spool(attempt_of(number), ADA)) as spool:
            spool.truncate(0)
            spool.append(memoryview(update_of(number)))
            spool.sync()
        self.acknowledge(f"received {number}")
        self.store.journal(attempt_of(number).round, JournalEntry("uploaded", ADA.encode()))
        self.store.journal(attempt_of(number).round, JournalEntry("shares", shares_of(number)))

    def _commit(self, number: int) -> None:
        content = model_of(number)
        digest = Digest.of(content)
        staged = self.blobs.stage("checkpoint")
        staged.allocate(len(content))
        staged.write_at(0, memoryview(content))
        self.blobs.publish(staged, digest)
        entry = self.log.entry("round_committed", {"job": JOB, "round": number})
        commit = RoundCommit(
            attempt_of(number).round,
            b"summary",
            b"result",
            ModelRecord(digest, b"{}"),
            JobState.RUNNING,
            entry,
            frozenset({"shares"}),
        )
        if self.store.commit_round(commit):
            self.log.accept(entry)
        self.acknowledge(f"committed {number}")


def stepping_calls(step: Step) -> FileCalls:
    """The operating system, with a step before and after each call."""

    class SteppingCalls(FileCalls):
        def __getattribute__(self, name: str) -> Any:
            real = super().__getattribute__(name)

            def stepped(*arguments: Any) -> Any:
                step()
                result = real(*arguments)
                step()
                return result

            return stepped if not name.startswith("_") else real

    return SteppingCalls()


def stepping_connection(step: Step) -> type[sqlite3.Connection]:
    """SQLite, with a step before and after each commit."""

    class SteppingConnection(sqlite3.Connection):
        def commit(self) -> None:
            step()
            super().commit()
            step()

    return SteppingConnection


def die_at(number: int) -> Step:
    """A step that kills this process when it is taken for the `number`-th time."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        if taken == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def main(mode: str, folder: Path) -> None:
    if mode == "endless":
        Campaign(folder, listeners=[sys.stdout.fileno()]).run(1_000_000)
        return
    for number in range(1, STEPS_MAX):
        (folder / str(number)).mkdir()
        child = os.fork()
        if child == 0:
            Campaign(folder / str(number), step=die_at(number)).run(1)
            os._exit(0)
        if os.WIFEXITED(os.waitpid(child, 0)[1]):
            return  # fewer steps than that: it ran to its end, or failed, which its traceback says
    raise SystemExit("the campaign never ends")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
