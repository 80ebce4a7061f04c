"""What no round can be faster than on this machine: the same bytes over bare gRPC streams, and one sync of the disk.

The bare streams are between two processes, with mutual TLS and our chunk size: each of the participants' streams brings
a model down and an update up, all of them at the same time, over connections that are open already. Nothing is parsed,
hashed or stored.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from shared.tls import TlsPaths, channel_credentials, server_credentials
from shared.update import CHUNK_BYTES

LOOPBACK = "127.0.0.1"
METHOD = "/floor/exchange"
OPTIONS = (("grpc.max_receive_message_length", 2 * CHUNK_BYTES),)
SYNCS = 200


def credentials_in(folder: Path) -> TlsPaths:
    return TlsPaths(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


def sync_s(folder: Path) -> float:
    """The median time of one append of 4 KiB and its fdatasync."""
    taken = []
    fd = os.open(folder / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(SYNCS):
            start = time.perf_counter()
            os.write(fd, bytes(4096))
            os.fdatasync(fd)
            taken.append(time.perf_counter() - start)
    finally:
        os.close(fd)
    return statistics.median(taken)


def exchange_s(
    *, coordinator: Path, participants: list[Path], down_bytes: int, up_bytes: int, port: int, times: int
) -> float:
    """The median time in which every participant has its model and has delivered its update."""
    server = subprocess.Popen(
        [sys.executable, __file__, str(coordinator), str(port), str(down_bytes)], stdout=subprocess.PIPE
    )
    try:
        if server.stdout is None or server.stdout.readline() != b"listening\n":
            raise SystemExit("the bare server did not start")
        return asyncio.run(_exchanges(participants, up_bytes, port, times))
    finally:
        server.terminate()
        server.wait()


async def _exchanges(participants: list[Path], up_bytes: int, port: int, times: int) -> float:
    channels = [
        aio.secure_channel(f"{LOOPBACK}:{port}", channel_credentials(credentials_in(folder)), options=OPTIONS)
        for folder in participants
    ]
    try:
        taken = []
        for _ in range(times + 1):
            start = time.perf_counter()
            await asyncio.gather(*(_exchange(channel, up_bytes) for channel in channels))
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])  # the first one made the connections
    finally:
        for channel in channels:
            await channel.close()


async def _exchange(channel: aio.Channel, up_bytes: int) -> None:
    call: Any = channel.stream_stream(METHOD)()
    await call.write(b"model")
    while await call.read():  # an empty message ends the model
        pass
    for chunk in chunks(up_bytes):
        await call.write(chunk)
    await call.done_writing()
    if await call.read() is aio.EOF:
        raise SystemExit("the bare server did not take the update")


def chunks(total: int) -> Iterator[bytes]:
    whole = bytes(CHUNK_BYTES)
    for start in range(0, total, CHUNK_BYTES):
        yield whole[: total - start]


async def _serve(credentials: Path, port: int, down_bytes: int) -> None:
    async def exchange(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        await anext(requests)
        for chunk in chunks(down_bytes):
            yield chunk
        yield b""
        received = 0
        async for chunk in requests:
            received += len(chunk)
        yield received.to_bytes(8, "big")

    server = aio.server(options=OPTIONS)
    handler: Any = grpc.stream_stream_rpc_method_handler(exchange)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("floor", {"exchange": handler}),))
    server.add_secure_port(f"{LOOPBACK}:{port}", server_credentials(credentials_in(credentials)))
    await server.start()
    print("listening", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
