"""What a silo's data folder is made of, by kind. `participant.spool` says what each folder has in it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from participant.journal_file import COPY_MARK, JOURNAL_FILE
from participant.sent import BEFORE_SUFFIX, SENT_FILE
from participant.spool import MODELS, ROUNDS, STATES
from shared.disk_use import DiskUse, look_at

TASK_LOGS = "task-logs"
COPY_PREFIX = f"{JOURNAL_FILE}{COPY_MARK}"


class DiskKind(StrEnum):
    """The value is the metric's label."""

    JOURNAL = "journal"
    JOURNAL_LOG = "journal_log"
    """SQLite's write-ahead log and its index: emptied at the end of each round."""
    MODELS = "models"
    SPOOL = "spool"
    STATES = "states"
    TASK_LOGS = "task_logs"
    SENT = "sent"
    """The record of what left the silo."""
    COPIES = "copies"
    """Journals as they were before a newer version brought them up to date."""
    OTHER = "other"


_FOLDERS = {
    MODELS: DiskKind.MODELS,
    ROUNDS: DiskKind.SPOOL,
    STATES: DiskKind.STATES,
    TASK_LOGS: DiskKind.TASK_LOGS,
}


def kind_of(name: str) -> DiskKind:
    """Of a file or a folder in the data folder."""
    if name == JOURNAL_FILE:
        return DiskKind.JOURNAL
    if name in {f"{JOURNAL_FILE}-wal", f"{JOURNAL_FILE}-shm"}:
        return DiskKind.JOURNAL_LOG
    if name in {SENT_FILE, SENT_FILE + BEFORE_SUFFIX}:
        return DiskKind.SENT
    if name.startswith(COPY_PREFIX):
        return DiskKind.COPIES
    return _FOLDERS.get(name, DiskKind.OTHER)


def disk_use(data_dir: Path) -> DiskUse[DiskKind]:
    """Raises StorageError."""
    return look_at(data_dir, DiskKind, kind_of)
