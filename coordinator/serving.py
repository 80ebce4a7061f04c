"""What the coordinator answers on its port: the services of the wire and that of health, behind one wall."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.health import Health
from coordinator.intake import Intake
from coordinator.metrics import CoordinatorMetrics
from coordinator.rpc.authorization import Wall
from coordinator.rpc.health import HealthService
from coordinator.rpc.opening import Host, SessionTimes
from coordinator.rpc.operations import OperationsService
from coordinator.rpc.server import CoordinatorServer
from coordinator.rpc.session import SessionService
from coordinator.rpc.sessions import Sessions
from coordinator.rpc.transfer import Frames, TransferService
from coordinator.settings import CoordinatorSettings
from coordinator.startup import Records
from shared.busy import CountedThreads


@dataclass(frozen=True, slots=True)
class Services:
    """One of each."""

    session: SessionService
    transfer: TransferService
    operations: OperationsService
    health: HealthService


def services(
    *,
    conductor: Conductor,
    thread: ConductorThread,
    intake: Intake,
    sessions: Sessions,
    threads: CountedThreads,
    records: Records,
    host: Host,
    health: Health,
    metrics: CoordinatorMetrics,
    times: SessionTimes,
) -> Services:
    """Those of one run."""
    frames = Frames(blobs=records.blobs, threads=threads)
    session = SessionService(
        sessions=sessions, conductor=conductor, thread=thread, host=host, counters=metrics, times=times
    )
    transfer = TransferService(
        conductor=conductor, thread=thread, intake=intake, frames=frames, threads=threads, counter=metrics
    )
    operations = OperationsService(
        desk=conductor.desk,
        thread=thread,
        store=records.store,
        blobs=records.blobs,
        frames=frames,
        threads=threads,
    )
    return Services(session, transfer, operations, HealthService(health))


def server_of(served: Services, *, wall: Wall, settings: CoordinatorSettings) -> CoordinatorServer:
    """One that answers with these on all addresses of the configuration, once it is started."""
    return CoordinatorServer(
        services={
            "SessionService": served.session.handlers,
            "TransferService": served.transfer.handlers,
            "OperationsService": served.operations.handlers,
            "Health": served.health.handlers,
        },
        wall=wall,
        tls=settings.tls.paths,
        addresses=settings.coordinator.listen,
    )
