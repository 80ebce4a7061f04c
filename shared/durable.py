"""Making what was written last: the one sync of a path, for files and folders that nobody holds open."""

from __future__ import annotations

import os
from pathlib import Path


def sync_path(path: Path) -> None:
    """A file's bytes, or a folder's names, are on disk on return. Raises OSError, and then nobody knows."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
