"""A picture of a moment, kept for a second: many readers cost no more than one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from shared.clock import Clock

KEPT_S = 1.0  # people reload by hand, and scripts must not load the owner of the truth
TURN_S = 6.0  # behind somebody whose look takes long: no crowd of threads waits for an owner that is stuck

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Takes what is asked for, one at a time, and answers from what it has for as long as that is fresh. Any thread."""

    def __init__(self, take: Callable[[K], V], *, clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._turn = threading.Lock()
        self._kept: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V:
        """Raises what `take` raises (that is not kept), and TimeoutError where somebody else's look takes too long."""
        if not self._turn.acquire(timeout=TURN_S):
            raise TimeoutError
        try:
            now = self._clock.monotonic()
            self._kept = {known: kept for known, kept in self._kept.items() if now - kept[0] < KEPT_S}
            if key not in self._kept:
                self._kept[key] = (now, self._take(key))
            return self._kept[key][1]
        finally:
            self._turn.release()
