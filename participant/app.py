"""The participant daemon: the only place that puts its parts together.

Start order: credentials, data folder (locked: one daemon each), journal and spool, tasks, open rounds, metrics,
session.

SIGTERM or SIGINT ends it. The journal is durable at every moment, so ending is closing; but the secrets of a masked
attempt are in memory only. So no plan is begun any more and training ends at once (what the task saved stays), while an
attempt in which shares are dealt is gone on with for up to `FINISH_S`. Then the session is ended well, and the
coordinator knows at once that this silo is away. A second signal ends the process at once (`shared.signals`).

An error that says the disk's state is unknown ends the process as well; the next start reads what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
from prometheus_client import start_http_server

from participant.consent import Policy
from participant.disk_use import TASK_LOGS, disk_use
from participant.journal import SqliteJournal
from participant.journal_file import JOURNAL_FILE
from participant.marker import advance, take_into_use
from participant.membership import check_consortium
from participant.metrics import ParticipantMetrics
from participant.round.driver import Driver
from participant.round.effects import Event
from participant.round.surroundings import Surroundings
from participant.rpc.opening import Credentials, Guest
from participant.rpc.session import SessionLoop
from participant.rpc.transfer import BulkChannels, Transfers
from participant.settings import ParticipantSettings
from participant.spool import Spool
from participant.tasks.catalogue import task_definitions
from participant.tasks.contract import TaskFailed
from participant.tasks.runner import TaskRunner
from participant.work import AsyncWork, Means
from shared.build import BuildInfo, build_info
from shared.clock import Clock, SystemClock
from shared.consortium import Consortium
from shared.disk_use import keep_looking
from shared.entropy import SystemEntropy
from shared.errors import ConfigError, DurabilityUnknown, StorageError
from shared.expiry import SIGNING, tls_ends
from shared.identity import Role
from shared.ids import RoundKey, TaskName
from shared.proxies import Proxy, proxy_for
from shared.signals import when_told_to_end
from shared.tls import CheckedSigning, CheckedTls, check_credentials, check_signing_credentials

log = structlog.get_logger()

FINISH_S = 5.0  # for an attempt that is half done: an upload of 1 GB at 2 Gbit/s, and what follows it
GOODBYE_S = 0.5  # for the last words and the end of the session
CLOSE_LIMIT_S = 1.5  # with the two above: under 8 seconds from the signal to the end
JOURNAL_RETRY_S = 1.0
JOURNAL_SAID_S = 60.0  # between two lines of the log about one report that waits
_CLOCK = SystemClock()


class MakeMetrics(Protocol):
    """`ParticipantMetrics`, or one that does more when a round moves."""

    def __call__(self, *, build: BuildInfo) -> ParticipantMetrics: ...


@dataclass(frozen=True, slots=True)
class Checked:
    """Credentials that were found good."""

    tls: CheckedTls
    signing: CheckedSigning


def check_identity(settings: ParticipantSettings, clock: Clock = _CLOCK) -> Checked:
    """Both credentials are good and are this participant's. Raises ConfigError."""
    now = clock.now()
    tls = check_credentials(settings.tls.paths, expected_role=Role.PARTICIPANT, now=now)
    if tls.identity.name != settings.participant.id:
        raise ConfigError(
            f"participant.id is {settings.participant.id!r}, but {settings.tls.certificate} is the certificate of "
            f"{tls.identity}: change one of the two"
        )
    signing = check_signing_credentials(
        certificate=settings.signing.certificate,
        key=settings.signing.key,
        ca=settings.tls.ca,
        expected=tls.identity,
        now=now,
    )
    return Checked(tls, signing)


def proxies_to(settings: ParticipantSettings, environment: Mapping[str, str]) -> dict[str, Proxy]:
    """Which coordinator addresses are dialled through a proxy, and which. Raises ConfigError."""
    found = {address: proxy_for(address, environment) for address in settings.participant.coordinators}
    return {address: proxy for address, proxy in found.items() if proxy is not None}


