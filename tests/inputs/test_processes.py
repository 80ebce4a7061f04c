"""What only a real process shows: the entry point's own words, an interrupt, a pipe that nobody reads, a port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.inputs.place import Place, make_place
from tests.support.small_disk import small_disk

CONSILO = (sys.executable, "-m", "consilo")
LIMIT_S = 60.0
LOW_PORT = 83  # below those that everybody may listen on


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("processes") / "whole", address="127.0.0.1:1")


@pytest.fixture
def place(whole: Place, tmp_path: Path) -> Place:
    shutil.copytree(whole.folder, tmp_path / "consilo")
    return Place(tmp_path / "consilo")


def ended(place: Place, *command: str, prefix: Sequence[str] = ()) -> tuple[int, str, str]:
    """Exit code and both streams of a command that ends by itself."""
    done = subprocess.run(
        [*prefix, *CONSILO, *command],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_entry_point_says_the_same(place: Place) -> None:
    place.replace("participant.toml", "minimum_members", "minimum_member")
    code, said, complained = ended(place, "participant", "run")
    assert (code, said) == (1, "")
    assert complained.startswith("error: participant.toml: policy.minimum_member: unknown key; expected one of")
    assert complained.count("\n") == 1


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_in_use(place: Place, taken: int) -> None:
    place.replace("coordinator.toml", '"127.0.0.1:0"', f'"127.0.0.1:{taken}"')
    code, _, complained = ended(place, "coordinator", "run")
    assert code == 1
    assert f"error: coordinator.listen: cannot listen on 127.0.0.1:{taken}: another process has the port" in complained


@pytest.mark.parametrize("daemon", ["coordinator", "participant"])
def test_a_port_for_metrics_that_is_in_use(place: Place, taken: int, daemon: str) -> None:
    place.replace(f"{daemon}.toml", 'listen = "off"', f'listen = "127.0.0.1:{taken}"')
    code, _, complained = ended(place, daemon, "run")
    assert code == 1
    assert f"error: metrics.listen: cannot listen on 127.0.0.1:{taken} (Address already in use): " in complained


def unprivileged_from() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="root alone can lay down a capability")
@pytest.mark.skipif(unprivileged_from() <= LOW_PORT, reason="here everybody may listen on low ports")
def test_a_port_that_this_user_may_not_have(place: Place) -> None:
    place.replace("participant.toml", 'listen = "off"', f'listen = "127.0.0.1:{LOW_PORT}"')
    without = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    code, _, complained = ended(place, "participant", "run", prefix=without)
    assert code == 1
    assert f"error: metrics.listen: cannot listen on 127.0.0.1:{LOW_PORT} (Permission denied): " in complained


def test_a_full_disk(place: Place, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size=1 << 20) as disk:
        disk.fill()
        place.replace("coordinator.toml", '"coordinator-data"', f'"{disk.folder}/data"')
        place.replace("participant.toml", '"hospital-a-data"', f'"{disk.folder}/silo"')
        full = r"^error: .*(database or disk is full|No space left on device)"  # whichever of its files has no room
        for daemon in ("coordinator", "participant"):
            code, _, complained = ended(place, daemon, "run")
            assert code == 1
            assert re.search(full, complained, re.MULTILINE), complained
        code, _, complained = ended(
            place, "pki", "issue", "pki", "participant", "hospital-d", "--out", str(disk.folder)
        )
        assert code == 1
        assert complained.endswith("cannot be written (No space left on device)\n")
        assert [path.name for path in disk.folder.iterdir() if path.name.startswith(".")] == []


def test_an_interrupt_is_no_traceback(place: Place) -> None:
    place.keep_journal()
    process = subprocess.Popen(
        [*CONSILO, "participant", "allow", "heart-1"],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Job heart-1 is not known here yet.")  # what comes next is a question
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert complained.endswith("interrupted\n")


def test_a_pipe_that_nobody_reads_is_no_traceback(place: Place) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*CONSILO, "pki", "list", "pki"],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""
