"""What stands between a silo and its coordinator: the daemon's log names the likely cause, the doctor finds the step.

Each situation is brought about with real sockets, and both have to say what it is.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from participant.doctor.dialling import Caller, Dialling
from participant.rpc.session import greet
from participant.settings import ParticipantSettings
from participant.startup import check_identity, guest_of
from shared.build import BuildInfo
from shared.certificates import SERVER_AUTH
from shared.clock import SystemClock
from shared.config import load_config
from shared.errors import FederationError
from shared.findings import Finding
from tests.support.connect_proxy import ConnectProxy, Manner
from tests.support.credentials import Consortium, Credentials
from tests.support.federation import free_port
from tests.support.listeners import listener, says, shows

STEPS = ("proxy", "name", "connection", "TLS", "clock", "certificate", "our certificate", "session")
NOWHERE = "coordinator.invalid:8443"


@dataclass(frozen=True, slots=True)
class Silo:
    """A silo of a consortium that has seen nobody yet."""

    consortium: Consortium
    settings: ParticipantSettings

    def log_says(self, address: str) -> str:
        """What the daemon's log would have as `detail`."""
        checked = check_identity(self.settings)
        guest = guest_of(
            self.settings, checked, consortium=None, build=BuildInfo("t", "t", "t"), clock=SystemClock(), tasks=()
        )
        with pytest.raises(FederationError) as raised:
            asyncio.run(greet(address, guest))
        return str(raised.value)

    def doctor_finds(self, address: str, environment: dict[str, str]) -> dict[str, Finding]:
        caller = Caller(
            settings=self.settings,
            environment=environment,
            clock=SystemClock(),
            checked=check_identity(self.settings),
            consortium=None,
        )
        rows = list(Dialling(caller, address).rows())
        return {row.name.removesuffix(f" {address}"): row for row in rows}

    def shown_as_coordinator(self, *, days: tuple[int, int] = (-1, 20), host: str = "localhost") -> Credentials:
        now = datetime.now(self.consortium.now.tzinfo)
        start, end = (now + timedelta(days=day) for day in days)
        return self.consortium.leaf(
            f"shown-{days[0]}-{days[1]}-{host}",
            uris=["spiffe://hearts.example/coordinator/c"], hosts=[host], purpose=SERVER_AUTH, start=start, end=end,
        )  # fmt: skip


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Silo:
    folder = tmp_path_factory.mktemp("silo")
    consortium = Consortium(folder / "pki")
    member = consortium.participant("hospital-a")
    (folder / "participant.toml").write_text(
        f'[participant]\nid = "hospital-a"\ncoordinators = ["{NOWHERE}"]\ndata_dir = "data"\n'
        f'[tls]\ncertificate = "{member.tls.certificate}"\nkey = "{member.tls.key}"\nca = "{member.tls.ca}"\n'
        f'[signing]\ncertificate = "{member.signing_certificate}"\nkey = "{member.signing_key_path}"\n'
    )
    return Silo(consortium, load_config(folder / "participant.toml", ParticipantSettings, environment={}))


# --- situations -------------------------------------------------------------------------------------------------------

Made = tuple[str, dict[str, str]]
"""Which address is dialled, and with which proxy in the environment."""


@contextmanager
def nothing_listens(_silo: Silo) -> Iterator[Made]:
    yield f"localhost:{free_port()}", {}


@contextmanager
def no_such_name(_silo: Silo) -> Iterator[Made]:
    yield NOWHERE, {}


def showing(who: Callable[[Silo], Credentials], **how: object) -> Callable[[Silo], AbstractContextManager[Made]]:
    @contextmanager
    def made(silo: Silo) -> Iterator[Made]:
        with listener(shows(who(silo), **how)) as address:  # type: ignore[arg-type] # options of `shows`
            yield address, {}

    return made


