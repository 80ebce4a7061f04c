"""The container engine that these tests use: builds their images, runs containers, and takes both away again.

Which engine is DOCKER_HOST's matter, or the default of `docker`. Nothing here pulls: an image that is not there is an
error that says so.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(__file__).resolve().parent / "images"
COMMAND_LIMIT_S = 120.0
BUILD_LIMIT_S = 1200.0
POLL_S = 0.25
LABEL = "consilo-test"  # of all that a run makes and must not leave
SAID_CHARS = 24_000  # of each, after a failure

_tellers: dict[str, Callable[[], str]] = {}

_T = TypeVar("_T")


class EngineError(Exception):
    """A command of the engine failed; the message has the command and the end of what it said."""


def require_engine() -> None:
    """Raises pytest.UsageError, with what is missing, where no engine can be had."""
    for program in ("docker", "docker-compose"):
        if shutil.which(program) is None:
            raise pytest.UsageError(f"--containers needs `{program}`, which is not on PATH: install it")
    where = os.environ.get("DOCKER_HOST", "the default address (DOCKER_HOST is not set)")
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except EngineError as error:
        raise pytest.UsageError(
            f"--containers needs a container engine, and none answers at {where}:\n{error}"
        ) from None


def run(
    command: Sequence[str], *, limit_s: float = COMMAND_LIMIT_S, environment: Mapping[str, str] | None = None
) -> str:
    """Standard output of a command that must end well. Raises EngineError."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"`{' '.join(command)}` did not end within {limit_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-6000:]
        raise EngineError(f"`{' '.join(command)}` ended with code {done.returncode}:\n{said}")
    return done.stdout


def docker(*arguments: str, limit_s: float = COMMAND_LIMIT_S) -> str:
    return run(["docker", *arguments], limit_s=limit_s)


def build(tag: str, *, context: Path, file: Path | None = None, arguments: Mapping[str, str] | None = None) -> str:
    """Build an image and say its tag."""
    command = ["build", "--tag", tag, "--file", str(file or context / "Dockerfile")]
    for name, value in (arguments or {}).items():
        command += ["--build-arg", f"{name}={value}"]
    docker(*command, str(context), limit_s=BUILD_LIMIT_S)
    return tag


@functools.cache
def built(name: str) -> str:
    """The tag of one of the images under images/, which the first to ask builds; the engine's cache does the rest."""
    return build(f"consilo-test-{name}", context=IMAGES / name)


def once(
    image: str, *command: str, options: Sequence[str] = (), network: str = "none", limit_s: float = COMMAND_LIMIT_S
) -> str:
    """What a container says that runs one command to its end. Raises EngineError."""
    given = ("--rm", "--pull", "never", "--label", LABEL, "--network", network, *options)
    return docker("run", *given, image, *command, limit_s=limit_s)


@dataclass(frozen=True, slots=True)
class Container:
    """One that exists; it may have ended."""

    name: str

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", self.name))
        return dict(found)

    def logs(self) -> str:
        """Standard output and standard error, in no order."""
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, encoding="utf-8", errors="replace", check=True
        )
        return done.stdout + done.stderr

    def execute(self, *command: str, limit_s: float = COMMAND_LIMIT_S) -> str:
        """What a command inside says. Raises EngineError if it fails."""
        return docker("exec", self.name, *command, limit_s=limit_s)

    @property
    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    @property
    def health(self) -> str:
        """`starting`, `healthy` or `unhealthy`; `none` where nobody looks."""
        return str(self.inspect()["State"].get("Health", {}).get("Status", "none"))

    @property
    def exit_code(self) -> int:
        return int(self.inspect()["State"]["ExitCode"])

    def port(self, inside: int) -> int:
        """Where a published port is found on this machine."""
        return int(docker("port", self.name, f"{inside}/tcp").splitlines()[0].rpartition(":")[2])


@contextmanager
def container(
    image: str, *command: str, options: Sequence[str] = (), prefix: str = "consilo-test"
) -> Iterator[Container]:
    """Start a container in the background; it is removed at the end, with the volumes that nobody named."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    this = Container(name)
    try:
        docker("run", "--detach", "--pull", "never", "--label", LABEL, "--name", name, *options, image, *command)
        with telling(f"{name} ({image})", this.logs):
            yield this
    finally:
        docker("rm", "--force", "--volumes", name)


@contextmanager
def made(kind: Literal["network", "volume"], *, prefix: str = "consilo-test") -> Iterator[str]:
    """A network or a volume, by its name."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    docker(kind, "create", "--label", LABEL, name)
    try:
        yield name
    finally:
        docker(kind, "rm", name)


@contextmanager
def telling(name: str, said: Callable[[], str]) -> Iterator[None]:
    """While this lasts, what fails shows what `said` gives: a test (conftest.py), or the `with` block itself."""
    _tellers[name] = said
    try:
        yield
    except Exception:
        sys.stderr.write(f"--- {name} said\n{_end_of(said)}")
        raise
    finally:
        del _tellers[name]


def said_by_all() -> list[tuple[str, str]]:
    return [(name, _end_of(said)) for name, said in _tellers.items()]


def _end_of(said: Callable[[], str]) -> str:
    """Never the reason of another failure."""
    try:
        return said()[-SAID_CHARS:]
    except Exception as error:  # noqa: BLE001 - whatever it is, the first failure is what counts
        return f"nothing that could be read: {error}\n"


def remove_leftovers(*labels: str) -> None:
    """Of a run that was cut short, or of one command that was."""
    for label in (LABEL, *labels):
        chosen = ("--quiet", "--filter", f"label={label}")
        if containers := docker("ps", "--all", *chosen).split():
            docker("rm", "--force", "--volumes", *containers)
        for kind in ("network", "volume"):
            if names := docker(kind, "ls", *chosen).split():
                docker(kind, "rm", *names)


def awaited(what: str, look: Callable[[], _T | None], *, limit_s: float = 120.0, every_s: float = POLL_S) -> _T:
    """Look until there is something (anything but None, False and the empty). Raises AssertionError at the limit."""
    end = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {limit_s:.0f} s; at the end {found!r}")
        time.sleep(every_s)
