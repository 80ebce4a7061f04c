"""The system calls that storage makes and that can fail, and what their failures mean.

A write that failed is `StorageError`: it says how much was needed when the disk is full. A sync that failed is
`DurabilityUnknown`. `FileCalls` is the seam at which tests put failures and deaths.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import DurabilityUnknown, StorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class FileCalls:
    """The operating system."""

    def open(self, path: Path, flags: int, mode: int) -> int:
        return os.open(path, flags, mode)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks where the file system can, so that a full disk is found now; else only set the size."""
        if size > 0 and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in _NO_PREALLOCATION:
                    raise
            else:
                return
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_folder(self, fd: int) -> None:
        os.fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def find(self, folder: Path, pattern: str) -> list[Path]:
        return list(folder.glob(pattern))

    def remove_tree(self, folder: Path) -> None:
        shutil.rmtree(folder)


class Fate:
    """Whether every sync of this process went well. One that failed condemns the process: see `DurabilityUnknown`."""

    def __init__(self) -> None:
        self._unknown = False

    def check(self, what: str) -> None:
        """Raises DurabilityUnknown after a failed sync."""
        if self._unknown:
            raise DurabilityUnknown(f"{what}: an earlier sync failed; this process must end")

    @contextmanager
    def syncing(self, what: str) -> Iterator[None]:
        """Turn OSError into DurabilityUnknown, for good."""
        self.check(what)
        try:
            yield
        except OSError as error:
            self._unknown = True
            raise DurabilityUnknown(f"{what} failed, what is on disk is unknown: {describe(error)}") from error

    def sync_folder(self, calls: FileCalls, folder: Path) -> None:
        """Make the names in a folder durable. Raises DurabilityUnknown."""
        with self.syncing(f"syncing the folder {folder}"):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                calls.sync_folder(fd)
            finally:
                os.close(fd)


@contextmanager
def writing(what: str, *, needed: int | None = None, folder: Path | None = None) -> Iterator[None]:
    """Turn OSError into StorageError. `needed` bytes were to go below `folder`."""
    try:
        yield
    except OSError as error:
        space = ""
        if needed is not None and folder is not None and error.errno in _FULL:
            space = f": {needed} bytes were needed and {_free_bytes(folder)} are free; make room and try again"
        raise StorageError(f"{what} failed: {describe(error)}{space}") from error


def describe(error: OSError) -> str:
    """The system's words for an error."""
    return error.strerror or type(error).__name__


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
