"""A link that fails on demand: a TCP proxy between a daemon and the coordinator.

It passes bytes on and looks at none of them, so TLS goes through untouched. An event loop in a thread of its own does
the work; every verb may be called from any thread, and returns when it has taken effect.

    with FaultProxy(("127.0.0.1", port)) as link:
        ...  # the daemon dials link.address
        link.cut()
        link.heal()

What stands for what: `cut` is a cable that is pulled where both ends notice, `reset_connections` a firewall that is
restarted, `stall` a cable that is pulled where neither end notices, `idle_drop_s` a NAT that forgets quiet flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

CHUNK_BYTES = 64 * 1024
# What the kernel may hold of a side that is not read: the less it is, the nearer the counters are to what was sent.
RECEIVE_BUFFER_BYTES = 128 * 1024
# A throttled direction moves in steps of this length, so that a new rate soon takes effect.
STEP_S = 0.02
# Chunks under way in a direction that is delayed: enough that delay alone does not throttle.
CHUNKS_UNDER_WAY = 64
VERB_LIMIT_S = 10.0

_RESET = struct.pack("ii", 1, 0)

T = TypeVar("T")


class FaultProxy:
    """See the module's docstring. `delay_s`, `bytes_per_s` and `idle_drop_s` may be set at any time; None is off."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.idle_drop_s: float | None = None
        self._target = target
        # Bound and never listening: it holds the port while the link is cut, and who dials it is refused.
        self._holder = _bound(0)
        self._port: int = self._holder.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._flows: set[_Flow] = set()
        self._taken = {True: 0, False: 0}
        self._free_at = {True: 0.0, False: 0.0}
        self._strike_at: int | None = None
        self._struck = threading.Event()
        self._striking: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(VERB_LIMIT_S)
        self._loop.close()
        self._holder.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        """What a daemon dials."""
        return f"127.0.0.1:{self._port}"

    @property
    def bytes_to_target(self) -> int:
        """All bytes that were taken from clients so far."""
        return self._taken[True]

    @property
    def bytes_to_client(self) -> int:
        """All bytes that were taken from the target so far."""
        return self._taken[False]

    @property
    def connections(self) -> int:
        return len(self._flows)

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until `heal`. What `cut_after` appointed is taken back."""
        self._do(self._cut())

    def heal(self) -> None:
        """Undo `cut`; of a link that is whole, nothing."""
        self._do(self._listen())

    def reset_connections(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._do(self._reset())

    def stall(self) -> None:
        """Let connections stand, and new ones come about, but pass on nothing until `go_on`."""
        self._do(self._stall())

    def go_on(self) -> None:
        """Undo `stall`: what was held back is passed on."""
        self._do(self._go_on())

    def cut_after(self, bytes_to_target: int) -> threading.Event:
        """Cut when this many more bytes were taken from clients: the event is set when it has happened.

        Of the chunk in which the last of them comes, the rest is thrown away. A second call replaces the first.
        """
        struck = threading.Event()
        self._do(self._arm(bytes_to_target, struck))
        return struck

    # --- in the loop's thread -----------------------------------------------------------------------------------------

    def _do(self, verb: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(verb, self._loop).result(VERB_LIMIT_S)

    async def _listen(self) -> None:
        if self._listener is None:
            listener = _bound(self._port)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._listener = await asyncio.start_server(self._accepted, sock=listener, limit=CHUNK_BYTES)

    async def _cut(self) -> None:
        self._strike_at = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._reset()

    async def _reset(self) -> None:
        tasks = [flow.reset() for flow in self._flows]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next turn

    async def _stall(self) -> None:
        self._flowing.clear()

    async def _go_on(self) -> None:
        self._flowing.set()

    async def _arm(self, more: int, struck: threading.Event) -> None:
        self._strike_at, self._struck = self._taken[True] + more, struck

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = _Flow(reader, writer)
        flow.task = self._loop.create_task(self._serve(flow))
        self._flows.add(flow)

    async def _serve(self, flow: _Flow) -> None:
        try:
            await self._flowing.wait()
            await flow.connect(self._target)
            async with asyncio.TaskGroup() as both:
                for to_target in (True, False):
                    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY)
                    both.create_task(self._take(flow, under_way, to_target=to_target))
                    both.create_task(self._give(flow, under_way, to_target=to_target))
        except* OSError:
            pass  # an end went away: so does the other
        finally:
            self._flows.discard(flow)
            flow.abort()

    async def _take(self, flow: _Flow, under_way: asyncio.Queue[tuple[float, bytes]], *, to_target: bool) -> None:
        reader = flow.reader(to_target=to_target)
        while True:
            await self._flowing.wait()
            rate = self.bytes_per_s
            step = CHUNK_BYTES if rate is None else max(1, min(CHUNK_BYTES, int(rate * STEP_S)))
            try:
                data = await reader.read(step)
            except OSError:
                if flow.is_forgotten(self._loop.time(), self.idle_drop_s):
                    return
                raise
            now = self._loop.time()
            self._taken[to_target] += len(data)
            if flow.is_forgotten(now, self.idle_drop_s):
                if not data:
                    return  # the other side is not told: nobody remembers who that was
                continue
            if to_target and self._strike_at is not None and self._taken[True] >= self._strike_at:
                await under_way.put((now, data[: len(data) - (self._taken[True] - self._strike_at)]))
                await asyncio.shield(self._strike())  # which ends this flow, too
            await under_way.put((now + self.delay_s, data))
            if not data:
                return
            if rate is not None:
                self._free_at[to_target] = max(now, self._free_at[to_target]) + len(data) / rate
                await asyncio.sleep(self._free_at[to_target] - now)

    async def _give(self, flow: _Flow, under_way: asyncio.Queue[tuple[float, bytes]], *, to_target: bool) -> None:
        writer = flow.writer(to_target=to_target)
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._flowing.wait()
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    def _strike(self) -> asyncio.Task[None]:
        async def strike(struck: threading.Event) -> None:
            await asyncio.sleep(0)  # what came before it is passed on
            await self._cut()
            struck.set()

        self._strike_at = None
        self._striking = self._loop.create_task(strike(self._struck))
        return self._striking


class _Flow:
    """One connection of a client and the one to the target that belongs to it."""

    task: asyncio.Task[None]

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client = (reader, writer)
        self._target: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._last_at: float | None = None
        self._forgotten = False

    async def connect(self, target: tuple[str, int]) -> None:
        self._target = await asyncio.open_connection(*target, limit=CHUNK_BYTES)

    def reader(self, *, to_target: bool) -> asyncio.StreamReader:
        assert self._target is not None
        return (self._client if to_target else self._target)[0]

    def writer(self, *, to_target: bool) -> asyncio.StreamWriter:
        assert self._target is not None
        return (self._target if to_target else self._client)[1]

    def is_forgotten(self, now: float, idle_drop_s: float | None) -> bool:
        """Whether nothing passed for so long; once forgotten, forgotten for good."""
        if idle_drop_s is not None and self._last_at is not None and now - self._last_at > idle_drop_s:
            self._forgotten = True
        self._last_at = now
        return self._forgotten

    def reset(self) -> asyncio.Task[None]:
        self.abort()
        self.task.cancel()
        return self.task

    def abort(self) -> None:
        """Both ends see a reset, not an end."""
        for _, writer in filter(None, (self._client, self._target)):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
