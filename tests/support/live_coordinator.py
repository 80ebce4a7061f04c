"""The coordinator's real network side over real TLS on loopback, with its records in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from coordinator.audit import AuditLog
from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.fold_thread import FoldThread
from coordinator.health import Health
from coordinator.intake import Intake
from coordinator.metrics import CoordinatorMetrics
from coordinator.round.surroundings import Surroundings
from coordinator.round.transition import V
from coordinator.rpc.authorization import Wall
from coordinator.rpc.health import HealthService
from coordinator.rpc.opening import Host, SessionTimes
from coordinator.rpc.operations import OperationsService
from coordinator.rpc.server import CoordinatorServer
from coordinator.rpc.session import SessionService
from coordinator.rpc.sessions import Sessions
from coordinator.rpc.transfer import Frames, TransferService
from coordinator.storage.files import FileBlobs
from coordinator.storage.memory import MemoryStore
from shared.build import BuildInfo
from shared.clock import SystemClock
from shared.entropy import SystemEntropy
from shared.errors import DurabilityUnknown
from shared.identity import AllowlistFile, Identity, Role
from shared.ids import Digest, JobId, ParticipantId, TaskName
from shared.job import JobSpec, MaskingSpec, RoundPolicy
from shared.protocol.messages import Sealed
from shared.tensors import read_index
from shared.update import DType, ModelManifest, TensorSpec
from shared.wire.sealed import seal
from tests.support.credentials import CONSORTIUM, Consortium
from tests.support.models import model_bytes, random_tensors
from tests.support.readers import MemoryReader

OPERATOR = Identity(CONSORTIUM, Role.OPERATOR, "operator")
PATIENT = SessionTimes()


@dataclass(slots=True)
class LiveCoordinator:
    """What a test may reach of a running coordinator."""

    port: int
    conductor: Conductor
    thread: ConductorThread
    sessions: Sessions
    metrics: CoordinatorMetrics
    store: MemoryStore
    blobs: FileBlobs
    server: CoordinatorServer
    session: SessionService
    operations: OperationsService
    health: Health
    health_service: HealthService
    unknown: list[DurabilityUnknown] = field(default_factory=list)

    def count(self, name: str, **labels: str) -> float:
        """A metric's value now; 0 for one that does not exist yet."""
        return self.metrics.registry.get_sample_value(f"consilo_coordinator_{name}", labels) or 0.0

    async def until(self, reached: Callable[[], bool]) -> None:
        """Let the loop run until something is so; the test's own time limit ends a wait for what never comes."""
        while not reached():  # noqa: ASYNC110 - what is waited for happens on threads that know no event of ours
            await asyncio.sleep(0.002)

    async def add_model(self, elements: int) -> tuple[Digest, bytes]:
        """An initial model with one float32 tensor."""
        manifest = ModelManifest.of([TensorSpec("weights", DType.F32, (elements,))])
        content = model_bytes(manifest, random_tensors(manifest, 7))
        digest = Digest.of(content)

        def take() -> None:
            staged = self.blobs.stage("initial")
            staged.allocate(len(content))
            staged.write_at(0, memoryview(content))
            self.conductor.desk.add_model(staged, digest, read_index(MemoryReader(content)), OPERATOR)

        await self.thread.call(take)
        return digest, content

    async def submit(self, job: str, members: list[str], initial: Digest, *, quorum: int | None = None) -> JobSpec:
        """A job of one training round that needs all its members, or as many as `quorum` says."""
        needed = len(members) if quorum is None else quorum
        spec = JobSpec(
            name="heart",
            task=TaskName("heart"),
            members=tuple(sorted(map(ParticipantId, members))),
            rounds=1,
            seed=1,
            initial=str(initial),
            metrics=("loss",),
            round=RoundPolicy(quorum=needed, min_survivors=needed),
            masking=MaskingSpec(mode="plain", max_colluding=0),
        )
        await self.thread.call(self.conductor.desk.submit_job, JobId(job), spec.to_bytes(), OPERATOR)
        return spec


@asynccontextmanager
async def live_coordinator(
    consortium: Consortium,
    folder: Path,
    *,
    times: SessionTimes = PATIENT,
    stalled_s: float = 60.0,
    listen: str = "127.0.0.1:0",
) -> AsyncIterator[LiveCoordinator]:
    """Everything but the process: server, sessions, conductor and fold threads."""
    loop = asyncio.get_running_loop()
    credentials = consortium.coordinator()
    clock, key = SystemClock(), credentials.signing_key
    metrics = CoordinatorMetrics(build=BuildInfo("test", "test", "test"))
    store, blobs = MemoryStore(), FileBlobs(root=folder / secrets.token_hex(4))
    unknown: list[DurabilityUnknown] = []
    thread = ConductorThread(
        clock=clock, on_idle=lambda: None, on_unknown=unknown.append, on_broken=lambda _: None, on_bug=lambda: None
    )
    sessions = Sessions(loop=loop, counter=metrics)
    intake = Intake(blobs)

    def sealed(value: V, /) -> Sealed[V]:
        return seal(value, signer=key, index=0)

    folds = FoldThread(
        blobs=blobs,
        report=lambda round_key, outcome: thread.post(conductor.fold_ended, round_key, outcome),
        on_unknown=unknown.append,
    )
    around = Surroundings(
        store=store,
        audit=AuditLog(sign=partial(key.sign, "audit"), clock=clock),
        outbox=sessions,
        folds=folds,
        seal=sealed,
        clock=clock,
        observer=metrics,
    )
    conductor = Conductor(around=around, blobs=blobs, intake=intake, signer=key)
    with ThreadPoolExecutor(4) as threads:
        frames = Frames(blobs=blobs, threads=threads)
        session = SessionService(
            sessions=sessions,
            conductor=conductor,
            thread=thread,
            host=Host(
                signing_key=key,
                signing_certificate=credentials.signing_certificate_der,
                authorities=lambda: consortium.ca_pem,
                software="test",
                clock=clock,
                entropy=SystemEntropy(),
            ),
            counters=metrics,
            times=times,
        )
        transfer = TransferService(
            conductor=conductor,
            thread=thread,
            intake=intake,
            frames=frames,
            threads=threads,
            counter=metrics,
            stalled_s=stalled_s,
        )
        operations = OperationsService(
            desk=conductor.desk, thread=thread, store=store, blobs=blobs, frames=frames, threads=threads
        )
        health = Health(who="spiffe://hearts.example/coordinator/coordinator")
        health_service = HealthService(health)
        server = CoordinatorServer(
            services={
                "SessionService": session.handlers,
                "TransferService": transfer.handlers,
                "OperationsService": operations.handlers,
                "Health": health_service.handlers,
            },
            wall=Wall(allowlist=AllowlistFile(consortium.allowlist), counter=metrics, on_unknown=unknown.append),
            tls=credentials.tls,
            addresses=[listen],
        )
        conductor.start()
        health.see(conductor.readiness)
        thread.listen(lambda: health.see(conductor.readiness))
        thread.start(conductor)
        (address,) = await server.start()
        watching = asyncio.create_task(session.watch_allowlist())
        try:
            yield LiveCoordinator(
                int(address.rpartition(":")[2]),
                conductor,
                thread,
                sessions,
                metrics,
                store,
                blobs,
                server,
                session,
                operations,
                health,
                health_service,
                unknown,
            )
        finally:
            watching.cancel()
            await sessions.drain(wait_s=1)
            health_service.end()
            await server.stop(grace_s=0)
            assert folds.close(wait_s=5)
            assert thread.close(wait_s=5)
            blobs.close()
