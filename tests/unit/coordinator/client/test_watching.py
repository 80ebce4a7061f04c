"""A watch outlives its coordinator's restarts, and nothing is told twice."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import pytest

from coordinator.client.operations import Operations
from coordinator.client.watching import FIRST_PAUSE_S, LAST_PAUSE_S, Patience, watch
from shared.errors import UnknownError, UnreachableError
from shared.ids import JobId
from shared.reasons import JobState
from shared.wire.operations import JobDetail
from tests.support.fake_operations import status

JOB = JobId("heart-1")


@dataclass
class Lives(Operations):
    """What the coordinator says in each of its lives; an error ends one."""

    lives: list[list[JobDetail | Exception]]

    def watch_job(self, _job: JobId) -> Generator[JobDetail, None, None]:
        for said in self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]:
            if isinstance(said, Exception):
                raise said
            yield said


@dataclass
class Waits(Patience):
    limit_s: float = 60.0
    time: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


def detail(state: JobState) -> JobDetail:
    return JobDetail(job=status(JOB, state=state), rounds=(), live=None)


RUNNING, COMPLETED = detail(JobState.RUNNING), detail(JobState.COMPLETED)
GONE = UnreachableError("no connection")


def test_it_goes_on_after_a_restart() -> None:
    lines: list[str] = []
    waits = Waits()
    lives = Lives([[RUNNING, GONE], [GONE], [GONE], [RUNNING, COMPLETED]])
    seen = list(watch(lives, JOB, told=lines.append, patience=waits))
    assert seen == [RUNNING, RUNNING, COMPLETED]
    assert waits.pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert lines == ["connection lost: waiting up to 60 s for the coordinator", "connected again"]


def test_each_absence_is_waited_for_afresh() -> None:
    waits = Waits()
    absence: list[list[JobDetail | Exception]] = [[RUNNING, GONE]]
    absence += [[GONE] for _ in range(10)]
    lives = Lives([*absence, *absence, [COMPLETED]])
    assert list(watch(lives, JOB, told=lambda _line: None, patience=waits))[-1] == COMPLETED
    assert waits.pauses.count(FIRST_PAUSE_S) == 2
    assert max(waits.pauses) == LAST_PAUSE_S


def test_who_stays_away_is_given_up() -> None:
    lives = Lives([[RUNNING, GONE], [GONE]])
    with pytest.raises(UnreachableError, match="away for 60 s, and job heart-1 was not over"):
        list(watch(lives, JOB, told=lambda _line: None, patience=Waits()))


def test_who_was_never_there_is_not_waited_for() -> None:
    waits = Waits()
    with pytest.raises(UnreachableError, match="no connection"):
        list(watch(Lives([[GONE]]), JOB, told=lambda _line: None, patience=waits))
    assert waits.pauses == []


def test_a_job_that_is_not_there_any_more_ends_the_watch() -> None:
    lives = Lives([[RUNNING, GONE], [UnknownError("there is no job heart-1")]])
    with pytest.raises(UnknownError):
        list(watch(lives, JOB, told=lambda _line: None, patience=Waits()))
