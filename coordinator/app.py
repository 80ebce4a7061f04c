"""The coordinator as a process: the one place that puts the parts together, and takes them apart again.

Threads. The main thread runs the event loop (streams). The *conductor's* thread owns rounds, jobs and the store; all
that touches them goes through it, in order. The *fold's* thread does the arithmetic of one round at a time. A few
*transfer* threads read and write bulk bytes. Metrics and the status page answer on threads of their own.

Start: settings, credentials, data folder (locked), records, the audit file compared with them, the conductor (which
takes up every open round), and only then the network, so that nobody is let in to a state that is not yet known. The
last thing is the line `coordinator_ready`.

End: on SIGTERM or SIGINT the coordinator is no more ready, though live to its end. The sessions are told that it is
draining, calls get a moment, the conductor finishes what it was given, the audit file catches up. A fold is not waited
for: the next start folds again. Nothing depends on this going well: a start after `kill -9` reads the same truth. A
second signal ends the process at once (`shared.signals`). The data folder is given back only when no thread works in it
any more; where one does (a fold, a slow disk), the process ends with the folder still locked, so that the next one
never meets it there.

`end_at_once` is for DurabilityUnknown. A write may or may not be on disk, and a process that goes on, even to close its
files, may acknowledge or write something that contradicts what the disk holds. So it ends without any of the above, by
`os._exit`, and whoever supervises it starts it again; that start finds out.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.disk_use import DiskKind, disk_use
from coordinator.fold_thread import FoldThread
from coordinator.health import Health
from coordinator.intake import Intake
from coordinator.metrics import CoordinatorMetrics
from coordinator.round.surroundings import Surroundings
from coordinator.round.transition import V
from coordinator.round_log import RoundLog
from coordinator.rpc.authorization import Wall
from coordinator.rpc.health import HealthService
from coordinator.rpc.opening import Host, SessionTimes
from coordinator.rpc.operations import OperationsService
from coordinator.rpc.server import CoordinatorServer
from coordinator.rpc.session import SessionService
from coordinator.rpc.sessions import Sessions
from coordinator.rpc.transfer import Frames, TransferService
from coordinator.settings import CoordinatorSettings
from coordinator.startup import Credentials, Records, check_consortium, check_identity, open_allowlist, open_records
from coordinator.status.pages import Sources, StatusPages
from shared.allocator import keep_memory
from shared.build import BuildInfo, build_info
from shared.busy import CountedThreads
from shared.clock import Clock, SystemClock
from shared.consortium import Consortium
from shared.disk_use import DiskUse, keep_looking
from shared.entropy import SystemEntropy
from shared.errors import DurabilityUnknown, FederationError
from shared.expiry import SIGNING, tls_ends
from shared.exposition import metrics_routes
from shared.health_report import HEALTH_PATH, HealthReport, health_route
from shared.heartbeat import keep_beating
from shared.http_answer import Routes
from shared.identity import AllowlistFile, Identity, Role
from shared.ids import ParticipantId
from shared.listeners import check_metrics, serve_metrics, serve_status
from shared.log import SecretGuard, configure_logging
from shared.log_sink import keep_stderr_going
from shared.pages.facts import About, own_certificates
from shared.protocol.messages import Sealed
from shared.service_manager import ServiceManager
from shared.signals import when_told_to_end
from shared.wire.sealed import seal

TRANSFER_THREADS = 8
ALLOWLIST_S = 5.0  # between two looks at who is on the allow-list, for the metrics; each call looks for itself
DRAIN_S = 2.0
GRACE_S = 1.5
THREAD_END_S = 1.5
FOLD_END_S = 0.25  # of one that has nothing to fold; one that has is not waited for
CONDUCTOR_BEAT_S = 5.0  # each makes the conductor look at the database, as any work does
TRANSFER_END_S = 1.0  # with those above: under 8 seconds from the signal to the end
_CLOCK = SystemClock()
_TIMES = SessionTimes()

_log = structlog.get_logger(__name__)


def end_at_once(error: DurabilityUnknown) -> None:
    """See the module's docstring. Never returns."""
    _log.error("durability_unknown", reason=str(error), then="the next start finds out what is on disk")
    os._exit(1)


