"""Whether something still goes on: it beats, and whoever asks, from any thread, hears how long ago that was.

A process whose event loop hangs still has its ports open and its threads running; only what the loop itself does shows
that it does anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BEAT_S = 1.0
ALIVE_S = 30.0  # without a beat for so long it hangs: far beyond a slow disk's worst, soon enough for a supervisor


class Heartbeat:
    """The last sign of one thing."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last = monotonic()

    def beat(self) -> None:
        """It goes on."""
        self._last = self._monotonic()

    @property
    def age_s(self) -> float:
        return self._monotonic() - self._last

    @property
    def alive(self) -> bool:
        return self.age_s < ALIVE_S


async def keep_beating(heartbeat: Heartbeat, lag: Callable[[float], None]) -> None:
    """Beat from the running event loop until cancelled; `lag` is told by how many seconds each beat came late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + BEAT_S
        await asyncio.sleep(BEAT_S)
        heartbeat.beat()
        lag(max(0.0, loop.time() - due))
