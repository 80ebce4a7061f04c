"""Too much of everything, from strangers and from a member whose certificate is in order: what a coordinator holds for
them is bounded, the connections that say nothing end by a deadline, and a round of the honest commits meanwhile.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator.rpc.server import HANDSHAKE_S, IDLE_S
from shared.log_budget import LINES_MAX
from shared.protocol.messages import Heartbeat
from tests.hostile.target import HOSTILE, Attacked, attacked
from tests.support.fake_participant import fake_participant
from tests.support.raw_http2 import (
    PING,
    RST_STREAM,
    Connection,
    call,
    field,
    frame,
    tls_context,
)

GROWTH_MIB = 96
FILES = 8  # connections of the members that open and close meanwhile
ROUND_S = 30.0
HALF_OPEN = 100  # of each kind
CONTINUATION = 9
SESSION = "/consilo.v1.SessionService/Session"

Flood = Callable[[Attacked, ssl.SSLContext], Awaitable[None]]


@asynccontextmanager
async def _with_member(target: Attacked) -> AsyncIterator[ssl.SSLContext]:
    tls = target.federation.consortium.participant(HOSTILE).tls
    yield tls_context(tls, str(tls.ca))


async def half_open(target: Attacked, member: ssl.SSLContext) -> None:
    """TCP without TLS, TLS without HTTP/2, HTTP/2 whose settings are never acknowledged: all end by the deadline."""
    opened = [await Connection.open(target.port, None) for _ in range(HALF_OPEN)]
    for greeted in (False, True):
        for _ in range(HALF_OPEN):
            connection = await Connection.open(target.port, member)
            if greeted:
                await connection.greet()
            opened.append(connection)
    began = time.monotonic()
    async with asyncio.timeout(4 * HANDSHAKE_S):
        await asyncio.gather(*(connection.until_eof() for connection in opened))
    assert time.monotonic() - began < 2 * HANDSHAKE_S
    for connection in opened:
        connection.close()


async def pings(target: Attacked, member: ssl.SSLContext) -> None:
    """A few too many, and the connection is over; not for another reason, which would be that it is idle."""
    connection = await Connection.open(target.port, member)
    await connection.greet()
    try:
        for _ in range(20):
            await connection.say(frame(PING, 0, 0, bytes(8)))
    except OSError:
        pass  # it is over already
    async with asyncio.timeout(IDLE_S / 2):
        await connection.until_closed()
    connection.close()


async def streams(target: Attacked, member: ssl.SSLContext) -> None:
    """Thousands of calls on one connection, opened and left, and opened and reset at once."""
    for reset in (False, True):
        connection = await Connection.open(target.port, member)
        await connection.greet()
        try:
            for number in range(1, 2 * 3000, 2):
                frames = [call(number, SESSION), *([frame(RST_STREAM, 0, number, bytes(4))] if reset else [])]
                await connection.say(*frames)
        except OSError:
            pass  # it was cut off, which is as well
        connection.close()


async def metadata(target: Attacked, member: ssl.SSLContext) -> None:
    """Headers without end: 20 MB of them, in frames that are each allowed."""
    connection = await Connection.open(target.port, member)
    await connection.greet()
    hear = asyncio.create_task(connection.until_eof())
    fields = b"".join(field(f"x-{number}", "v" * 1000) for number in range(15))
    await connection.say(call(1, SESSION, flags=0))
    try:
        for _ in range(20_000_000 // len(fields)):
            await connection.say(frame(CONTINUATION, 0, 1, fields))
    except OSError:
        pass  # it was cut off, which is as well
    hear.cancel()
    connection.close()


async def sessions(target: Attacked, _member: ssl.SSLContext) -> None:
    """One identity that opens a session after the other, and one message after the other in the last of them."""
    federation = target.federation
    credentials = federation.consortium.participant(HOSTILE)
    async with fake_participant(target.port, HOSTILE, credentials, federation.consortium.coordinator()) as hostile:
        for _ in range(150):
            talk, _ = await hostile.open()
            talk.stream.cancel()
        talk, _ = await hostile.open()
        for _ in range(5000):
            await talk.say(Heartbeat())


FLOODS: tuple[Flood, ...] = (half_open, pings, streams, metadata, sessions)


@pytest.mark.cluster
def test_floods_are_bounded_and_keep_nobody_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with attacked(tmp_path) as target, _with_member(target) as member:
            await target.round()
            before = target.footprint
            attack = asyncio.gather(*(flood(target, member) for flood in FLOODS))
            assert await target.round() < ROUND_S
            await attack
            after = await target.settled(files=before.open_files + FILES)
            assert after.rss_mib < before.rss_mib + GROWTH_MIB, (before, after)
            assert after.open_files <= before.open_files + FILES, (before, after)
            events = [str(line["event"]) for line in target.log if HOSTILE in str(line.get("peer"))]
            assert all(events.count(event) <= 3 * LINES_MAX for event in set(events)), "lines have a budget"
            assert await target.round() < ROUND_S

    asyncio.run(run())
