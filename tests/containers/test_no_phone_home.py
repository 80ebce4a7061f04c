"""A federation trains, and every packet of every daemon is recorded: they talk to each other and to nobody else.

Each daemon runs in the network namespace of a recorder that was there before it, on a network that leads to the world
and has names, so that a call to elsewhere would leave a packet, or at least a name that was asked for. One hospital's
task does call elsewhere: a recorder that misses it would prove nothing about the others.

The daemons run with the system calls that the systemd units leave them, and no others: that they serve and train is the
proof that these are enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.containers.engine import ROOT, Container, EngineError, awaited, container, made, once
from tests.containers.federation import COORDINATOR, HOSPITALS, PARTICIPANT, SETUP, build_images
from tests.containers.system_calls import write_profile

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

BASE = "python:3.11-slim-bookworm"
DIALS = "hospital-d"  # its task is tasks/dialling.py
ELSEWHERE, COLLECTOR = "192.0.2.7", "telemetry.example"
QUIET = tuple(name for name in HOSPITALS if name != DIALS)
RECORDED_S = 1800
ROUNDS = 2
PREFIX = "consilo-quiet"
EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - as the demo's configurations have it
COORDINATOR_LISTENS = {(EVERYWHERE, 8443), (EVERYWHERE, 9464), (LOOPBACK, 9466)}
PARTICIPANT_LISTENS = {(EVERYWHERE, 9465), (LOOPBACK, 9467)}
LISTENS = "0A"  # a state in /proc/net/tcp
ENGINES_RESOLVER = "127.0.0.11"  # of Docker, in each namespace
# What makes a library with telemetry talk, where one is.
TEMPTING = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{COLLECTOR}:4317",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "GRPC_GCP_OBSERVABILITY_CONFIG": '{"project_id": "x", "cloud_monitoring": {}, "cloud_trace": {}}',
    "GOOGLE_CLOUD_PROJECT": "x",
    "SENTRY_DSN": f"https://key@{COLLECTOR}/1",
    "DD_AGENT_HOST": COLLECTOR,
}

Record = dict[str, Any]


@dataclass
class Recorded:
    """A federation on a network of its own, with who recorded whom."""

    network: str
    files: str
    rows: str
    profile: Path
    """Of system calls."""
    stack: ExitStack
    recorders: dict[str, Container] = field(default_factory=dict)
    daemons: dict[str, Container] = field(default_factory=dict)

    def records(self, name: str) -> list[Record]:
        return [json.loads(line) for line in self.recorders[name].logs().splitlines()]

    def address(self, name: str) -> str:
        return str(self.recorders[name].inspect()["NetworkSettings"]["Networks"][self.network]["IPAddress"])

    def start(self, name: str, image: str, *command: str, options: tuple[str, ...] = ()) -> None:
        """A recorder, with this name on the network, and then who is recorded."""
        watching = (
            "--network", self.network, "--network-alias", name, "--cap-drop", "ALL", "--cap-add", "NET_RAW",
            "--volume", f"{ROOT}/tests/containers/recorder.py:/recorder.py:ro",
        )  # fmt: skip
        recorder = self.stack.enter_context(
            container(BASE, "python", "/recorder.py", str(RECORDED_S), options=watching, prefix=PREFIX)
        )
        self.recorders[name] = recorder
        awaited(f"the recorder of {name} listens", lambda: self.records(name))
        inside = (
            "--network", f"container:{recorder.name}", "--no-healthcheck", "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", f"seccomp={self.profile}",
            "--volume", f"{self.files}:/federation", "--workdir", f"/federation/{name}",
            *(part for pair in TEMPTING.items() for part in ("--env", "=".join(pair))), *options,
        )  # fmt: skip
        self.daemons[name] = self.stack.enter_context(container(image, *command, options=inside, prefix=PREFIX))


def set_up(files: str, rows: str) -> None:
    """Credentials, configurations and rows, as the demo's one-shot service makes them; and one task that dials."""
    on_files = ("--volume", f"{files}:/federation")
    once(SETUP, options=("--env", f"CONSILO_DEMO_ROUNDS={ROUNDS}", *on_files, "--volume", f"{rows}:/rows"))
    script = f"""
        sed -i 's/^entry = .*/entry = "dialling:DiallingTask"/' /federation/{DIALS}/participant.toml
        for name in {" ".join(HOSPITALS)}; do
            sed -i "s|/srv/tumour/|/rows/$name/|" /federation/$name/participant.toml
        done
    """
    once(SETUP, "-euc", script, options=(*on_files, "--entrypoint", "sh"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The job is over, and all daemons still run."""
    build_images()
    with made("network") as network, made("volume") as files, made("volume") as rows, ExitStack() as stack:
        set_up(files, rows)
        profile = tmp_path_factory.mktemp("profile") / "seccomp.json"
        write_profile(profile)
        this = Recorded(network, files, rows, profile, stack)
        this.start("coordinator", COORDINATOR)
        awaited("the coordinator serves", lambda: "coordinator_ready" in this.daemons["coordinator"].logs())
        for name in HOSPITALS:
            its_rows = ("--volume", f"{rows}:/rows:ro")
            tasks = ("--volume", f"{ROOT}/tests/containers/tasks:/opt/tasks:ro")
            this.start(name, PARTICIPANT, options=(*its_rows, *tasks))
        submit(this)
        yield this


def submit(recorded: Recorded) -> None:
    """The demo's job, and wait for its end."""
    script = """
        cd /tmp && cp /federation/operator/job.toml .
        consilo task init-model --entry consilo.demo.task:TumourTask --option features=30 --seed 7 initial.safetensors
        consilo job submit job.toml --id tumour-demo
        consilo job watch tumour-demo
    """
    options = (
        "--no-healthcheck", "--volume", f"{recorded.files}:/federation", "--workdir", "/tmp",
        "--env", "CONSILO_OPERATOR_CONFIG=/federation/operator/operator.toml", "--entrypoint", "sh",
    )  # fmt: skip
    once(PARTICIPANT, "-euc", script, options=options, network=recorded.network, limit_s=900)


def of(records: list[Record], what: str, **fields: object) -> list[Record]:
    return [one for one in records if one["what"] == what and fields.items() <= one.items()]


def listening(recorder: Container) -> set[tuple[str, int]]:
    """Address and port of every TCP socket that listens in the namespace, by the kernel's own table."""
    found = set()
    for line in recorder.execute("cat", "/proc/net/tcp").splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == LISTENS:
            address, port = bytes.fromhex(local[:8])[::-1], int(local[9:], 16)
            found.add((".".join(map(str, address)), port))
    six = [line.split() for line in recorder.execute("cat", "/proc/net/tcp6").splitlines()[1:]]
    assert not [fields[1] for fields in six if fields[3] == LISTENS]
    return {(address, port) for address, port in found if address != ENGINES_RESOLVER}


@pytest.mark.parametrize("name", QUIET)
def test_a_participant_dials_the_coordinator_and_asks_for_its_name_only(recorded: Recorded, name: str) -> None:
    records = recorded.records(name)
    dialled = {(one["target"], one["port"]) for one in of(records, "dial", way="out")}
    assert dialled == {(recorded.address("coordinator"), 8443)}
    # With what the search list of resolv.conf adds, where there is one.
    assert {one["name"].partition(".")[0] for one in of(records, "name")} == {"coordinator"}
    assert not of(records, "udp")
    assert not of(records, "other")
    assert {one["port"] for one in of(records, "tcp")} == {8443}
    assert not of(records, "dial", way="in")


def test_the_coordinator_dials_nobody_and_asks_for_no_name(recorded: Recorded) -> None:
    records = recorded.records("coordinator")
    assert not of(records, "dial", way="out")
    assert not of(records, "name")
    assert not of(records, "udp")
    assert not of(records, "other")
    assert {one["port"] for one in of(records, "dial", way="in")} == {8443}
    callers = {one["source"] for one in of(records, "dial", way="in")}
    assert {recorded.address(name) for name in HOSPITALS} <= callers
    assert {one["port"] for one in of(records, "tcp")} == {8443}


@pytest.mark.parametrize("name", ["coordinator", *QUIET])
def test_a_daemon_listens_where_its_configuration_says(recorded: Recorded, name: str) -> None:
    expected = COORDINATOR_LISTENS if name == "coordinator" else PARTICIPANT_LISTENS
    assert listening(recorded.recorders[name]) == expected


def test_a_task_that_calls_elsewhere_is_seen(recorded: Recorded) -> None:
    records = recorded.records(DIALS)
    assert of(records, "dial", way="out", target=ELSEWHERE, port=443)
    assert of(records, "name", name=COLLECTOR)


def test_the_system_calls_of_the_units_are_all_that_the_daemons_had(recorded: Recorded) -> None:
    for daemon in recorded.daemons.values():
        with pytest.raises(EngineError, match="Operation not permitted"):
            daemon.execute("python", "-c", "import os; os.nice(1)")


def test_all_took_part_while_they_were_recorded(recorded: Recorded) -> None:
    logged = recorded.daemons["coordinator"].logs()
    for name in HOSPITALS:
        assert name in logged
        assert '"participant_started"' in recorded.daemons[name].logs()
