"""Waiting for a disk that is full, or refuses otherwise: until there is room, or the round's time to train is over.

A StorageError changed nothing and is safe to retry; whoever fills or mounts disks needs minutes or hours, not the
moment in which a round would be given up. So what failed is tried again, and the log says what is needed, once a
minute, for as long as it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.clock import Clock
from shared.errors import StorageError
from shared.ids import RoundKey

log = structlog.get_logger()

T = TypeVar("T")

DISK_RETRY_S = 2.0  # between two tries
DISK_SAID_S = 60.0  # between two lines of the log


class Patience:
    """The patience with the disk that one round's work has."""

    def __init__(self, clock: Clock, key: RoundKey, ends: float, *, retry_s: float = DISK_RETRY_S) -> None:
        """`ends`: when the time is over, on the monotonic clock."""
        self._retry_s = retry_s
        self._clock = clock
        self._key = key
        self._ends = ends
        self._said: float | None = None
        self.refused = ""
        """What the disk said last, while it refuses; else empty."""

    async def through(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again while the disk refuses. Raises StorageError when the time is over."""
        while True:
            try:
                done = await step()
            except StorageError as error:
                if self._clock.monotonic() + self._retry_s >= self._ends:
                    raise
                self.waits(str(error))
                await asyncio.sleep(self._retry_s)
            else:
                self._goes_on()
                return done

    def waits(self, detail: str) -> None:
        """The disk refused once more."""
        self.refused = detail
        now = self._clock.monotonic()
        if self._said is None or now - self._said >= DISK_SAID_S:
            self._said = now
            log.warning(
                "disk_waits", job=self._key.job, round=self._key.number, detail=detail,
                seconds_left=round(self._ends - now), advice="make room on that disk: it is tried again all the time",
            )  # fmt: skip

    def _goes_on(self) -> None:
        if self._said is not None:
            log.info("disk_goes_on", job=self._key.job, round=self._key.number)
            self._said, self.refused = None, ""
