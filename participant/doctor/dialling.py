"""The rows about one coordinator address: proxy, name, connection, TLS, clock, certificates, and a session.

Each rests on the one before it. What is not reached because something before it failed is skipped, so that a person
sees one cause and not five consequences.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cryptography import x509

from participant.rpc.probing import (
    Place,
    Presented,
    authorities_in,
    believe,
    connected,
    look_at,
    offer,
    own_context,
    resolve,
    try_each,
)
from participant.rpc.session import greet
from participant.settings import ParticipantSettings
from participant.startup import DaemonRunsError, guest_of, lock_folder
from shared.build import build_info
from shared.certificates import hosts_of, issuer_of, uris_of
from shared.clock import Clock
from shared.config import split_address
from shared.consortium import Consortium
from shared.errors import IdentityError, RefusedError, UnreachableError
from shared.expiry import lifetimes, plausible
from shared.findings import NEEDS_ROW, Caution, Finding, found_by, skipped
from shared.proxies import EXCEPTION_VARIABLES, PROXY_VARIABLES, Proxy, credentials_of, proxy_for
from shared.reaching import INSPECTED
from shared.tls import OwnCredentials

REQUIRED_TLS = "TLSv1.3"
REQUIRED_PROTOCOL = "h2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who dials."""

    settings: ParticipantSettings
    environment: Mapping[str, str]
    clock: Clock
    checked: OwnCredentials | None
    """None when the credentials cannot be used: then nothing of ours is shown."""
    consortium: Consortium | None


