"""A hospital that is killed, is noticed, and is started again when its round is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consilo.demo.daemons import Daemons, Interrupts
from consilo.demo.doomed import Doomed
from consilo.demo.dropping import ROUND, Dropping, require_droppable, victim
from consilo.demo.folders import Federation, lay_out
from consilo.demo.moment import Blow, Moment, doomed
from consilo.demo.protection import Protection
from participant.round.phases import Working
from shared.build import BuildInfo
from shared.errors import ConfigError
from shared.ids import JobId
from shared.wire.operations import JobDetail
from tests.support.fake_operations import committed, status
from tests.support.rounds import make_offer, make_plan, make_spec

JOB = JobId("tumour-00112233")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return lay_out(tmp_path_factory.mktemp("demo"), hospitals=4, rounds=5, seed=11, now=datetime.now(UTC))


def job_after(rounds: int) -> JobDetail:
    return JobDetail(job=status(JOB), rounds=tuple(committed(JOB, 1 + done) for done in range(rounds)), live=None)


class RecordedDaemons(Daemons):
    """Starts nothing; the test says who has ended."""

    def __init__(self, folder: Path, interrupts: Interrupts) -> None:
        super().__init__(logs=folder, interrupts=interrupts)
        self.started: list[tuple[str, bool]] = []
        self.ended = False

    def start(self, name: str, command: object, *, folder: Path, may_end: bool = False) -> None:
        self.started.append((name, may_end))

    def has_ended(self, name: str) -> bool:
        return self.ended


def test_it_is_down_until_its_round_is_over(federation: Federation, tmp_path: Path) -> None:
    daemons, said = RecordedDaemons(tmp_path, Interrupts()), list[str]()
    dropping = Dropping(federation, daemons=daemons, say=said.append)
    dropping.start()
    dropping.look(None)
    dropping.look(job_after(ROUND - 1))
    assert (daemons.started, said) == ([(victim(federation), True)], [])
    daemons.ended = True
    dropping.look(job_after(ROUND - 1))
    dropping.look(job_after(ROUND - 1))
    assert len(daemons.started) == len(said) == 1
    dropping.look(job_after(ROUND))
    dropping.look(job_after(ROUND))
    assert daemons.started[1:] == [(victim(federation), False)]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("protection", "rounds", "complaint"),
    [
        (Protection("plain", 4), 15, "leave out --plain"),
        (Protection("masked", 2), 15, "of 2, 2 must help to open a total"),
        (Protection("masked", 3), 15, "take 4 or more"),
        (Protection("masked", 4), ROUND, "--rounds 4 or more"),
    ],
)
def test_what_cannot_be_shown_is_refused(protection: Protection, rounds: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        require_droppable(protection, rounds=rounds)


@pytest.mark.parametrize("members", [4, 5, 6, 7, 8])
def test_from_four_on_one_can_be_spared(members: int) -> None:
    require_droppable(Protection("masked", members), rounds=15)


def test_a_moment_is_read_as_it_is_written() -> None:
    moment = Moment(3, "Uploading", Blow.KILL)
    assert Moment.parse(str(moment)) == moment
    for wrong in ("3:Uploading", "3:Uploading:TERM", "x:Uploading:KILL"):
        with pytest.raises(ValueError, match=r"."):
            Moment.parse(wrong)


def test_a_doomed_daemon_takes_its_word_from_the_command_line_alone(tmp_path: Path) -> None:
    command = doomed(tmp_path / "participant.toml", Moment(3, "Uploading", Blow.STOP))
    assert command[:4] == [sys.executable, "-P", "-m", "consilo.demo.doomed"]
    assert command[4:] == [str(tmp_path / "participant.toml"), "3:Uploading:STOP"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 1
    assert "participant.toml" in done.stderr


def test_the_blow_falls_once_in_its_state_of_its_round() -> None:
    struck: list[signal.Signals] = []
    moments = [Moment(2, "Working", Blow.STOP), Moment(2, "Out", Blow.KILL)]
    metrics = Doomed(build=BuildInfo("1", "", ""), moments=moments, strike=struck.append)
    for number in (1, 2, 2, 3):
        metrics.moved(Working(make_offer(plan=make_plan(make_spec(), number=number))))
    assert struck == [signal.SIGSTOP]
