"""The task of recorded sessions: few parameters, so that updates are small, and a model file of two chunks."""

from __future__ import annotations

import time

import torch
from torch import nn

from consilo import EvaluateResult, Round, Task, TrainResult

FILLING_BYTES = 1_100_000  # zeros: they pack well, and are in no update


class Small(nn.Module):
    """Three numbers that are trained, and a table that is not."""

    filling: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(3))
        self.register_buffer("filling", torch.zeros(FILLING_BYTES, dtype=torch.uint8))


class RecordedTask(Task[Small]):
    """Adds this silo's `step` (an option) to every number. A job's [training] table may say `seconds`, that training
    takes, and `crash`: for names, the rounds in which they crash.
    """

    def build_model(self) -> Small:
        return Small()

    def train(self, model: Small, round: Round, /) -> TrainResult:  # noqa: A002 - what it is
        if round.number in round.training.get("crash", {}).get(self.options["name"], []):
            raise RuntimeError("this silo is not well today")
        round.progress(1, 2)
        time.sleep(float(round.training.get("seconds", 0.0)))
        with torch.no_grad():
            model.values.add_(float(self.options["step"]))
        return TrainResult(weight=10.0, metrics={"loss": 0.5})

    def evaluate(self, _model: Small, _round: Round, /) -> EvaluateResult:
        return EvaluateResult(weight=5.0, metrics={"loss": 0.25})
