"""Those whom a coordinator does not let in, by the thousand: each dials, says one call, and hears that it may not."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.credentials import Consortium
from tests.support.raw_http2 import DATA, EMPTY_MESSAGE, END_STREAM, HEADERS, Connection, call, frame, tls_context

METHOD = "/consilo.v1.TransferService/UploadStatus"
ANSWER_S = 30.0
STRANGER = "stranger"  # in the name of who is not on the list
REFUSED = "PERMISSION_DENIED"
CUT = "cut"


@dataclass(slots=True)
class Refusals:
    """What strangers met, and how long one of them takes."""

    met: Counter[str] = field(default_factory=Counter)
    spent_s: float = 0.0

    @property
    def each_ms(self) -> float:
        return 1000 * self.spent_s / max(1, self.met.total())


def strangers(consortium: Consortium) -> dict[str, ssl.SSLContext]:
    """By kind, what each brings."""
    ca = str(consortium.coordinator().tls.ca)
    other = Consortium(consortium.folder / "elsewhere").participant("hospital-a")
    return {
        "no certificate": tls_context(None, ca),
        "another authority": tls_context(other.tls, ca),
        "not on the list": tls_context(consortium.leaf(STRANGER).tls, ca),
        "revoked": tls_context(
            consortium.leaf("hospital-a").tls, ca
        ),  # its name is on the list, with another certificate
    }


async def dial(port: int, context: ssl.SSLContext, count: int, *, at_once: int = 32) -> Refusals:
    """So many connections, one after the other in each of `at_once` hands."""
    refusals, turns, began = Refusals(), iter(range(count)), time.monotonic()

    async def hand(turns: Iterator[int]) -> None:
        for _ in turns:
            refusals.met[await _knock(port, context)] += 1

    await asyncio.gather(*(hand(turns) for _ in range(at_once)))
    refusals.spent_s = time.monotonic() - began
    return refusals


async def _knock(port: int, context: ssl.SSLContext) -> str:
    try:
        connection = await Connection.open(port, context)
    except OSError:
        return CUT
    try:
        await connection.greet()
        await connection.say(call(1, METHOD), frame(DATA, END_STREAM, 1, EMPTY_MESSAGE))
        async with asyncio.timeout(ANSWER_S):
            while True:
                kind, flags, _, body = await connection.hear()
                if kind in {DATA, HEADERS} and flags & END_STREAM:
                    return REFUSED if b"grpc-status\x017" in body else repr(body)
    except (OSError, asyncio.IncompleteReadError):
        return CUT
    finally:
        connection.close()
