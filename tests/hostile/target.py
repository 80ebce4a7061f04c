"""A real coordinator process to attack, and three honest members whose rounds have to go on meanwhile."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.ids import JobId
from shared.protocol.messages import Heartbeat, RoundResult
from shared.update import DType, ModelManifest, TensorSpec
from tests.support.fake_participant import FakeParticipant, Talk, fake_participant
from tests.support.federation import Federation, job_spec
from tests.support.models import model_bytes, random_tensors

HONEST = ("hospital-a", "hospital-b", "hospital-c")
HOSTILE = "hospital-x"
SETTLE_S = 30.0  # the last connections are closed by a loop that tells nobody
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    rss_mib: float
    open_files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(
            rss_mib=int(status["VmRSS"].split()[0]) / 1024,
            open_files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(status["Threads"]),
        )


@dataclass(slots=True)
class Attacked:
    """The coordinator, and what a test does to it."""

    federation: Federation
    members: list[FakeParticipant]
    model: Path
    rounds: int = 0

    @property
    def port(self) -> int:
        return int(self.federation.address.rpartition(":")[2])

    @property
    def footprint(self) -> Footprint:
        return Footprint.of(self.federation.process("coordinator").pid)

    async def settled(self, *, files: int, threads: float = math.inf) -> Footprint:
        """What it holds, once that is no more than so many; or what it still holds after `SETTLE_S`."""
        ends = time.monotonic() + SETTLE_S
        while (now := self.footprint).open_files > files or now.threads > threads:
            if time.monotonic() > ends:
                break
            await asyncio.sleep(LOOK_S)
        return now

    @property
    def log(self) -> list[dict[str, Any]]:
        return self.federation.logged("coordinator")

    @property
    def audited(self) -> list[dict[str, Any]]:
        """The entries of its audit log."""
        written = (self.federation.folder / "coordinator-data" / "audit.log").read_bytes()
        return [json.loads(line.split(b" ", 1)[1]) for line in written.split(b"\n")[:-1]]

    async def round(self) -> float:
        """One round with all honest members, from the submission to the committed result; how long it took."""
        self.rounds += 1
        began = time.monotonic()
        spec = job_spec(HONEST, self.model, rounds=1, masking={"mode": "plain"}, task="heart")
        await asyncio.to_thread(self.federation.submit, f"job-{self.rounds}", spec, self.model)
        results = await asyncio.gather(*map(self._take_part, self.members))
        assert {result.key.job for result in results} == {JobId(f"job-{self.rounds}")}
        assert all(result.survivors == (1, 2, 3) for result in results)
        spent_s = time.monotonic() - began
        await asyncio.to_thread(self._end_job)
        return spent_s

    def _end_job(self) -> None:
        """Its closing evaluation is of no interest here."""
        with self.federation.operations() as operations:
            operations.abort_job(JobId(f"job-{self.rounds}"), "the training round is what was wanted")

    async def _take_part(self, member: FakeParticipant) -> RoundResult:
        talk, _ = await member.open()
        beating = asyncio.create_task(_beat(talk))
        try:
            attempt = await member.train(talk)
            await member.upload(attempt)
            await member.commit(attempt)
            return await member.result(talk)
        finally:
            beating.cancel()
            talk.stream.cancel()


async def _beat(talk: Talk) -> None:
    while True:
        await asyncio.sleep(1)
        await talk.say(Heartbeat())


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[Attacked]:
    """Start it; everything ends with the block."""
    manifest = ModelManifest.of([TensorSpec("weights", DType.F32, (1000,))])
    model = folder / "initial.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    model.write_bytes(model_bytes(manifest, random_tensors(manifest, 7)))
    options: dict[str, dict[str, object]] = {name: {} for name in (*HONEST, HOSTILE)}
    with Federation(folder, entry="nowhere:Task", options=options) as federation:
        federation.start_coordinator()
        async with AsyncExitStack() as open_:
            target = Attacked(federation, [], model)
            for name in HONEST:
                credentials = federation.consortium.participant(name)
                entering = fake_participant(target.port, name, credentials, federation.consortium.coordinator())
                target.members.append(await open_.enter_async_context(entering))
            yield target
