"""How a daemon is told to end: the first SIGTERM or SIGINT asks it to, a second one ends it at once.

The second one does not depend on anything that may hang: it is not handed to the event loop, which may be waiting for a
thread, and it closes nothing. That is safe because both daemons are written so that `kill -9` is: what was promised is
on disk, and nothing else matters. For the same reason a daemon that does not come to its end (a disk that does not
answer) is ended after `LIMIT_S`, with exit code 0 and a line that says so: whoever supervises it would kill it soon
after, and whoever waits for it waits no longer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import structlog

LIMIT_S = 7.5  # from the first signal to the end, whatever hangs; service managers are often told ten seconds

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)


def when_told_to_end(asked: Callable[[signal.Signals], None], *, limit_s: float = LIMIT_S) -> None:
    """Call `asked` on the running event loop at the first signal. From the main thread."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        for each in _SIGNALS:
            signal.signal(each, _end_at_once)  # in place of the loop's: it would wait for the loop
        threading.Thread(target=_end_after, args=(limit_s,), name="end", daemon=True).start()
        asked(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, first, number)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _end_after(limit_s: float) -> None:
    time.sleep(limit_s)
    _log.warning("ended_with_work_left", after_s=limit_s, then="the next start finds out what is on disk")
    os._exit(0)
