"""A task without randomness, whose training the reference of a test repeats in its own process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from consilo import EvaluateResult, Round, Task, TrainResult

FEATURES = 6
BATCH = 8


def rows_of(silo: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A silo's data: its own slice of one noisy function, a different one in each silo."""
    generator = torch.Generator().manual_seed(1000 + silo)
    x = torch.randn(rows, FEATURES, generator=generator) + 0.3 * silo
    y = torch.sin(x.sum(dim=1, keepdim=True)) + 0.1 * torch.randn(rows, 1, generator=generator)
    return x, y


def build() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))


def train_locally(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, learning_rate: float) -> float:
    """One epoch of plain SGD in row order; the mean loss."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    total = 0.0
    for start in range(0, len(x), BATCH):
        batch, target = x[start : start + BATCH], y[start : start + BATCH]
        loss = functional.mse_loss(model(batch), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


class RegressionTask(Task):
    """Options: `silo`, `rows`, `fail_in_rounds` (in which this silo's training crashes), `name` and `ledger` (a file to
    which each training writes a line when it begins). A job's [training] table may say `crash`: for names, the rounds
    in which they crash; and `slow`: for names, how many seconds more their training takes.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.x, self.y = rows_of(int(options["silo"]), int(options["rows"]))
        self.failing = set(options.get("fail_in_rounds", []))
        self.name = options.get("name", "")

    def build_model(self) -> nn.Module:
        return build()

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        if "ledger" in self.options:
            with Path(self.options["ledger"]).open("a") as ledger:
                ledger.write(f"{round.job_id} {round.number}\n")
        if round.number in self.failing or round.number in round.training.get("crash", {}).get(self.name, []):
            raise RuntimeError("this silo is not well today")
        time.sleep(float(round.training.get("slow", {}).get(self.name, 0.0)))
        loss = train_locally(model, self.x, self.y, learning_rate=float(round.training["learning_rate"]))
        return TrainResult(weight=len(self.x), metrics={"loss": loss})

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:  # noqa: A002 - what it is
        model.eval()
        with torch.no_grad():
            loss = functional.mse_loss(model(self.x), self.y).item()
        return EvaluateResult(weight=len(self.x), metrics={"loss": loss})


class ShuffledTask(RegressionTask):
    """The same with everything random that training usually has: shuffling, dropout, noise."""

    def build_model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        order = torch.randperm(len(self.x))
        noisy = self.x[order] + 0.01 * torch.randn(len(self.x), FEATURES)
        loss = train_locally(model, noisy, self.y[order], learning_rate=float(round.training["learning_rate"]))
        return TrainResult(weight=len(self.x), metrics={"loss": loss})
