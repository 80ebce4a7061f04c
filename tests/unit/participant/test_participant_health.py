"""How a daemon says that it is, and `consilo participant health`, which asks it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consilo.cli import main
from participant import asking
from participant.health import DaemonHealth
from shared.health_report import HEALTH_PATH, HealthReport, health_route, read_report
from shared.heartbeat import ALIVE_S, Heartbeat
from shared.http_answer import Handler, HostRule, Query, Reply
from shared.http_server import serve_http
from tests.support.credentials import Consortium
from tests.support.federation import free_port

WHO = "spiffe://hearts.example/participant/hospital-a"
WELL = HealthReport(who=WHO, live=True, ready=True, why="")
AWAY = HealthReport(who=WHO, live=True, ready=False, why="no coordinator")
HANGS = HealthReport(who=WHO, live=False, ready=False, why="it hangs")


class Session:
    trouble = "not open yet"


def test_ready_is_an_open_session_and_live_the_event_loop() -> None:
    session, now = Session(), [0.0]
    health = DaemonHealth(who=WHO, session=session)
    health.loop = Heartbeat(monotonic=lambda: now[0])
    assert health.report() == HealthReport(who=WHO, live=True, ready=False, why="not open yet")
    session.trouble = ""
    assert health.report() == WELL
    now[0] = ALIVE_S + 1
    said = f"the event loop has not answered for {ALIVE_S + 1:.0f} s"
    assert health.report() == HealthReport(who=WHO, live=False, ready=False, why=said)
    health.loop.beat()
    health.drain()
    assert health.report() == HealthReport(who=WHO, live=True, ready=False, why="it was told to end, and drains")


@pytest.mark.parametrize(("report", "status"), [(WELL, 200), (AWAY, 200), (HANGS, 503)])
def test_a_report_is_read_as_it_was_answered(report: HealthReport, status: int) -> None:
    reply = health_route(lambda: report)(Query(path=HEALTH_PATH))
    assert (reply.status, reply.content_type, read_report(reply.body)) == (status, "application/json", report)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def config(tmp_path: Path, consortium: Consortium, port: int) -> Path:
    folder = consortium.participant("hospital-a").folder
    path = tmp_path / "participant.toml"
    path.write_text(
        f"""\
[participant]
id = "hospital-a"
coordinators = ["127.0.0.1:1"]
data_dir = "data"
[tls]
certificate = "{folder}/tls.crt"
key = "{folder}/tls.key"
ca = "{folder}/ca.crt"
[signing]
certificate = "{folder}/signing.crt"
key = "{folder}/signing.key"
[status]
listen = "127.0.0.1:{port}"
"""
    )
    return path


@contextmanager
def answering(port: int, handler: Handler) -> Iterator[None]:
    routes: Mapping[str, Handler] = {HEALTH_PATH: handler}
    with serve_http(routes, ("127.0.0.1", port), what="status", hosts=HostRule.LOOPBACK):
        yield


def ask(config: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["participant", "health", "--config", str(config), *options])


@pytest.mark.parametrize(
    ("report", "line", "codes"),
    [
        (WELL, "live, ready", (0, 0)),
        (AWAY, "live, not ready: no coordinator", (0, 1)),
        (HANGS, "not live, not ready: it hangs", (1, 1)),
    ],
)
def test_one_line_and_an_exit_code(
    config: Path, port: int, report: HealthReport, line: str, codes: tuple[int, int]
) -> None:
    with answering(port, health_route(lambda: report)):
        plain, ready, as_json = ask(config), ask(config, "--ready"), ask(config, "--json")
    assert (plain.output, ready.output) == (f"{line}\n", f"{line}\n")
    assert (plain.exit_code, ready.exit_code) == codes
    assert as_json.output.count("\n") == 1
    assert HealthReport(**json.loads(as_json.output)) == report


def test_another_daemon_is_not_taken_for_this_one(config: Path, port: int) -> None:
    other = replace(WELL, who="spiffe://hearts.example/participant/hospital-b")
    with answering(port, health_route(lambda: other)):
        done = ask(config)
    assert done.exit_code == 1
    assert f"expected {WHO} to answer on 127.0.0.1:{port}, got {other.who}: give each daemon" in done.output


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"who": 1, "live": true, "ready": true, "why": ""}', b"[" * 9999])
def test_another_page_is_no_daemon(config: Path, port: int, body: bytes) -> None:
    with answering(port, lambda _: Reply(body=body)):
        done = ask(config)
    assert done.exit_code == 1
    assert f"what answers on 127.0.0.1:{port} is no participant daemon: another process has that port" in done.output


def test_silence_is_waited_for_no_longer_than_a_moment(
    config: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", port)):
        done = ask(config)
    assert done.exit_code == 1
    assert f"what listens on 127.0.0.1:{port} did not answer within 0.2 s: it hangs" in done.output


def test_asking_loads_nothing_heavy() -> None:
    """It is run every few seconds."""
    asked = "coordinator.cli, coordinator.rpc.health_client, participant.cli, participant.asking"
    code = f"import sys, {asked}; print([name for name in ('torch', 'sqlalchemy', 'jinja2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
