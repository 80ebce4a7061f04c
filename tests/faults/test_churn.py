"""Silos come and go while a job runs; and what looks for growth would see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.cells import Mode
from tests.faults.churn import BOUNDS, churn
from tests.faults.growth import Bound, Series, line_of, process_takes
from tests.faults.processes import Failure

SEED = 1


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_job_goes_on_while_silos_come_and_go(tmp_path: Path) -> None:
    """Of this seed the first goes as soon as survivors are confirmed in round 3, or in one after it."""
    done = churn(tmp_path / "federation", Mode.MASKED, rounds=9, seed=51, limit_s=240.0, stay_rounds=(3, 14))
    assert done.left.total() >= 1
    assert done.series.samples.keys() == BOUNDS.keys()


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", list(Mode))
def test_two_hundred_rounds_cost_no_more_at_their_end(tmp_path: Path, mode: Mode) -> None:
    done = churn(tmp_path / "federation", mode, rounds=200, seed=SEED, limit_s=7000.0)
    assert done.left.total() >= 20
    assert done.out, "somebody was out of a round, with a reason"
    done.series.require(BOUNDS)


# --- growth -----------------------------------------------------------------------------------------------------------


def series(*values: float) -> Series:
    made = Series()
    for number, value in enumerate(values, start=1):
        made.take(number, {"memory": value})
    return made


def test_what_grows_after_the_warm_up_is_seen() -> None:
    growing = series(*(100.0 * number for number in range(40)))
    with pytest.raises(Failure, match="memory: 1300 became 3600, at most 1900 more were allowed"):
        growing.require({"memory": Bound(1900)})
    growing.require({"memory": Bound(2300)})


def test_what_is_on_record_may_grow_with_the_rounds_and_no_faster() -> None:
    growing = series(*(100.0 * number for number in range(40)))
    growing.require({"memory": Bound(0, a_round=100)})
    with pytest.raises(Failure, match="something grows"):
        growing.require({"memory": Bound(0, a_round=95)})


def test_a_warm_up_and_a_single_peak_are_no_growth() -> None:
    warm = [float(min(number, 9)) for number in range(40)]
    warm[35] = 1000.0
    series(*warm).require({"memory": Bound(0)})
    assert line_of(list(enumerate(warm))).most == 1000


def test_a_process_is_measured() -> None:
    before = process_takes(os.getpid(), "this")
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    memory = bytearray(os.urandom(64 << 20))
    after = process_takes(os.getpid(), "this")
    for descriptor in held:
        os.close(descriptor)
    assert after["this files"] - before["this files"] == 5
    assert after["this memory"] - before["this memory"] > len(memory) / 2
    assert after["this threads"] >= 1
