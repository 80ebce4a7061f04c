"""An HTTP proxy for CONNECT, as stands between a hospital's network and the rest; and what such proxies do wrong.

    with ConnectProxy() as proxy:
        ...  # the daemon's environment has https_proxy = proxy.url

An event loop in a thread of its own does the work. How a proxy behaves is its `Manner`; one that inspects TLS ends it
with a certificate of its own authority, as appliances do.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HEAD_MAX_BYTES = 16 * 1024
PIECE_BYTES = 64 * 1024
STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Manner:
    """How a proxy behaves; as it stands here, well."""

    status: int = 200
    """What it answers to CONNECT: 200 when it could connect, else 502."""
    credentials: str | None = None
    """user:password, without which it answers 407; bytes that are no UTF-8 as `surrogateescape` has them."""
    silent: bool = False
    """It takes the request and says nothing."""
    rude: bool = False
    """It hangs up instead of an answer."""
    answer: bytes | None = None
    """Said in place of all that."""
    inspects_with: tuple[Path, Path] | None = None
    """Certificate and key with which it ends the TLS that goes through it."""
    idle_s: float | None = None
    """A tunnel through which nothing went for so long is closed."""


class ConnectProxy:
    """Listens on loopback from `with` to its end. `targets` are what CONNECT asked for, in order."""

    def __init__(self, manner: Manner = Manner()) -> None:
        self.manner = manner
        self.targets: list[str] = []
        self.tunnelled_bytes = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="connect-proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """What stands in https_proxy."""
        known = f"{self.manner.credentials}@" if self.manner.credentials else ""
        return f"http://{known}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(STOP_LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(STOP_LIMIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_LIMIT_S)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=HEAD_MAX_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        manner = self.manner
        method, target, *_ = head.split(" ", 2)
        self.targets.append(target)
        if manner.silent:
            await asyncio.Event().wait()
        if manner.rude:
            return
        if manner.answer is not None:
            writer.write(manner.answer)
            await writer.drain()
            return
        known = (manner.credentials or "").encode(errors="surrogateescape")
        wanted = known and f"Proxy-Authorization: Basic {b64encode(known).decode()}"
        if wanted and wanted not in head.split("\r\n"):
            await _say(writer, 407)
        elif method != "CONNECT" or manner.status != 200:
            await _say(writer, manner.status if method == "CONNECT" else 405)
        elif manner.inspects_with:
            await _say(writer, 200)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*manner.inspects_with)
            context.set_alpn_protocols(["h2"])
            await writer.start_tls(context)
            await reader.read(1)
        else:
            await self._tunnel(target, reader, writer)

    async def _tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            await _say(writer, 502)
            return
        try:
            await _say(writer, 200)
            async with asyncio.timeout(self.manner.idle_s) as idle, asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, back, idle))
                both.create_task(self._pass_on(there, writer, idle))
        except* OSError:  # TimeoutError is one
            pass
        finally:
            back.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
        while piece := await source.read(PIECE_BYTES):
            if self.manner.idle_s is not None:
                idle.reschedule(self._loop.time() + self.manner.idle_s)
            self.tunnelled_bytes += len(piece)
            sink.write(piece)
            await sink.drain()
        sink.write_eof()


async def _say(writer: asyncio.StreamWriter, status: int) -> None:
    if status == 200:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        body = b"said by the proxy"
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
