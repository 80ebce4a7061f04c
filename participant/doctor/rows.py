"""All rows of the doctor, in the order in which a daemon would meet what they are about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from participant.checks import local_findings
from participant.doctor.device import device_found
from participant.doctor.dialling import Caller, Dialling
from participant.membership import check_consortium
from participant.settings import ParticipantSettings
from participant.startup import check_identity
from participant.tasks.accelerators import ask_accelerators
from participant.tasks.contract import DeviceRequest
from shared.clock import Clock, SystemClock
from shared.consortium import Consortium
from shared.errors import ConfigError
from shared.findings import Finding, found_by
from shared.tls import OwnCredentials

NEXT = "the daemon goes to its next address; the one that it uses is in its log (`session_open`)"
_AWAY = ("name", "connection")  # what may be so of an address in reserve; what answers there must always be right
_CLOCK = SystemClock()


def findings(settings: ParticipantSettings, environment: Mapping[str, str], clock: Clock = _CLOCK) -> Iterator[Finding]:
    """Look at this machine, then dial each coordinator address."""
    yield from local_findings(settings, clock, spare_daemon=True)
    request = DeviceRequest(settings.training.device)
    yield found_by("device", lambda: device_found(request, ask_accelerators()))
    checked, consortium = _identity(settings, clock)
    caller = Caller(settings=settings, environment=environment, clock=clock, checked=checked, consortium=consortium)
    addresses = settings.participant.coordinators
    yield from in_reserve([list(Dialling(caller, address).rows()) for address in addresses])


def _identity(settings: ParticipantSettings, clock: Clock) -> tuple[OwnCredentials | None, Consortium | None]:
    try:
        checked = check_identity(settings, clock)
        return checked, check_consortium(settings, checked.signing)
    except ConfigError:  # rows of their own say so
        return None, None


def in_reserve(dialled: Sequence[Sequence[Finding]]) -> Iterator[Finding]:
    """The rows of all addresses; an address that cannot be reached is only a warning where another one can."""
    one_works = any(all(row.ok for row in rows) for rows in dialled)
    for row in (row for rows in dialled for row in rows):
        away = not row.ok and row.name.partition(" ")[0] in _AWAY
        yield replace(row, ok=True, warning=True, advice=NEXT) if away and one_works else row
