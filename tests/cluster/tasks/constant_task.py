"""A task that trains nothing, and takes as long for it as it is told."""

from __future__ import annotations

import time

import torch
from torch import nn

from consilo import EvaluateResult, Round, Task, TrainResult


class Flat(nn.Module):
    """Parameters and nothing else."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(parameters))


class ConstantTask(Task[Flat]):
    """Adds one to every parameter. Options: `parameters`, how many there are; `seconds` that training takes."""

    def build_model(self) -> Flat:
        return Flat(int(self.options["parameters"]))

    def train(self, model: Flat, _round: Round, /) -> TrainResult:
        time.sleep(float(self.options.get("seconds", 0.0)))
        with torch.no_grad():
            model.values.add_(1.0)
        return TrainResult(weight=1.0)

    def evaluate(self, _model: Flat, _round: Round, /) -> EvaluateResult:
        return EvaluateResult(weight=1.0)