class DaemonRunsError(ConfigError):
    """A daemon works in the data folder, or a command that keeps daemons away meanwhile."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the data folder, so that no second daemon works in it. Raises ConfigError, of a daemon DaemonRunsError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"participant.data_dir: expected a folder that this user may write in, {folder} is none "
            f"({error.strerror}): change its owner or mode, or name another"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DaemonRunsError(
            f"{folder} is in use, by another participant daemon or a command that keeps it for a moment (doctor, "
            "check, gc): stop the daemon, or try again; or use another data_dir"
        ) from None
    finally:
        os.close(descriptor)


def guest_of(
    settings: ParticipantSettings,
    checked: Checked,
    *,
    consortium: Consortium | None,
    build: BuildInfo,
    clock: Clock,
    tasks: tuple[TaskName, ...],
) -> Guest:
    """Who opens sessions from here, offering `tasks`."""
    return Guest(
        credentials=Credentials(
            identity=checked.tls.identity,
            tls=settings.tls.paths,
            signing_certificate=lambda: checked.signing.certificate.der,
        ),
        consortium=consortium,
        tasks=tasks,
        software=f"consilo {build.version}",
        clock=clock,
        entropy=SystemEntropy(),
    )


class Daemon:
    """One participant, running."""

    def __init__(
        self,
        settings: ParticipantSettings,
        checked: Checked,
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
        self._metrics = metrics(build=self._build)
        self._fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._metrics.certificates({SIGNING: checked.signing.expires})
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
        self._work = AsyncWork(means=self._means(Spool(folder)), report=self._report, on_fatal=self._end_with)
        self._driver = Driver(
            around=Surroundings(
                policy=self._policy(),
                journal=self._journal,
                work=self._work,
                observer=self._metrics,
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

    async def run(self) -> None:
        """Until a signal. Raises DurabilityUnknown when the process must end."""
        stopping = asyncio.Event()

        def asked(number: signal.Signals) -> None:
            log.info("participant_draining", signal=number.name)
            stopping.set()

        when_told_to_end(asked)
        self._serve_metrics()
        self._begin()
        warming = [asyncio.create_task(self._warm(name)) for name in self._tasks]
        looking = asyncio.create_task(self._look_around())
        session = asyncio.create_task(self._session.run())
        waits: list[asyncio.Future[Any]] = [session, self._fatal, asyncio.create_task(stopping.wait())]
        log.info(
            "participant_started", participant=self._settings.participant.id, version=self._build.version,
            coordinators=list(self._settings.participant.coordinators), tasks=sorted(self._tasks),
        )  # fmt: skip
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
            for task in (*warming, looking, *waits):
                task.cancel()
            await asyncio.gather(*warming, looking, *waits, return_exceptions=True)
            await self._close()
            log.info("participant_stopped", participant=self._settings.participant.id)

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

    async def _look_around(self) -> None:
        """At what nobody tells of when it changes."""
        tls = self._settings.tls
        certificates = partial(tls_ends, certificate=tls.certificate, ca=tls.ca)
        await asyncio.gather(
            keep_looking(partial(disk_use, self._settings.participant.data_dir), self._metrics.disk),
            keep_looking(certificates, self._metrics.certificates),
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
        )

    def _policy(self) -> Policy:
        table = self._settings.policy
        return Policy(
            participant=self._settings.participant.id,
            tasks=frozenset(self._tasks),
            minimum_members=table.minimum_members,
            allow_plain=table.allow_plain,
            allowed_jobs=table.allowed_jobs,
            max_deadline_s=table.max_deadline_s,
            minimum_survivors=table.minimum_survivors,
            minimum_colluding=None if table.minimum_colluding == "auto" else table.minimum_colluding,
            allow_two_party=table.allow_two_party,
            allow_no_collusion=table.allow_no_collusion,
            approved_jobs=table.approved,
            allowed_repeats=table.allowed_repeats,
            consortium=self._consortium,
            journal_doubtful=self._doubt is not None,
        )

    def _serve_metrics(self) -> None:
        address = self._settings.metrics.address
        if address is None:
            return
        host, port = address
        try:
            start_http_server(port, addr=host, registry=self._metrics.registry)
        except OSError as error:
            raise ConfigError(
                f'metrics.listen: cannot listen on {host}:{port} ({error.strerror}): choose another port, or "off"'
            ) from None

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
    for address, proxy in proxies_to(settings, environment).items():
        log.info("proxy_in_use", coordinator=address, proxy=str(proxy))
    with lock_folder(settings.participant.data_dir):
        await Daemon(
            settings, checked, consortium=consortium, environment=environment, metrics=metrics, clock=clock
        ).run()
