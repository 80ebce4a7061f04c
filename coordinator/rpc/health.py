"""grpc.health.v1 on the coordinator's own port: what orchestrators, proxies and `consilo coordinator health` ask.

The service `""` is liveness and `consilo.readiness` is readiness (`coordinator.health`). Whoever is on the allow-list
may ask: a status says nothing of anybody's data. `List` is not offered; two names need no listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from coordinator.health import Health
from coordinator.rpc.authorization import Call
from coordinator.rpc.health_messages import (
    LIVENESS,
    NOT_SERVING,
    READINESS,
    SERVICE_UNKNOWN,
    SERVING,
    decode_health_check,
    encode_health,
)
from coordinator.rpc.server import Handlers
from shared.errors import UnknownError

LOOK_S = 5.0  # between two looks of a watch when nothing woke it: liveness ends without a word


class HealthService:
    """Handles Check and Watch."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._watches: set[asyncio.Event] = set()
        self._ended = False
        health.listen(self._changed)

    @property
    def handlers(self) -> Handlers:
        return {"Check": self.check, "Watch": self.watch}

    async def check(self, _call: Call, request: bytes) -> bytes:
        service = decode_health_check(request)
        status = self._status(service)
        if status == SERVICE_UNKNOWN:
            raise UnknownError(f"there is no service {service!r}: ask for {LIVENESS!r} or {READINESS!r}")
        return encode_health(status)

    async def watch(self, call: Call, request: bytes) -> AsyncIterator[bytes]:
        """The status now, and each that it changes to; the last one is that with which this process ends."""
        service, said = decode_health_check(request), None
        woken = asyncio.Event()
        self._watches.add(woken)
        try:
            while True:
                woken.clear()
                call.recheck()
                status = self._status(service)
                if status != said:
                    said = status
                    yield encode_health(status)
                if self._ended:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await woken.wait()
        finally:
            self._watches.discard(woken)

    def end(self) -> None:
        """Let every watch end; one that is cut in the middle leaves a traceback of gRPC's in the log."""
        self._ended = True
        self._wake()

    def _status(self, service: str) -> int:
        if service == LIVENESS:
            return SERVING if self._health.live else NOT_SERVING
        if service == READINESS:
            return SERVING if self._health.readiness.ready else NOT_SERVING
        return SERVICE_UNKNOWN

    def _changed(self) -> None:
        """On any thread."""
        with suppress(RuntimeError):  # the loop is closed: the process is at its end
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for woken in self._watches:
            woken.set()
