"""Giving back the bytes of removed files, on a thread of their own.

Removing a name is quick; freeing the blocks of a file of many gigabytes is not, and rounds must not wait for it. What
is to go was renamed into one folder first, where nobody looks for it. What a process does not get to is there at the
next start, which begins with it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from coordinator.storage.filecalls import FileCalls, describe

_log = structlog.get_logger(__name__)


class Eraser:
    """Erases one file after another."""

    def __init__(self, calls: FileCalls) -> None:
        self._calls = calls
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="erase")

    def erase(self, path: Path) -> None:
        """Some time from now. Never raises: a file that cannot be erased is tried again at the next start."""
        self._thread.submit(self._erase, path)

    def finish(self) -> None:
        """Wait for all that was begun and all that was not. Nothing can be erased after it."""
        self._thread.shutdown(wait=True)

    def close(self) -> None:
        """Leave what was not begun. Calling it again does nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _erase(self, path: Path) -> None:
        try:
            self._calls.unlink(path)
        except OSError as error:
            _log.warning("file_not_erased", path=str(path), reason=describe(error), then="the next start tries again")
