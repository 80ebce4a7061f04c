"""A federation of real processes on loopback: one coordinator, participants with their task processes, one operator.

Jobs are masked unless they say otherwise: the consortium has its manifest, and each silo pins it. A silo takes plain
jobs too, so that a test can run both.

Nothing here sleeps: a start is awaited by the line that the process logs, a job by the coordinator's own watch. All
processes end with the `with` block, also when a test fails; their logs stay in the folder.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from consilo.demo.moment import Moment, doomed
from coordinator.client.operations import Operations
from coordinator.client.rpc import OperationsChannel
from shared.health_report import HEALTH_PATH, HealthReport, read_report
from shared.ids import Digest, JobId, parse_job_id
from shared.job import TWO_PARTY, JobSpec, MaskingSpec, RoundPolicy
from shared.reasons import JobState
from shared.secagg.threshold import default_max_colluding
from shared.wire.operations import JobDetail
from tests.support.credentials import Consortium
from tests.support.doomed_coordinator import doomed_coordinator

START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0
CONSILO = (sys.executable, "-m", "consilo")
CLUSTER_TASKS = Path(__file__).parent.parent / "cluster" / "tasks"
REPOSITORY = Path(__file__).parent.parent.parent


class Process:
    """One daemon. What it logs is read line by line, kept in a file, and can be waited for."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log = log
        self._asked = False
        self._deaf: Literal["full", "gone"] | None = None
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._log.open("a") as kept:
            for line in self._process.stderr:
                kept.write(line)
                kept.flush()
                if line.startswith("{"):
                    self._lines.put(json.loads(line))
                if self._deaf:
                    break
        self._stop_reading()
        self._lines.put({"event": "process_ended"})

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """The next log line with this event and these fields."""
        return self.wait_for_any(event, **fields)

    def wait_for_any(self, *events: str, **fields: object) -> dict[str, Any]:
        """The next log line with one of these events."""
        while True:
            line = self._lines.get(timeout=START_LIMIT_S)
            if line["event"] in events and all(line.get(name) == value for name, value in fields.items()):
                return line
            if line["event"] == "process_ended":
                raise AssertionError(f"ended before {events}; it said:\n{self._log.read_text()[-4000:]}")

    def go_deaf(self, how: Literal["full", "gone"]) -> None:
        """From its next line on nobody reads what it logs: into a pipe that is full, or whose reader is gone."""
        self._deaf = how

    def wait_until_deaf(self) -> None:
        self._reader.join(START_LIMIT_S)
        assert not self._reader.is_alive()

    def _stop_reading(self) -> None:
        assert self._process.stderr is not None
        if self._deaf == "gone":
            self._process.stderr.close()
        elif self._deaf == "full":
            pipe = os.open(f"/proc/self/fd/{self._process.stderr.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
            with suppress(BlockingIOError):
                while os.write(pipe, b"." * 4096):
                    pass
            os.close(pipe)

    def ask_to_stop(self) -> None:
        """SIGTERM, once: a second one would end it at once."""
        if self._process.poll() is None and not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # one that stands still hears nothing

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.ask_to_stop()
        return self._end()

    def strike(self, number: signal.Signals) -> int:
        """Send a signal that ends it, and the exit code."""
        self._process.send_signal(number)
        return self._end()

    def kill(self) -> None:
        """SIGKILL to the daemon alone."""
        self._process.kill()
        self._end()

    def wait_until_killed(self) -> None:
        """Of a daemon that ends itself at its moment."""
        assert self._process.wait(START_LIMIT_S) == -signal.SIGKILL
        self._end()

    def wait_until_stopped(self) -> None:
        """Of a daemon that stands still at its moment."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _end(self) -> int:
        try:
            code = self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"did not end within {STOP_LIMIT_S} s of SIGTERM") from None
        self._reader.join(STOP_LIMIT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code


class Federation:
    """Credentials, configurations and processes in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        entry: str,
        options: Mapping[str, Mapping[str, object]],
        python_path: Path = CLUSTER_TASKS,
        policy: Mapping[str, object] | None = None,
        policies: Mapping[str, Mapping[str, object]] | None = None,
        metrics: bool = False,
        status: bool = False,
        log_level: str = "info",
        port: int | None = None,
        links: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> None:
        """`options`: for each participant, the options of its one task, which is called `study`. `policy`: what silos
        say beside that they take plain jobs; `policies`: what single ones say besides. `status`: whether each has a
        status page. `port`: where the coordinator listens. `links`: which addresses members dial who do not dial it
        directly. `now`: the first day of the certificates.
        """
        self.folder = folder
        self.members = sorted(options)
        self.consortium = Consortium(folder / "pki", now=now)
        self._environment = {"PYTHONPATH": os.pathsep.join(map(str, (python_path, REPOSITORY)))}
        self._processes: dict[str, Process] = {}
        self.address = f"localhost:{port or free_port()}"
        self._links = links or {}
        self.metrics_ports = {name: free_port() for name in ("coordinator", *self.members)} if metrics else {}
        """Where each daemon's metrics are, by its name."""
        self.metrics_port = self.metrics_ports.get("coordinator")
        self._status = status
        self._status_ports: dict[str, int] = {}
        self._log_level = log_level
        two = {"minimum_survivors": 2, "allow_two_party": True} if len(self.members) == TWO_PARTY else {}
        self._policies = policies or {}
        self._policy = {"allow_plain": True, "minimum_members": 1, **two, **(policy or {})}
        for member in self.members:
            self.consortium.participant(member)
        self.consortium.coordinator()
        self._manifest = self.consortium.manifest()
        self._write_coordinator()
        for member, table in options.items():
            self._write_participant(member, entry, table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.ask_to_stop()
        for process in self._processes.values():
            process.stop()

    # --- processes ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.start_coordinator()
        self.start_participants(self.members)

    def start_coordinator(self) -> Process:
        config = self.folder / "coordinator.toml"
        process = self._start("coordinator", [*CONSILO, "coordinator", "run", "--config", str(config)])
        process.wait_for("coordinator_ready")
        return process

    def start_doomed_coordinator(self, *moments: Moment) -> Process:
        """A coordinator that ends itself, or stands still, at certain moments."""
        process = self._start("coordinator", doomed_coordinator(self.folder / "coordinator.toml", *moments))
        process.wait_for("coordinator_ready")
        return process

    def start_participants(self, members: Sequence[str]) -> None:
        """Side by side, which is faster than one after the other."""
        for process in [self._start(member, self._command(member)) for member in members]:
            process.wait_for("participant_started")

    def start_participant(self, member: str) -> Process:
        process = self._start(member, self._command(member))
        process.wait_for("participant_started")
        return process

    def start_doomed(self, member: str, *moments: Moment) -> Process:
        """A participant that ends itself, or stands still, at certain moments."""
        process = self._start(member, doomed(self._config(member), *moments))
        process.wait_for("participant_started")
        return process

    def _command(self, member: str) -> list[str]:
        return [*CONSILO, "participant", "run", "--config", str(self._config(member))]

    def _config(self, member: str) -> Path:
        return self.folder / member / "participant.toml"

    def stop(self, name: str) -> int:
        return self._processes.pop(name).stop()

    def kill(self, name: str) -> None:
        self._processes.pop(name).kill()

    def process(self, name: str) -> Process:
        return self._processes[name]

    def logged(self, name: str) -> list[dict[str, Any]]:
        """What a process logged by now, over all its lives: whole lines, for one may be being written."""
        written = (self.folder / f"{name}.log").read_text()
        whole = written[: written.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def said(self) -> str:
        """The end of every log, for whoever reads about a failure."""
        return "\n".join(f"{path.stem}:\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def _start(self, name: str, command: Sequence[str]) -> Process:
        process = Process(command, log=self.folder / f"{name}.log", environment=self._environment_of(name))
        self._processes[name] = process
        return process

    def _environment_of(self, _name: str) -> Mapping[str, str]:
        return self._environment

    def status_port(self, name: str) -> int:
        """Where a daemon's status page is."""
        return self._status_ports[name]

    def health(self, name: str) -> HealthReport:
        """What a daemon's status listener says of it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status_ports[name]}{HEALTH_PATH}") as page:
            report = read_report(page.read())
        assert report.who.endswith(f"/{name}")
        return report

    def until_ready(self, name: str, *, ready: bool) -> HealthReport:
        """A daemon's health once it is, or is no more, ready."""
        deadline = time.monotonic() + START_LIMIT_S
        while (report := self.health(name)).ready is not ready:
            assert time.monotonic() < deadline, report
            time.sleep(0.02)
        assert report.live
        return report

    # --- jobs ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def operations(self) -> Iterator[Operations]:
        with OperationsChannel(address=self.address, tls=self.consortium.operator().tls) as channel:
            yield Operations(channel)

    def submit(self, job: str, spec: JobSpec, initial: Path) -> JobId:
        from shared.wire.operations import PutModelOpen

        with self.operations() as operations, initial.open("rb") as file:
            operations.put_model(file, PutModelOpen(Digest.of(initial.read_bytes()), initial.stat().st_size))
            return operations.submit_job(parse_job_id(job), spec.to_bytes()).job

    def watch(self, job: JobId) -> Iterator[JobDetail]:
        with self.operations() as operations:
            yield from operations.watch_job(job)

    def finish(self, job: JobId) -> JobDetail:
        """Wait for the job to end, and require that it completed."""
        *_, detail = self.watch(job)
        assert detail.job.state is JobState.COMPLETED, f"{detail.job.state}: {detail.job.reason}"
        return detail

    def model(self, digest: str) -> Path:
        """A version's file, exported the way an operator would."""
        out = self.folder / f"{digest}.safetensors"
        with self.operations() as operations:
            operations.export_model(Digest.parse(digest), out)
        return out

    # --- files --------------------------------------------------------------------------------------------------------

    def _write_coordinator(self) -> None:
        credentials = self.consortium.coordinator()
        write_toml(
            self.folder / "coordinator.toml",
            {
                "coordinator": {
                    "id": "coordinator",
                    "listen": [self.address.replace("localhost", "127.0.0.1")],
                    "data_dir": str(self.folder / "coordinator-data"),
                },
                **_credentials(credentials.folder),
                "access": {"allowlist": str(self.consortium.allowlist)},
                "consortium": {"manifest": str(self._manifest.path)},
                "metrics": {"listen": self._metrics_of("coordinator")},
                **self._status_table("coordinator"),
                "log": {"level": self._log_level},
            },
        )
        self.consortium.operator()

    def _write_participant(self, member: str, entry: str, options: Mapping[str, object]) -> None:
        credentials = self.consortium.participant(member)
        (self.folder / member).mkdir()
        write_toml(
            self.folder / member / "participant.toml",
            {
                "participant": {
                    "id": member,
                    "coordinators": [self._links.get(member, self.address)],
                    "data_dir": "data",
                },
                **_credentials(credentials.folder),
                "tasks": {"study": {"entry": entry, "threads": 1, "options": dict(options)}},
                "training": {"device": "cpu"},
                "consortium": {
                    "manifest": str(self._manifest.path),
                    "digest": str(self._manifest.consortium.digest),
                },
                "policy": {**self._policy, **self._policies.get(member, {})},
                "metrics": self._metrics_table(member),
                **self._status_table(member),
            },
        )

    def _metrics_table(self, member: str) -> dict[str, object]:
        """All of a silo's metrics, its own figures too; or none, in words that an older release knows as well."""
        listen = self._metrics_of(member)
        return {"listen": listen} if listen == "off" else {"listen": listen, "local_metrics": True}

    def _metrics_of(self, name: str) -> str:
        port = self.metrics_ports.get(name)
        return "off" if port is None else f"127.0.0.1:{port}"

    def _status_table(self, name: str) -> dict[str, dict[str, str]]:
        if not self._status:
            return {"status": {"listen": "off"}}
        self._status_ports[name] = free_port()
        return {"status": {"listen": f"127.0.0.1:{self._status_ports[name]}"}}


def rounds_of(detail: JobDetail, purpose: str = "train") -> list[dict[str, Any]]:
    """The summaries of the committed rounds of a purpose, in order."""
    return [
        json.loads(status.summary)
        for status in detail.rounds
        if status.purpose == purpose and status.outcome == "committed"
    ]


def job_spec(members: Sequence[str], initial: Path, *, rounds: int, **changes: Any) -> JobSpec:
    """A masked job for the task `study` with quorum = members, unless changed.

    `masking` is a part of MaskingSpec, `start` a version to start from in place of `initial`.
    """
    policy = {"quorum": len(members), "min_survivors": min(3, len(members)), "deadline_s": 120.0, "grace_s": 0.0}
    return JobSpec(
        name="study",
        task=changes.pop("task", "study"),
        members=tuple(sorted(members)),  # type: ignore[arg-type]
        rounds=rounds,
        seed=changes.pop("seed", 7),
        initial=changes.pop("start", str(Digest.of(initial.read_bytes()))),
        metrics=changes.pop("metrics", ("loss",)),
        training=changes.pop("training", {}),
        masking=masking_spec(len(members), **changes.pop("masking", {})),
        round=RoundPolicy(**{**policy, **changes}),
    )


def masking_spec(members: int, **changes: Any) -> MaskingSpec:
    if changes.get("mode") == "plain":
        return MaskingSpec(mode="plain", max_colluding=0)
    defaults = {"max_colluding": default_max_colluding(members), "allow_two_party": members == TWO_PARTY}
    return MaskingSpec(**{**defaults, **changes})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_toml(path: Path, tables: Mapping[str, Mapping[str, object]]) -> None:
    """Enough TOML for configurations: JSON's strings, numbers, booleans and arrays are TOML's too."""
    lines = []
    for name, table in _flat(tables):
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    path.write_text("\n".join(lines) + "\n")
    tomllib.loads(path.read_text())


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, table in tables.items():
        if isinstance(table, Mapping):
            yield prefix + name, table
            yield from _flat(table, f"{prefix}{name}.")


def _credentials(folder: Path) -> dict[str, dict[str, str]]:
    return {
        "tls": {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key"), "ca": str(folder / "ca.crt")},
        "signing": {"certificate": str(folder / "signing.crt"), "key": str(folder / "signing.key")},
    }
