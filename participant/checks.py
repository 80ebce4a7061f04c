"""What `consilo participant check` looks at, and `doctor` before it dials: everything that lies on this machine.

Nothing is changed, but that a data folder is made where there is none, which is how it is known that it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from participant.journal import SqliteJournal
from participant.journal_file import JOURNAL_FILE, OlderJournalError
from participant.marker import doubt_about, is_writable, marker_path
from participant.membership import check_consortium
from participant.settings import ParticipantSettings
from participant.spool import ROOM_LEFT_BYTES
from participant.startup import DaemonRunsError, check_identity, lock_folder, proxies_to
from participant.tasks.catalogue import task_definitions
from participant.tasks.contract import TaskDefinition, TaskFailed
from participant.tasks.runner import TaskRunner
from participant.work import TASK_START_LIMIT_S
from shared.clock import Clock, SystemClock
from shared.config import OFF
from shared.errors import ConfigError, StorageError, TaskError
from shared.expiry import AUTHORITY, beginnings, lifetimes, plausible
from shared.findings import Caution, Finding, Look, found_by, found_in_order, skipped
from shared.listeners import LOCAL, METRICS, NO_STATUS_PAGE, STATUS, check_address, check_metrics

_RENEWAL = (
    "have the authority sign this silo's request.pem again (`consilo pki sign`), put the new files in the place of the "
    "old ones, and restart the daemon when the operator has the new allow-list"
)
_LOADED = (
    "not loaded a second time beside the daemon that runs: see its log (`task_loaded`, `task_unavailable`), or run "
    "`consilo participant check`, which loads it"
)
_CLOCK = SystemClock()


def local_findings(
    settings: ParticipantSettings, clock: Clock = _CLOCK, *, spare_daemon: bool = False
) -> Iterator[Finding]:
    """Look at everything, in the order in which a start would meet it.

    `spare_daemon`: beside a daemon that runs no task is loaded, since it would take from the memory of the same GPU.
    """
    looks: dict[str, Look] = {
        "credentials": lambda: _credentials(settings, clock),
        "clock": lambda: _time(settings, clock),
        "consortium": lambda: _consortium(settings, clock),
        "data folder": lambda: _folder(settings.participant.data_dir),
        "journal": lambda: _journal(settings),
        "journal marker": lambda: _marker_of(settings.signing.key),
        "metrics": lambda: _metrics(settings),
        "status": lambda: _status(settings),
    }
    yield from found_in_order(looks, {"consortium": ("credentials",)})
    spared = spare_daemon and _daemon_runs(settings.participant.data_dir)
    for name, definition in task_definitions(settings).items():
        row = f"task {name}"
        yield skipped(row, _LOADED) if spared else found_by(row, partial(_task, definition))


def proxy_finding(settings: ParticipantSettings, environment: Mapping[str, str]) -> Finding:
    """Whether a start would find a proxy in the environment; the doctor has a row of each address for it."""

    def look() -> str:
        proxies = proxies_to(settings, environment)
        return "; ".join(f"{address} by way of {proxy}" for address, proxy in proxies.items()) or "none"

    return found_by("proxy", look)


def _credentials(settings: ParticipantSettings, clock: Clock) -> str | Caution:
    checked = check_identity(settings, clock)
    ends = {"TLS": checked.tls.expires, "signing": checked.signing.expires, AUTHORITY: checked.tls.authority_expires}
    return lifetimes(ends, now=clock.now(), who=checked.tls.identity.uri, advice=_RENEWAL)


def _time(settings: ParticipantSettings, clock: Clock) -> str:
    return plausible(clock.now(), beginnings((settings.tls.certificate, settings.signing.certificate, settings.tls.ca)))


def _consortium(settings: ParticipantSettings, clock: Clock) -> str:
    signing = check_identity(settings, clock).signing if settings.consortium else None
    found = check_consortium(settings, signing) if signing else None
    if found is None:
        return "no manifest is pinned under [consortium]: masked jobs are declined"
    return f"{found.name}, {found.participants} participants, digest {found.digest} as pinned"


def _folder(data_dir: Path) -> str | Caution:
    try:
        with lock_folder(data_dir):
            return _room_in(data_dir, "no daemon uses it")
    except DaemonRunsError:
        return _room_in(data_dir, "a daemon works in it now")


def _daemon_runs(data_dir: Path) -> bool:
    try:
        with lock_folder(data_dir):
            return False
    except DaemonRunsError:
        return True
    except ConfigError:  # the row of the folder says so
        return False


def _room_in(data_dir: Path, use: str) -> str | Caution:
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError as error:
        raise StorageError(f"{data_dir} cannot be looked at: {error.strerror}") from error
    if free < ROOM_LEFT_BYTES:
        return Caution(
            f"{data_dir} has {free / 2**20:.1f} MiB free, and the daemon leaves {ROOM_LEFT_BYTES >> 20} MiB free: "
            "models and updates would wait for room until their rounds are over",
            "make room there, or put participant.data_dir on a larger disk",
        )
    return f"{data_dir} is writable, {use}, {free / 1e9:.1f} GB free"


def _journal(settings: ParticipantSettings) -> str:
    path, key = settings.participant.data_dir / JOURNAL_FILE, settings.signing.key
    if not path.exists():
        if marker_path(key).exists():
            raise ConfigError(
                f"{path} does not exist, although the signing key was used with a journal: bring it back, or see "
                "`consilo participant confirm-journal --help`"
            )
        return "none yet"
    try:
        with contextlib.closing(SqliteJournal(path, may_migrate=False)) as found:
            doubt = doubt_about(found, key)
    except OlderJournalError:
        return "of an older version: the next start of the daemon copies it and brings it up to date"
    if doubt is not None:
        raise ConfigError(f"{doubt.detail}: see `consilo participant confirm-journal --help`")
    return "the one that the signing key was used with"


def _marker_of(signing_key: Path) -> str | Caution:
    path = marker_path(signing_key)
    if is_writable(signing_key):
        return f"{path} can be written"
    return Caution(
        f"{path} cannot be written: a journal that is lost or restored is not noticed, and what this silo promised "
        "could be asked of it again",
        "let the daemon write in the folder of the signing key",
    )


def _metrics(settings: ParticipantSettings) -> str:
    shown = check_metrics(settings.metrics, consortium_ca=settings.tls.ca)
    if not _daemon_runs(settings.participant.data_dir):  # which has the port, if it is the one that is meant
        check_address(settings.metrics, what=METRICS)
    return shown


def _status(settings: ParticipantSettings) -> str | Caution:
    if settings.status.address is None:
        return OFF
    try:
        if not _daemon_runs(settings.participant.data_dir):
            check_address(settings.status, what=STATUS)
    except ConfigError as error:
        if settings.status_wanted:
            raise
        return Caution(f"{error}", f"{NO_STATUS_PAGE}: name an address under [status] to have it")
    return f"{settings.status.listen}, {LOCAL}"


def _task(definition: TaskDefinition) -> str:
    async def start() -> str:
        runner = TaskRunner(definition=definition, log=None)
        try:
            ready = await runner.start(deadline_s=TASK_START_LIMIT_S)
        finally:
            await runner.stop()
        if isinstance(ready, TaskFailed):
            raise TaskError(ready.message)
        note = f" ({ready.device_note})" if ready.device_note else ""
        return f"{ready.parameters} parameters on {ready.device}{note}"

    return asyncio.run(start())
