"""A budget for what others may make us write: lines about one peer, of one kind, in one minute.

Whoever can be refused can be refused a million times, and each refusal is a line. Without a limit a stranger fills the
disk on which the rounds live. So a line that names a `peer` (or a `participant`) is written at most `LINES_MAX` times a
minute for that peer and event, with at most `TEXT_MAX_CHARS` of each text in it; of alarms, for each `what` (a fixed
name), so that many of a cheap kind hide none of another. The last of them says that more are left out (`more`), and
the first one of a later minute how many were (`left_out`). What was refused is counted by the metrics whatever the log
says.

Lines that name nobody are ours, and all are written. The table of peers is bounded too: identities are as many as an
authority signs, and beyond `PEERS_MAX` they share one budget.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from structlog import DropEvent
from structlog.typing import EventDict, WrappedLogger

LINES_MAX = 60  # a round that goes well has a handful for each member
WINDOW_S = 60.0
TEXT_MAX_CHARS = 2000  # our longest reasons have some hundreds
PEERS_MAX = 4096
OTHERS = "others"
ALARM = "alarm"

Subject = tuple[str, str]


@dataclass(slots=True)
class _Count:
    """Lines of one subject in the window that is open, and those left out that nobody was told of."""

    began: float
    written: int = 0
    left_out: int = 0


class LineBudget:
    """The processor that drops a line which is over the budget. Any thread."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._counts: dict[Subject, _Count] = {}

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        peer = event.get("peer", event.get("participant"))
        if peer is None:
            return event
        with self._lock:
            self._charge(_kind(event), str(peer), event)
        return {key: _cut(value) for key, value in event.items()}

    def _charge(self, kind: str, peer: str, event: EventDict) -> None:
        now = self._monotonic()
        count = self._count_of((kind, peer), now)
        if now - count.began >= WINDOW_S:
            count.began, count.written = now, 0
        if count.written >= LINES_MAX:
            count.left_out += 1
            raise DropEvent
        count.written += 1
        if count.left_out:
            event["left_out"], count.left_out = count.left_out, 0
        if count.written == LINES_MAX:
            event["more"] = f"left out until the {WINDOW_S:g} s are over, and counted"

    def _count_of(self, subject: Subject, now: float) -> _Count:
        count = self._counts.get(subject)
        if count is None and len(self._counts) >= PEERS_MAX:
            self._forget_quiet(now)
            if len(self._counts) >= PEERS_MAX:
                subject = (subject[0], OTHERS)
        return count or self._counts.setdefault(subject, _Count(now))

    def _forget_quiet(self, now: float) -> None:
        """Those whose minute is over. What was left out of theirs is told by nobody then, but the metrics."""
        self._counts = {subject: count for subject, count in self._counts.items() if now - count.began < WINDOW_S}


def _cut(value: object) -> object:
    return value[:TEXT_MAX_CHARS] + "..." if isinstance(value, str) and len(value) > TEXT_MAX_CHARS else value


def _kind(event: EventDict) -> str:
    name = str(event.get("event"))
    return f"{name} {event.get('what')}" if name == ALARM else name
