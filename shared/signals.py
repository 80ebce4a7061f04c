"""How a daemon is told to end: the first SIGTERM or SIGINT asks it to, a second one ends it at once.

Neither depends on anything that may hang. What Python does with a signal it does on the main thread, when that gets to
it, and there a disk that does not answer may hold the event loop. So the number of each signal, which the interpreter
writes to a descriptor before anything else, is read by a thread of its own. A second one closes nothing. That is safe
because both daemons are written so that `kill -9` is: what was promised is on disk, and nothing else matters. For the
same reason a daemon that does not come to its end is ended after `LIMIT_S`, with exit code 0 and a line that says so:
whoever supervises it would kill it soon after, and whoever waits for it waits no longer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

LIMIT_S = 7.5  # from the first signal to the end, whatever hangs; service managers are often told ten seconds
LAST_WORDS_S = 0.5  # for the line after that: what hangs may be whoever reads it

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)


def when_told_to_end(asked: Callable[[signal.Signals], None], *, limit_s: float = LIMIT_S) -> None:
    """Call `asked` on the running event loop at the first signal. From the main thread."""
    loop, told = asyncio.get_running_loop(), threading.Event()

    def heard(number: int) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()
        threading.Thread(target=_end_after, args=(limit_s,), name="end", daemon=True).start()
        with suppress(RuntimeError):  # a loop that is closed: the process is at its end already
            loop.call_soon_threadsafe(asked, signal.Signals(number))

    for number in _SIGNALS:
        loop.add_signal_handler(number, heard, number)  # taken back with the loop; the loop itself hears of none
    writer, reader = socket.socketpair()
    writer.settimeout(0)
    threading.Thread(target=_listen, args=(reader, writer, heard), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)  # in place of the loop's


def _listen(reader: socket.socket, _writer: socket.socket, heard: Callable[[int], None]) -> None:
    """Both ends are held here, so that they stay open as long as the process."""
    while numbers := reader.recv(16):
        for number in numbers:
            if number in _SIGNALS:
                heard(number)


def _end_after(limit_s: float) -> None:
    time.sleep(limit_s)
    last = threading.Thread(target=_say_last, args=(limit_s,), daemon=True)
    last.start()
    last.join(LAST_WORDS_S)
    os._exit(0)


def _say_last(after_s: float) -> None:
    _log.warning("ended_with_work_left", after_s=after_s, then="the next start finds out what is on disk")
