"""What every stream of bulk frames needs: disk work off the event loop, and an end to waiting for a frame.

`Bulk` runs blocking work on the transfer threads. `next_frame` reads from a caller's stream and gives up one that
stalls; what that means (to be resumed, or sent again) is the service's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

from coordinator.rpc.server import Incoming
from shared.errors import FederationError

P = ParamSpec("P")
T = TypeVar("T")


class Bulk:
    """The transfer threads, as handlers see them."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on a transfer thread and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


async def next_frame(frames: Incoming, *, stalled_s: float, error: type[FederationError], advice: str) -> bytes | None:
    """The caller's next frame, or None where it ended its stream.

    After `stalled_s` seconds without one it raises `error`, which says so and ends with `advice`.
    """
    try:
        async with asyncio.timeout(stalled_s):
            return await frames.read()
    except TimeoutError:
        raise error(f"no chunk came for {stalled_s:g} s: {advice}") from None
