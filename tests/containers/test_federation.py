"""docker-compose.yml as its reader starts it: images, a federation that trains over container networks, and what
happens to it when parts of it go away.

One federation for the whole module, in the order of the tests: each leaves it as it found it, training. Compose v2 is
not to be had everywhere that this runs: the file is held against docker-compose 1.29, and its keys against what both
know.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.containers.engine import BUILD_LIMIT_S, ROOT, Container, EngineError, awaited, built, docker, run

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

PROJECT = "consilo-federation-test"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
DAEMONS = ("coordinator", *HOSPITALS)
BASE = "python:3.11-slim-bookworm"
ADDED_MAX_BYTES = 200_000_000  # by the coordinator's image to its base
STOP_GRACE_S = 30
REVISION = "0123456789abcdef0123456789abcdef01234567"
ROUNDS = 100_000  # never over while the tests look
COMMITTED = "sum(consilo_coordinator_rounds_committed_total)"


@dataclass(frozen=True, slots=True)
class Federation:
    """One project of compose, and its Prometheus."""

    environment: Mapping[str, str]

    def compose(self, *arguments: str, limit_s: float = 300.0) -> str:
        command = ["docker-compose", "--project-name", PROJECT, *arguments]
        return run(command, limit_s=limit_s, environment=self.environment)

    def container(self, service: str) -> Container:
        return Container(docker("ps", "--all", "--quiet", *self._filters(service)).strip())

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What Prometheus says now: labels and value of each series."""
        port = self.container("prometheus").port(9090)
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                said: dict[str, Any] = json.load(answer)
        except OSError:  # it starts
            return []
        return [(one["metric"], float(one["value"][1])) for one in said["data"]["result"]]

    def up(self) -> set[str]:
        """Which services Prometheus reaches."""
        return {labels["instance"].partition(":")[0] for labels, value in self.query("up") if value == 1}

    def operator(self, *command: str) -> Any:
        """What a command of the operator says, as JSON."""
        said = self.compose(
            "run", "--rm", "--no-deps", "-T", "--entrypoint", "env", "job", "consilo", *command, "--json",
            "--config", "/etc/consilo/operator.toml",
        )  # fmt: skip
        return json.loads(said)

    def committed(self) -> int:
        """How many rounds of the demo's job are committed: by the coordinator's records, not by a counter."""
        return int(self.operator("job", "show", "tumour-demo")["rounds_committed"])

    def await_more_rounds(self, since: int, *, more: int = 2) -> int:
        def look() -> int | None:
            count = self.committed()
            return count if count >= since + more else None

        return awaited(f"{more} rounds after {since}", look, limit_s=600)

    def await_health(self, service: str) -> None:
        awaited(f"{service} is healthy", lambda: self.container(service).health == "healthy", limit_s=600)

    @staticmethod
    def _filters(service: str) -> list[str]:
        labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
        # A container that a command runs in is no service.
        return [
            *(part for label in labels for part in ("--filter", f"label={label}")),
            "--filter",
            "label=com.docker.compose.oneoff=False",
        ]


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    environment = {
        "CONSILO_DEMO_ROUNDS": str(ROUNDS),
        "PROMETHEUS_IMAGE": built("prometheus"),
        "PROMETHEUS_PORT": "",  # one that is free
        "REVISION": REVISION,
        "TORCH": "cpu",
    }
    this = Federation(environment)
    this.compose("down", "--volumes", "--remove-orphans")
    this.compose("build", limit_s=BUILD_LIMIT_S)
    try:
        this.compose("up", "--detach", "--no-build", limit_s=600)
        yield this
        this.compose("down", "--volumes", "--remove-orphans")
    except BaseException:
        sys.stderr.write(this.compose("ps") + this.compose("logs", "--tail", "40"))
        this.compose("down", "--volumes", "--remove-orphans")
        raise


