"""The silo's file for what a task prints: two generations, each of LOG_MAX_BYTES at most, whatever the task prints.

    task-logs/<task>.log      what is printed now
    task-logs/<task>.log.1    what was printed before, up to the moment when the first one was full

The task's process writes by itself: nothing is lost between it and the daemon, and nothing that the daemon does waits
for a disk. When a write does not fit any more, the file is renamed, a new one made, and put under the descriptors of
both standard streams, so that what is printed is in one of the two files and never in none. Processes that the task
forked (data loaders) do the same to their own descriptors: of several that find the file full at once one renames it,
and the others follow. What they print in that moment may make the older file longer by as much.

A program that the task starts (`subprocess`) knows nothing of this. It goes on in the file in which it was started:
what it prints after that one has become the older, and then was replaced, is lost, and takes room until the program
ends.

What native code prints to the descriptors by itself goes to the same file, and is counted at the next write that comes
from Python, and at the next command. Only what the disk refuses is lost, and is no error: a task that prints how far it
is must not die of that.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

LOG_MAX_BYTES = 16 << 20  # of a generation, of which there are two: tasks print, and disks fill
LOG_LOST = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})  # what is printed then goes nowhere
ROTATING_LIMIT_S = 1.0  # another thread is at it
STANDARD_STREAMS = ((1, "stdout"), (2, "stderr"))


def older(log: Path) -> Path:
    """The generation before."""
    return log.with_name(log.name + ".1")


def open_log(log: Path, *, wanted: int = 1) -> int:
    """Open for appending, by this user alone: it may quote the silo's data. One in which there is no room for `wanted`
    bytes becomes the older generation. Raises OSError.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(log)
    try:
        while _is_full(descriptor, wanted):
            _rename(descriptor, log)
            fresh = _open(log)
            os.close(descriptor)
            descriptor = fresh
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class LogWriter(io.FileIO):
    """A standard stream that goes to the log; without one, to wherever the descriptor leads."""

    def __init__(self, descriptor: int, log: Path | None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._log = log

    def write(self, data: Buffer, /) -> int:
        rest = memoryview(data).cast("B")
        whole = rest.nbytes
        try:
            while rest and (room := self._room(min(rest.nbytes, LOG_MAX_BYTES))):
                rest = rest[super().write(rest[:room]) :]
        except OSError as error:
            if error.errno not in LOG_LOST:
                raise
        return whole

    def _room(self, wanted: int) -> int:
        """How much of it may be written now: nothing, where the disk refuses a new file."""
        if self._log is None:
            return wanted
        if not _is_full(self.fileno(), wanted) or rotate(self._log, wanted=wanted):
            return wanted  # one look decides: what others print after it makes the file longer, and loses nothing
        return 0 if _is_full(self.fileno(), wanted) else wanted


_rotating = threading.Lock()


def _forget_rotating() -> None:
    """In a child that was forked while a thread was at it: that thread is not there, and would hold it for ever."""
    global _rotating  # noqa: PLW0603 - a lock cannot be renewed in its place
    _rotating = threading.Lock()


os.register_at_fork(after_in_child=_forget_rotating)


def rotate(log: Path, *, wanted: int = 1) -> bool:
    """Go on in a new file when this process's has no room, or in the one that somebody else has begun: whether it did.
    What the disk refuses is tried again at the next write.
    """
    rotating = _rotating
    if not rotating.acquire(timeout=ROTATING_LIMIT_S):
        return False
    try:
        fresh = open_log(log, wanted=wanted)
        try:
            for descriptor, _ in STANDARD_STREAMS:
                os.dup2(fresh, descriptor)
        finally:
            os.close(fresh)
    except OSError:
        return False
    else:
        return True
    finally:
        rotating.release()


def rotate_if_full(log: Path) -> None:
    """Between two commands: what native code printed counts as well."""
    with suppress(OSError):
        if any(_is_full(descriptor, 1) for descriptor, _ in STANDARD_STREAMS):
            rotate(log)


def print_to(log: Path | None) -> None:
    """Make `sys.stdout` and `sys.stderr` streams that a full disk does not stop, and that keep the log short."""
    for descriptor, name in STANDARD_STREAMS:
        raw = LogWriter(descriptor, log)
        stream = io.TextIOWrapper(cast("BinaryIO", raw), "utf-8", errors="backslashreplace", write_through=True)
        setattr(sys, name, stream)


def _is_full(descriptor: int, wanted: int) -> bool:
    """An empty file never is."""
    taken = os.fstat(descriptor).st_size
    return bool(taken) and taken + wanted > LOG_MAX_BYTES


def _open(log: Path) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _rename(descriptor: int, log: Path) -> None:
    """Make this file the older generation, unless another process has done it: the lock is that of the file."""
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):  # renamed, and the next one is not there yet
        if os.path.samestat(os.fstat(descriptor), log.stat()):
            log.replace(older(log))
