"""docker-compose.yml as its reader starts it: images, a federation that trains over container networks, and what
happens to it when parts of it go away.

Compose v2 is not to be had everywhere that this runs: the file is held against docker-compose 1.29, and its keys
against what both know.
"""

from __future__ import annotations

import json
import subprocess
import tomllib

import pytest

from tests.containers.engine import BUILD_LIMIT_S, ROOT, EngineError, awaited, docker
from tests.containers.federation import COORDINATOR, DAEMONS, HOSPITALS, JOB, LIMIT_S, PARTICIPANT, PROJECT, REVISION
from tests.containers.federation import ComposeFederation as Federation

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

BASE = "python:3.11-slim-bookworm"
ADDED_MAX_BYTES = 200_000_000  # by the coordinator's image to its base
STOP_GRACE_S = 30
COMMITTED = "sum(consilo_coordinator_rounds_committed_total)"


def test_it_comes_up_from_nothing_and_trains(federation: Federation) -> None:
    federation.await_health(*DAEMONS)
    # The one-shots have ended, and well.
    for service in ("certificates", "job"):
        done = federation.container(service)
        awaited(f"{service} ended", lambda done=done: not done.running, limit_s=LIMIT_S)  # type: ignore[misc]
        assert done.exit_code == 0, done.logs()
    federation.await_more_rounds(0)


def test_prometheus_scrapes_both_sides(federation: Federation) -> None:
    prometheus = federation.prometheus()

    def up() -> set[str]:
        found = prometheus.query("up") if prometheus.answers() else []
        return {each["instance"].partition(":")[0] for each in found if each["value"] == 1}

    awaited("all are up", lambda: up() == set(DAEMONS))
    awaited("committed rounds are seen", lambda: (prometheus.value(COMMITTED) or 0) >= 1)


def test_a_participant_leaves_and_comes_back(federation: Federation) -> None:
    federation.compose("stop", "hospital-d")
    before = federation.committed()
    federation.await_more_rounds(before)
    missed = 'up{instance="hospital-d:9465"}'
    awaited("it is missed", lambda: federation.prometheus().value(missed) == 0)
    federation.compose("start", "hospital-d")
    federation.await_health("hospital-d")

    def in_again() -> bool:
        last = federation.operator("job", "show", JOB)["finished"][-1]
        return "hospital-d" in last.get("survivors", ())

    awaited("it is in a round again", in_again, limit_s=LIMIT_S)


def test_the_coordinator_is_killed_and_goes_on(federation: Federation) -> None:
    before = federation.committed()
    federation.kill("coordinator")
    federation.compose("start", "coordinator")
    federation.await_health("coordinator")
    federation.await_more_rounds(before)
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
    federation.up()
    federation.await_health("coordinator")
    federation.await_more_rounds(before)
    assert_audit_verifies(federation)
    said = federation.container("certificates").logs()
    assert "the federation is there" in said
    # The same job, not a second one.
    assert [one["job"] for one in federation.operator("job", "list")] == [JOB]


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
    base, image = (int(docker("image", "inspect", "--format", "{{.Size}}", tag)) for tag in (BASE, COORDINATOR))
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
    (image,) = json.loads(docker("image", "inspect", COORDINATOR if side == "coordinator" else PARTICIPANT))
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
    """The check is one layer on top of what is built already. --force-rm: its container is not to stay."""
    command = ("build", "--force-rm", "--file", "Dockerfile.participant", "--build-arg", "TORCH=gpu", str(ROOT))
    with pytest.raises(EngineError, match="TORCH=gpu, and pip took the cpu build of PyTorch"):
        docker(*command, limit_s=BUILD_LIMIT_S)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_valid_with_and_without_its_profile() -> None:
    for profiles in ((), ("--profile", "grafana")):
        done = subprocess.run(
            ["docker-compose", *profiles, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def assert_audit_verifies(federation: Federation) -> None:
    assert federation.operator("audit", "verify")["verified"] is True
