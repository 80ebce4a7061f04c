"""What a start looks at before anything runs: who this participant is, its folder, and how it would dial.

`consilo participant check` and `doctor` look at the same things with the same functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from participant.consent import Policy
from participant.rpc.opening import Credentials, Guest
from participant.settings import ParticipantSettings
from shared.build import BuildInfo
from shared.clock import Clock, SystemClock
from shared.consortium import Consortium
from shared.entropy import SystemEntropy
from shared.errors import ConfigError
from shared.identity import Role
from shared.ids import TaskName
from shared.proxies import Proxy, proxy_for
from shared.tls import OwnCredentials, check_own_credentials

_CLOCK = SystemClock()


def check_identity(settings: ParticipantSettings, clock: Clock = _CLOCK) -> OwnCredentials:
    """Raises ConfigError for credentials that do not work, or are somebody else's."""
    return check_own_credentials(
        settings.tls.paths,
        signing_certificate=settings.signing.certificate,
        signing_key=settings.signing.key,
        role=Role.PARTICIPANT,
        name=settings.participant.id,
        now=clock.now(),
    )


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
    checked: OwnCredentials,
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


def policy_of(
    settings: ParticipantSettings, *, tasks: Iterable[TaskName], consortium: Consortium | None, journal_doubtful: bool
) -> Policy:
    """What this silo takes part in, as its configuration says."""
    table = settings.policy
    return Policy(
        participant=settings.participant.id,
        tasks=frozenset(tasks),
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
        consortium=consortium,
        journal_doubtful=journal_doubtful,
    )
