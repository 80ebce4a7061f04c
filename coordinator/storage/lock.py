"""One coordinator for one data folder.

Two coordinators on the same files would each be right by themselves and wrong together: two commits of one round, two
lines with one number in the audit log. The lock is the kernel's (flock), so it goes with the process however it ends.
The lock file itself stays; an empty leftover says nothing.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from shared.errors import ConfigError, DurabilityUnknown, StorageError

LOCK_FILE = "coordinator.lock"  # of a data folder


class ProcessLock:
    """An exclusive lock, held from construction until `close` or the end of the process."""

    def __init__(self, *, path: Path, guards: str) -> None:
        """Raises ConfigError when another process holds it, StorageError when the file cannot be had."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open the lock file {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._fd)
            os.close(self._fd)
            raise ConfigError(
                f"{guards} is in use by another coordinator{holder}: stop that one, "
                "or give this one its own data folder"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise StorageError(f"cannot lock {path} ({error.strerror}): keep {guards} on a local disk") from error
        self._path, self._guards = path, guards
        # For the message above; nothing depends on it, and a full disk is said by whom it matters to.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def require_in_place(self) -> None:
        """Raises DurabilityUnknown when the file under the lock's name is another one, or gone: somebody removed or
        replaced the folder under this process, and nothing that is written there lasts.
        """
        try:
            there = os.path.samestat(os.fstat(self._fd), self._path.stat())
        except OSError:
            there = False
        if not there:
            raise DurabilityUnknown(
                f"{self._guards} was removed or replaced while this process ran: put it back, or restore a backup, "
                "before anything is started on an empty one"
            )

    def close(self) -> None:
        """Let go. Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int) -> str:
    text = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
    return f" (process {text})" if text.isdigit() else ""
