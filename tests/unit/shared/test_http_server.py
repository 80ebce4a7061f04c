"""The listeners over real sockets: who is served, and who cannot hold them up."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from shared import http_server
from shared.errors import ConfigError
from shared.http_answer import HostRule, Query, Reply
from shared.http_server import CONNECTIONS_MAX, HEAD_MAX_BYTES, OF_ONE_ADDRESS_MAX, check_can_listen, serve_http
from shared.http_tls import HttpContexts, HttpTls
from tests.support.http_peers import PATIENCE_S, Scrapers, ask, body_of, dial, head, read_all, scrape, status_of

LOOPBACK = ("127.0.0.1", 0)
HURRIED_S = 0.3


def _hello(_query: Query) -> Reply:
    return Reply(body=b"hello")


@contextmanager
def serving(tls: HttpTls | None = None) -> Iterator[int]:
    routes = {"/": _hello, "/metrics": _hello, "/large": lambda _: Reply(body=b"x" * 4_000_000)}
    hosts = HostRule.ANY if tls else HostRule.LOOPBACK
    contexts = HttpContexts(tls, what="metrics") if tls else None
    with serve_http(routes, LOOPBACK, what="metrics", tls=contexts, hosts=hosts) as port:
        yield port


@pytest.fixture
def scrapers(tmp_path: Path) -> Scrapers:
    return Scrapers(tmp_path / "scrapers")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that are held open are not timed out meanwhile, however slow the machine."""
    monkeypatch.setattr(http_server, "HEAD_S", 2 * PATIENCE_S)


@pytest.mark.usefixtures("patient")
def test_silent_peers_delay_nobody() -> None:
    with serving() as port, ExitStack() as open_:
        for _ in range(OF_ONE_ADDRESS_MAX - 1):
            open_.enter_context(dial(port)).sendall(b"GET / HTTP/1.1\r\n")
        assert body_of(ask(port)) == b"hello"


@pytest.mark.usefixtures("patient")
def test_too_many_connections_are_closed_at_once_and_others_go_on() -> None:
    with serving() as port:
        with ExitStack() as open_:
            held = [open_.enter_context(dial(port)) for _ in range(OF_ONE_ADDRESS_MAX)]
            with dial(port) as one_more:
                assert one_more.recv(1) == b""
            held[0].sendall(head())
            assert body_of(read_all(held[0])) == b"hello"
        assert _answered_again(port)


