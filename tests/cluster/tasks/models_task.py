"""Three models in one update, each trained as if it were alone: an MLP, a CNN with BatchNorm, and one whose tensors
differ in scale by a million. Nothing is random, so that two jobs from one version train the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from consilo import EvaluateResult, Round, Task, TrainResult

PIXELS = 8
BATCH = 8
COARSE, FINE = 1e3, 1e-3


class Scales(nn.Module):
    """Values and updates of `coarse` are a million times those of `fine`; both matter alike for the output."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Parameter(COARSE * torch.randn(PIXELS * PIXELS))
        self.fine = nn.Parameter(FINE * torch.randn(PIXELS * PIXELS))

    def forward(self, pixels: Tensor) -> Tensor:
        flat = pixels.flatten(1)
        return (flat @ (self.coarse / COARSE) + flat @ (self.fine / FINE)).unsqueeze(1)


class ThreeModels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS * PIXELS, 16), nn.Tanh(), nn.Linear(16, 1))
        # Without a bias: in front of BatchNorm its updates are rounding noise, which no range foretells.
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * PIXELS**2, 1),
        )
        self.scales = Scales()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.mlp(pixels), self.cnn(pixels), self.scales(pixels)


def build() -> ThreeModels:
    torch.manual_seed(5)
    return ThreeModels()


def rows_of(silo: int, rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2000 + silo)
    pixels = torch.randn(rows, 1, PIXELS, PIXELS, generator=generator) + 0.2 * silo
    return pixels, torch.sin(pixels.sum(dim=(1, 2, 3))).unsqueeze(1)


class ThreeModelsTask(Task):
    """Options: `silo`, `rows`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.pixels, self.targets = rows_of(int(options["silo"]), int(options["rows"]))

    def build_model(self) -> nn.Module:
        return build()

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        assert isinstance(model, ThreeModels)
        rate = 0.01
        optimizer = torch.optim.SGD(
            [
                {"params": [*model.mlp.parameters(), *model.cnn.parameters()], "lr": rate},
                {"params": [model.scales.coarse], "lr": rate * COARSE**2 / 100},
                {"params": [model.scales.fine], "lr": rate * FINE**2 / 100},
            ]
        )
        total = 0.0
        for start in range(0, len(self.pixels), BATCH):
            optimizer.zero_grad()
            loss = self._loss(model, slice(start, start + BATCH))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(self.pixels[start : start + BATCH])
        return TrainResult(weight=len(self.pixels), metrics={"loss": total / len(self.pixels)})

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:  # noqa: A002 - what it is
        assert isinstance(model, ThreeModels)
        with torch.no_grad():
            loss = self._loss(model, slice(None)).item()
        return EvaluateResult(weight=len(self.pixels), metrics={"loss": loss})

    def _loss(self, model: ThreeModels, rows: slice) -> Tensor:
        outputs = model(self.pixels[rows])
        return torch.stack([functional.mse_loss(output, self.targets[rows]) for output in outputs]).sum()
