"""`consilo demo` as a newcomer runs it: real daemons, real data, one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from consilo.demo.cli import DEFAULT_ROUNDS
from consilo.demo.dropping import ROUND, ROUNDS_MIN
from shared.reasons import DropReason

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def consilo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "consilo", *arguments]
    environment = {**os.environ, "TMPDIR": str(folder)}  # a demo without --keep leaves its folder behind
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_demo_keeps_what_it_promises(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    done = consilo("demo", "--keep", str(folder), "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    alone = told["alone_accuracy"]
    assert sorted(alone) == ["hospital-a", "hospital-b", "hospital-c", "hospital-d"]
    assert told["federated_accuracy"] > sum(alone.values()) / len(alone)
    assert told["federated_accuracy"] == pytest.approx(told["pooled_accuracy"], abs=0.02)
    assert (told["rounds"], told["rounds_committed"]) == (DEFAULT_ROUNDS, DEFAULT_ROUNDS)
    assert (told["dropped"], told["back_in"], told["audit_verified"]) == ([], [], True)
    assert (told["masking"], told["members"], told["threshold"], told["max_colluding"]) == ("masked", 4, 3, 1)
    assert "masked: 4 members, 3 must help to open a total, 1 may collude with the coordinator" in done.stderr
    assert "against that person nothing is guaranteed" in done.stderr
    assert Path(told["model_path"]).is_file()

    signing = folder / "consortium" / "coordinator" / "credentials" / "signing.crt"
    log = folder / "consortium" / "coordinator" / "data" / "audit.log"
    verify = ("audit", "verify", "--log", str(log), "--certificate", str(signing))
    assert consilo(*verify, "--head", told["audit_head"], folder=folder).returncode == 0
    damaged = log.read_bytes().replace(b"round_committed", b"round_comitted", 1)
    log.write_bytes(damaged)
    assert consilo(*verify, folder=folder).returncode == 1


@pytest.mark.long
def test_a_hospital_that_is_killed_in_the_middle_is_back_in_the_next_round(tmp_path: Path) -> None:
    done = consilo("demo", "--drop", "--rounds", str(ROUNDS_MIN), "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["dropped"] == [{"participant": "hospital-d", "round": ROUND, "reason": DropReason.DISCONNECTED}]
    assert told["back_in"] == [{"participant": "hospital-d", "round": ROUND + 1}]
    assert (told["rounds_committed"], told["audit_verified"]) == (ROUNDS_MIN, True)
    assert f"hospital-d was killed (SIGKILL) in round {ROUND}" in done.stderr


@pytest.mark.long
def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    arguments = ("demo", "--participants", "2", "--rounds", "2", "--seed", "5", "--json")
    digests = [json.loads(consilo(*arguments, folder=tmp_path).stdout)["model_digest"] for _ in range(2)]
    assert digests[0] == digests[1]


def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    command = [sys.executable, "-P", "-m", "consilo", "demo", "--participants", "2", "--keep", str(folder), "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("starting 2 participants"):
                break
        assert processes_of(folder)
        demo.terminate()
        assert demo.wait(30) == 130
    assert processes_of(folder) == []


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder, apart from the demo's own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line and "--keep" not in line:
                found.append(line)
    return found