def end_of_bug() -> None:
    """The conductor's thread came to an end that nobody foresaw, and said why. Never returns."""
    os._exit(1)


def end_with_threads() -> None:
    """End well, though a thread still works in the data folder: without closing anything. Never returns."""
    os._exit(0)


def raise_open_files() -> None:
    """Let this process open as many files as it is allowed to: a round has one for each member when it is folded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            _log.warning("open_files_not_raised", limit=soft, wanted=hard, reason=str(error))
            return
    _log.info("open_files", limit=hard, before=soft)


class MakeMetrics(Protocol):
    """`CoordinatorMetrics`, or one that does more when a round moves."""

    def __call__(self, *, build: BuildInfo) -> CoordinatorMetrics: ...


def run(
    settings: CoordinatorSettings,
    *,
    clock: Clock = _CLOCK,
    metrics: MakeMetrics = CoordinatorMetrics,
    times: SessionTimes = _TIMES,
) -> None:
    """Run a coordinator until it is told to end. `metrics` sees each state that a round comes to.

    Raises FederationError leaves: one line, exit code 1.
    """
    keep_memory()
    keep_stderr_going()
    guard = configure_logging(style=settings.log.format, level=settings.log.level)
    raise_open_files()
    credentials = check_identity(settings, clock)
    consortium = check_consortium(settings, credentials.signing)
    check_metrics(settings.metrics, consortium_ca=settings.tls.ca)
    allowlist = open_allowlist(settings, credentials)
    with open_records(settings.coordinator.data_dir, signing_key=credentials.signing.key, clock=clock) as records:
        process = _Process(
            settings=settings,
            credentials=credentials,
            consortium=consortium,
            allowlist=allowlist,
            records=records,
            clock=clock,
            guard=guard,
            metrics=metrics,
            times=times,
        )
        if not asyncio.run(process.main()):
            end_with_threads()


@dataclass(frozen=True, slots=True)
class _Services:
    """What is served by gRPC."""

    session: SessionService
    transfer: TransferService
    operations: OperationsService
    health: HealthService


class _Process:
    """One run, from the conductor's start to the last thread's end."""

    def __init__(
        self,
        *,
        settings: CoordinatorSettings,
        credentials: Credentials,
        consortium: Consortium | None,
        allowlist: AllowlistFile,
        records: Records,
        clock: Clock,
        guard: SecretGuard,
        metrics: MakeMetrics,
        times: SessionTimes,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._consortium = consortium
        self._allowlist = allowlist
        self._records = records
        self._clock = clock
        self._build: BuildInfo = build_info(environment=os.environ)
        self._metrics = metrics(build=self._build)
        self._health = Health()
        self._disk_sizes: Mapping[DiskKind, int] = {}
        self._times = times
        self._wall = Wall(allowlist=allowlist, counter=self._metrics, on_unknown=end_at_once)
        self._metrics.log_values_refused(lambda: guard.refused)
        self._metrics.readiness(lambda: self._health.live and self._health.readiness.ready)
        self._metrics.audit(records.audit, lambda: records.projection.published)
        self._metrics.certificates({SIGNING: credentials.signing.expires})

    async def main(self) -> bool:
        """Whether all threads ended in time."""
        loop = asyncio.get_running_loop()
        ending: asyncio.Future[None] = loop.create_future()
        manager = ServiceManager()

        def asked(number: signal.Signals) -> None:
            _log.info("coordinator_draining", signal=number.name)
            manager.stopping()
            self._health.drain()
            if not ending.done():
                ending.set_result(None)

        when_told_to_end(asked)

        def broken(error: FederationError) -> None:
            loop.call_soon_threadsafe(_fail, ending, error)

        thread = ConductorThread(
            clock=self._clock,
            on_idle=self._records.catch_up,
            on_unknown=end_at_once,
            on_broken=broken,
            on_bug=end_of_bug,
        )
        threads = CountedThreads(TRANSFER_THREADS, name="transfer")
        sessions = Sessions(loop=loop, counter=self._metrics)
        conductor, folds, intake = self._conductor(thread, sessions)
        self._record_start()
        conductor.start()
        self._health.see(conductor.readiness)
        thread.listen(lambda: self._health.see(conductor.readiness))
        self._follow_jobs(conductor, thread)
        thread.start(conductor)
        try:
            self._metrics.saturation(conductor=thread, folds=folds, threads=threads, calls=self._wall)
            services = self._services(conductor, thread, intake, sessions, threads)
            server = self._server(services)
            with ExitStack() as serving:
                self._health.begin()
                await self._listen(server, serving, self._status_routes(conductor, thread))
                manager.ready()
                watching = asyncio.create_task(services.session.watch_allowlist())
                looking = asyncio.create_task(self._look_around(threads))
                beating = asyncio.create_task(keep_beating(self._health.loop, self._metrics.loop_lag))
                following = asyncio.create_task(self._follow_conductor(thread))
                try:
                    await ending
                finally:
                    watching.cancel()
                    looking.cancel()
                    self._health.drain()
                    services.operations.drain()
                    await sessions.drain(wait_s=DRAIN_S)
                    services.health.end()
                    await server.stop(grace_s=GRACE_S)
                    beating.cancel()
                    following.cancel()
        finally:
            ended = [
                thread.close(wait_s=THREAD_END_S),
                folds.close(wait_s=FOLD_END_S),
                _shut_down(threads, wait_s=TRANSFER_END_S),
            ]
            _log.info("coordinator_stopped", threads_ended=all(ended))
        return all(ended)

    def _conductor(self, thread: ConductorThread, sessions: Sessions) -> tuple[Conductor, FoldThread, Intake]:
        records, key = self._records, self._credentials.signing.key
        conductor: Conductor

        folds = FoldThread(
            blobs=records.blobs,
            report=lambda round_key, outcome: thread.post(conductor.fold_ended, round_key, outcome),
            on_unknown=end_at_once,
        )
        intake = Intake(records.blobs)

        def sealed(value: V, /) -> Sealed[V]:
            return seal(value, signer=key, index=0)

        around = Surroundings(
            store=records.store,
            audit=records.audit,
            outbox=sessions,
            folds=folds,
            seal=sealed,
            clock=self._clock,
            observer=RoundLog(following=self._metrics),
        )
        conductor = Conductor(
            around=around,
            blobs=records.blobs,
            intake=intake,
            signer=key,
            consortium=self._consortium,
            keep_versions=self._settings.retention.keep_versions,
            kept_out=self._kept_out,
        )
        return conductor, folds, intake

    def _kept_out(self, participants: Sequence[ParticipantId]) -> Sequence[ParticipantId]:
        consortium = self._credentials.tls.identity.consortium
        named = {Identity(consortium, Role.PARTICIPANT, participant): participant for participant in participants}
        return [named[identity] for identity in self._allowlist.lacking(named)]

    def _services(
        self,
        conductor: Conductor,
        thread: ConductorThread,
        intake: Intake,
        sessions: Sessions,
        threads: CountedThreads,
    ) -> _Services:
        signing = self._credentials.signing
        frames = Frames(blobs=self._records.blobs, threads=threads)
        session = SessionService(
            sessions=sessions,
            conductor=conductor,
            thread=thread,
            host=Host(
                signing_key=signing.key,
                signing_certificate=signing.certificate.der,
                authorities=self._settings.tls.ca.read_bytes,
                software=str(self._build),
                clock=self._clock,
                entropy=SystemEntropy(),
                consortium=self._consortium,
            ),
            counters=self._metrics,
            times=self._times,
        )
        transfer = TransferService(
            conductor=conductor, thread=thread, intake=intake, frames=frames, threads=threads, counter=self._metrics
        )
        operations = OperationsService(
            desk=conductor.desk,
            thread=thread,
            store=self._records.store,
            blobs=self._records.blobs,
            frames=frames,
            threads=threads,
        )
        return _Services(session, transfer, operations, HealthService(self._health))

    def _server(self, services: _Services) -> CoordinatorServer:
        return CoordinatorServer(
            services={
                "SessionService": services.session.handlers,
                "TransferService": services.transfer.handlers,
                "OperationsService": services.operations.handlers,
                "Health": services.health.handlers,
            },
            wall=self._wall,
            tls=self._settings.tls.paths,
            addresses=self._settings.coordinator.listen,
        )

    async def _listen(self, server: CoordinatorServer, serving: ExitStack, pages: Routes) -> None:
        settings, metrics = self._settings, metrics_routes(self._metrics.registry)
        metrics_at = serving.enter_context(serve_metrics(settings.metrics, metrics, consortium_ca=settings.tls.ca))
        status_at = serving.enter_context(serve_status(settings.status, pages, wanted=settings.status_wanted))
        bound = await server.start()
        _log.info(
            "coordinator_ready",
            coordinator=self._settings.coordinator.id,
            consortium=self._credentials.tls.identity.consortium,
            manifest=str(self._consortium.digest) if self._consortium is not None else "none",
            listen=list(bound),
            metrics=metrics_at,
            status=status_at,
            data_dir=str(self._settings.coordinator.data_dir),
            version=self._build.version,
            tls_expires=self._credentials.tls.expires.isoformat(),
            signing_expires=self._credentials.signing.expires.isoformat(),
        )

    def _follow_jobs(self, conductor: Conductor, thread: ConductorThread) -> None:
        def look() -> None:
            self._metrics.jobs_stand(conductor.standings())

        look()
        thread.listen(look)

    async def _look_around(self, threads: CountedThreads) -> None:
        """At what nobody tells of when it changes."""
        tls = self._settings.tls
        disk = partial(disk_use, self._settings.coordinator.data_dir)
        certificates = partial(tls_ends, certificate=tls.certificate, ca=tls.ca)
        await asyncio.gather(
            keep_looking(disk, self._seen_on_disk, threads=threads),
            keep_looking(certificates, self._metrics.certificates, threads=threads),
            keep_looking(self._allowlist.participants, self._show_allowed, threads=threads, every_s=ALLOWLIST_S),
        )

    def _seen_on_disk(self, use: DiskUse[DiskKind]) -> None:
        self._disk_sizes = use.sizes
        self._metrics.disk(use)

    def _show_allowed(self, participants: Sequence[str]) -> None:
        if self._allowlist.problem is None:  # a list that cannot be used now takes nobody off
            self._metrics.allowed([ParticipantId(participant) for participant in participants])

    def _status_routes(self, conductor: Conductor, thread: ConductorThread) -> Routes:
        """What the status listener answers. Called on its threads."""
        settings, credentials = self._settings, self._credentials
        about = About(
            who=settings.coordinator.id,
            consortium=credentials.tls.identity.consortium,
            manifest=str(self._consortium.digest) if self._consortium is not None else "",
            version=self._build.version,
            revision=self._build.revision,
            started_at=self._clock.now(),
        )
        pages = StatusPages(
            Sources(
                about=about,
                look=conductor.look,
                thread=thread,
                clock=self._clock,
                health=self._report,
                allowlist=self._allowlist,
                certificates=own_certificates(settings.tls.paths, settings.signing.certificate),
                data_dir=settings.coordinator.data_dir,
                disk_sizes=lambda: self._disk_sizes,
            )
        )
        return {**pages.routes, HEALTH_PATH: health_route(self._report)}

    def _report(self) -> HealthReport:
        health = self._health
        live, readiness = health.live, health.readiness
        return HealthReport(
            who=self._credentials.tls.identity.uri,
            live=live,
            ready=live and readiness.ready,
            why=readiness.why if live else health.why_not_live,
        )

    async def _follow_conductor(self, thread: ConductorThread) -> None:
        """Its heart beats when it has done what was asked of it."""
        while True:
            await thread.call(self._health.conductor.beat)
            await asyncio.sleep(CONDUCTOR_BEAT_S)

    def _record_start(self) -> None:
        facts = {
            "coordinator": self._credentials.tls.identity.uri,
            "signing_sha256": str(self._credentials.signing.certificate.fingerprint),
            "version": self._build.version,
            "revision": self._build.revision,
        }
        entry = self._records.audit.entry("coordinator_started", facts)
        self._records.store.append_audit(entry)
        self._records.audit.accept(entry)


def _shut_down(threads: CountedThreads, *, wait_s: float) -> bool:
    """End a pool, with what was not begun. Whether all of its threads ended in time."""
    ending = threading.Thread(target=threads.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    ending.start()
    ending.join(wait_s)
    return not ending.is_alive()


def _fail(ending: asyncio.Future[None], error: FederationError) -> None:
    if not ending.done():
        ending.set_exception(error)