def test_it_comes_up_from_nothing_and_trains(federation: Federation) -> None:
    for service in DAEMONS:
        federation.await_health(service)
    # The one-shots have ended, and well.
    for service in ("certificates", "job"):
        done = federation.container(service)
        awaited(f"{service} ended", lambda done=done: not done.running, limit_s=600)  # type: ignore[misc]
        assert done.exit_code == 0, done.logs()
    federation.await_more_rounds(0)


def test_prometheus_scrapes_both_sides(federation: Federation) -> None:
    awaited("all are up", lambda: federation.up() == set(DAEMONS))
    awaited("committed rounds are seen", lambda: [v for _, v in federation.query(COMMITTED) if v >= 1])


def test_a_participant_leaves_and_comes_back(federation: Federation) -> None:
    federation.compose("stop", "hospital-d")
    before = federation.committed()
    federation.await_more_rounds(before)
    awaited("it is missed", lambda: "hospital-d" not in federation.up())
    federation.compose("start", "hospital-d")
    federation.await_health("hospital-d")

    def in_again() -> bool:
        last = federation.operator("job", "show", "tumour-demo")["finished"][-1]
        return "hospital-d" in last.get("survivors", ())

    awaited("it is in a round again", in_again, limit_s=600)


def test_the_coordinator_is_killed_and_goes_on(federation: Federation) -> None:
    coordinator = federation.container("coordinator")
    before = federation.committed()
    docker("kill", "--signal", "KILL", coordinator.name)
    awaited("it is dead", lambda: not coordinator.running)
    assert coordinator.exit_code == 137
    federation.compose("start", "coordinator")
    federation.await_health("coordinator")
    assert federation.await_more_rounds(before) > before
    assert_audit_verifies(federation)


@pytest.mark.parametrize("service", ["coordinator", "hospital-b"])
def test_sigterm_drains_within_the_grace(federation: Federation, service: str) -> None:
    container = federation.container(service)
    assert container.inspect()["Config"]["StopSignal"] == "SIGTERM"
    assert container.inspect()["Config"]["StopTimeout"] == STOP_GRACE_S
    federation.compose("stop", service)
    # 137 would be the engine's SIGKILL at the end of the grace.
    assert container.exit_code == 0, container.logs()[-4000:]
    events = [json.loads(line)["event"] for line in container.logs().splitlines() if line.startswith("{")]
    assert events[-1] == f"{'coordinator' if service == 'coordinator' else 'participant'}_stopped"
    federation.compose("start", service)
    federation.await_health(service)
    federation.await_more_rounds(federation.committed())


def test_volumes_outlive_the_containers(federation: Federation) -> None:
    before = federation.committed()
    federation.compose("down")
    federation.compose("up", "--detach", "--no-build", limit_s=600)
    federation.await_more_rounds(before)
    assert_audit_verifies(federation)
    said = federation.container("certificates").logs()
    assert "the federation is there" in said
    # The same job, not a second one.
    assert [one["job"] for one in federation.operator("job", "list")] == ["tumour-demo"]


