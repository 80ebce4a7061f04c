"""A training in steps that saves every third, writes down each step, and can be caught in the middle."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from consilo import Round, TrainResult
from tests.cluster.tasks.regression_task import FEATURES, RegressionTask

STEPS = 12
SAVED_EVERY = 3


class SavingTask(RegressionTask):
    """Options beside those of `RegressionTask`: `steps`, a file for the steps; `waits_after`, the step after which a
    training stands still, once, and tells it to whoever reads the pipe beside that file; `dies_after`, the step after
    which its process is killed.
    """

    def build_model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))

    def train(self, model: nn.Module, round: Round) -> TrainResult:  # noqa: A002 - what it is
        optimizer = torch.optim.Adam(model.parameters(), lr=float(round.training["learning_rate"]))
        first, caught = 0, Path(self.options["steps"]).with_suffix(".caught")
        saved = round.restore()
        if saved is not None:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            first = saved["step"]
        for step in range(first, STEPS):
            rows = torch.randperm(len(self.x))[:8]
            noise = torch.randn(8, FEATURES) * random.random() * float(np.random.rand())  # noqa: NPY002 - as users do
            optimizer.zero_grad()
            functional.mse_loss(model(self.x[rows] + noise), self.y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with Path(self.options["steps"]).open("a") as file:
                file.write(f"{round.number}.{step} ")
            if (step + 1) % SAVED_EVERY == 0:
                round.save({"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
            if saved is None and step == self.options.get("dies_after"):
                os.kill(os.getpid(), signal.SIGKILL)
            if saved is None and step == self.options.get("waits_after") and caught.exists():
                with caught.open("w"):  # until somebody reads it
                    caught.unlink()
                signal.pause()
        return TrainResult(weight=len(self.x), metrics={"loss": 0.0})
