"""Are the packages what somebody can install? `make packages`: build them, look inside, install them, use them.

Two empty environments outside the checkout, as a user would make them: one grows from the bare wheel to a coordinator
without PyTorch, one from a participant without SQLAlchemy to the demo. `--without-torch` leaves the second one out,
`--python PATH` takes another interpreter. PIP_ARGS in the environment is handed to pip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string
from pathlib import Path, PurePosixPath

from build_packages import ROOT, Packages, build_packages, build_wheel

from shared.build import REVISION_FILE, source_revision

TOP_LEVEL = ("consilo", "coordinator", "participant", "shared")
EXTRAS = {"coordinator", "participant", "demo", "dev"}
COMMAND_TIMEOUT_S = 900  # the slowest is to install PyTorch on a busy machine
READY_TIMEOUT_S = 60
LOOK_S = 0.1
DEMO_ROUNDS = 2

TASK = """\
import torch
from consilo import EvaluateResult, Task, TrainResult


class MeanTask(Task):
    def build_model(self):
        return torch.nn.Linear(1, 1)

    def train(self, model, round):
        with torch.no_grad():
            model.weight += 1.0
        return TrainResult(weight=1, metrics={"loss": 0.0})

    def evaluate(self, model, round):
        return EvaluateResult(weight=1, metrics={"loss": 0.0})
"""
JOB = """\
name = "mean"
task = "mean"
members = ["hospital-a", "hospital-b", "hospital-c"]
rounds = 1
initial = "initial.safetensors"
metrics = ["loss"]
"""


class Environment:
    """A virtual environment outside the checkout, and a folder in which its commands run."""

    def __init__(self, folder: Path, python: str) -> None:
        self.bin = folder / "environment" / "bin"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        # Nothing of whoever runs this: no path to the checkout, no configuration, no revision of another build.
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CONSILO_", "PYTHON")) and name != "VIRTUAL_ENV"
        }
        subprocess.run([python, "-m", "venv", str(folder / "environment")], check=True)

    def install(self, what: str) -> None:
        arguments = shlex.split(os.environ.get("PIP_ARGS", ""))
        # Not compiled: most of PyTorch is never imported here.
        settled = ["-q", "--disable-pip-version-check", "--no-compile", "-c", str(ROOT / "constraints.txt")]
        self.run("python", "-m", "pip", "install", *settled, *arguments, what)

    def run(self, *command: str, ends_with: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs. Raises SystemExit when it ends otherwise than it should."""
        try:
            done = subprocess.run(
                [str(self.bin / command[0]), *command[1:]],
                cwd=self.work,
                env=self.variables,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"`{' '.join(command)}` did not end in {COMMAND_TIMEOUT_S} s") from None
        if done.returncode != ends_with:
            said = f"{done.stdout}{done.stderr}"
            raise SystemExit(f"`{' '.join(command)}` ended with {done.returncode}, not {ends_with}:\n{said}")
        if "Traceback" in done.stderr:
            raise SystemExit(f"`{' '.join(command)}` ended with a traceback:\n{done.stderr}")
        return done

    def lacks(self, *command: str, module: str, extra: str) -> None:
        """The command says in one line which extra it needs, and how to get it."""
        said = self.run("consilo", *command, ends_with=1).stderr
        require(len(said.splitlines()) == 1, f"one line about what is missing, got {said!r}")
        require(module in said and "pip install" in said and f"[{extra}]" in said, f"{module} and its extra: {said}")

    def write(self, name: str, text: str) -> None:
        (self.work / name).write_text(text, encoding="utf-8")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--python", default=sys.executable, help="the interpreter of the environments")
    options.add_argument("--without-torch", action="store_true", help="the bare wheel and the coordinator only")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="consilo-packages-") as name:
        folder = Path(name)
        with step("build"):
            packages = build_packages(folder / "dist")
        with step("contents"):
            check_archive(packages.archive)
            check_wheel(packages.wheel)
        with step("a wheel without the archive in between is the same"):
            require(
                digest_of(packages.wheel) == digest_of(build_wheel(folder / "again")), "the same bytes of two builds"
            )
        light = Environment(folder / "light", chosen.python)
        with step("bare: keys, manifest, job files"):
            light.install(str(packages.wheel))
            check_bare(light)
        with step("coordinator, without PyTorch"):
            light.install(f"{packages.wheel}[coordinator]")
            check_coordinator(light)
        if not chosen.without_torch:
            heavy = Environment(folder / "heavy", chosen.python)
            shutil.copytree(light.work / "credentials", heavy.work / "credentials")
            check_with_torch(heavy, packages)
    return 0


