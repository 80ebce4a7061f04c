"""A task whose weight and losses are given, so that a test can look for them where they must not be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from consilo import EvaluateResult, Round, Task, TrainResult


def build() -> nn.Module:
    torch.manual_seed(5)
    return nn.Linear(40, 10)


class SentinelTask(Task):
    """Options: `weight`, `train_loss`, `evaluate_loss`, and `step`, which is added to every parameter."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.weight = int(options["weight"])

    def build_model(self) -> nn.Module:
        return build()

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(float(self.options["step"]))
        return TrainResult(weight=self.weight, metrics={"loss": float(self.options["train_loss"])})

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:  # noqa: A002 - what it is
        return EvaluateResult(weight=self.weight, metrics={"loss": float(self.options["evaluate_loss"])})
