"""The coordinator as its own process: ready, told to end, killed, and refused to start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from grpc import aio

from coordinator.cli import coordinator
from coordinator.rpc.health_messages import LIVENESS, NOT_SERVING, READINESS, SERVING
from shared.errors import FederationError
from shared.health_report import HealthReport, read_report
from shared.protocol.messages import Heartbeat
from shared.reasons import RefusalReason
from shared.tls import channel_credentials
from tests.support.asking_health import told, watch
from tests.support.credentials import Consortium
from tests.support.fake_participant import fake_participant

ENDS_WITHIN_S = 8.0
COORDINATOR = "spiffe://hearts.example/coordinator/coordinator"


class Deployed:
    """A folder with a configuration, as an operator has it."""

    def __init__(self, folder: Path) -> None:
        self.consortium = Consortium(folder)
        self.folder = folder
        self.data = folder / "data"
        credentials = self.consortium.coordinator().folder
        self.config = folder / "coordinator.toml"
        self.config.write_text(
            f"""
            [coordinator]
            id = "coordinator"
            listen = ["127.0.0.1:0"]
            data_dir = "{self.data}"
            [tls]
            certificate = "{credentials}/tls.crt"
            key = "{credentials}/tls.key"
            ca = "{credentials}/ca.crt"
            [signing]
            certificate = "{credentials}/signing.crt"
            key = "{credentials}/signing.key"
            [access]
            allowlist = "{self.consortium.allowlist}"
            [metrics]
            listen = "127.0.0.1:0"
            [status]
            listen = "127.0.0.1:0"
            [log]
            format = "json"
            """
        )

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "consilo", "coordinator", "run", "--config", str(self.config)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @contextmanager
    def running(self) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """The process, and its ready line."""
        process = self.start()
        try:
            yield process, _line(process, "coordinator_ready")
        finally:
            process.kill()
            process.communicate()

    def check(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code and findings by name."""
        result = CliRunner().invoke(coordinator, ["check", "--config", str(self.config), "--json"])
        return result.exit_code, {found["name"]: found for found in json.loads(result.output)["checks"]}

    def refused(self) -> str:
        """The one line with which a start ends."""
        process = self.start()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        ours = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(ours) == 1, said
        assert "Traceback" not in said
        return ours[0]


def _line(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == event:
            return dict(json.loads(line))
    raise AssertionError(f"the process ended without {event}")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as page:  # noqa: S310 - our own process on loopback
        return bytes(page.read())


async def _until_the_disk_is_told(url: str) -> None:
    """The first look begins when it is ready, on a thread."""
    for _ in range(1000):
        if b'consilo_coordinator_disk_bytes{kind="database"}' in await asyncio.to_thread(_get, url):
            return
    raise AssertionError("no look at the disk in all that time")


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


def test_it_says_when_it_is_ready_and_drains_when_told_to_end(deployed: Deployed) -> None:
    member = deployed.consortium.participant("hospital-a")
    with deployed.running() as (process, ready):
        port = int(ready["listen"][0].rpartition(":")[2])

        async def talk() -> float:
            coordinator = deployed.consortium.coordinator()
            async with (
                fake_participant(port, "hospital-a", member, coordinator) as participant,
                aio.secure_channel(f"localhost:{port}", channel_credentials(coordinator.tls)) as itself,
            ):
                readiness, liveness = watch(itself, READINESS), watch(itself, LIVENESS)
                assert [await told(readiness), await told(liveness)] == [NOT_SERVING, SERVING]
                health = read_report(await asyncio.to_thread(_get, f"http://{ready['status']}/health"))
                assert health == HealthReport(COORDINATOR, live=True, ready=False, why="no participant is connected")
                session, _ = await participant.open()
                await session.say(Heartbeat())
                assert await told(readiness) == SERVING
                page = await asyncio.to_thread(_get, f"http://{ready['metrics']}/metrics")
                assert b"consilo_coordinator_connected_participants 1.0" in page
                await _until_the_disk_is_told(f"http://{ready['metrics']}/metrics")
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                assert (await session.refused()).reason is RefusalReason.DRAINING
                assert await told(readiness) == NOT_SERVING
                # To its end it is live.
                assert [await readiness.read(), await liveness.read()] == [aio.EOF, aio.EOF]
                return started

        started = asyncio.run(talk())
        assert process.wait(ENDS_WITHIN_S) == 0
        assert time.monotonic() - started < ENDS_WITHIN_S
    code, findings = deployed.check()
    assert code == 0, findings
    assert "entries that verify: 1" in findings["audit log"]["detail"]


def test_a_second_signal_ends_it_at_once(deployed: Deployed) -> None:
    with deployed.running() as (process, _):
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_WITHIN_S) in {0, 128 + signal.SIGTERM, 128 + signal.SIGINT}


