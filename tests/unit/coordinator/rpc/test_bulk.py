"""Waiting for a frame ends, and says what to do in the words of the service that waited."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.rpc.bulk import next_frame
from coordinator.rpc.server import Incoming
from shared.errors import FederationError, LateError, UnreachableError


class _Held(Incoming):
    """A caller's stream of these frames; after the last one nothing comes, or the end."""

    def __init__(self, frames: list[bytes], *, ends: bool) -> None:
        self._frames, self._ends = frames, ends

    async def read(self) -> bytes | None:
        if not self._frames and not self._ends:
            await asyncio.Event().wait()
        return self._frames.pop(0) if self._frames else None


def test_frames_come_as_they_are_until_the_end() -> None:
    async def read() -> list[bytes | None]:
        held = _Held([b"one", b""], ends=True)
        return [await next_frame(held, stalled_s=60, error=LateError, advice="again") for _ in range(3)]

    assert asyncio.run(read()) == [b"one", b"", None]


@pytest.mark.parametrize("error", [LateError, UnreachableError])
def test_a_stalled_stream_is_given_up_with_the_services_own_error(error: type[FederationError]) -> None:
    with pytest.raises(error, match=r"no chunk came for 0\.001 s: do this") as caught:
        asyncio.run(next_frame(_Held([], ends=False), stalled_s=0.001, error=error, advice="do this"))
    assert type(caught.value) is error