def _answered_again(port: int) -> bool:
    """The threads of connections that ended here end there soon after."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if body_of(ask(port)) == b"hello":
                return True
        except ConnectionError:
            continue
    return False


@pytest.mark.usefixtures("patient")
def test_one_address_does_not_take_all_connections() -> None:
    with serving() as port, ExitStack() as open_:
        for _ in range(OF_ONE_ADDRESS_MAX):
            open_.enter_context(dial(port))
        with socket.create_connection(
            ("127.0.0.1", port), timeout=PATIENCE_S, source_address=("127.0.0.2", 0)
        ) as other:
            other.sendall(head())
            assert body_of(read_all(other)) == b"hello"
    assert OF_ONE_ADDRESS_MAX < CONNECTIONS_MAX


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_end_is_timed_out(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", HURRIED_S)
    with serving() as port:
        assert status_of(ask(port, begun)) == 408


def test_a_byte_now_and_then_buys_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", HURRIED_S)
    with serving() as port, dial(port) as slow:
        began = time.monotonic()
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(HURRIED_S / 20):
                try:
                    slow.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert status_of(read_all(slow)) == 408
        finally:
            ended.set()
            dripping.join()
        assert time.monotonic() - began >= HURRIED_S


def test_a_long_head_is_refused_though_its_sender_goes_on() -> None:
    with serving() as port:
        assert status_of(ask(port, head(more="X: " + "y" * (HEAD_MAX_BYTES + 100_000) + "\r\n"))) == 431


def test_a_peer_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REPLY_S", HURRIED_S)
    with serving() as port, dial(port) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(head("/large"))
        assert deaf.recv(1) == b"H"  # it is served, and its thread waits for it to read on
        (serving_it,) = [thread for thread in threading.enumerate() if thread.name == "metrics-http-connection"]
        serving_it.join(PATIENCE_S)
        assert not serving_it.is_alive()


def test_a_body_that_nobody_reads_does_not_take_the_answer_away() -> None:
    with serving() as port:
        request = head(method="POST", more="Content-Length: 100000\r\n") + b"z" * 100_000
        assert status_of(ask(port, request)) == 405


@pytest.mark.usefixtures("patient")
def test_it_ends_quickly_with_connections_open() -> None:
    with ExitStack() as open_:
        with serving() as port:
            held = [open_.enter_context(dial(port)) for _ in range(8)]
            assert body_of(ask(port)) == b"hello"
            began = time.monotonic()
        assert time.monotonic() - began < PATIENCE_S / 2
        assert [each.recv(1) for each in held] == [b""] * 8
        with pytest.raises(OSError, match="refused"):
            dial(port)


def test_where_it_cannot_listen_the_key_is_named() -> None:
    with serving() as port:
        expected = rf"metrics\.listen: cannot listen on 127\.0\.0\.1:{port} \(Address already in use\): choose another"
        with (
            pytest.raises(ConfigError, match=expected),
            serve_http({}, ("127.0.0.1", port), what="metrics", hosts=HostRule.LOOPBACK),
        ):
            pass
        with pytest.raises(ConfigError, match=expected):
            check_can_listen(("127.0.0.1", port), what="metrics", hosts=HostRule.LOOPBACK)
    with pytest.raises(ConfigError, match=r"status\.listen: cannot listen on no-such-host\.invalid:1 "):
        check_can_listen(("no-such-host.invalid", 1), what="status", hosts=HostRule.LOOPBACK)


def test_what_is_said_to_be_loopback_must_be() -> None:
    with pytest.raises(ConfigError, match=r"status\.listen: 0\.0\.0\.0 is 0\.0\.0\.0 here, which is not a loopback"):
        check_can_listen(("0.0.0.0", 0), what="status", hosts=HostRule.LOOPBACK)  # noqa: S104 - what is refused


# --- mutual TLS -------------------------------------------------------------------------------------------------------


def test_a_scraper_with_the_right_certificate_is_answered(scrapers: Scrapers) -> None:
    with serving(scrapers.tls) as port:
        answer, _ = scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)
        assert (status_of(answer), body_of(answer)) == (200, b"hello")


def _refused(port: int, scrapers: Scrapers, shown: object, **options: ssl.TLSVersion) -> None:
    with pytest.raises(OSError):
        scrape(port, scrapers.tls.clients_ca, shown, **options)  # type: ignore[arg-type] # None or credentials


def test_any_other_gets_no_byte_of_an_answer(scrapers: Scrapers, tmp_path: Path) -> None:
    other = Scrapers(tmp_path / "other").prometheus
    with serving(scrapers.tls) as port:
        _refused(port, scrapers, None)
        _refused(port, scrapers, other)
        _refused(port, scrapers, scrapers.authority.expired())
        _refused(port, scrapers, scrapers.listener)  # for being dialled, not for dialling
        _refused(port, scrapers, scrapers.prometheus, version=ssl.TLSVersion.TLSv1_2)
        assert status_of(scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)[0]) == 200


def test_plain_http_on_a_listener_with_tls_gets_nothing(scrapers: Scrapers) -> None:
    with serving(scrapers.tls) as port:
        try:
            answer = ask(port)
        except ConnectionError:
            answer = b""
        assert b"HTTP" not in answer
        assert b"hello" not in answer


def test_peers_that_do_not_shake_hands_delay_nobody(scrapers: Scrapers, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(scrapers.tls) as port, ExitStack() as open_:
        for _ in range(OF_ONE_ADDRESS_MAX - 1):
            open_.enter_context(dial(port))
        assert status_of(scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)[0]) == 200
    monkeypatch.setattr(http_server, "HEAD_S", HURRIED_S)
    with serving(scrapers.tls) as port, dial(port) as silent:
        assert silent.recv(1) == b""


def test_a_rotated_certificate_is_shown_without_a_restart(scrapers: Scrapers) -> None:
    with serving(scrapers.tls) as port:
        _, before = scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)
        newer = scrapers.rotate()
        answer, shown = scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)
        assert status_of(answer) == 200
        assert shown == newer != before


def test_files_half_way_through_a_rotation_leave_the_last_good_ones(scrapers: Scrapers) -> None:
    with serving(scrapers.tls) as port:
        _, before = scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)
        key = scrapers.tls.key.read_bytes()
        scrapers.tls.key.write_bytes(b"half a key")
        assert scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)[1] == before
        scrapers.tls.key.write_bytes(key)
        assert scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)[1] == before


def test_whoever_is_no_more_let_in_is_not_answered_from_the_next_connection_on(
    scrapers: Scrapers, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(scrapers.authority.ca_pem)
    with serving(scrapers.tls) as port:
        assert status_of(scrape(port, trusted, scrapers.prometheus)[0]) == 200
        scrapers.tls.clients_ca.write_bytes(Scrapers(tmp_path / "newer").authority.ca_pem)
        with pytest.raises(OSError):
            scrape(port, trusted, scrapers.prometheus)
