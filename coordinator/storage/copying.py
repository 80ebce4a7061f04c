"""The database of a data folder, copied while its coordinator runs, without what a backup must not hold.

One reading transaction sees the database as it was at one moment; writers go on beside it. Rows are copied, and not
pages: what was deleted, or is left out here, is in no byte of the copy, and never was on the disk that it lies on.

What is left out is what only an open round needs. A round that is open in a backup is never gone on with
(`coordinator.older_copy`), and its journal has shares of silos' secrets in it. Of such a round its plan is kept, by
which it can be ended; of every other round what its journal has, in which there are no shares any more.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from coordinator.storage.database import require_database, require_this_schema
from coordinator.storage.interface import AuditEntry
from shared.durable import sync_path
from shared.errors import ConfigError, StorageError
from shared.ids import Digest

AUDIT_PAGE = 1000  # entries that are held in memory at once
BUSY_TIMEOUT_S = 5.0  # a start or an end of the coordinator may hold the file this long

_KEPT_ROWS = {
    "journal": "kind = :plan OR kind NOT IN (SELECT value FROM json_each(:shares)) AND EXISTS (SELECT * FROM "
    "live.rounds AS known WHERE known.job = journal.job AND known.number = journal.number AND known.outcome <> '')",
    "timers": "0",
}
"""Of these tables only some rows; of every other one all."""


def copy_database(source: Path, target: Path, *, plan: str, shares: Collection[str]) -> None:
    """Copy what a backup may hold to a new file, durably. `plan` and `shares` are kinds of a round's journal.

    Raises ConfigError for a database of another schema than this program's, StorageError.
    """
    require_database(source)
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(target, isolation_level=None, timeout=BUSY_TIMEOUT_S, uri=True)) as database:
            database.execute("PRAGMA journal_mode=OFF")  # a copy that was interrupted is thrown away
            database.execute("PRAGMA synchronous=OFF")  # and one that was not is synced below
            database.execute("ATTACH ? AS live", (f"{source.absolute().as_uri()}?mode=ro",))
            database.execute("BEGIN")
            require_this_schema(source, _version(database, "live"))
            _copy_tables(database, {"plan": plan, "shares": json.dumps(sorted(shares))})
            database.execute("COMMIT")
        sync_path(target)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"the database {source} cannot be copied to {target}: {error}") from error


def _version(database: sqlite3.Connection, schema: str) -> int:
    try:
        (version,) = database.execute(f"SELECT version FROM {schema}.schema_version").fetchone()  # noqa: S608 - ours
    except (sqlite3.Error, TypeError):
        raise ConfigError("expected a Consilo database, found no schema version in it") from None
    return int(version)


def _copy_tables(database: sqlite3.Connection, kinds: dict[str, str]) -> None:
    made = "SELECT type, name, sql FROM live.sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', rowid"
    for kind, name, statement in database.execute(made).fetchall():
        database.execute(statement)
        if kind == "table":
            where = _KEPT_ROWS.get(name, "1")
            copy = f'INSERT INTO main."{name}" SELECT * FROM live."{name}" AS {name} WHERE {where}'  # noqa: S608 - names of our own schema
            database.execute(copy, {key: value for key, value in kinds.items() if f":{key}" in where})


class CopiedDatabase:
    """Reads a copy, and changes nothing of it: not even a file beside it is made."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def models(self) -> Sequence[Digest]:
        """The versions that have a file."""
        rows = self._database.execute("SELECT digest FROM models WHERE pruned = 0 ORDER BY seq")
        return [Digest.parse(digest) for (digest,) in rows]

    def audit_entries(self, start: int) -> Sequence[AuditEntry]:
        """As `Store.audit_entries`."""
        query = "SELECT seq, line FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?"
        return [AuditEntry(seq, line) for seq, line in self._database.execute(query, (start, AUDIT_PAGE))]


@contextmanager
def reading(path: Path) -> Iterator[CopiedDatabase]:
    """Raises StorageError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            yield CopiedDatabase(database)
    except (sqlite3.Error, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
