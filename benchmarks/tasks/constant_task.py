"""A task that trains nothing: what is left of a round is Consilo."""

from __future__ import annotations

import torch

from consilo import EvaluateResult, Round, Task, TrainResult


class Flat(torch.nn.Module):
    """Parameters and nothing else."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.zeros(parameters))


class ConstantTask(Task[Flat]):
    """Adds one to every parameter. Options: `parameters`, how many there are."""

    def build_model(self) -> Flat:
        return Flat(int(self.options["parameters"]))

    def train(self, model: Flat, _round: Round, /) -> TrainResult:
        with torch.no_grad():
            model.values.add_(1.0)
        return TrainResult(weight=1.0)

    def evaluate(self, _model: Flat, _round: Round, /) -> EvaluateResult:
        return EvaluateResult(weight=1.0)