# --- what a container may do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", DAEMONS)
def test_a_daemon_may_do_little(federation: Federation, service: str) -> None:
    container = federation.container(service)
    found = container.inspect()
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] == 256
    assert host["Memory"] > 0
    assert not host["PortBindings"]
    assert not host["Binds"] or all(not bind.startswith("/") for bind in host["Binds"])
    status = dict(
        line.split(":\t", 1) for line in container.execute("cat", "/proc/1/status").splitlines() if ":\t" in line
    )
    assert {status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["10001"] * 4
    for path in ("/x", "/etc/consilo/x", "/opt/consilo/x"):
        with pytest.raises(EngineError, match="Read-only file system"):
            container.execute("touch", path)


def test_nobody_sees_the_keys_of_another(federation: Federation) -> None:
    mounts = {
        service: {
            mount["Name"].removeprefix(f"{PROJECT}_")
            for mount in federation.container(service).inspect()["Mounts"]
            if mount["Type"] == "volume"
        }
        for service in (*DAEMONS, "job", "prometheus")
    }
    assert mounts["coordinator"] == {"coordinator-config", "coordinator-data"}
    for name in HOSPITALS:
        assert mounts[name] == {f"{name}-{what}" for what in ("config", "credentials", "data", "rows")}
    assert mounts["job"] == {"operator-config", "operator-data"}
    assert mounts["prometheus"] == {"prometheus-data"}
    for service in DAEMONS:
        container = federation.container(service)
        modes = container.execute("stat", "-c", "%a %u", "/etc/consilo/credentials/tls.key", "/var/lib/consilo")
        assert modes.split() == ["600", "10001", "700", "10001"]


def test_the_networks_lead_nowhere(federation: Federation) -> None:
    for name, internal in (("federation", True), ("monitoring", True), ("dashboards", False)):
        (network,) = json.loads(docker("network", "inspect", f"{PROJECT}_{name}"))
        assert network["Internal"] is internal
    for service in DAEMONS:
        networks = federation.container(service).inspect()["NetworkSettings"]["Networks"]
        assert set(networks) == {f"{PROJECT}_federation", f"{PROJECT}_monitoring"}
    bindings = federation.container("prometheus").inspect()["HostConfig"]["PortBindings"]
    assert {one["HostIp"] for ports in bindings.values() for one in ports} == {"127.0.0.1"}


# --- the images -------------------------------------------------------------------------------------------------------


def test_the_coordinator_adds_little_to_its_base(federation: Federation) -> None:
    base, image = (
        int(docker("image", "inspect", "--format", "{{.Size}}", tag)) for tag in (BASE, "consilo-coordinator")
    )
    assert image - base <= ADDED_MAX_BYTES


def test_the_coordinator_has_no_torch_and_nobody_a_compiler_or_pip(federation: Federation) -> None:
    coordinator, participant = federation.container("coordinator"), federation.container("hospital-a")
    with pytest.raises(EngineError, match="No module named 'torch'"):
        coordinator.execute("python", "-c", "import torch")
    assert participant.execute("python", "-c", "import torch; print(torch.version.cuda)").strip() == "None"
    for container in (coordinator, participant):
        assert container.execute("sh", "-c", "command -v cc gcc c++ make || echo none").strip() == "none"
        with pytest.raises(EngineError, match="No module named 'pip'"):
            container.execute("python", "-c", "import pip")


@pytest.mark.parametrize("side", ["coordinator", "participant"])
def test_labels_say_what_is_inside(federation: Federation, side: str) -> None:
    (image,) = json.loads(docker("image", "inspect", f"consilo-{side}"))
    labels = {
        name.removeprefix("org.opencontainers.image."): value for name, value in image["Config"]["Labels"].items()
    }
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert labels["title"] == f"consilo-{side}"
    assert labels["version"] == version
    assert labels["revision"] == REVISION
    assert labels["licenses"] == "Apache-2.0"
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "consilo", side, "health"]
    service = "coordinator" if side == "coordinator" else "hospital-a"
    said = json.loads(federation.container(service).execute("consilo", "version", "--json"))
    assert (said["version"], said["revision"]) == (version, REVISION)


def test_an_image_that_says_gpu_and_is_none_is_not_built(federation: Federation) -> None:
    """The check is one layer on top of what is built already."""
    with pytest.raises(EngineError, match="TORCH=gpu, and pip took the cpu build of PyTorch"):
        docker(
            "build", "--file", "Dockerfile.participant", "--build-arg", "TORCH=gpu", str(ROOT), limit_s=BUILD_LIMIT_S
        )  # fmt: skip


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_valid_with_and_without_its_profile() -> None:
    for profiles in ((), ("--profile", "grafana")):
        done = subprocess.run(
            ["docker-compose", *profiles, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def assert_audit_verifies(federation: Federation) -> None:
    assert federation.operator("audit", "verify")["verified"] is True
