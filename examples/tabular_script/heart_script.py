"""An ordinary training script in PyTorch, for when all rows are in one place. It knows nothing of Consilo.

python heart_script.py patients.csv
"""

from __future__ import annotations

import csv
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

HELD_OUT = 5  # one row in five is never trained on


def load_rows(path: str) -> tuple[Tensor, Tensor]:
    """Rows to train on, and rows held out; the last column is the label."""
    with open(path, newline="") as file:  # noqa: PTH123 - an ordinary script
        table = torch.tensor([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])
    held_out = torch.arange(len(table)) % HELD_OUT == 0
    return table[~held_out], table[held_out]


def build_model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


def train(model: nn.Module, rows: Tensor, *, epochs: int, learning_rate: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for batch in rows[torch.randperm(len(rows))].split(16):
            optimizer.zero_grad()
            score(model, batch)[0].backward()
            optimizer.step()


def measure(model: nn.Module, rows: Tensor) -> dict[str, float]:
    with torch.no_grad():
        loss, accuracy = score(model, rows)
    return {"loss": loss.item(), "accuracy": accuracy.item()}


def score(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    scores, labels = model(rows[:, :-1]).squeeze(1), rows[:, -1]
    return functional.binary_cross_entropy_with_logits(scores, labels), ((scores > 0) == (labels > 0)).float().mean()


if __name__ == "__main__":
    torch.manual_seed(42)
    train_rows, test_rows = load_rows(sys.argv[1])
    model = build_model()
    train(model, train_rows, epochs=20, learning_rate=0.1)
    print(measure(model, test_rows))  # noqa: T201 - what a script does
