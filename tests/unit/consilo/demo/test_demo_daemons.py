from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consilo.demo.daemons import CONSILO, Daemons, Interrupts, run_consilo
from shared.errors import UnreachableError


def interrupt() -> None:
    """Ask this process to end; the handler runs before the second call returns."""
    os.kill(os.getpid(), signal.SIGTERM)
    signal.sigtimedwait([], 5)


def test_an_interruption_waits_for_the_end_of_what_is_held() -> None:
    seen = []

    def hold(interrupts: Interrupts) -> None:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("still here")

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        hold(interrupts)
    assert seen == ["still here"]


def test_elsewhere_it_comes_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        interrupt()
    assert signal.getsignal(signal.SIGTERM) is before


def check_until_it_complains(daemons: Daemons) -> None:
    while True:
        daemons.check()


def test_a_daemon_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Interrupts() as interrupts, Daemons(logs=tmp_path, interrupts=interrupts) as daemons:
        daemons.start("coordinator", [*CONSILO, "coordinator", "run", "--config", "nowhere.toml"], folder=tmp_path)
        with pytest.raises(UnreachableError, match=r"coordinator ended with code 1; .*\n.*nowhere\.toml"):
            check_until_it_complains(daemons)


def test_a_daemon_that_may_end_is_started_again_with_the_same_log(tmp_path: Path) -> None:
    with Interrupts() as interrupts, Daemons(logs=tmp_path, interrupts=interrupts) as daemons:
        daemons.start("hospital", ["echo", "first life"], folder=tmp_path, may_end=True)
        while not daemons.has_ended("hospital"):
            daemons.check()
        daemons.check()
        daemons.start("hospital", ["echo", "second life"], folder=tmp_path)
        with pytest.raises(UnreachableError, match="hospital ended with code 0"):
            check_until_it_complains(daemons)
    assert (tmp_path / "hospital.log").read_text() == "first life\nsecond life\n"


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="`consilo pki list` ended with code"):
        run_consilo(["pki", "list", "nowhere"], folder=tmp_path)


def test_the_command_line_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "consilo", "--version"], capture_output=True, check=True)
    assert done.stdout