def check_with_torch(heavy: Environment, packages: Packages) -> None:
    with step("participant, without SQLAlchemy"):
        heavy.install(f"{packages.wheel}[participant]")
        check_participant(heavy)
    with step("demo"):
        heavy.install(f"{packages.wheel}[demo]")
        said = heavy.run("consilo", "demo", "--rounds", str(DEMO_ROUNDS), "--keep", "federation", "--json")
        outcome = json.loads(said.stdout)
        require(outcome["rounds_committed"] == DEMO_ROUNDS and outcome["audit_verified"], f"a demo that ends: {said}")


# --- what is in them --------------------------------------------------------------------------------------------------


def check_archive(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = {str(PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in archive if member.isfile()}
    wanted = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "constraints.txt"}
    wanted |= {"protos/PROTOCOL.md", "protos/shared/pb/v1/session.proto", f"shared/{REVISION_FILE}"}
    wanted |= {"Dockerfile.coordinator", "Dockerfile.participant", ".dockerignore", "docker-compose.yml"}
    deployed = (path.relative_to(ROOT) for path in (ROOT / "deploy").rglob("*") if path.is_file())
    wanted |= {str(path) for path in deployed if "__pycache__" not in path.parts}
    require(wanted <= names, f"the source archive lacks {sorted(wanted - names)}")
    check_modules(names)
    tops = {name.partition("/")[0] for name in names if "/" in name}
    require(tops == {*TOP_LEVEL, "consilo.egg-info", "protos", "deploy"}, f"folders of the source archive: {tops}")


def check_wheel(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        metadata = message_from_string(wheel.read(_named(names, "METADATA")).decode())
        revision = wheel.read(f"shared/{REVISION_FILE}").decode().strip()
        dates = {entry.date_time for entry in wheel.infolist()}
    check_modules(names)
    strays = {name for name in names if PurePosixPath(name).suffix not in {".py", ".pyi", ".typed"}}
    described = {_named(names, name) for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")}
    pages = {
        str(path.relative_to(ROOT))
        for top in TOP_LEVEL
        for path in (ROOT / top).rglob("*")
        if path.suffix in {".html", ".css"}
    }
    require(bool(pages), "the checkout has no templates of pages")
    expected = described | pages | {_named(names, "licenses/LICENSE"), f"shared/{REVISION_FILE}"}
    require(strays == expected, f"stray or missing: {sorted(strays ^ expected)}")
    require(metadata["License-Expression"] == "Apache-2.0", "the licence in the metadata")
    require(metadata["Requires-Python"] == ">=3.11", "the least Python in the metadata")
    require(set(metadata.get_all("Provides-Extra", [])) == EXTRAS, "the extras in the metadata")
    require(revision == source_revision(ROOT), f"the revision of the checkout in the wheel, got {revision}")
    require(len(dates) == 1, f"one date, the commit's: {dates}")


def check_modules(names: set[str]) -> None:
    """Every module that git knows of, and no other; each package typed."""
    listed = subprocess.run(["git", "ls-files", *TOP_LEVEL], cwd=ROOT, capture_output=True, text=True, check=True)
    known = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    packed = {name for name in names if name.partition("/")[0] in TOP_LEVEL} - {f"shared/{REVISION_FILE}"}
    require(packed == known, f"not as in git: {sorted(packed ^ known)}")
    require({f"{package}/py.typed" for package in TOP_LEVEL} <= packed, "py.typed in each package")
    require("shared/pb/v1/session_pb2.py" in packed, "the generated code")


def _named(names: set[str], end: str) -> str:
    return next(name for name in sorted(names) if name.startswith("consilo-") and name.endswith(f"/{end}"))


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- what they do when they are installed -----------------------------------------------------------------------------


def check_bare(bare: Environment) -> None:
    """No extra: whoever holds the authority, and operators with their jobs."""
    require(source_revision(ROOT) in bare.run("consilo", "--version").stdout, "the revision in --version")
    packages = json.loads(bare.run("consilo", "version", "--json").stdout)["packages"]
    require((packages["torch"], packages["sqlalchemy"]) == (None, None), f"neither PyTorch nor SQLAlchemy: {packages}")
    bare.run("consilo", "--help")
    make_consortium(bare)
    bare.write("initial.safetensors", "any bytes")
    bare.write("job.toml", JOB)
    bare.run("consilo", "job", "digest", "job.toml")
    for group in ("audit", "model"):
        bare.run("consilo", group, "--help")
    bare.lacks("coordinator", "run", module="sqlalchemy", extra="coordinator")
    bare.lacks("demo", module="", extra="demo")


def make_consortium(bare: Environment) -> None:
    bare.run("consilo", "pki", "init", "authority", "--consortium", "packages.example")
    members = ("coordinator", "coordinator", "--dns", "localhost"), ("operator", "dana"), ("participant", "hospital-a")
    for who in members:
        bare.run("consilo", "pki", "issue", "authority", *who, "--out", f"credentials/{who[1]}")
    bare.run("consilo", "pki", "manifest", "authority")


def check_coordinator(light: Environment) -> None:
    """A real one: it checks, starts, answers /metrics and an operator, and ends on SIGTERM."""
    port, metrics_port = free_ports(2)
    light.write("coordinator.toml", configuration("coordinator", f'listen = "127.0.0.1:{port}"', metrics_port))
    light.write("operator.toml", f'[operator]\ncoordinator = "localhost:{port}"\n{credentials("tls", "dana")}')
    light.run("consilo", "coordinator", "check")
    log = light.work / "coordinator.log"
    with log.open("wb") as said:
        running = subprocess.Popen(
            [str(light.bin / "consilo"), "coordinator", "run"], cwd=light.work, env=light.variables, stderr=said
        )
    try:
        wait_until_ready(running, log)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=READY_TIMEOUT_S) as answer:
            require(b"consilo_coordinator_build_info" in answer.read(), "metrics")
        require(json.loads(light.run("consilo", "job", "list", "--json").stdout) == [], "no jobs yet")
        running.send_signal(signal.SIGTERM)
        require(running.wait(READY_TIMEOUT_S) == 0, "an end by SIGTERM")
    finally:
        running.kill()
        running.wait()
    light.lacks("task", "try", "--entry", "mean_task:MeanTask", module="torch", extra="participant")
    light.lacks("participant", "run", module="torch", extra="participant")


def wait_until_ready(running: subprocess.Popen[bytes], log: Path, *, limit_s: float = READY_TIMEOUT_S) -> None:
    """Its last word before it serves is an event in its log. Raises SystemExit when it ends, or is silent for long."""
    ends = time.monotonic() + limit_s
    while "coordinator_ready" not in (said := log.read_text(errors="replace")):
        if running.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"the coordinator ended, or was not ready in {limit_s:g} s:\n{said}")
        time.sleep(LOOK_S)


def check_participant(heavy: Environment) -> None:
    """A silo's side: its own configuration and task, without the libraries of a coordinator."""
    versions = json.loads(heavy.run("consilo", "version", "--json").stdout)["packages"]
    require(versions["torch"] and not versions["sqlalchemy"], f"PyTorch and no SQLAlchemy: {versions}")
    heavy.write("mean_task.py", TASK)
    heavy.write("job.toml", JOB)
    ((metrics_port,), task) = free_ports(1), '[tasks.mean]\nentry = "mean_task:MeanTask"\n'
    table = configuration("hospital-a", 'coordinators = ["localhost:8443"]', metrics_port)
    heavy.write("participant.toml", table.replace("[coordinator]", "[participant]") + task)
    heavy.variables["PYTHONPATH"] = str(heavy.work)
    heavy.run("consilo", "participant", "check")
    heavy.run("consilo", "task", "try", "--config", "participant.toml")
    heavy.run("consilo", "task", "init-model", "initial.safetensors", "--config", "participant.toml")
    heavy.run("consilo", "job", "digest", "job.toml")
    heavy.lacks("coordinator", "run", module="sqlalchemy", extra="coordinator")


def configuration(who: str, dials: str, metrics_port: int) -> str:
    own = "" if who != "coordinator" else '[access]\nallowlist = "authority/allowlist.toml"\n'
    return (
        f'[coordinator]\nid = "{who}"\n{dials}\ndata_dir = "data"\n{credentials("tls", who)}'
        f'{credentials("signing", who)}{own}[metrics]\nlisten = "127.0.0.1:{metrics_port}"\n'
    )


def credentials(kind: str, who: str) -> str:
    pair = f'[{kind}]\ncertificate = "credentials/{who}/{kind}.crt"\nkey = "credentials/{who}/{kind}.key"\n'
    return pair + (f'ca = "credentials/{who}/ca.crt"\n' if kind == "tls" else "")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


# --- how it is told ---------------------------------------------------------------------------------------------------


@contextmanager
def step(name: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    except SystemExit:
        print(f"FAIL  {name}", flush=True)
        raise
    print(f"ok    {name} ({time.monotonic() - started:.1f} s)", flush=True)


def require(holds: object, expected: str) -> None:
    if not holds:
        raise SystemExit(f"expected {expected}")


if __name__ == "__main__":
    raise SystemExit(main())
