"""The task of a campaign: each silo adds what tests.faults.arithmetic says, and keeps a ledger of its trainings.

Options: `silo` (0 to 3), `parameters`, `ledger` (a file). A line of the ledger is one write to a file opened for
appending, so it is there after a SIGKILL, whole, in the order in which things happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from consilo import EvaluateResult, Round, Task, TrainResult
from tests.faults.arithmetic import WEIGHTS, delta

TRAINING_S = 0.03  # after its middle is reported: a fault that comes then meets a task that trains


class Known(nn.Module):
    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(parameters))


class KnownTask(Task[Known]):
    """See the module's docstring."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.silo = int(options["silo"])

    def build_model(self) -> Known:
        return Known(int(self.options["parameters"]))

    def train(self, model: Known, round: Round) -> TrainResult:  # noqa: A002 - what it is
        self._note("train", round)
        half = round.restore()
        if half is None:
            half = {"begun_in": round.number}
            round.save(half)
        if half != {"begun_in": round.number}:
            raise RuntimeError(f"what was saved in another round came back in round {round.number}: {half}")
        round.progress(1, 2)
        time.sleep(TRAINING_S)
        with torch.no_grad():
            model.values.add_(torch.from_numpy(delta(self.silo, round.number, model.values.numel()).astype("f4")))
        self._note("trained", round)
        return TrainResult(weight=WEIGHTS[self.silo], metrics={"loss": float(self.options["loss"])})

    def evaluate(self, model: Known, round: Round) -> EvaluateResult:  # noqa: A002 - what it is
        return EvaluateResult(weight=WEIGHTS[self.silo], metrics={"loss": float(self.options["loss"])})

    def _note(self, what: str, round: Round) -> None:  # noqa: A002 - what it is
        ledger = os.open(self.options["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(ledger, f"{what} {round.job_id} {round.number}\n".encode())
        finally:
            os.close(ledger)
