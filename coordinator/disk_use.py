"""What a coordinator's data folder is made of, by kind."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from coordinator.storage.listing import AUDIT_FILE, COPY_PREFIX, DATABASE_FILE
from shared.disk_use import DiskUse, look_at


class DiskKind(StrEnum):
    """The value is the metric's label."""

    MODELS = "models"
    SPOOLS = "spools"
    STAGING = "staging"
    REMOVED = "removed"
    """No longer found by anybody; its bytes are being given back."""
    DATABASE = "database"
    DATABASE_LOG = "database_log"
    """SQLite's write-ahead log and its index: emptied at the end of each round."""
    AUDIT_LOG = "audit_log"
    COPIES = "copies"
    """Databases as they were before a newer version brought them up to date."""
    OTHER = "other"


_FOLDERS = {str(kind): kind for kind in (DiskKind.MODELS, DiskKind.SPOOLS, DiskKind.STAGING, DiskKind.REMOVED)}


def kind_of(name: str) -> DiskKind:
    """Of a file or a folder in the data folder."""
    if name in _FOLDERS:
        return _FOLDERS[name]
    if name == DATABASE_FILE:
        return DiskKind.DATABASE
    if name in {f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"}:
        return DiskKind.DATABASE_LOG
    if name == AUDIT_FILE:
        return DiskKind.AUDIT_LOG
    if name.startswith(COPY_PREFIX):
        return DiskKind.COPIES
    return DiskKind.OTHER


def disk_use(data_dir: Path) -> DiskUse[DiskKind]:
    """Raises StorageError."""
    return look_at(data_dir, DiskKind, kind_of)
