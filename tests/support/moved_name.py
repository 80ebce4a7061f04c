"""Run in namespaces of its own by a test: a coordinator's name moves, and what a silo dials next is said as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from participant.rpc.opening import Credentials, Guest
from participant.rpc.session import greet
from participant.rpc.transfer import BulkChannels
from shared.clock import SystemClock
from shared.entropy import SystemEntropy
from shared.errors import UnknownError, UnreachableError
from shared.identity import Identity, Role
from shared.ids import Digest
from shared.log import configure_logging
from tests.support.credentials import CONSORTIUM, LOCAL_HOSTS, Consortium
from tests.support.live_coordinator import LiveCoordinator, live_coordinator
from tests.support.name_server import NameServer

NAME, PORT = "coordinator.test", 18443
ADDRESS = f"{NAME}:{PORT}"


@asynccontextmanager
async def at(address: str, consortium: Consortium, folder: Path) -> AsyncIterator[LiveCoordinator]:
    host = f"[{address}]" if ":" in address else address
    async with live_coordinator(consortium, folder, listen=f"{host}:{PORT}") as live:
        yield live


async def bulk_call(channels: BulkChannels, folder: Path) -> str:
    """Ask for a model that nobody has: the answer comes from a coordinator."""
    try:
        await channels.transfers(ADDRESS).fetch_model(Digest.of(b"none"), 4, folder / "partial")
    except UnknownError:
        return "answered"
    except UnreachableError:
        return "unreachable"
    raise AssertionError("a model came")


async def scenario(names: NameServer, folder: Path) -> dict[str, object]:
    consortium = Consortium(folder / "pki")
    consortium.coordinator(hosts=(*LOCAL_HOSTS, NAME))
    member = consortium.participant("hospital-a")
    guest = Guest(
        credentials=Credentials(
            identity=Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-a"),
            tls=member.tls,
            signing_certificate=lambda: member.signing_certificate_der,
        ),
        consortium=None, tasks=(), software="test", clock=SystemClock(), entropy=SystemEntropy(),
    )  # fmt: skip
    sessions, bulk = [], []
    channels = BulkChannels(tls=member.tls)
    for place in ("127.0.0.1", "127.0.0.2", "::1"):
        names.names[NAME] = (place,)
        async with at(place, consortium, folder):
            await greet(ADDRESS, guest)
            sessions.append(place)
            while place != "::1":
                bulk.append(place if (answer := await bulk_call(channels, folder)) == "answered" else answer)
                if answer == "answered":
                    break
    names.names[NAME] = ("::1", "127.0.0.1")
    async with at("127.0.0.1", consortium, folder):
        await greet(ADDRESS, guest)
        sessions.append("127.0.0.1 of both")
    await channels.close()
    return {"sessions": sessions, "bulk": bulk}


if __name__ == "__main__":
    configure_logging(style="json", level="warning")
    with NameServer() as serving:
        sys.stdout.write(json.dumps(asyncio.run(scenario(serving, Path(sys.argv[1])))))
