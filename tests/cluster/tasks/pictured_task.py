"""The task of the federation whose pages are looked at: curves that fall and rise, and a ledger of each loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from consilo import EvaluateResult, Round, TrainResult
from tests.cluster.tasks.regression_task import RegressionTask

NEAR = 0.5


class PicturedTask(RegressionTask):
    """Option `measured`: a file to which each loss of this silo is written, one a line."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.measured = Path(options["measured"])

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        trained = super().train(model, round)
        figures = {**trained.metrics, "accuracy": self._figures(model)["accuracy"]}
        self._write(figures["loss"])
        return TrainResult(weight=trained.weight, metrics=figures)

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:  # noqa: A002 - what it is
        figures = self._figures(model)
        self._write(figures["loss"])
        return EvaluateResult(weight=len(self.x), metrics=figures)

    def _figures(self, model: nn.Module) -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            guess = model(self.x)
            near = (guess - self.y).abs() < NEAR
            return {"loss": functional.mse_loss(guess, self.y).item(), "accuracy": near.double().mean().item()}

    def _write(self, loss: float) -> None:
        with self.measured.open("a") as file:
            file.write(f"{loss!r}\n")
