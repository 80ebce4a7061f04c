"""Alerts fire and end under compose, while a participant and the coordinator are killed in turn, and rounds go on.

The federation is that of docker-compose.yml; its Prometheus has the scrapes and rules of the repository, sixty times
as fast. It is a project of its own, beside that of test_federation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.containers.engine import BUILD_LIMIT_S, Container, awaited, built, docker, run
from tests.containers.prometheus import Prometheus, hurried_rules, write_configuration
from tests.support.rules import PROMETHEUS

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

PROJECT = "consilo-alerts-test"
LOST = "hospital-d"
FACTOR = 1 / 60
COMMITTED = 'sum(consilo_coordinator_rounds_committed_total{purpose="train"})'
NUMBER = "consilo_coordinator_round_number"


@dataclass(frozen=True, slots=True)
class Watched:
    """One project of compose."""

    override: Path
    environment: Mapping[str, str]

    def compose(self, *arguments: str, limit_s: float = 600.0) -> str:
        files = ("--file", "docker-compose.yml", "--file", str(self.override))
        command = ["docker-compose", "--project-name", PROJECT, *files, *arguments]
        return run(command, limit_s=limit_s, environment=self.environment)

    def container(self, service: str) -> Container:
        return Container(self.compose("ps", "--quiet", service).strip())

    def kill(self, service: str) -> None:
        container = self.container(service)
        docker("kill", "--signal", "KILL", container.name)
        awaited(f"{service} is dead", lambda: not container.running)

    def start(self, service: str) -> None:
        self.compose("start", service)

    def prometheus(self) -> Prometheus:
        """As its port is now."""
        container = self.container("prometheus")
        return Prometheus(f"127.0.0.1:{container.port(9090)}", container)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("compose")
    settings = folder / "prometheus"
    settings.mkdir()
    scrapes = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    write_configuration(settings, scrapes, hurried_rules(FACTOR))
    for path in (folder.parent, folder, settings):
        path.chmod(0o755)  # Prometheus is nobody there
    override = folder / "override.yml"
    override.write_text(yaml.safe_dump({"services": {"prometheus": {"volumes": [f"{settings}:/etc/prometheus:ro"]}}}))
    environment = {"CONSILO_DEMO_ROUNDS": "100000", "PROMETHEUS_IMAGE": built("prometheus"), "PROMETHEUS_PORT": ""}
    this = Watched(override, {**environment, "TORCH": "cpu"})
    try:
        this.compose("down", "--volumes", "--remove-orphans")
        this.compose("build", limit_s=BUILD_LIMIT_S)
        this.compose("up", "--detach", "--no-build")
        yield this
    except BaseException:
        sys.stderr.write(this.compose("ps") + this.compose("logs", "--tail", "20"))
        raise
    finally:
        this.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def seen(watched: Watched) -> Prometheus:
    """Its Prometheus, once all are up and rounds are committed."""
    found = watched.prometheus()

    def all_up() -> bool:
        try:
            return found.value("sum(up)") == 5 and (found.value(COMMITTED) or 0) >= 1
        except OSError:  # it starts
            return False

    awaited("all are up, and a round is committed", all_up, limit_s=600)
    found.await_quiet("ConsiloParticipantMissing", "ConsiloSiloDown", "ConsiloCoordinatorDown")
    return found


def await_rounds(found: Prometheus) -> None:
    before = found.value(COMMITTED) or 0
    awaited("rounds go on", lambda: (found.value(COMMITTED) or 0) >= before + 2, limit_s=600)


def test_a_participant_that_is_killed_is_missed_until_it_is_back(watched: Watched, seen: Prometheus) -> None:
    missing = {"ConsiloParticipantMissing", "ConsiloSiloDown"}
    watched.kill(LOST)
    seen.await_firing(*missing)
    named = [each["labels"] for each in seen.alerts() if each["labels"]["alertname"] == "ConsiloParticipantMissing"]
    assert [labels["participant"] for labels in named] == [LOST]
    await_rounds(seen)
    watched.start(LOST)
    seen.await_quiet(*missing)
    await_rounds(seen)


def test_a_coordinator_that_is_killed_is_missed_until_it_is_back(watched: Watched, seen: Prometheus) -> None:
    down = {"ConsiloCoordinatorDown", "ConsiloSiloSessionLost"}
    number = seen.value(NUMBER)
    assert number
    watched.kill("coordinator")
    seen.await_firing(*down)
    watched.start("coordinator")
    seen.await_quiet(*down)
    await_rounds(seen)
    assert (seen.value(NUMBER) or 0) > number
    assert "ConsiloRecordsLost" not in seen.firing()