@contextmanager
def a_page(_silo: Silo) -> Iterator[Made]:
    with listener(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        yield address, {}


def behind(
    manner: Manner, url: str | None = None, address: str = NOWHERE
) -> Callable[[Silo], AbstractContextManager[Made]]:
    @contextmanager
    def made(_silo: Silo) -> Iterator[Made]:
        with ConnectProxy(manner) as proxy:
            yield address, {"https_proxy": (url or "http://127.0.0.1:{port}").format(port=proxy.port)}

    return made


@contextmanager
def inspected(silo: Silo) -> Iterator[Made]:
    appliance = Consortium(silo.consortium.folder / "appliance", consortium="appliance.example")
    leaf = appliance.leaf("inspector", uris=[], hosts=["coordinator.invalid"], purpose=SERVER_AUTH)
    with ConnectProxy(Manner(inspects_with=(leaf.tls.certificate, leaf.tls.key))) as proxy:
        yield NOWHERE, {"https_proxy": proxy.url}


def environment(**variables: str) -> Callable[[Silo], AbstractContextManager[Made]]:
    @contextmanager
    def made(_silo: Silo) -> Iterator[Made]:
        yield NOWHERE, variables

    return made


def of_another_consortium(silo: Silo) -> Credentials:
    return Consortium(silo.consortium.folder / "others", consortium="others.example").coordinator()


@dataclass(frozen=True, slots=True)
class Situation:
    """What is so, at which step the doctor finds it, and what it and the log say."""

    made: Callable[[Silo], AbstractContextManager[Made]]
    step: str
    doctor: str
    log: str


SITUATIONS: dict[str, Situation] = {
    "a port where nothing listens": Situation(
        nothing_listens, "connection", r"127\.0\.0\.1: refused\. Nothing listens at port \d+", "nothing listens there"
    ),
    "a name that is none": Situation(
        no_such_name, "name", r"coordinator\.invalid does not resolve .* check the name", "host name does not resolve"
    ),
    "another consortium's coordinator": Situation(
        showing(of_another_consortium), "TLS",
        r"got one of 'CN=Consilo authority,O=others.example', .* it is of spiffe://others.example/coordinator/",
        r"not of the CA in \[tls\] ca: another coordinator answers, or something on the way",
    ),
    "a certificate that has expired": Situation(
        showing(lambda silo: silo.shown_as_coordinator(days=(-9, -1))), "certificate",
        "the certificate expired at .* issue a new one", "its certificate has expired: .* clock is ahead",
    ),
    "a certificate that is not valid yet": Situation(
        showing(lambda silo: silo.shown_as_coordinator(days=(3, 9))), "clock",
        r"clock shows .* the coordinator's certificate is of .* at least (2 days|7\d hours) behind",
        "not valid yet: is this machine's clock behind",
    ),
    "a certificate for another host": Situation(
        showing(lambda silo: silo.shown_as_coordinator(host="elsewhere.example")), "certificate",
        r"for elsewhere\.example, and localhost was dialled: .* --dns", "for another host name than the one dialled",
    ),
    "a participant's certificate": Situation(
        showing(lambda silo: silo.consortium.leaf("dialler", hosts=["localhost"])), "certificate",
        "expected a certificate for being dialled", "no coordinator's certificate",
    ),
    "no TLS": Situation(a_page, "TLS", "does not speak TLS as a coordinator does", "does not speak TLS"),
    "TLS without HTTP/2": Situation(
        showing(lambda silo: silo.shown_as_coordinator(), protocols=()), "TLS",
        r"expected TLSv1\.3 and h2, got TLSv1\.3 and none", "speaks TLS but not gRPC",
    ),
    "a proxy where nothing listens": Situation(
        environment(https_proxy="http://127.0.0.1:1"), "proxy",
        r"127\.0\.0\.1:1 \(https_proxy\): 127\.0\.0\.1: refused\. Is the proxy up",
        r"by way of the proxy 127\.0\.0\.1:1 \(https_proxy\) cannot be reached: nothing listens at the proxy's address",
    ),
    "a proxy of no such name": Situation(
        environment(http_proxy="http://proxy.invalid:3128"), "proxy",
        r"proxy\.invalid does not resolve", "the proxy's host name does not resolve",
    ),
    "a proxy that gRPC would pass over": Situation(
        environment(https_proxy="https://proxy.invalid:3128"), "proxy",
        "https_proxy: expected http://host:port", "https_proxy: expected http://host:port",
    ),
    "a proxy that does not allow it": Situation(
        behind(Manner(status=403)), "connection",
        r"answered CONNECT coordinator\.invalid:8443 with 403: it does not allow it", "it does not allow it: ask",
    ),
    "a proxy that wants to know who asks": Situation(
        behind(Manner(credentials="me:secret")), "connection",
        "with 407: it wants a user and password: write", "wants a user and password: write http://user:password@",
    ),
    "a proxy that does not take the password": Situation(
        behind(Manner(credentials="me:secret"), url="http://me:hidden@127.0.0.1:{port}"), "connection",
        "with 407: it does not take the user and password in https_proxy", "does not take the user and password",
    ),
    "a proxy that cannot go on": Situation(
        behind(Manner()), "connection", "with 502: it cannot reach the coordinator", "it cannot reach the coordinator",
    ),
    "a proxy that hangs up": Situation(
        behind(Manner(rude=True)), "connection",
        "not as an HTTP proxy does", "the connection through the proxy was closed",
    ),
    "what is no proxy": Situation(
        behind(Manner(answer=b"SSH-2.0-elsewhere\r\n\r\n")), "connection",
        "not as an HTTP proxy does: another program has that port", "another program has that port",
    ),
    "a proxy that opens TLS": Situation(
        inspected, "TLS",
        "got one of 'CN=Consilo authority,O=appliance.example', .* something on the way .* opens TLS",
        r"not of the CA in \[tls\] ca: .* \(a proxy, a firewall\) opens TLS and has to let this connection through",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_it_is_said_what_is_wrong(name: str, silo: Silo, monkeypatch: pytest.MonkeyPatch) -> None:
    situation = SITUATIONS[name]
    with situation.made(silo) as (address, variables):
        rows = silo.doctor_finds(address, variables)
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        said = silo.log_says(address)
    wrong = [step for step, row in rows.items() if not row.ok]
    assert wrong == [situation.step], rows
    assert re.search(situation.doctor, rows[situation.step].detail), rows[situation.step].detail
    after = STEPS[STEPS.index(situation.step) + 1 :]
    assert all(rows[step].skipped for step in after)
    assert not any(rows[step].skipped for step in STEPS[: STEPS.index(situation.step)])
    assert re.search(situation.log, said), said
    assert "secret" not in said + repr(rows)
    assert "hidden" not in said + repr(rows)


def test_a_proxy_that_says_nothing_is_waited_for_and_named(silo: Silo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("participant.rpc.probing.STEP_LIMIT_S", 0.3)
    monkeypatch.setattr("participant.rpc.session.OPENING_LIMIT_S", 0.3)
    with ConnectProxy(Manner(silent=True)) as proxy:
        rows = silo.doctor_finds(NOWHERE, {"https_proxy": proxy.url})
        monkeypatch.setenv("https_proxy", proxy.url)
        said = silo.log_says(NOWHERE)
    assert "did not answer CONNECT coordinator.invalid:8443 within 0.3 s" in rows["connection"].detail
    assert f"{NOWHERE} by way of the proxy 127.0.0.1:{proxy.port} (https_proxy) did not answer within 0.3 s" in said


def test_what_takes_connections_and_says_nothing(silo: Silo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("participant.rpc.probing.STEP_LIMIT_S", 0.3)
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        rows = silo.doctor_finds(f"127.0.0.1:{silent.getsockname()[1]}", {})
    assert not rows["TLS"].ok
    assert "no answer within 0.3 s" in rows["TLS"].detail


def test_old_tls_is_named(silo: Silo) -> None:
    """gRPC's client takes it, and would wait for an answer: it is the coordinator that refuses it elsewhere."""
    with listener(shows(silo.shown_as_coordinator(), at_most=ssl.TLSVersion.TLSv1_2)) as address:
        rows = silo.doctor_finds(address, {})
    assert "expected TLSv1.3 and h2, got TLSv1.2 and h2" in rows["TLS"].detail
    assert rows["session"].skipped