@dataclass(slots=True)
class Dialling:
    """The steps to one address, and what those before found."""

    caller: Caller
    address: str
    proxy: Proxy | None = None
    places: tuple[str, ...] = ()
    presented: Presented | None = None
    host: str = field(init=False)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.host, self.port = split_address(self.address)

    def rows(self) -> Iterator[Finding]:
        """Step by step, until one fails."""
        steps: dict[str, Callable[[], str | Caution]] = {
            "proxy": self._which_proxy,
            "name": self._name,
            "connection": self._connection,
            "TLS": self._tls,
            "clock": self._time,
            "certificate": self._certificate,
            "our certificate": self._our_certificate,
            "session": self._session,
        }
        failed = ""
        for step, look in steps.items():
            name = f"{step} {self.address}"
            if failed:
                yield skipped(name, NEEDS_ROW.format(failed))
                continue
            try:
                found = found_by(name, look)
            except _Skip as why:
                yield skipped(name, str(why))
                continue
            yield found
            failed = "" if found.ok else name

    # --- steps --------------------------------------------------------------------------------------------------------

    def _which_proxy(self) -> str | Caution:
        environment = self.caller.environment
        self.proxy = proxy_for(self.address, environment)
        if self.proxy is None:
            named = next((name for name in PROXY_VARIABLES if environment.get(name)), None)
            excepted = next((name for name in EXCEPTION_VARIABLES if name in environment), None)
            return f"none: {excepted} excepts this host from {named}" if named and excepted else "none is set"
        places = try_each(resolve(self.proxy.host, self.proxy.port), self.proxy.port)
        if all(place.trouble for place in places):
            raise UnreachableError(
                f"{self.proxy}: {_each(places)}. Is the proxy up, and host and port right? Where none is needed, set "
                f"{EXCEPTION_VARIABLES[1]} to {self.host}"
            )
        return f"{self.proxy}: {_each(places)}"

    def _name(self) -> str:
        if self.proxy:
            return f"the proxy looks up {self.host}, not this machine"
        self.places = resolve(self.host, self.port)
        if self.places == (self.host,):
            return f"{self.host} is an address"
        return ", ".join(f"{place} ({'IPv6' if ':' in place else 'IPv4'})" for place in self.places)

    def _connection(self) -> str | Caution:
        if self.proxy:
            began = time.monotonic()
            with self._line():
                return f"the proxy connects us, in {_milliseconds(time.monotonic() - began)}"
        places = try_each(self.places, self.port)
        missing = [place for place in places if place.trouble]
        if len(missing) == len(places):
            raise UnreachableError(f"{_each(places)}. {_advice_for(missing[0], self.host, self.port)}")
        if missing:
            return Caution(_each(places), "the daemon takes what answers; have the name corrected, or the way opened")
        return _each(places)

    def _tls(self) -> str:
        with self._line() as line:
            shown = look_at(line, self.host)
        certificate, tls = shown.certificate, self.caller.settings.tls
        authorities = authorities_in(tls.ca)
        try:
            issuer_of(certificate, authorities)
        except IdentityError:
            claimed = ", ".join(uris_of(certificate))
            whose = f"it is of {claimed}; are name and port those of your own coordinator?" if claimed else INSPECTED
            raise IdentityError(
                f"expected a certificate issued by {_subjects(authorities)}, "
                f"got one of {certificate.issuer.rfc4514_string()!r}, for subject "
                f"{certificate.subject.rfc4514_string()!r}: {whose}"
            ) from None
        if shown.version != REQUIRED_TLS or shown.protocol != REQUIRED_PROTOCOL:
            raise IdentityError(
                f"expected {REQUIRED_TLS} and {REQUIRED_PROTOCOL}, got {shown.version} and {shown.protocol}: what "
                "listens there is no coordinator, or one behind something that ends TLS"
            )
        self.presented = shown
        return f"{shown.version}, {shown.protocol}, signed by {certificate.issuer.rfc4514_string()!r}"

    def _time(self) -> str:
        begins = self._shown().certificate.not_valid_before_utc
        return plausible(self.caller.clock.now(), {"the coordinator's certificate": begins})

    def _certificate(self) -> str | Caution:
        shown, now = self._shown(), self.caller.clock.now()
        uri = believe(shown, host=self.host, authorities=authorities_in(self.caller.settings.tls.ca), now=now)
        return lifetimes(
            {"valid": shown.certificate.not_valid_after_utc},
            now=now,
            who=f"{uri} for {', '.join(hosts_of(shown.certificate))}",
            advice="tell the coordinator's operator: its certificate soon ends",
        )

    def _shown(self) -> Presented:
        if self.presented is None:
            raise RuntimeError("no step is taken after one that failed")
        return self.presented

    def _our_certificate(self) -> str:
        self._require_credentials()
        context = own_context(self.caller.settings.tls.paths)  # here: what goes wrong below is the line's fault
        with self._line() as line:
            offer(line, self.host, context)
        return "the coordinator takes it in the handshake"

    def _session(self) -> str:
        checked = self._require_credentials()
        caller = self.caller
        guest = guest_of(
            caller.settings,
            checked,
            consortium=caller.consortium,
            build=build_info(environment=caller.environment),
            clock=caller.clock,
            tasks=(),  # a silo that offers no task is not counted as there: no round begins for this
        )
        began = time.monotonic()
        try:
            with lock_folder(caller.settings.participant.data_dir):
                welcome = asyncio.run(greet(self.address, guest))
        except DaemonRunsError:
            raise _Skip(
                "a daemon runs here, and a session of the same identity would end its own: see its log"
            ) from None
        except (IdentityError, RefusedError) as error:
            raise type(error)(
                f"{error}. For the operator's allow-list: tls_sha256 {checked.tls.fingerprint}, signing_sha256 "
                f"{checked.signing.certificate.fingerprint}"
            ) from None
        return (
            f"opened and ended in {_milliseconds(time.monotonic() - began)}; {welcome.software}, protocol "
            f"{welcome.version}, heartbeats every {welcome.heartbeat_s:g} s"
        )

    # --- the line -----------------------------------------------------------------------------------------------------

    def _line(self) -> contextlib.AbstractContextManager[socket.socket]:
        credentials = credentials_of(self.proxy, self.caller.environment) if self.proxy else None
        return connected(self.host, self.port, proxy=self.proxy, credentials=credentials)

    def _require_credentials(self) -> OwnCredentials:
        if self.caller.checked is None:
            raise _Skip("not looked at: it needs the rows 'credentials' and 'consortium'")
        return self.caller.checked


class _Skip(Exception):  # noqa: N818 - no error: a row that has nothing to look at
    """Why a step is not taken."""


def _each(places: Iterable[Place]) -> str:
    return ", ".join(f"{place.address}: {place.trouble or 'in ' + _milliseconds(place.took_s)}" for place in places)


def _subjects(authorities: Iterable[x509.Certificate]) -> str:
    return " or ".join(repr(each.subject.rfc4514_string()) for each in authorities)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _advice_for(place: Place, host: str, port: int) -> str:
    if place.refused:
        return (
            f"Nothing listens at port {port}, or a firewall says so: is the coordinator running, and are name and port "
            "as its operator gave them?"
        )
    return (
        f"Have one outgoing TCP connection to {host}, port {port}, let through every firewall on the way; where your "
        "network has a proxy for that, name it in https_proxy"
    )
