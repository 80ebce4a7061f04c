"""The link that fails on demand does what its verbs say: the tests that cut links rest on it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import FaultProxy

LIMIT_S = 10.0


class Echo:
    """A target that sends back what comes, and remembers it and how its connections ended."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.ends: list[str] = []
        self.ended = threading.Semaphore(0)
        self.came = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.came += data
                    connection.sendall(data)
                self.ends.append("end")
            except OSError:
                self.ends.append("reset")
        self.ended.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def link(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.address) as link:
        yield link


def dial(link: FaultProxy) -> socket.socket:
    host, port = link.address.split(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT_S)


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return take(connection, len(data))


def take(connection: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        data = connection.recv(count - len(taken))
        assert data, "the connection ended"
        taken += data
    return taken


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(LIMIT_S)
    return False


def test_bytes_pass_and_are_counted(link: FaultProxy) -> None:
    with dial(link) as connection:
        assert ask(connection, b"a" * 1_000_000) == b"a" * 1_000_000
    assert (link.bytes_to_target, link.bytes_to_client) == (1_000_000, 1_000_000)


def test_an_end_is_passed_on_as_an_end(link: FaultProxy, echo: Echo) -> None:
    with dial(link) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert take(connection, 10) == b"last words"
        assert connection.recv(1) == b""
    assert echo.ended.acquire(timeout=LIMIT_S)
    assert echo.ends == ["end"]


def test_a_cut_link_resets_and_refuses_until_it_is_healed(link: FaultProxy, echo: Echo) -> None:
    with dial(link) as connection:
        ask(connection, b"whole")
        link.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert echo.ended.acquire(timeout=LIMIT_S)
    assert echo.ends == ["reset"]
    with pytest.raises(ConnectionRefusedError):
        dial(link)
    link.heal()
    with dial(link) as connection:
        assert ask(connection, b"again") == b"again"


def test_cutting_and_healing_twice_is_once(link: FaultProxy) -> None:
    link.cut()
    link.cut()
    link.heal()
    link.heal()
    with dial(link) as connection:
        assert ask(connection, b"again") == b"again"


def test_a_reset_lets_new_connections_in(link: FaultProxy) -> None:
    with dial(link) as old:
        ask(old, b"old")
        link.reset_connections()
        with pytest.raises(ConnectionResetError):
            old.recv(1)
    with dial(link) as new:
        assert ask(new, b"new") == b"new"


def test_a_stalled_link_holds_back_and_loses_nothing(link: FaultProxy) -> None:
    with dial(link) as connection:
        ask(connection, b"before")
        link.stall()
        connection.sendall(b"during")
        assert is_silent(connection)
        with dial(link) as late:  # it comes about, and hears nothing
            late.sendall(b"late")
            assert is_silent(late)
            link.go_on()
            assert take(late, 4) == b"late"
        assert take(connection, 6) == b"during"


def test_a_delay_counts_each_way(link: FaultProxy) -> None:
    link.delay_s = 0.15
    with dial(link) as connection:
        began = time.monotonic()
        ask(connection, b"there and back")
        assert time.monotonic() - began >= 0.3
        link.delay_s = 0.0
        began = time.monotonic()
        ask(connection, b"there and back")
        assert time.monotonic() - began < 0.3


def test_a_delay_does_not_throttle(link: FaultProxy) -> None:
    """A hundred chunks are under way together: one after the other they would take ten seconds."""
    link.delay_s = 0.1
    with dial(link) as connection:
        began = time.monotonic()
        sending = threading.Thread(target=connection.sendall, args=(b"x" * 6_400_000,))
        sending.start()
        take(connection, 6_400_000)
        sending.join()
        assert time.monotonic() - began < 5.0


def test_a_throttled_link_takes_its_time(link: FaultProxy) -> None:
    link.bytes_per_s = 100_000
    with dial(link) as connection:
        began = time.monotonic()
        ask(connection, b"x" * 50_000)
        assert time.monotonic() - began >= 0.4
        link.bytes_per_s = None
        ask(connection, b"x" * 5_000_000)


def test_a_quiet_flow_is_forgotten_without_a_word(link: FaultProxy, echo: Echo) -> None:
    link.idle_drop_s = 0.3
    with dial(link) as connection:
        for _ in range(4):  # as long as something passes in time, it is remembered
            ask(connection, b"still here")
            time.sleep(0.1)
        time.sleep(0.4)
        connection.sendall(b"anybody?")
        assert is_silent(connection)
        assert not echo.ends
        with dial(link) as new:
            assert ask(new, b"a new flow") == b"a new flow"
    assert b"anybody?" not in echo.came


def test_a_link_is_cut_at_the_byte_that_was_named(link: FaultProxy, echo: Echo) -> None:
    with dial(link) as connection:
        ask(connection, b"x" * 1000)
        struck = link.cut_after(200_000)
        with pytest.raises(OSError):
            ask(connection, b"x" * 1_000_000)
        assert struck.wait(LIMIT_S)
    assert 201_000 <= link.bytes_to_target <= 201_000 + 65536
    assert len(echo.came) <= 201_000
    with pytest.raises(ConnectionRefusedError):
        dial(link)


def test_a_cut_takes_back_the_one_that_was_appointed(link: FaultProxy) -> None:
    struck = link.cut_after(1000)
    link.cut()
    link.heal()
    with dial(link) as connection:
        ask(connection, b"x" * 5000)
    assert not struck.is_set()


def test_nobody_at_the_target_is_a_reset(echo: Echo) -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    address = nobody.getsockname()
    nobody.close()
    with FaultProxy(address) as link, pytest.raises(ConnectionResetError), dial(link) as connection:
        connection.recv(1)  # if the reset did not come while it dialed


def test_no_connection_outlives_the_proxy(echo: Echo) -> None:
    with FaultProxy(echo.address) as link:
        connection = dial(link)
        ask(connection, b"whole")
        assert link.connections == 1
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
