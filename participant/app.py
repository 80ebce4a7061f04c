"""The participant daemon: the only place that puts its parts together.

Start order: credentials, data folder (locked: one daemon each), journal and spool, tasks, listeners, open rounds,
session. The listeners (metrics, status) answer on threads of their own.

SIGTERM or SIGINT ends it. The journal is durable at every moment, so ending is closing; but the secrets of a masked
attempt are in memory only. So no plan is begun any more and training ends at once (what the task saved stays), while an
attempt in which shares are dealt is gone on with for up to `FINISH_S`. Then the session is ended well, and the
coordinator knows at once that this silo is away. A second signal ends the process at once (`shared.signals`).

An error that says the disk's state is unknown ends the process as well; the next start reads what is true.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from participant.disk_use import TASK_LOGS
from participant.health import DaemonHealth
from participant.journal import SqliteJournal
from participant.journal_file import JOURNAL_FILE
from participant.marker import advance, take_into_use
from participant.membership import check_consortium
from participant.metrics import ParticipantMetrics
from participant.round.driver import Driver
from participant.round.effects import Event
from participant.round.surroundings import Surroundings
from participant.rpc.session import SessionLoop
from participant.rpc.transfer import BulkChannels, Transfers
from participant.sent import SentRecord
from participant.settings import ParticipantSettings
from participant.spool import Spool
from participant.startup import check_identity, guest_of, lock_folder, policy_of, proxies_to
from participant.status.noting import Noted
from participant.status.pages import Sources, StatusPages
from participant.status.snapshot import Look
from participant.tasks.catalogue import task_definitions
from participant.tasks.contract import TaskFailed
from participant.tasks.runner import TaskRunner
from participant.watching import Watching
from participant.work import AsyncWork, Means
from shared.beside import beside
from shared.build import BuildInfo, build_info
from shared.clock import Clock, SystemClock
from shared.consortium import Consortium
from shared.entropy import SystemEntropy
from shared.errors import DurabilityUnknown, StorageError
from shared.exposition import metrics_routes
from shared.http_answer import Routes
from shared.ids import RoundKey, TaskName
from shared.listeners import check_metrics, serve_listeners
from shared.pages.facts import about_of
from shared.service_manager import ServiceManager
from shared.signals import when_told_to_end
from shared.tls import OwnCredentials

log = structlog.get_logger()

FINISH_S = 5.0  # for an attempt that is half done: an upload of 1 GB at 2 Gbit/s, and what follows it
GOODBYE_S = 0.5  # for the last words and the end of the session
CLOSE_LIMIT_S = 1.5  # with the two above: under 8 seconds from the signal to the end
JOURNAL_RETRY_S = 1.0
JOURNAL_SAID_S = 60.0  # between two lines of the log about one report that waits
_CLOCK = SystemClock()


class MakeMetrics(Protocol):
    """`ParticipantMetrics`, or one that does more when a round moves."""

    def __call__(self, *, build: BuildInfo, local_metrics: bool) -> ParticipantMetrics: ...


class Daemon:
    """One participant, running."""

    def __init__(
        self,
        settings: ParticipantSettings,
        checked: OwnCredentials,
        *,
        consortium: Consortium | None,
        environment: Mapping[str, str],
        metrics: MakeMetrics,
        clock: Clock = _CLOCK,
    ) -> None:
        self._settings = settings
        self._checked = checked
        self._consortium = consortium
        self._clock = clock
        self._build = build_info(environment=environment)
        self._metrics = metrics(build=self._build, local_metrics=settings.metrics.local_metrics)
        self._fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._bulk = BulkChannels(tls=settings.tls.paths, counter=self._metrics)
        folder = settings.participant.data_dir
        logs = folder / TASK_LOGS
        logs.mkdir(mode=0o700, exist_ok=True)
        self._tasks: dict[TaskName, TaskRunner] = {
            name: TaskRunner(definition=definition, log=logs / f"{name}.log")
            for name, definition in task_definitions(settings).items()
        }
        for name in self._tasks:
            self._metrics.task_loaded(name, available=False)
        key = settings.signing.key
        self._journal = SqliteJournal(folder / JOURNAL_FILE, on_opening=lambda journal: advance(journal, key))
        self._doubt = take_into_use(self._journal, key)
        self._sent = SentRecord(folder, clock=clock)
        self._noted = Noted(following=self._metrics, clock=clock)
        self._work = AsyncWork(means=self._means(Spool(folder)), report=self._report, on_fatal=self._end_with)
        self._driver = Driver(
            around=Surroundings(
                policy=policy_of(
                    settings, tasks=self._tasks, consortium=consortium, journal_doubtful=self._doubt is not None
                ),
                journal=self._journal,
                work=self._work,
                observer=self._noted,
                own_key=self._checked.signing.key.verifying_key,
                signer=self._checked.signing.key,
                entropy=SystemEntropy(),
            )
        )
        self._session = SessionLoop(
            addresses=settings.participant.coordinators,
            guest=guest_of(
                settings,
                checked,
                consortium=consortium,
                build=self._build,
                clock=clock,
                tasks=tuple(sorted(self._tasks)),
            ),
            rounds=self._driver,
            observer=self._metrics,
            counter=self._metrics,
        )
        self._health = DaemonHealth(who=checked.tls.identity.uri, session=self._session)
        self._watching = Watching(settings, signing=checked.signing, metrics=self._metrics, health=self._health)
        self._metrics.readiness(lambda: self._health.report().ready)

    async def run(self) -> None:
        """Until a signal. Raises ConfigError, and DurabilityUnknown when the process must end."""
        stopping, manager = asyncio.Event(), ServiceManager()

        def asked(number: signal.Signals) -> None:
            log.info("participant_draining", signal=number.name)
            manager.stopping()
            self._health.drain()
            stopping.set()

        when_told_to_end(asked)
        metrics = metrics_routes(self._metrics.registry)
        with serve_listeners(self._settings, metrics=metrics, status=self._status_routes()) as (metrics_at, status_at):
            self._begin()
            async with beside(self._watching.beat(), self._watching.look_around()):
                warming = [asyncio.create_task(self._warm(name)) for name in self._tasks]
                session = asyncio.create_task(self._session.run())
                waits: list[asyncio.Future[Any]] = [session, self._fatal, asyncio.create_task(stopping.wait())]
                log.info(
                    "participant_started", participant=self._settings.participant.id, version=self._build.version,
                    coordinators=list(self._settings.participant.coordinators), tasks=sorted(self._tasks),
                    metrics=metrics_at, status=status_at,
                )  # fmt: skip
                manager.ready()
                try:
                    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if self._fatal in done:
                        raise self._fatal.result()
                    if session in done:
                        session.result()
                    for loading in warming:
                        loading.cancel()
                    await self._finish(session)
                finally:
                    for task in (*warming, *waits):
                        task.cancel()
                    await asyncio.gather(*warming, *waits, return_exceptions=True)
                    await self._close()
                    log.info("participant_stopped", participant=self._settings.participant.id)

    def _status_routes(self) -> Routes:
        """What the status listener answers. Called on its threads."""
        settings = self._settings
        look = Look(
            settings=settings,
            driver=self._driver,
            work=self._work,
            session=self._session,
            journal=self._journal,
            noted=self._noted,
            clock=self._clock,
        )
        pages = StatusPages(
            Sources(
                about=about_of(
                    self._checked.tls.identity, consortium=self._consortium, build=self._build, now=self._clock.now()
                ),
                look=look,
                loop=asyncio.get_running_loop(),
                clock=self._clock,
                health=self._health.report,
                policy=settings.policy,
                consortium=self._consortium,
                journal_doubt=self._doubt.detail if self._doubt is not None else "",
                sent=self._sent,
                certificates=self._watching.certificates,
                data_dir=settings.participant.data_dir,
                disk_sizes=lambda: self._watching.disk_sizes,
            )
        )
        return pages.routes

    async def _finish(self, session: asyncio.Task[None]) -> None:
        """From the first signal to the end of the session."""
        finished = asyncio.Event()
        ending = asyncio.create_task(self._work.end_tasks())
        self._driver.finish(finished.set)
        waiting = asyncio.create_task(finished.wait())
        try:
            watched: list[asyncio.Future[Any]] = [waiting, self._fatal]
            await asyncio.wait(watched, timeout=FINISH_S, return_when=asyncio.FIRST_COMPLETED)
            if self._fatal.done():
                raise self._fatal.result()
            if not finished.is_set():
                log.warning(
                    "attempt_not_finished", waited_s=FINISH_S, then="the others go on without this silo's shares"
                )
            self._session.leave()
            await asyncio.wait([session], timeout=GOODBYE_S)
        finally:
            waiting.cancel()
            ending.cancel()
            await asyncio.gather(waiting, ending, return_exceptions=True)

    def _begin(self) -> None:
        """Go on with the open rounds, unless nobody knows what this silo promised in them since."""
        if self._doubt is None:
            self._driver.start()
            return
        log.error(
            "journal_doubtful", detail=self._doubt.detail,
            meaning="every plan is declined, and no open round is gone on with",
            advice="find out why the journal changed; when the jobs of that time are over, stop this daemon and run "
            "`consilo participant confirm-journal`",
        )  # fmt: skip

    async def _warm(self, name: TaskName) -> None:
        """Load the task, and say on which device it runs."""
        ready = await self._work.warm(name)
        if isinstance(ready, TaskFailed):
            log.warning("task_unavailable", task=name, reason=ready.reason, detail=ready.message)
        else:
            log.info(
                "task_loaded", task=name, device=ready.device, note=ready.device_note or "", parameters=ready.parameters
            )

    def _report(self, key: RoundKey, event: Event, quiet_until: float = 0.0) -> None:
        try:
            self._driver.report(key, event)
        except StorageError as error:  # nothing changed: what was reported is reported again
            loop = asyncio.get_running_loop()
            if loop.time() >= quiet_until:
                quiet_until = loop.time() + JOURNAL_SAID_S
                log.warning("journal_waits", job=key.job, round=key.number, detail=str(error))
            loop.call_later(JOURNAL_RETRY_S, self._report, key, event, quiet_until)
        except DurabilityUnknown as error:
            self._end_with(error)

    def _end_with(self, error: BaseException) -> None:
        if not self._fatal.done():
            self._fatal.set_result(error)

    def _transfers(self) -> Transfers:
        return self._bulk.transfers(self._session.address)

    def _means(self, spool: Spool) -> Means:
        spool.keep_only_rounds({kept.plan.value.key for kept in self._journal.open_rounds()})
        return Means(
            participant=self._settings.participant.id,
            tasks=self._tasks,
            spool=spool,
            journal=self._journal,
            transfers=self._transfers,
            signer=self._checked.signing.key,
            clock=self._clock,
            share_progress=self._settings.policy.share_progress,
            observer=self._metrics,
            sent=self._sent,
        )

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._work.close()
                await self._bulk.close()
        except TimeoutError:
            log.warning("work_not_ended", waited_s=CLOSE_LIMIT_S, then="it ends with this process")
        self._journal.close()


async def run_daemon(
    settings: ParticipantSettings,
    *,
    environment: Mapping[str, str],
    metrics: MakeMetrics = ParticipantMetrics,
    clock: Clock = _CLOCK,
) -> None:
    """Check, lock, run. `metrics` sees each state that a round comes to. Raises ConfigError, StorageError or
    DurabilityUnknown.
    """
    os.umask(0o077)  # whatever is written from here on, by tasks too, is for this user alone
    checked = check_identity(settings, clock)
    consortium = check_consortium(settings, checked.signing)
    check_metrics(settings.metrics, consortium_ca=settings.tls.ca)
    for address, proxy in proxies_to(settings, environment).items():
        log.info("proxy_in_use", coordinator=address, proxy=str(proxy))
    with lock_folder(settings.participant.data_dir):
        await Daemon(
            settings, checked, consortium=consortium, environment=environment, metrics=metrics, clock=clock
        ).run()
