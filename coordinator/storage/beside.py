"""The records, read beside the coordinator that they belong to: no lock is taken, and nothing of them is written.

Where no coordinator runs, SQLite may make the two files that go with a write-ahead log, empty: so who reads is the
coordinator's own user, else the next start could not open them.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.storage.database import DatabaseBeside
from coordinator.storage.sql import SqlStore


class RecordsBeside(SqlStore):
    """The reading verbs of a `Store`."""

    def __init__(self, path: Path) -> None:
        """As `DatabaseBeside`."""
        self._database = DatabaseBeside(path)
