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

Other ways to end are in `coordinator.ending`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from typing import Protocol

import structlog

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.ending import end_at_once, end_of_bug, end_with_threads, shut_down
from coordinator.health import Health
from coordinator.metrics import CoordinatorMetrics
from coordinator.open_files import raise_open_files
from coordinator.rounds import Rounds, rounds_of
from coordinator.rpc.authorization import Wall
from coordinator.rpc.opening import Host, SessionTimes
from coordinator.rpc.server import CoordinatorServer
from coordinator.rpc.sessions import Sessions
from coordinator.serving import Services, server_of, services
from coordinator.settings import CoordinatorSettings
from coordinator.startup import (
    Records,
    check_consortium,
    check_identity,
    open_allowlist,
    open_records,
    record_start,
)
from coordinator.status.pages import Sources, StatusPages
from coordinator.watching import Watching
from shared.allocator import keep_memory
from shared.beside import beside
from shared.build import BuildInfo, build_info
from shared.busy import CountedThreads
from shared.clock import Clock, SystemClock
from shared.consortium import Consortium
from shared.entropy import SystemEntropy
from shared.errors import FederationError
from shared.exposition import metrics_routes
from shared.http_answer import Routes
from shared.identity import AllowlistFile
from shared.listeners import check_metrics, serve_listeners
from shared.log import SecretGuard, configure_logging
from shared.log_sink import keep_stderr_going
from shared.pages.facts import about_of
from shared.service_manager import ServiceManager
from shared.signals import when_told_to_end
from shared.tls import OwnCredentials

TRANSFER_THREADS = 8
DRAIN_S = 2.0
GRACE_S = 1.5
THREAD_END_S = 1.5
FOLD_END_S = 0.25  # of one that has nothing to fold; one that has is not waited for
TRANSFER_END_S = 1.0  # with those above: under 8 seconds from the signal to the end
_CLOCK = SystemClock()
_TIMES = SessionTimes()

_log = structlog.get_logger(__name__)


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


class _Process:
    """One run, from the conductor's start to the last thread's end."""

    def __init__(
        self,
        *,
        settings: CoordinatorSettings,
        credentials: OwnCredentials,
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
        self._health = Health(who=credentials.tls.identity.uri)
        self._watching = Watching(
            settings, signing=credentials.signing, allowlist=allowlist, metrics=self._metrics, health=self._health
        )
        self._times = times
        self._wall = Wall(allowlist=allowlist, counter=self._metrics, on_unknown=end_at_once)
        self._metrics.log_values_refused(lambda: guard.refused)
        self._metrics.readiness(lambda: self._health.report().ready)
        self._metrics.audit(records.audit, lambda: records.projection.published)

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
        rounds = rounds_of(
            thread=thread,
            sessions=sessions,
            records=self._records,
            settings=self._settings,
            credentials=self._credentials,
            consortium=self._consortium,
            allowlist=self._allowlist,
            clock=self._clock,
            observer=self._metrics,
        )
        conductor = rounds.conductor
        record_start(self._records, self._credentials, self._build)
        conductor.start()
        self._health.see(conductor.readiness)
        thread.listen(lambda: self._health.see(conductor.readiness))
        self._follow_jobs(conductor, thread)
        thread.start(conductor)
        try:
            self._metrics.saturation(conductor=thread, folds=rounds.folds, threads=threads, calls=self._wall)
            served = self._services(rounds, thread, sessions, threads)
            server = server_of(served, wall=self._wall, settings=self._settings)
            with ExitStack() as serving:
                self._health.begin()
                await self._listen(server, serving, self._status_routes(conductor, thread))
                manager.ready()
                async with beside(self._watching.beat(), self._watching.follow(thread)):
                    try:
                        async with beside(self._watching.look_around(threads), served.session.watch_allowlist()):
                            await ending
                    finally:
                        await self._drain(server, served, sessions)
        finally:
            ended = [
                thread.close(wait_s=THREAD_END_S),
                rounds.folds.close(wait_s=FOLD_END_S),
                shut_down(threads, wait_s=TRANSFER_END_S),
            ]
            _log.info("coordinator_stopped", threads_ended=all(ended))
        return all(ended)

    async def _drain(self, server: CoordinatorServer, served: Services, sessions: Sessions) -> None:
        """From the first signal, or the error that ends this, to the last call."""
        self._health.drain()
        served.operations.drain()
        await sessions.drain(wait_s=DRAIN_S)
        served.health.end()
        await server.stop(grace_s=GRACE_S)

    def _services(
        self,
        rounds: Rounds,
        thread: ConductorThread,
        sessions: Sessions,
        threads: CountedThreads,
    ) -> Services:
        signing = self._credentials.signing
        return services(
            conductor=rounds.conductor,
            thread=thread,
            intake=rounds.intake,
            sessions=sessions,
            threads=threads,
            records=self._records,
            host=Host(
                signing_key=signing.key,
                signing_certificate=signing.certificate.der,
                authorities=self._settings.tls.ca.read_bytes,
                software=str(self._build),
                clock=self._clock,
                entropy=SystemEntropy(),
                consortium=self._consortium,
            ),
            health=self._health,
            metrics=self._metrics,
            times=self._times,
        )

    async def _listen(self, server: CoordinatorServer, serving: ExitStack, pages: Routes) -> None:
        metrics_at, status_at = serving.enter_context(
            serve_listeners(self._settings, metrics=metrics_routes(self._metrics.registry), status=pages)
        )
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

    def _status_routes(self, conductor: Conductor, thread: ConductorThread) -> Routes:
        """What the status listener answers. Called on its threads."""
        identity, now = self._credentials.tls.identity, self._clock.now()
        pages = StatusPages(
            Sources(
                about=about_of(identity, consortium=self._consortium, build=self._build, now=now),
                look=conductor.look,
                thread=thread,
                clock=self._clock,
                health=self._health.report,
                allowlist=self._allowlist,
                certificates=self._watching.certificates,
                data_dir=self._settings.coordinator.data_dir,
                disk_sizes=lambda: self._watching.disk_sizes,
            )
        )
        return pages.routes


def _fail(ending: asyncio.Future[None], error: FederationError) -> None:
    if not ending.done():
        ending.set_exception(error)
