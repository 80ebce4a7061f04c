"""What lies on a disk, by kind: the sizes of files, and how much is free. A look that changes nothing.

Files come and go while somebody looks: what is gone is not counted. Links are not followed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from shared.errors import StorageError

LOOK_EVERY_S = 60.0  # a look reads the size of every file; disks do not fill up faster than somebody can react

K = TypeVar("K", bound=StrEnum)
T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DiskUse(Generic[K]):
    """A data folder at one moment."""

    files: Mapping[K, int]
    """How many of each kind; every kind is there."""
    sizes: Mapping[K, int]
    """How many bytes they have."""
    free: int
    """Bytes that this user can still write on the folder's disk."""
    size: int
    """Bytes of the disk that this user could have, as `df` reckons: without what the file system keeps for others."""


def look_at(folder: Path, kinds: Iterable[K], kind_of: Callable[[str], K]) -> DiskUse[K]:
    """Count what lies in a folder. `kind_of`: by the name, in that folder, of the file or of the folder that has it.

    Raises StorageError: it is not there, or cannot be read.
    """
    files = dict.fromkeys(kinds, 0)
    sizes = dict.fromkeys(files, 0)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = kind_of(entry.name)
                for size in _sizes(entry):
                    files[kind] += 1
                    sizes[kind] += size
        disk = shutil.disk_usage(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be looked through: {error.strerror}") from error
    return DiskUse(files, sizes, disk.free, disk.used + disk.free)


def _sizes(entry: os.DirEntry[str]) -> Iterator[int]:
    """Of a file, or of all files in a folder."""
    try:
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry) as entries:
                for inner in entries:
                    yield from _sizes(inner)
        else:
            yield entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return


async def keep_looking(
    look: Callable[[], T],
    seen: Callable[[T], None],
    *,
    threads: Executor | None = None,
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Look now and again until cancelled, on a thread (None: of the event loop's own). What cannot be seen is logged:
    the disk that it lies on has others who complain.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            seen(await loop.run_in_executor(threads, look))
        except StorageError as error:
            _log.warning("disk_not_looked_at", reason=str(error))
        await asyncio.sleep(every_s)
