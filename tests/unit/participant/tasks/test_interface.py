from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from participant.tasks.interface import EvaluateResult, Round, Task, TrainResult


def make_round(report: Callable[[float], None]) -> Round:
    device: Any = "cpu"
    return Round(job_id="j-1", job_name="j", number=1, training={}, device=device, seed=3, report=report)


class Nothing(Task):
    def build_model(self) -> Any:
        raise NotImplementedError

    def train(self, model: Any, round_: Round) -> TrainResult:
        del model, round_
        return TrainResult(weight=1, metrics={})

    def evaluate(self, model: Any, round_: Round) -> EvaluateResult:
        del model, round_
        return EvaluateResult(weight=1)


def test_progress_is_reported_as_a_fraction() -> None:
    seen: list[float] = []
    current = make_round(seen.append)
    current.progress(0, 4)
    current.progress(1, 4)
    current.progress(4, 4)
    assert seen == [0, 0.25, 1]


@pytest.mark.parametrize(("done", "total"), [(-1, 2), (3, 2), (0, 0), (math.nan, 2), (1, math.nan)])
def test_progress_that_makes_no_sense_is_a_mistake(done: float, total: float) -> None:
    with pytest.raises(ValueError, match="0 <= done <= total"):
        make_round(lambda _: None).progress(done, total)


def test_a_task_keeps_its_options_and_has_no_state_unless_it_says_so() -> None:
    task = Nothing({"table": "x.csv"})
    assert task.options == {"table": "x.csv"}
    assert task.state_dict() is None
    with pytest.raises(NotImplementedError, match="Nothing has state_dict, but no load_state_dict"):
        task.load_state_dict({})


def test_a_task_that_forgets_a_method_cannot_be_made() -> None:
    class Half(Task):
        def build_model(self) -> Any: ...

    with pytest.raises(TypeError, match="evaluate"):
        Half({})  # type: ignore[abstract]
