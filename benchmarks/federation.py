"""A federation to measure: one coordinator and some participants, real processes as an operator starts them.

Each participant has a task process that adds a constant, so that what is left of a round is Consilo. There is a
manifest that everybody pinned, and every silo allows plain jobs too: both kinds can be measured in the same processes,
one job after the other.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal, TypeAlias

from consilo.demo.daemons import CONSILO, Daemons, Interrupts, run_consilo
from consilo.demo.federation import follow, wait_until_up
from consilo.demo.folders import LOOPBACK, free_ports
from consilo.pki import create_authority
from consilo.pki_manifest import MANIFEST, write_manifest
from coordinator.client.cli_job import submit_request
from coordinator.client.connection import dial
from coordinator.client.job_file import load_job_file
from coordinator.client.settings import OperatorSettings, load_operator
from shared.identity import Role
from shared.ids import JobId
from shared.reasons import JobState
from shared.wire.operations import JobDetail

TASKS = Path(__file__).parent / "tasks"
CONNECTED = "consilo_coordinator_connected_participants"
START_LIMIT_S = 300.0  # sixteen processes that import PyTorch
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Mode: TypeAlias = Literal["plain", "masked"]


@dataclass(frozen=True, slots=True)
class Federation:
    """Its folder, its ports, its members, and how large its model is."""

    root: Path
    port: int
    metrics_port: int
    participants: tuple[str, ...]
    parameters: int

    def folder(self, name: str) -> Path:
        return self.root / name

    def credentials(self, name: str) -> Path:
        return self.folder(name) / "credentials"

    def config(self, name: str) -> Path:
        """Of the coordinator or of a participant."""
        return self.folder(name) / ("coordinator.toml" if name == "coordinator" else "participant.toml")

    @property
    def settings(self) -> OperatorSettings:
        return load_operator(self.folder("operator") / "operator.toml", environment={})


def lay_out(root: Path, *, parameters: int, participants: int) -> Federation:
    """Everything on disk, the initial model included."""
    port, metrics_port = free_ports(2)
    names = tuple(f"hospital-{number:02}" for number in range(1, participants + 1))
    federation = Federation(root, port, metrics_port, names, parameters)
    now = datetime.now(UTC)
    authority = create_authority(root / "authority", consortium="benchmark.example", now=now)
    authority.issue(
        Role.COORDINATOR, "coordinator", out=federation.credentials("coordinator"), now=now, hosts=(LOOPBACK,)
    )
    authority.issue(Role.OPERATOR, "operator", out=federation.credentials("operator"), now=now)
    for name in names:
        authority.issue(Role.PARTICIPANT, name, out=federation.credentials(name), now=now)
    (federation.folder("coordinator") / "allowlist.toml").write_bytes(authority.allowlist_path.read_bytes())
    written = write_manifest(authority, out=authority.folder / MANIFEST, now=now)
    for name in ("coordinator", *names):
        (federation.folder(name) / MANIFEST).write_bytes(written.path.read_bytes())
    (root / "logs").mkdir()
    federation.config("coordinator").write_text(
        f"""\
coordinator = {{ id = "coordinator", listen = "{LOOPBACK}:{port}", data_dir = "data" }}
access = {{ allowlist = "allowlist.toml" }}
consortium = {{ manifest = "{MANIFEST}" }}
metrics = {{ listen = "{LOOPBACK}:{metrics_port}" }}
{CREDENTIALS}"""
    )
    (federation.folder("operator") / "operator.toml").write_text(
        f'operator = {{ coordinator = "{LOOPBACK}:{port}" }}\n{CREDENTIALS}'
    )
    for name in names:
        federation.config(name).write_text(
            f"""\
participant = {{ id = "{name}", coordinators = ["{LOOPBACK}:{port}"], data_dir = "data" }}
consortium = {{ manifest = "{MANIFEST}", digest = "{written.consortium.digest}" }}
policy = {{ allow_plain = true }}
metrics = {{ listen = "off" }}
training = {{ device = "cpu" }}
{CREDENTIALS}
[tasks.constant]
entry = "constant_task:ConstantTask"
threads = 1
options = {{ parameters = {parameters} }}
"""
        )
    initial = federation.folder("operator") / "initial.safetensors"
    run_consilo(["task", "init-model", "--config", str(federation.config(names[0])), str(initial)], folder=root)
    return federation


CREDENTIALS = """
[tls]
certificate = "credentials/tls.crt"
key = "credentials/tls.key"
ca = "credentials/ca.crt"

