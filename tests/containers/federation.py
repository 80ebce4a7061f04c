"""The federation of docker-compose.yml: its images, which are built once for all tests, and one project of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.containers.engine import BUILD_LIMIT_S, Container, awaited, built, docker, run
from tests.containers.prometheus import Prometheus

PROJECT = "consilo-federation-test"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
DAEMONS = ("coordinator", *HOSPITALS)
JOB = "tumour-demo"
COORDINATOR, PARTICIPANT, SETUP = "consilo-test-coordinator", "consilo-test-participant", "consilo-demo-setup"
REVISION = "0123456789abcdef0123456789abcdef01234567"
ROUNDS = 100_000  # never over while the tests look
LIMIT_S = 600.0  # of what takes seconds: a machine may be busy
LOOK_EVERY_S = 2.0  # a look is a process in a container, and takes what the federation could have
IMAGES = {
    "CONSILO_COORDINATOR_IMAGE": COORDINATOR,
    "CONSILO_PARTICIPANT_IMAGE": PARTICIPANT,
    "REVISION": REVISION,
    "TORCH": "cpu",
}
STATUS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9466/status.json').read().decode())"


@functools.cache
def build_images() -> None:
    """All three, by the file: as `docker compose up` does."""
    run(["docker-compose", "build"], limit_s=BUILD_LIMIT_S, environment=IMAGES)


@dataclass(slots=True)
class ComposeFederation:
    """One project of compose, and its Prometheus."""

    overrides: list[Path] = field(default_factory=list)
    """Files beside docker-compose.yml."""

    def compose(self, *arguments: str, limit_s: float = LIMIT_S) -> str:
        files = [part for path in ("docker-compose.yml", *self.overrides) for part in ("--file", str(path))]
        return run(
            ["docker-compose", "--project-name", PROJECT, *files, *arguments],
            limit_s=limit_s,
            environment=self._environment(),
        )

    @staticmethod
    def _environment() -> Mapping[str, str]:
        free_port = ""
        more = {"CONSILO_DEMO_ROUNDS": str(ROUNDS), "PROMETHEUS_PORT": free_port}
        return {**IMAGES, **more, "PROMETHEUS_IMAGE": built("prometheus")}

    def up(self, *services: str) -> None:
        self.compose("up", "--detach", "--no-build", *services)

    def remove(self) -> None:
        """With the volumes."""
        self.compose("down", "--volumes", "--remove-orphans")

    def said(self) -> str:
        """What helps after a failure."""
        return self.compose("ps") + self.compose("logs", "--no-color", "--tail", "20")

    def container(self, service: str) -> Container:
        labels = (
            f"com.docker.compose.project={PROJECT}",
            f"com.docker.compose.service={service}",
            "com.docker.compose.oneoff=False",  # a container that a command runs in is no service
        )
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        return Container(docker("ps", "--all", "--quiet", *filters).strip())

    def prometheus(self) -> Prometheus:
        """As its port is now."""
        container = self.container("prometheus")
        return Prometheus(f"127.0.0.1:{container.port(9090)}", container)

    def kill(self, service: str) -> None:
        """SIGKILL; compose starts nobody again whom somebody killed by hand."""
        container = self.container(service)
        docker("kill", "--signal", "KILL", container.name)
        awaited(f"{service} is dead", lambda: not container.running)
        assert container.exit_code == 137

    def operator(self, *command: str) -> Any:
        """What a command of the operator says, as JSON."""
        said = self.compose(
            "run", "--rm", "--no-deps", "-T", "--entrypoint", "env", "job", "consilo", *command, "--json",
            "--config", "/etc/consilo/operator.toml",
        )  # fmt: skip
        return json.loads(said)

    def committed(self) -> int:
        """How many rounds of the job are committed: by the coordinator's records, not by a counter."""
        counts: list[int] = []

        def look() -> bool:
            status = json.loads(self.container("coordinator").execute("python", "-c", STATUS))
            counts[:] = [one["committed"] for one in status["federation"]["open"] if one["job"] == JOB]
            return counts not in ([], [None])  # it has just started, and takes the job up

        awaited("the job runs", look, limit_s=LIMIT_S, every_s=LOOK_EVERY_S)
        return counts[0]

    def await_more_rounds(self, since: int, *, more: int = 2) -> None:
        awaited(
            f"{more} rounds after {since}",
            lambda: self.committed() >= since + more,
            limit_s=LIMIT_S,
            every_s=LOOK_EVERY_S,
        )

    def await_health(self, *services: str) -> None:
        """An unhealthy mark on the way is none: a busy machine leaves one, and the next check takes it away."""
        for service in services:
            container = self.container(service)

            def healthy(looked_at: Container = container) -> bool:
                return looked_at.health == "healthy"

            awaited(f"{service} is healthy", healthy, limit_s=LIMIT_S)