def test_it_starts_again_after_a_kill(deployed: Deployed) -> None:
    for _ in range(2):
        with deployed.running() as (process, _):
            process.kill()
    with deployed.running() as (process, _):
        process.terminate()
        assert process.wait(ENDS_WITHIN_S) == 0
    assert (deployed.data / "audit.log").read_bytes().count(b"coordinator_started") == 3


def test_a_data_folder_that_is_taken_away_ends_it_with_the_next_event(deployed: Deployed) -> None:
    member, aside = deployed.consortium.participant("hospital-a"), deployed.folder / "aside"

    async def come(port: int) -> None:
        with contextlib.suppress(FederationError, grpc.RpcError):  # it may be gone before it answers
            async with fake_participant(port, "hospital-a", member, deployed.consortium.coordinator()) as participant:
                await participant.open()

    with deployed.running() as (process, ready):
        deployed.data.rename(aside)
        asyncio.run(come(int(ready["listen"][0].rpartition(":")[2])))
        said = _line(process, "durability_unknown")
        assert f"{deployed.data} was removed or replaced while this process ran: put it back" in said["reason"]
        assert process.wait(ENDS_WITHIN_S) == 1
    aside.rename(deployed.data)
    with deployed.running() as (process, _):
        process.terminate()
        assert process.wait(ENDS_WITHIN_S) == 0


def test_what_keeps_it_from_starting_is_one_line(deployed: Deployed) -> None:
    with deployed.running() as (process, _):
        second = deployed.refused()
        assert f"{deployed.data} is in use by another coordinator (process {process.pid}): stop that one" in second
        process.terminate()
        assert process.wait(ENDS_WITHIN_S) == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        deployed.change('listen = ["127.0.0.1:0"]', f'listen = ["127.0.0.1:{port}"]')
        assert f"cannot listen on 127.0.0.1:{port}" in deployed.refused()
        code, findings = deployed.check()
        assert code == 1
        assert [name for name, found in findings.items() if not found["ok"]] == [f"listen 127.0.0.1:{port}"]
    log = deployed.data / "audit.log"
    log.write_bytes(log.read_bytes().replace(b"coordinator_started", b"coordinator_stanted", 1))
    assert "line 1 of the audit file differs" in deployed.refused()
    code, findings = deployed.check()
    assert code == 1
    assert not findings["audit log"]["ok"]


def test_check_finds_what_is_wrong_and_changes_nothing(deployed: Deployed) -> None:
    code, findings = deployed.check()
    assert (code, [found for found in findings.values() if not found["ok"]]) == (0, [])
    assert not deployed.data.exists()
    deployed.consortium.allowlist.write_text("nonsense")
    deployed.data.write_text("a file, and no folder")
    code, findings = deployed.check()
    assert code == 1
    assert {name for name, found in findings.items() if not found["ok"]} == {"allow-list", "data folder"}
    (deployed.consortium.coordinator().folder / "tls.key").chmod(0o644)
    _, findings = deployed.check()
    assert {name for name, found in findings.items() if not found["ok"]} == {"credentials", "data folder"}


def test_check_prints_a_table_for_people(deployed: Deployed) -> None:
    result = CliRunner().invoke(coordinator, ["check", "--config", str(deployed.config)])
    assert result.exit_code == 0
    assert "allow-list" in result.output


def test_a_name_that_is_not_in_the_certificate_is_refused(deployed: Deployed) -> None:
    deployed.change('id = "coordinator"', 'id = "other"')
    assert "coordinator.id is 'other'" in deployed.refused()
