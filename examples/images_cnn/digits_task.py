"""A convolutional network with BatchNorm on scikit-learn's handwritten digits: 1,797 pictures of 8 x 8 pixels.

Every silo takes its own part of them, so that the example needs no files. Yours would read its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from consilo import EvaluateResult, Round, Task, TrainResult

HELD_OUT = 5  # one picture in five is never trained on


class DigitsTask(Task):
    """Options: `part` and `parts`, this silo's share of the pictures."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        digits = load_digits()
        mine = np.arange(len(digits.target)) % int(options.get("parts", 1)) == int(options.get("part", 0))
        pictures = torch.tensor(digits.images[mine], dtype=torch.float32).unsqueeze(1) / 16
        labels = torch.tensor(digits.target[mine])
        held_out = torch.arange(len(labels)) % HELD_OUT == 0
        self.train_pictures, self.train_labels = pictures[~held_out], labels[~held_out]
        self.test_pictures, self.test_labels = pictures[held_out], labels[held_out]

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        epochs = int(round.training.get("local_epochs", 1))
        batch_size = int(round.training.get("batch_size", 32))
        optimizer = torch.optim.SGD(model.parameters(), lr=float(round.training.get("learning_rate", 0.05)))
        total = loss_sum = 0.0
        for epoch in range(epochs):
            # torch's generator has been seeded for this call: the shuffle is the same after a restart.
            order = torch.randperm(len(self.train_labels))
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                if len(batch) == 1:
                    continue  # BatchNorm has no variance of one picture
                labels = self.train_labels[batch].to(round.device)
                loss = functional.cross_entropy(model(self.train_pictures[batch].to(round.device)), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss_sum += loss.item() * len(batch)
                total += len(batch)
            round.progress(epoch + 1, epochs)
        accuracy = self.accuracy(model.eval(), self.train_pictures, self.train_labels, round.device)
        return TrainResult(weight=len(self.train_labels), metrics={"loss": loss_sum / total, "accuracy": accuracy})

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:  # noqa: A002 - what it is
        with torch.no_grad():
            scores = model(self.test_pictures.to(round.device))
            loss = functional.cross_entropy(scores, self.test_labels.to(round.device)).item()
        accuracy = self.accuracy(model, self.test_pictures, self.test_labels, round.device)
        return EvaluateResult(weight=len(self.test_labels), metrics={"loss": loss, "accuracy": accuracy})

    @staticmethod
    @torch.no_grad()
    def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor, device: torch.device) -> float:
        """The part of the pictures whose highest score is their label's."""
        return float((model(pictures.to(device)).argmax(dim=1).cpu() == labels).float().mean())
