"""What Consilo costs beside the training: `python benchmarks/round.py [--small | --large] [--folder FOLDER]`.

Real processes on this machine: one coordinator and four participants, as an operator starts them, each participant
with a task process that adds a constant. *Small*: 100,000 parameters; how long a round takes, beside the same bytes
over bare streams and one sync of the disk. *Large*: 100,000,000 parameters (400 MB); how much memory the coordinator
needs above what it has when idle.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import floor

from consilo.demo.daemons import Daemons, Interrupts, run_consilo
from consilo.demo.federation import follow, wait_until_up
from consilo.demo.folders import LOOPBACK, free_ports
from consilo.pki import create_authority
from coordinator.client.cli_job import submit_request
from coordinator.client.connection import dial
from coordinator.client.job_file import load_job_file
from coordinator.client.settings import OperatorSettings, load_operator
from shared.identity import Role
from shared.ids import JobId
from shared.reasons import JobState
from shared.wire.operations import JobDetail

TASKS = Path(__file__).parent / "tasks"
PARTICIPANTS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
JOB = JobId("benchmark")
SMALL_PARAMETERS = 100_000
SMALL_ROUNDS = 40
WARM_UP_ROUNDS = 3  # task processes start, files are made
SMALL_LIMIT_S = 0.150
LARGE_PARAMETERS = 100_000_000
LARGE_ROUNDS = 2
LARGE_LIMIT_BYTES = 256_000_000
CONNECTED = "consilo_coordinator_connected_participants"
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Federation:
    """Its folder, its ports, and how large its model is."""

    root: Path
    port: int
    metrics_port: int
    parameters: int

    def folder(self, name: str) -> Path:
        return self.root / name

    def credentials(self, name: str) -> Path:
        return self.folder(name) / "credentials"

    @property
    def settings(self) -> OperatorSettings:
        return load_operator(self.folder("operator") / "operator.toml", environment={})


@dataclass(frozen=True, slots=True)
class Measured:
    """A job that ran, and the coordinator's memory around it."""

    summaries: Sequence[dict[str, Any]]
    finished_at: Sequence[float]
    """When a watching operator heard of each round."""
    idle_bytes: int
    peak_bytes: int


