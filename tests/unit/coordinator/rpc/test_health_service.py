"""grpc.health.v1 over real TLS: what it answers, when a watch is told, and the command's way of asking."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from grpc import aio

from consilo.cli import main
from coordinator.rpc import health as service
from coordinator.rpc import health_client
from coordinator.rpc.health_client import Answered, ask_health
from coordinator.rpc.health_messages import LIVENESS, NOT_SERVING, READINESS, SERVICE_UNKNOWN, SERVING
from shared.certificates import CLIENT_AUTH, SERVER_AUTH
from shared.errors import ConfigError, FederationError, IdentityError, RefusedError, UnreachableError
from shared.heartbeat import ALIVE_S, Heartbeat
from shared.identity import Role
from shared.tls import TlsPaths, channel_credentials
from tests.support.asking_health import HEALTH, check, request, told, watch
from tests.support.credentials import LOCAL_HOSTS, Consortium
from tests.support.fake_participant import fake_participant
from tests.support.federation import write_toml
from tests.support.live_coordinator import LiveCoordinator, live_coordinator

Body = Callable[[LiveCoordinator, aio.Channel], Awaitable[None]]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


def run(consortium: Consortium, body: Body) -> None:
    """With a coordinator, and a channel of an operator."""

    async def running() -> None:
        async with (
            live_coordinator(consortium, consortium.folder) as live,
            aio.secure_channel(
                f"localhost:{live.port}",
                channel_credentials(consortium.operator().tls),
                options=[("grpc.use_local_subchannel_pool", 1)],
            ) as channel,
        ):
            await body(live, channel)

    asyncio.run(running())


@asynccontextmanager
async def hospital(live: LiveCoordinator, consortium: Consortium, name: str) -> AsyncIterator[None]:
    member = consortium.participant(name)
    async with fake_participant(live.port, name, member, consortium.coordinator()) as silo:
        talk, _ = await silo.open()
        yield
        await talk.stream.done_writing()


def test_readiness_follows_the_quorum_and_a_watch_hears_it(consortium: Consortium) -> None:
    async def body(live: LiveCoordinator, channel: aio.Channel) -> None:
        stream = watch(channel, READINESS)
        assert await told(stream) == NOT_SERVING
        assert await check(channel, READINESS) == NOT_SERVING
        async with hospital(live, consortium, "hospital-a"):
            assert await told(stream) == SERVING
            digest, _ = await live.add_model(4)
            await live.submit("heart-1", ["hospital-a", "hospital-b"], digest)
            assert await told(stream) == NOT_SERVING
            assert live.health.readiness.why == "job heart-1: 1 of quorum 2; not connected: hospital-b"
        stream.cancel()
        assert await check(channel, LIVENESS) == SERVING

    run(consortium, body)


def test_draining_is_told_and_ends_no_liveness(consortium: Consortium) -> None:
    async def body(live: LiveCoordinator, channel: aio.Channel) -> None:
        async with hospital(live, consortium, "hospital-a"):
            readiness, liveness = watch(channel, READINESS), watch(channel, LIVENESS)
            await live.until(lambda: live.health.readiness.ready)
            assert await told(readiness) == SERVING
            assert await told(liveness) == SERVING
            live.health.drain()
            assert await told(readiness) == NOT_SERVING
            assert await check(channel, READINESS) == NOT_SERVING
            assert await check(channel, LIVENESS) == SERVING
            live.health_service.end()
            for stream in (readiness, liveness):
                assert await stream.read() is aio.EOF
                assert await stream.code() is grpc.StatusCode.OK

    run(consortium, body)


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK_S", 0.05)


@pytest.mark.usefixtures("_hurried")
def test_a_conductor_that_hangs_is_not_live(consortium: Consortium) -> None:
    async def body(live: LiveCoordinator, channel: aio.Channel) -> None:
        stream, now = watch(channel, LIVENESS), [0.0]
        assert await told(stream) == SERVING
        live.health.conductor = Heartbeat(monotonic=lambda: now[0])
        now[0] = ALIVE_S + 1
        assert await told(stream) == NOT_SERVING
        assert await check(channel, LIVENESS) == NOT_SERVING
        live.health.conductor.beat()
        assert await told(stream) == SERVING
        stream.cancel()

    run(consortium, body)


@pytest.mark.usefixtures("_hurried")
def test_a_watch_of_one_who_is_let_in_no_more_ends(consortium: Consortium) -> None:
    async def body(live: LiveCoordinator, _channel: aio.Channel) -> None:
        silo = consortium.participant("hospital-w")
        async with aio.secure_channel(f"localhost:{live.port}", channel_credentials(silo.tls)) as channel:
            stream = watch(channel, LIVENESS)
            assert await told(stream) == SERVING
            consortium.reissue(Role.PARTICIPANT, "hospital-w")
            with pytest.raises(aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED

    run(consortium, body)


def test_an_unknown_service_and_what_is_no_request(consortium: Consortium) -> None:
    async def body(_live: LiveCoordinator, channel: aio.Channel) -> None:
        with pytest.raises(aio.AioRpcError) as caught:
            await check(channel, "consilo.other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        stream = watch(channel, "consilo.other")
        assert await told(stream) == SERVICE_UNKNOWN
        stream.cancel()
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{HEALTH}Check")
        for sent in (b"\xff\xff", request("x" * 101)):
            with pytest.raises(aio.AioRpcError) as caught:
                await call(sent)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(consortium, body)


# --- as `consilo coordinator health` asks -----------------------------------------------------------------------------


def asked(consortium: Consortium, tls: TlsPaths | None = None, *, listen: str = "127.0.0.1:0") -> Answered:
    """By a coordinator that runs, from a thread, as another process would."""
    answers: list[Answered] = []

    async def body() -> None:
        async with live_coordinator(consortium, consortium.folder, listen=listen) as live:
            dialled = f"{listen.rpartition(':')[0]}:{live.port}"
            answers.append(await asyncio.to_thread(ask_health, dialled, tls or consortium.coordinator().tls))

    asyncio.run(body())
    return answers[0]


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "localhost:0"])
def test_the_coordinator_asks_itself(consortium: Consortium, listen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # for what leaves this machine
    assert asked(consortium, listen=listen) == Answered(live=True, ready=False)


def test_a_certificate_of_before_is_to_be_renewed(consortium: Consortium) -> None:
    older = consortium.leaf(
        "older", uris=["spiffe://hearts.example/coordinator/older"], hosts=LOCAL_HOSTS, purpose=SERVER_AUTH
    )
    with pytest.raises(ConfigError, match=r"is for being dialled alone, .* renew it \(`consilo pki sign"):
        ask_health("127.0.0.1:1", older.tls)
    nameless = consortium.leaf("nameless", uris=["spiffe://hearts.example/coordinator/n"], purpose=CLIENT_AUTH)
    with pytest.raises(ConfigError, match="is for no host"):
        ask_health("127.0.0.1:1", nameless.tls)


def test_a_certificate_that_is_not_on_the_list_is_told_so(consortium: Consortium) -> None:
    unlisted = consortium.leaf("unlisted", uris=["spiffe://hearts.example/coordinator/u"], hosts=["localhost"])
    with pytest.raises(IdentityError, match="does not let its own certificate in: coordinator u is not on"):
        asked(consortium, unlisted.tls)


def test_nothing_there_or_something_else(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = consortium.coordinator().tls
    other = Consortium(consortium.folder / "elsewhere", consortium="lungs.example")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(health_client, "ANSWER_S", 0.5)
        with pytest.raises(
            UnreachableError, match=rf"what listens on 127\.0\.0\.1:{port} did not answer within 0\.5 s"
        ):
            ask_health(f"127.0.0.1:{port}", tls)
        monkeypatch.undo()
        threading.Thread(target=partial(_speak_http, listener), daemon=True).start()
        with pytest.raises(UnreachableError, match="another process has the port"):
            ask_health(f"127.0.0.1:{port}", tls)
        listener.shutdown(socket.SHUT_RDWR)  # a thread that waits in `accept` would keep it open
    with pytest.raises(UnreachableError, match=rf"nothing listens on 127\.0\.0\.1:{port}: the coordinator is not runn"):
        ask_health(f"127.0.0.1:{port}", tls)
    with pytest.raises(UnreachableError, match="another process has the port"):
        asked(consortium, other.coordinator().tls)
    with pytest.raises(ConfigError, match="a port that each start chooses anew"):
        ask_health("127.0.0.1:0", tls)


def _speak_http(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_an_older_coordinator_knows_no_health(consortium: Consortium) -> None:
    class Failed(Exception):  # noqa: N818 - stands for gRPC's, which nobody can make
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNIMPLEMENTED

        def details(self) -> str:
            return "Method not found!"

    meant: FederationError = health_client._meant(Failed(), "127.0.0.1:8443")
    assert isinstance(meant, RefusedError)
    assert "it has another version" in str(meant)


@pytest.fixture
def configuration(tmp_path: Path, consortium: Consortium) -> Path:
    path, own = tmp_path / "coordinator.toml", consortium.coordinator().folder
    write_toml(
        path,
        {
            "coordinator": {"id": "coordinator", "data_dir": "data"},
            "tls": {"certificate": str(own / "tls.crt"), "key": str(own / "tls.key"), "ca": str(own / "ca.crt")},
            "signing": {"certificate": str(own / "signing.crt"), "key": str(own / "signing.key")},
            "access": {"allowlist": "allowlist.toml"},
        },
    )
    return path


@pytest.mark.parametrize(
    ("answered", "line", "codes"),
    [
        (Answered(live=True, ready=True), "live, ready", (0, 0)),
        (Answered(live=True, ready=False), "live, not ready", (0, 1)),
        (Answered(live=False, ready=True), "not live, ready", (1, 1)),
    ],
)
def test_the_command_says_one_line(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, answered: Answered, line: str, codes: tuple[int, int]
) -> None:
    monkeypatch.setattr(health_client, "ask_health", lambda _listen, _tls: answered)  # the question is asked above
    plain, ready, as_json = (
        CliRunner().invoke(main, ["coordinator", "health", "--config", str(configuration), *options])
        for options in ([], ["--ready"], ["--json"])
    )
    assert (plain.output, ready.output) == (f"{line}\n", f"{line}\n")
    assert (plain.exit_code, ready.exit_code) == codes
    assert Answered(**json.loads(as_json.output)) == answered
