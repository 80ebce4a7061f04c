"""The demo's task: is a tumour malignant? A small network on one hospital's rows of the Wisconsin data.

It is written as a data scientist would write it, and is a fair thing to start from. One file per hospital: a CSV with
a header, first a column `held_out` (1 for rows that are evaluated on and never trained on), then the features, and the
label (0 or 1) in the last column. Features are standardised with constants that
stand in the options, the same in every hospital: with means of its own each hospital would train another model.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from consilo import EvaluateResult, Round, Task, TrainResult

HIDDEN = 16
DEFAULT_LOCAL_EPOCHS = 1
DEFAULT_LEARNING_RATE = 0.05
DEFAULT_BATCH_SIZE = 16


class TumourTask(Task):
    """Options, all as text, numbers or lists:

    * `rows`: path of the CSV.
    * `mean` and `std`: one number for each feature. Without them features are taken as they are.
    * `features`: how many there are. Only needed where there is no data (`consilo task init-model`), without `mean`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        rows = self._read()
        self.train_rows = None if rows is None else rows.part(held_out=False)
        self.test_rows = None if rows is None else rows.part(held_out=True)

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self._features(), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - the word of the house
        features, labels = self._present(self.train_rows, "train", round.device)
        epochs = int(round.training.get("local_epochs", DEFAULT_LOCAL_EPOCHS))
        batch_size = int(round.training.get("batch_size", DEFAULT_BATCH_SIZE))
        learning_rate = float(round.training.get("learning_rate", DEFAULT_LEARNING_RATE))
        optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
        for epoch in range(epochs):
            # torch's generator has been seeded for this call: the order is the same after a restart.
            order = torch.randperm(len(labels)).to(round.device)
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                optimizer.zero_grad()
                _loss(model(features[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            round.progress(epoch + 1, epochs)
        return TrainResult(weight=len(labels), metrics=_metrics(model.eval(), features, labels))

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:  # noqa: A002 - the word of the house
        features, labels = self._present(self.test_rows, "evaluate", round.device)
        return EvaluateResult(weight=len(labels), metrics=_metrics(model, features, labels))

    def _read(self) -> Rows | None:
        """The rows, with standardised features; None where no file is named."""
        if "rows" not in self.options:
            return None
        rows = read_rows(Path(self.options["rows"]))
        if "mean" not in self.options:
            return rows
        features = rows.features
        mean, std = (torch.tensor(self.options[name], dtype=torch.float64) for name in ("mean", "std"))
        if mean.shape != features.shape[1:] or std.shape != features.shape[1:]:
            raise ValueError(f"{self.options['rows']} has {features.shape[1]} features, mean has {len(mean)}")
        return Rows((features - mean) / std, rows.labels, rows.held_out)

    def _present(self, part: tuple[Tensor, Tensor] | None, purpose: str, device: torch.device) -> tuple[Tensor, Tensor]:
        if part is None or len(part[1]) == 0:
            raise ValueError(f"the option 'rows' names no file with rows to {purpose} on")
        features, labels = part
        return features.to(device), labels.to(device)

    def _features(self) -> int:
        if self.train_rows is not None:
            return self.train_rows[0].shape[1]
        if "mean" in self.options:
            return len(self.options["mean"])
        return int(self.options["features"])


@dataclass(frozen=True, slots=True)
class Rows:
    """A file's content: features [rows, features], labels [rows], both float64, and which rows are held out [rows]."""

    features: Tensor
    labels: Tensor
    held_out: Tensor

    def part(self, *, held_out: bool) -> tuple[Tensor, Tensor]:
        """Features and labels of one part, both float32."""
        chosen = self.held_out == held_out
        return self.features[chosen].float(), self.labels[chosen].float()


def read_rows(path: Path) -> Rows:
    """Read a CSV with a header. Raises ValueError."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    if not lines or any(len(line) != len(header) for line in lines):
        raise ValueError(f"{path}: expected rows of {len(header)} columns below the header")
    table = torch.tensor([[float(cell) for cell in line] for line in lines], dtype=torch.float64)
    return Rows(table[:, 1:-1], table[:, -1], table[:, 0] > 0)


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores.squeeze(1), labels)


@torch.no_grad()
def _metrics(model: nn.Module, features: Tensor, labels: Tensor) -> dict[str, float]:
    """Means over the rows."""
    scores = model(features)
    right = (scores.squeeze(1) > 0) == (labels > 0.5)
    return {"loss": _loss(scores, labels).item(), "accuracy": right.float().mean().item()}
