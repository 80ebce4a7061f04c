"""What a service manager hears, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.service_manager import NOTIFY_VARIABLE, ServiceManager

LIMIT_S = 10.0


@pytest.fixture
def manager_at(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(LIMIT_S)
        heard.bind(str(tmp_path / "notify"))
        yield str(tmp_path / "notify"), heard


def test_hears_when_a_daemon_serves_and_when_it_ends(manager_at: tuple[str, socket.socket]) -> None:
    address, heard = manager_at
    manager = ServiceManager({NOTIFY_VARIABLE: address})
    manager.ready()
    manager.stopping()
    assert [heard.recv(100), heard.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_an_abstract_name_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(LIMIT_S)
        heard.bind("")  # the kernel chooses an abstract name
        name = bytes(heard.getsockname())
        ServiceManager({NOTIFY_VARIABLE: "@" + name[1:].decode()}).ready()
        assert heard.recv(100) == b"READY=1"


def test_the_socket_is_not_handed_on_to_a_tasks_processes(manager_at: tuple[str, socket.socket]) -> None:
    environment = {NOTIFY_VARIABLE: manager_at[0], "HOME": "/"}
    ServiceManager(environment)
    assert environment == {"HOME": "/"}


def test_without_a_manager_nothing_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    manager = ServiceManager({})
    manager.ready()
    manager.stopping()
    assert "service_manager_not_told" not in capfd.readouterr().err


@pytest.mark.parametrize("address", ["/nowhere/notify", "/" + "long" * 60, "/zero\0byte", "relative"])
def test_one_that_does_not_listen_is_logged_and_no_more(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    ServiceManager({NOTIFY_VARIABLE: address}).ready()
    assert "service_manager_not_told" in capfd.readouterr().err


def test_one_that_never_reads_holds_nobody_up(manager_at: tuple[str, socket.socket]) -> None:
    address, heard = manager_at
    manager = ServiceManager({NOTIFY_VARIABLE: address})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                filling.sendto(b"x", address)
    manager.stopping()
    assert heard.recv(100) == b"x"
