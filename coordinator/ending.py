"""The ways in which a coordinator's process ends, beside the one where `coordinator.app` comes to its last line.

`end_at_once` is for DurabilityUnknown. A write may or may not be on disk, and a process that goes on, even to close its
files, may acknowledge or write something that contradicts what the disk holds. So it ends without any of that, by
`os._exit`, and whoever supervises it starts it again; that start finds out.
"""

from __future__ import annotations

import os
import threading

import structlog

from shared.busy import CountedThreads
from shared.errors import DurabilityUnknown

_log = structlog.get_logger(__name__)


def end_at_once(error: DurabilityUnknown) -> None:
    """See the module's docstring. Never returns."""
    _log.error("durability_unknown", reason=str(error), then="the next start finds out what is on disk")
    os._exit(1)


def end_of_bug() -> None:
    """The conductor's thread came to an end that nobody foresaw, and said why. Never returns."""
    os._exit(1)


def end_with_threads() -> None:
    """End well, though a thread still works in the data folder: without closing anything. Never returns."""
    os._exit(0)


def shut_down(threads: CountedThreads, *, wait_s: float) -> bool:
    """End a pool, with what was not begun. Whether all of its threads ended in time."""
    ending = threading.Thread(target=threads.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    ending.start()
    ending.join(wait_s)
    return not ending.is_alive()
