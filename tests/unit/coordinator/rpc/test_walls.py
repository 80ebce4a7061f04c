"""Every RPC x every kind of caller, and the ways to come without being anybody."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence

import grpc
import pytest
from grpc import aio

from coordinator.rpc import server
from coordinator.rpc.authorization import BUG, CALLS_MAX, MATRIX, OWN_TROUBLE, Wall
from coordinator.rpc.server import NOT_OFFERED, SERVICES, CoordinatorServer, bind, offered, path_of
from shared.certificates import SERVER_AUTH
from shared.errors import ConfigError, StorageError
from shared.identity import AllowlistFile
from shared.tls import TlsPaths, channel_credentials
from shared.wire.status import ERROR_METADATA_KEY
from tests.support.credentials import Consortium, Credentials
from tests.support.fake_participant import SESSION, fake_participant
from tests.support.live_coordinator import LiveCoordinator, live_coordinator
from tests.support.old_tls import call_with_tls12
from tests.support.raw_http2 import Connection, tls_context

METHODS = {path_of(method) for service in SERVICES for method in offered(service)}
WATCH = "/grpc.health.v1.Health/Watch"
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]

IN = "let in"
DENIED = "PERMISSION_DENIED"
CUT = "UNAVAILABLE"  # the handshake ended before anything could be said

# What each kind of caller meets. A method that is missing here, or that is no longer on the wire, fails the test.
_FOR_PARTICIPANTS = {"participant": IN, "operator": DENIED, "coordinator": DENIED}
_FOR_OPERATORS = {"participant": DENIED, "operator": IN, "coordinator": DENIED}
_FOR_ANYBODY = {"participant": IN, "operator": IN, "coordinator": IN}
_FOR_NOBODY = {
    "coordinator for being dialled alone": CUT,  # as 0.1.0 issued its certificate
    "stranger": DENIED,  # of this consortium, and on no list
    "replaced": DENIED,  # on the list with a newer certificate
    "revoked": DENIED,  # taken off the list
    "another consortium": DENIED,  # its authority is trusted here, as while one replaces another
    "two names": DENIED,
    "no certificate": CUT,
    "another authority": CUT,
    "expired": CUT,
    "plaintext": CUT,
}
EXPECTED: dict[str, Mapping[str, str]] = {
    "/consilo.v1.SessionService/Session": _FOR_PARTICIPANTS,
    "/consilo.v1.TransferService/FetchModel": _FOR_PARTICIPANTS,
    "/consilo.v1.TransferService/UploadUpdate": _FOR_PARTICIPANTS,
    "/consilo.v1.TransferService/UploadStatus": _FOR_PARTICIPANTS,
    "/consilo.v1.TransferService/UploadCommit": _FOR_PARTICIPANTS,
    "/consilo.v1.OperationsService/SubmitJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/ListJobs": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/GetJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/WatchJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/AbortJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/PauseJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/ResumeJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/ControlJob": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/PutModel": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/ListModels": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/PromoteModel": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/ExportModel": _FOR_OPERATORS,
    "/consilo.v1.OperationsService/ReadAudit": _FOR_OPERATORS,
    "/grpc.health.v1.Health/Check": _FOR_ANYBODY,
    WATCH: _FOR_ANYBODY,
}


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


def _callers(consortium: Consortium) -> dict[str, grpc.ChannelCredentials | None]:
    other = Consortium(consortium.folder / "other").participant("hospital-a")
    outsider = TlsPaths(other.tls.certificate, other.tls.key, consortium.participant("hospital-a").tls.ca)
    return {
        "participant": channel_credentials(consortium.participant("hospital-a").tls),
        "operator": channel_credentials(consortium.operator().tls),
        "coordinator": channel_credentials(consortium.coordinator().tls),
        "coordinator for being dialled alone": channel_credentials(
            consortium.leaf(
                "dialled", uris=["spiffe://hearts.example/coordinator/dialled"], hosts=["x"], purpose=SERVER_AUTH
            ).tls
        ),
        "stranger": channel_credentials(consortium.leaf("stranger").tls),
        "replaced": channel_credentials(consortium.leaf("hospital-a").tls),
        "two names": channel_credentials(consortium.two_names().tls),
        "no certificate": grpc.ssl_channel_credentials(consortium.ca_pem),
        "another authority": channel_credentials(outsider),
        "revoked": channel_credentials(consortium.participant("hospital-r").tls),
        "another consortium": channel_credentials(_of_another_consortium(consortium).tls),
        "expired": channel_credentials(consortium.expired().tls),
        "plaintext": None,
    }


def _of_another_consortium(consortium: Consortium) -> Credentials:
    """A member of lungs.example whose authority this coordinator trusts beside its own."""
    other = Consortium(consortium.folder / "lungs", consortium="lungs.example")
    member = other.participant("hospital-a")
    authorities = consortium.coordinator().tls.ca
    authorities.write_bytes(consortium.ca_pem + other.ca_pem)
    member.tls.ca.write_bytes(consortium.ca_pem)
    return member


def _revoke(consortium: Consortium, name: str) -> None:
    head, *entries = consortium.allowlist.read_text().split("[[allowed]]")
    kept = [entry for entry in entries if f'id = "{name}"' not in entry]
    assert len(kept) == len(entries) - 1
    consortium.allowlist.write_text("[[allowed]]".join([head, *kept]))


async def _met(channel: aio.Channel, method: str) -> str:
    """What a caller meets that says one empty message: on HTTP/2 every shape of method takes that."""
    anything: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    call = anything(timeout=10)
    with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(b"")
        await call.done_writing()
        async for _ in call:
            if method == WATCH:  # its first word; it says no last one
                call.cancel()
                return IN
    name = (await call.code()).name
    return name if name in {DENIED, CUT} else IN


def test_every_rpc_for_every_kind_of_caller(consortium: Consortium) -> None:
    assert set(EXPECTED) == METHODS

    async def run() -> dict[tuple[str, str], str]:
        met: dict[tuple[str, str], str] = {}
        callers = _callers(consortium)
        _revoke(consortium, "hospital-r")
        async with live_coordinator(consortium, consortium.folder) as live:
            for kind, credentials in callers.items():
                target = f"localhost:{live.port}"
                channel = (
                    aio.insecure_channel(target, options=OPTIONS)
                    if credentials is None
                    else aio.secure_channel(target, credentials, options=OPTIONS)
                )
                async with channel:
                    # One that is cut is cut in the handshake, whatever it wants to call: trying one costs a backoff.
                    for method in sorted(METHODS) if _FOR_NOBODY.get(kind) != CUT else ["/any/Thing"]:
                        met[kind, method] = await _met(channel, method)
        return met

    expected = {
        (kind, method): meets
        for method, row in EXPECTED.items()
        for kind, meets in {**row, **_FOR_NOBODY}.items()
        if meets != CUT
    } | {(kind, "/any/Thing"): CUT for kind, meets in _FOR_NOBODY.items() if meets == CUT}
    assert asyncio.run(run()) == expected


def test_tls_1_2_gets_nothing_of_any_method(consortium: Consortium) -> None:
    """Whoever calls: what is refused is the connection, before anybody looks who it is."""

    async def run() -> dict[str, float]:
        async with live_coordinator(consortium, consortium.folder) as live:
            for method, row in EXPECTED.items():
                caller = consortium.participant("hospital-a") if row["participant"] == IN else consortium.operator()
                assert await call_with_tls12(live.port, caller.tls, method) == "TLSv1.2"
            names = [method.rpartition("/")[2] for method in EXPECTED]
            return {name: live.count("refused_total", method=name, error="IdentityError") for name in names}

    assert asyncio.run(run()) == {method.rpartition("/")[2]: 1 for method in METHODS}


def test_one_identity_has_so_many_calls_open_and_no_other_suffers(consortium: Consortium) -> None:
    async def run() -> None:
        async with live_coordinator(consortium, consortium.folder) as live, contextlib.AsyncExitStack() as open_:
            talks = []
            for _ in range(CALLS_MAX + 1):
                channel = await open_.enter_async_context(
                    aio.secure_channel(
                        f"localhost:{live.port}",
                        channel_credentials(consortium.participant("hospital-a").tls),
                        options=OPTIONS,
                    )
                )
                session: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(SESSION)
                talks.append(session())
                with contextlib.suppress(aio.AioRpcError):  # the one too many may be refused before it is waited for
                    await talks[-1].wait_for_connection()
            assert await talks[-1].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert live.count("refused_total", method="Session", error="TooMuch") == 1
            async with fake_participant(
                live.port, "hospital-b", consortium.participant("hospital-b"), consortium.coordinator()
            ) as other:
                await other.open()
            for talk in talks:
                talk.cancel()
            assert live.server._wall.open_calls >= CALLS_MAX - 1
            await live.until(lambda: not live.server._wall._open)
            assert live.server._wall.open_calls == 0

    asyncio.run(run())


def test_what_is_not_offered_exists() -> None:
    """A name that is no more in the service of others would hold nothing."""
    assert {path_of(method) for service in SERVICES for method in service.methods} - METHODS == NOT_OFFERED


@pytest.mark.parametrize("method", ["/consilo.v1.Other/Thing", *sorted(NOT_OFFERED)])
def test_unknown_methods_are_nobodys(consortium: Consortium, method: str) -> None:
    async def run() -> grpc.StatusCode:
        async with (
            live_coordinator(consortium, consortium.folder) as live,
            aio.secure_channel(
                f"localhost:{live.port}", channel_credentials(consortium.operator().tls), options=OPTIONS
            ) as channel,
        ):
            nothing: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            with pytest.raises(aio.AioRpcError) as caught:
                await nothing(b"")
            return caught.value.code()

    assert asyncio.run(run()) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (StorageError("/secret/path is full"), grpc.StatusCode.UNAVAILABLE, OWN_TROUBLE),
        (ConfigError("/secret/ca.crt is broken"), grpc.StatusCode.UNAVAILABLE, OWN_TROUBLE),
        (RuntimeError("hospital-b has a bug"), grpc.StatusCode.INTERNAL, BUG),
    ],
)
def test_our_own_trouble_is_told_without_its_text(
    consortium: Consortium, error: Exception, code: grpc.StatusCode, detail: str
) -> None:
    def failing() -> None:
        raise error

    async def run() -> tuple[aio.AioRpcError, LiveCoordinator]:
        async with (
            live_coordinator(consortium, consortium.folder) as live,
            aio.secure_channel(
                f"localhost:{live.port}", channel_credentials(consortium.operator().tls), options=OPTIONS
            ) as channel,
        ):
            live.conductor.desk.jobs = failing  # type: ignore[assignment, method-assign] # the cheapest way to a failure
            listing: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/consilo.v1.OperationsService/ListJobs"
            )
            with pytest.raises(aio.AioRpcError) as caught:
                await listing(b"")
            return caught.value, live

    failure, live = asyncio.run(run())
    assert (failure.code(), failure.details()) == (code, detail)
    named = dict(failure.trailing_metadata() or ()).get(ERROR_METADATA_KEY)
    assert named == (None if isinstance(error, RuntimeError) else type(error).__name__)
    assert live.unknown == []


class _Quiet:
    def refused(self, method: str, error: str) -> None: ...


def test_wire_handlers_and_matrix_must_agree(consortium: Consortium) -> None:
    wall = Wall(allowlist=AllowlistFile(consortium.allowlist), counter=_Quiet(), on_unknown=lambda _: None)
    services = {service.name: dict.fromkeys([m.name for m in offered(service)], print) for service in SERVICES}
    assert set(MATRIX) == METHODS
    assert len(bind(services, wall)) == len(SERVICES)
    missing = {**services, "TransferService": {"FetchModel": print}}
    with pytest.raises(RuntimeError, match="UploadCommit"):
        bind(missing, wall)
    with pytest.raises(RuntimeError, match="Extra"):
        bind({**services, "SessionService": {"Session": print, "Extra": print}}, wall)
    with pytest.raises(RuntimeError, match="OperationsService"):
        bind({name: handlers for name, handlers in services.items() if name != "OperationsService"}, wall)


def _a_server(consortium: Consortium, addresses: Sequence[str]) -> CoordinatorServer:
    """With all methods, and nothing behind them."""
    return CoordinatorServer(
        services={service.name: dict.fromkeys([m.name for m in offered(service)], print) for service in SERVICES},
        wall=Wall(allowlist=AllowlistFile(consortium.allowlist), counter=_Quiet(), on_unknown=lambda _: None),
        tls=consortium.coordinator().tls,
        addresses=addresses,
    )


async def _held(address: str, tls: ssl.SSLContext, *, asked: int) -> int:
    """How many of so many connections to an address are not closed before anything is said on them."""
    opened: list[Connection] = []
    for _ in range(asked):
        with contextlib.suppress(OSError):
            opened.append(await Connection.open(int(address.rpartition(":")[2]), tls))
    for connection in opened:
        connection.close()
    return len(opened)


@pytest.mark.parametrize("listens", [1, 2])
def test_the_limit_of_connections_is_that_of_all_addresses(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch, listens: int
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 6)
    member = consortium.operator().tls

    async def run() -> None:
        limited = _a_server(consortium, ["127.0.0.1:0"] * listens)
        addresses = await limited.start()
        tls = tls_context(member, str(member.ca))
        assert [await _held(address, tls, asked=8) for address in addresses] == [6 // listens] * listens
        await limited.stop(grace_s=0)

    asyncio.run(run())


def test_a_second_coordinator_on_the_port_is_refused(consortium: Consortium) -> None:
    async def run() -> None:
        async with live_coordinator(consortium, consortium.folder) as live:
            second = _a_server(consortium, [f"127.0.0.1:{live.port}"])
            with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{live.port}"):
                await second.start()
            await second.stop(grace_s=0)

    asyncio.run(run())
