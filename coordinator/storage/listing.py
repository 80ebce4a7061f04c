"""What lies in a data folder, and the large files by their names and sizes. Nothing is opened and nothing is changed.

A file that storage would not have made is not listed: what it is nobody knows. One that goes meanwhile is not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from coordinator.storage.filecalls import FileCalls, writing
from coordinator.storage.interface import Leftovers, StoredModel, StoredSpool
from coordinator.storage.names import MODEL_SUFFIX, SPOOL_SUFFIX, model_of_name, spool_of_parts

MODELS, SPOOLS, STAGING, REMOVED = "models", "spools", "staging", "removed"  # folders of a data folder
DATABASE_FILE, AUDIT_FILE = "coordinator.db", "audit.log"
COPY_MARK = ".before-v"  # after the database's name, before the version for which it was copied
COPY_PREFIX = f"{DATABASE_FILE}{COPY_MARK}"


def published_in(root: Path, calls: FileCalls) -> Sequence[StoredModel]:
    """As `Blobs.published`. Raises StorageError."""
    found = []
    with writing(f"looking through {root / MODELS}"):
        for path, size in _sizes(calls.find(root / MODELS, f"*{MODEL_SUFFIX}")):
            digest = model_of_name(path.name)
            if digest is not None:
                found.append(StoredModel(digest, size))
    return sorted(found, key=lambda model: str(model.digest))


def spooled_in(root: Path, calls: FileCalls) -> Sequence[StoredSpool]:
    """As `Blobs.spooled`. Raises StorageError."""
    found = []
    with writing(f"looking through {root / SPOOLS}"):
        for path, size in _sizes(calls.find(root / SPOOLS, f"*/*/*/*{SPOOL_SUFFIX}")):
            spool = spool_of_parts(path.relative_to(root / SPOOLS).parts)
            if spool is not None:
                found.append(StoredSpool(*spool, size))
    return sorted(found, key=lambda spool: (spool.key, spool.participant))


def left_over_in(root: Path, calls: FileCalls) -> Leftovers:
    """As `Blobs.leftovers`, for who does not own the folder. Raises StorageError."""
    with writing(f"looking through {root}"):
        sizes = [size for folder in (STAGING, REMOVED) for _, size in _sizes(calls.find(root / folder, "*"))]
    return Leftovers(len(sizes), sum(sizes))


def _sizes(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        try:
            yield path, path.stat().st_size
        except FileNotFoundError:
            continue