[signing]
certificate = "credentials/signing.crt"
key = "credentials/signing.key"
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A job that ran, and the processes around it."""

    mode: Mode
    summaries: Sequence[dict[str, Any]]
    finished_at: Sequence[float]
    """When a watching operator heard of each round."""
    cpu_s: Sequence[float]
    """What all processes of the federation had used by then."""
    others_cores: float
    """How many cores somebody else used meanwhile, on average."""
    coordinator_peak_bytes: int
    participant_peak_bytes: int
    """Of the participant that needed most."""


class Running:
    """A federation whose daemons are up, all connected. Jobs run one after the other, each from the last one's model,
    so that no file of one is there already for the next.
    """

    def __init__(self, federation: Federation, daemons: Daemons) -> None:
        self._federation = federation
        self._daemons = daemons
        self._initial = "initial.safetensors"
        self._jobs = 0
        self._coordinator = Memory(daemon_pid(federation, "coordinator"))
        self._participants = [Memory(daemon_pid(federation, name)) for name in federation.participants]
        self.coordinator_idle_bytes = self._coordinator.now_bytes
        self.participant_idle_bytes = max(memory.now_bytes for memory in self._participants)

    def run_job(self, mode: Mode, *, rounds: int) -> Measured:
        self._jobs += 1
        path = self._federation.folder("operator") / "job.toml"
        path.write_text(_job(self._federation, mode, rounds=rounds, initial=self._initial))
        memories = (self._coordinator, *self._participants)
        for memory in memories:
            memory.forget_peak()
        finished_at: list[float] = []
        cpu_s: list[float] = []

        def watch(detail: JobDetail) -> None:
            new = len(detail.rounds) - len(finished_at)
            finished_at.extend([time.perf_counter()] * new)
            cpu_s.extend([federation_cpu_s()] * new)

        job = JobId(f"benchmark-{self._jobs}")
        started, own_before, all_before = time.perf_counter(), federation_cpu_s(), machine_cpu_s()
        with dial(self._federation.settings) as operations:
            submit_request(operations, load_job_file(path), job)
            detail = follow(operations, job, self._daemons, watch, None)
        seconds = time.perf_counter() - started
        others = machine_cpu_s() - all_before - (federation_cpu_s() - own_before)
        if detail.job.state is not JobState.COMPLETED:
            raise SystemExit(f"the job was aborted: {detail.job.reason}")
        summaries = [json.loads(finished.summary) for finished in detail.rounds if finished.purpose == "train"]
        if len(summaries) != rounds or any("next_model" not in summary for summary in summaries):
            raise SystemExit(f"{rounds} rounds without an aborted one were expected: {summaries}")
        self._initial = f"model:{summaries[-1]['next_model']}"
        return Measured(
            mode,
            summaries,
            finished_at,
            cpu_s,
            max(0.0, others / seconds),
            self._coordinator.peak_bytes,
            max(memory.peak_bytes for memory in self._participants),
        )


def _job(federation: Federation, mode: Mode, *, rounds: int, initial: str) -> str:
    return f"""\
name = "benchmark"
task = "constant"
members = {json.dumps(federation.participants)}
rounds = {rounds}
seed = 1
initial = "{initial}"
round = {{ quorum = {len(federation.participants)}, deadline_s = 600, exchange_deadline_s = 300 }}
masking = {{ mode = "{mode}" }}
"""


@contextmanager
def running(federation: Federation) -> Iterator[Running]:
    """Start the daemons; end them afterwards."""
    with Interrupts() as interrupts, Daemons(logs=federation.folder("logs"), interrupts=interrupts) as daemons:
        for name in ("coordinator", *federation.participants):
            role = "coordinator" if name == "coordinator" else "participant"
            daemons.start(
                name, [*CONSILO, role, "run", "--config", str(federation.config(name))], folder=federation.root
            )
            if name == "coordinator":
                wait_until_up(federation.settings, daemons)
        _wait_until_connected(federation, daemons)
        yield Running(federation, daemons)


def _wait_until_connected(federation: Federation, daemons: Daemons) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while _connected(federation) < len(federation.participants):
        daemons.check()
        if time.monotonic() > deadline:
            raise SystemExit("not every participant has connected")
        time.sleep(0.1)


def _connected(federation: Federation) -> float:
    connection = HTTPConnection(LOOPBACK, federation.metrics_port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()
    return sum(float(line.split()[-1]) for line in lines if line.partition(" ")[0].partition("{")[0] == CONNECTED)


# --- what processes use -----------------------------------------------------------------------------------------------


class Memory:
    """A process's resident memory, as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)

    @property
    def now_bytes(self) -> int:
        return self._field("VmRSS")

    @property
    def peak_bytes(self) -> int:
        return self._field("VmHWM")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def _field(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return 1024 * int(value.split()[0])
        raise SystemExit(f"{self._folder}/status has no {name}")


def daemon_pid(federation: Federation, name: str) -> int:
    """By its command line: `Daemons` keeps its processes to itself."""
    config = str(federation.config(name)).encode()
    for folder in Path("/proc").iterdir():
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue  # it ended while we looked
        if config in arguments:
            return int(folder.name)
    raise SystemExit(f"{name} is not running")


def federation_cpu_s() -> float:
    """What all processes below this one have used, and those of them that ended."""
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            stat = (folder / "stat").read_text() if folder.name.isdigit() else ""
        except OSError:
            continue
        if stat:
            fields = stat.rpartition(")")[2].split()  # from the state on; the name before it may hold anything
            children[int(fields[1])].append(int(folder.name))
            used[int(folder.name)] = sum(map(int, fields[11:15]))
    below = list(children[os.getpid()])
    for pid in below:
        below += children[pid]
    return sum(used[pid] for pid in below) / TICKS_PER_S


def machine_cpu_s() -> float:
    """What everybody has used, the kernel's own work included; idle and stolen time are not use."""
    user, nice, system, _idle, _waiting, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS_PER_S
