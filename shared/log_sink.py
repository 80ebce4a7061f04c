"""Standard error as a daemon writes to it: nobody has to read it for the daemon to go on, and to end.

A pipe that is full and that nobody reads blocks a write for ever, and one whose reader is gone refuses it; so does a
disk that is full behind a file. None of that is a reason to hold up a round, or an end that was asked for. So a write
waits for a reader `PATIENCE_S` in each minute altogether, however many lines there are, and what cannot be written then
is lost and counted. The next line that is written says so (`lines_lost`, since the start), and a
metric does.

A line is handed to the kernel before the call that logs it returns, as without this: the last words before a crash are
out. A reader that is only slow gets every line, as long as it is not slower than the patience of a minute.

A terminal says that it has room when it has any, and a write of more than that blocks: for as long as nobody reads, or
until somebody types Ctrl-Q. So a terminal is opened anew, not to block, by its name. The description that others have
of it (a shell, the daemon's own parent) keeps its flags.

What cannot be bounded here is a terminal whose name cannot be opened (another user's, or one of another container), a
file on a disk that does not answer, and what native code (gRPC's own lines) writes by itself. None of them keeps a
daemon from ending (`shared.signals`).
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger
    from typing_extensions import Buffer

PATIENCE_S = 2.0  # in each minute; less than any time limit between daemons, and than a daemon's to end
REFILL_S = 60.0
WAIT_MIN_S = 0.05  # else each of many lines would use up the crumbs that have come back since the one before
_STANDARD_ERROR = 2


class LogSink(io.FileIO):
    """A descriptor to which text is written within a bound, and without an error. Any thread."""

    def __init__(self, descriptor: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_own_of_terminal(descriptor), "w", closefd=False)  # a terminal's: until the process ends
        self._lost = 0  # lines, since the start
        self._told = self._telling = 0  # of those
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._patience_s = PATIENCE_S
        self._looked = monotonic()
        self._cut = False

    def write(self, data: Buffer, /) -> int:
        """All of it, or what goes in time. It is said to be all: nobody could do anything about the rest."""
        text = bytes(data)
        with self._lock:
            if self._cut and not self._written(b"\n"):
                self._cut = False
            rest = text if self._cut else self._written(text)
            if rest:
                self._lost += rest.count(b"\n")
                self._cut = self._cut or len(rest) < len(text)
            else:
                self._told = max(self._told, self._telling)
        return len(text)

    @property
    def lost(self) -> int:
        """How many lines, since the start. Any thread."""
        return self._lost

    def say_lost(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """The processor that says how many lines were lost, in every event until one is written that says it."""
        if self._lost != self._told:
            event["lines_lost"] = self._telling = self._lost
        return event

    def _written(self, rest: bytes) -> bytes:
        """What could not be written."""
        with suppress(OSError):  # the reader is gone, the disk is full, the descriptor was closed
            while rest and self._has_room():
                try:
                    rest = rest[os.write(self.fileno(), rest[: select.PIPE_BUF]) :]
                except BlockingIOError:  # a terminal that another process writes to, or without room for a whole "\r\n"
                    if not self._waited(lambda most_s: time.sleep(min(most_s, WAIT_MIN_S))):
                        break
        return rest

    def _has_room(self) -> bool:
        """Whether as much as PIPE_BUF can be written now without waiting for anybody; of a terminal, whether anything
        can. It waits here, for a while.
        """
        ready = select.poll()
        ready.register(self.fileno(), select.POLLOUT)
        if ready.poll(0):
            return True
        return self._waited(lambda most_s: ready.poll(most_s * 1000)) and bool(ready.poll(0))

    def _waited(self, wait: Callable[[float], object]) -> bool:
        """Wait for at most what is left of the patience. False: there is none left."""
        began = self._monotonic()
        self._patience_s = min(PATIENCE_S, self._patience_s + (began - self._looked) * PATIENCE_S / REFILL_S)
        self._looked = began
        if self._patience_s < WAIT_MIN_S:
            return False
        wait(self._patience_s)
        self._patience_s -= min(self._patience_s, self._monotonic() - began)
        return True


def _own_of_terminal(descriptor: int) -> int:
    """A description of the same terminal that does not block; the descriptor itself where that cannot be had."""
    try:
        return os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return descriptor


def keep_stderr_going() -> None:
    """Put a LogSink under `sys.stderr`, for the rest of the process. Of a daemon, before anything is logged.

    Also what Python itself says (a traceback of a thread, a command's error at its end) goes through it then. Where
    standard error is something else already (a test's) or was closed before the start, nothing is changed.
    """
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        raw = cast("BinaryIO", LogSink(_STANDARD_ERROR))
        sys.stderr = io.TextIOWrapper(raw, "utf-8", errors="backslashreplace", write_through=True)


def sink_of(stream: TextIO) -> LogSink | None:
    """The one under a stream, where there is one."""
    raw: object = getattr(stream, "buffer", None)
    return raw if isinstance(raw, LogSink) else None


def lines_lost() -> int:
    """Of this process's standard error, since the start; 0 where no sink was put under it."""
    sink = None if sys.stderr is None else sink_of(sys.stderr)
    return 0 if sink is None else sink.lost
