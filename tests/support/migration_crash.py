"""The migration of an old database, killed at every step.

`python -m tests.support.migration_crash SQL FOLDER` makes the database of the file SQL in FOLDER/N for each step N and
opens it in a process of its own, which is killed (SIGKILL) on reaching that step. A step is each moment before and
after a system call, a statement, the copy and a commit.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from coordinator.storage.sql import SqlStore
from tests.support.storage_crash import STEPS_MAX, Step, die_at, stepping_calls

DATABASE = "coordinator.db"


def make_database(sql: Path, folder: Path) -> Path:
    """The database of an SQL text, as the program that wrote it left it."""
    path = folder / DATABASE
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.executescript(sql.read_text("utf-8"))
        connection.execute("PRAGMA journal_mode=WAL")
    return path


def stepping_connection(step: Step) -> type[sqlite3.Connection]:
    class SteppingConnection(sqlite3.Connection):
        def cursor(self, *arguments: Any, **options: Any) -> Any:
            step()
            return super().cursor(*arguments, **options)

        def backup(self, *arguments: Any, **options: Any) -> None:
            step()
            super().backup(*arguments, **options)
            step()

        def commit(self) -> None:
            step()
            super().commit()
            step()

    return SteppingConnection


def main(sql: Path, folder: Path) -> None:
    for number in range(1, STEPS_MAX):
        (folder / str(number)).mkdir()
        path = make_database(sql, folder / str(number))
        child = os.fork()
        if child == 0:
            step = die_at(number)
            calls, connection = stepping_calls(step), stepping_connection(step)
            SqlStore(url=f"sqlite:///{path}", connection_factory=connection, calls=calls).close()
            os._exit(0)
        if os.WIFEXITED(os.waitpid(child, 0)[1]):
            return  # fewer steps than that
    raise SystemExit("the migration never ends")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