def lay_out(root: Path, *, parameters: int, rounds: int) -> Federation:
    port, metrics_port = free_ports(2)
    federation = Federation(root, port, metrics_port, parameters)
    now = datetime.now(UTC)
    authority = create_authority(root / "authority", consortium="benchmark.example", now=now)
    authority.issue(
        Role.COORDINATOR, "coordinator", out=federation.credentials("coordinator"), now=now, hosts=(LOOPBACK,)
    )
    authority.issue(Role.OPERATOR, "operator", out=federation.credentials("operator"), now=now)
    for name in PARTICIPANTS:
        authority.issue(Role.PARTICIPANT, name, out=federation.credentials(name), now=now)
    (root / "coordinator" / "allowlist.toml").write_bytes(authority.allowlist_path.read_bytes())
    (root / "logs").mkdir()
    (root / "coordinator" / "coordinator.toml").write_text(
        f"""\
coordinator = {{ id = "coordinator", listen = "{LOOPBACK}:{port}", data_dir = "data" }}
access = {{ allowlist = "allowlist.toml" }}
metrics = {{ listen = "{LOOPBACK}:{metrics_port}" }}
{CREDENTIALS}"""
    )
    (root / "operator" / "operator.toml").write_text(
        f'operator = {{ coordinator = "{LOOPBACK}:{port}" }}\n{CREDENTIALS}'
    )
    for name in PARTICIPANTS:
        (root / name / "participant.toml").write_text(
            f"""\
participant = {{ id = "{name}", coordinators = ["{LOOPBACK}:{port}"], data_dir = "data" }}
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
    (root / "operator" / "job.toml").write_text(
        f"""\
name = "benchmark"
task = "constant"
members = {json.dumps(PARTICIPANTS)}
rounds = {rounds}
seed = 1
initial = "initial.safetensors"
round = {{ quorum = {len(PARTICIPANTS)}, deadline_s = 600 }}
"""
    )
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


def run_job(federation: Federation) -> Measured:
    first = federation.folder(PARTICIPANTS[0]) / "participant.toml"
    initial = federation.folder("operator") / "initial.safetensors"
    run_consilo(["task", "init-model", "--config", str(first), str(initial)], folder=federation.root)
    settings = federation.settings
    finished_at: list[float] = []

    def watch(detail: JobDetail) -> None:
        new = len(detail.rounds) - len(finished_at)
        finished_at.extend([time.perf_counter()] * new)

    with Interrupts() as interrupts, Daemons(logs=federation.folder("logs"), interrupts=interrupts) as daemons:
        config = federation.folder("coordinator") / "coordinator.toml"
        daemons.start("coordinator", ["coordinator", "run", "--config", str(config)], folder=federation.root)
        wait_until_up(settings, daemons)
        for name in PARTICIPANTS:
            config = federation.folder(name) / "participant.toml"
            daemons.start(name, ["participant", "run", "--config", str(config)], folder=federation.root)
        wait_until_connected(federation, daemons)
        memory = Memory(coordinator_pid(federation))
        idle = memory.now_bytes
        memory.forget_peak()
        with dial(settings) as operations:
            submit_request(operations, load_job_file(federation.folder("operator") / "job.toml"), JOB)
            detail = follow(operations, JOB, daemons, watch)
        peak = memory.peak_bytes
    if detail.job.state is not JobState.COMPLETED:
        raise SystemExit(f"the job was aborted: {detail.job.reason}")
    summaries = [json.loads(finished.summary) for finished in detail.rounds if finished.purpose == "train"]
    return Measured(summaries, finished_at, idle, peak)


def wait_until_connected(federation: Federation, daemons: Daemons) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while connected(federation) < len(PARTICIPANTS):
        daemons.check()
        if time.monotonic() > deadline:
            raise SystemExit("not every participant has connected")
        time.sleep(0.1)


def connected(federation: Federation) -> float:
    connection = HTTPConnection(LOOPBACK, federation.metrics_port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()
    return sum(float(line.split()[-1]) for line in lines if line.partition(" ")[0].partition("{")[0] == CONNECTED)


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


def coordinator_pid(federation: Federation) -> int:
    """By its command line: the daemons keep their processes to themselves."""
    config = str(federation.folder("coordinator") / "coordinator.toml").encode()
    for folder in Path("/proc").iterdir():
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue  # it ended while we looked
        if config in arguments:
            return int(folder.name)
    raise SystemExit("the coordinator is not running")


def small(root: Path) -> bool:
    federation = lay_out(root, parameters=SMALL_PARAMETERS, rounds=SMALL_ROUNDS)
    measured = run_job(federation)
    durations = [summary["duration_s"] for summary in measured.summaries][WARM_UP_ROUNDS:]
    median = statistics.median(durations)
    seen = measured.finished_at[WARM_UP_ROUNDS:SMALL_ROUNDS]
    per_round_s = (seen[-1] - seen[0]) / (len(seen) - 1)  # the watch tells several short rounds at once
    stream_s = floor.exchange_s(
        coordinator=federation.credentials("coordinator"),
        participants=[federation.credentials(name) for name in PARTICIPANTS],
        down_bytes=4 * SMALL_PARAMETERS,
        up_bytes=4 * SMALL_PARAMETERS,
        port=free_ports(1)[0],
        times=SMALL_ROUNDS,
    )
    sync_s = floor.sync_s(root)
    print(f"small: {len(PARTICIPANTS)} participants, {SMALL_PARAMETERS:,} parameters, {len(durations)} rounds")
    line("round, from plan to commit", median, f"p90 {ms(statistics.quantiles(durations, n=10)[8])}")
    line("  from one commit to the next, mean, as an operator sees it", per_round_s, "")
    for phase in measured.summaries[-1]["phases_s"]:
        line(f"  of it {phase}", statistics.median(s["phases_s"].get(phase, 0.0) for s in measured.summaries), "")
    line("the same bytes over bare mutual-TLS streams", stream_s, f"the round is {median / stream_s:.1f} of these")
    line("one sync of the disk (4 KiB, fdatasync)", sync_s, f"the round is {median / sync_s:.1f} of these")
    return verdict("median round", ms(median), ms(SMALL_LIMIT_S), good=median < SMALL_LIMIT_S)


def large(root: Path) -> bool:
    measured = run_job(lay_out(root, parameters=LARGE_PARAMETERS, rounds=LARGE_ROUNDS))
    above = measured.peak_bytes - measured.idle_bytes
    print(f"large: {len(PARTICIPANTS)} participants, {LARGE_PARAMETERS:,} parameters, {LARGE_ROUNDS} rounds")
    for number, summary in enumerate(measured.summaries, 1):
        line(f"round {number}, from plan to commit", summary["duration_s"], "")
        for phase, seconds in summary["phases_s"].items():
            line(f"  of it {phase}", seconds, "")
    print(f"  the coordinator's memory: idle {mb(measured.idle_bytes)}, peak {mb(measured.peak_bytes)}")
    return verdict("peak above idle", mb(above), mb(LARGE_LIMIT_BYTES), good=above < LARGE_LIMIT_BYTES)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def line(what: str, seconds: float, note: str) -> None:
    print(f"  {what:<54} {ms(seconds):>12}   {note}".rstrip())


def verdict(what: str, got: str, limit: str, *, good: bool) -> bool:
    print(f"{'ok' if good else 'FAIL'}: {what} {got}, expected under {limit}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the small one")
    parser.add_argument("--large", action="store_true", help="only the large one; it needs 10 GB of disk and of memory")
    parser.add_argument("--folder", type=Path, help="where the federations are made: the disk that is measured")
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = str(TASKS)  # where the task processes find the task
    wanted = [run for run, alone in ((small, chosen.small), (large, chosen.large)) if alone] or [small, large]
    results = []
    for run in wanted:
        with tempfile.TemporaryDirectory(prefix="consilo-benchmark-", dir=chosen.folder) as folder:
            results.append(run(Path(folder)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
