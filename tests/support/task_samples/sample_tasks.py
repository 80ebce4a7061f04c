"""Tasks for the tests of the task runner. `training["do"]` says what a call of `Behaving` does."""

# Written as users write, and as users should not.
# ruff: noqa: A002, NPY002, PTH115, PTH208, S605, T201

from __future__ import annotations

import ctypes
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from consilo import EvaluateResult, Round, Task, TrainResult


class Behaving(Task):
    """One training step on noise, and whatever else the job asks for."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        print("a task that prints", flush=True)
        if options.get("fail"):
            raise FileNotFoundError(options["fail"])

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def train(self, model: nn.Module, round: Round) -> TrainResult:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = model(torch.randn(8, 3, device=round.device)).square().mean()
        loss.backward()
        optimizer.step()
        round.progress(1, 2)
        loss_value = float(loss.detach())
        done = _DO[round.training.get("do", "nothing")](model)
        if done is not None:
            return done  # type: ignore[no-any-return]
        round.progress(2, 2)
        return TrainResult(weight=8, metrics={"accuracy": 0.5, "loss": loss_value})

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:
        with torch.no_grad():
            loss = model(torch.ones(2, 3, device=round.device)).mean()
        draws = {"python": random.random(), "numpy": np.random.rand(), "torch": float(torch.rand(()))}
        return EvaluateResult(weight=2, metrics={"loss": loss, **(draws if round.training.get("draws") else {})})


class Keeping(Behaving):
    """Counts its rounds, with momentum that lives across them."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.rounds = 0
        self.momentum: torch.Tensor | None = None

    def train(self, model: nn.Module, round: Round) -> TrainResult:
        self.rounds += 1
        self.momentum = torch.full((2,), float(self.rounds))
        return TrainResult(weight=1, metrics={"rounds": self.rounds})

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:
        return EvaluateResult(weight=1, metrics={"rounds": self.rounds})

    def state_dict(self) -> Mapping[str, Any] | None:
        if self.options.get("odd"):
            return {"deep": [{"odd": object()}]}
        return {"rounds": self.rounds, "momentum": self.momentum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rounds = state["rounds"]
        self.momentum = state["momentum"]
        assert float(self.momentum[0]) == self.rounds


class Saving(Task):
    """Draws from every generator in each of ten steps, saves after every third, and may be killed after one of them.

    `training["steps"]` is a file that each step is written to.
    """

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1))

    def train(self, model: nn.Module, round: Round) -> TrainResult:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        steps = Path(round.training["steps"])
        first = 0
        saved = round.restore()
        if saved is not None:
            model.load_state_dict(saved["model"])
            if not round.training.get("forgets"):
                optimizer.load_state_dict(saved["optimizer"])
            first = saved["step"]
        for step in range(first, 10):
            optimizer.zero_grad()
            batch = torch.randn(8, 3) * (1 + random.random()) + float(np.random.rand())
            model(batch).square().mean().backward()
            optimizer.step()
            with steps.open("a") as file:
                file.write(f"{step}\n")
            if step % 3 == 2:
                round.save({"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
            if saved is None and step == round.training.get("die_after"):
                _DEATHS[round.training.get("death", "kill")]()
        return TrainResult(weight=8)

    def evaluate(self, model: nn.Module, round: Round) -> EvaluateResult:
        if round.training.get("saves_in_evaluate"):
            round.save({"step": 1})
        return EvaluateResult(weight=2)


class Unkeepable(Saving):
    def train(self, model: nn.Module, round: Round) -> TrainResult:
        round.save({"odd": object()})
        return TrainResult(weight=8)


class NoModel(Behaving):
    def build_model(self) -> Any:
        return {"weights": [1, 2]}


class Lazy(Behaving):
    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.LazyLinear(2))


class Half(Task):
    def build_model(self) -> nn.Module:
        return nn.Linear(1, 1)


NOT_A_TASK = 3


def _spoil(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan


def _hang(_model: nn.Module) -> None:
    while True:
        pass


def _hang_with_family(_model: nn.Module) -> None:
    """Deaf to SIGTERM, with a grandchild by fork and one by exec that are deaf as well."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    by_exec = subprocess.Popen([sys.executable, "-c", script], close_fds=False)
    by_fork = os.fork()
    if by_fork == 0:
        time.sleep(600)
        os._exit(0)
    _tell(f"{by_exec.pid} {by_fork}")
    time.sleep(600)


def _exit_with_family(_model: nn.Module) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    _tell(str(child.pid))
    os._exit(3)


def _tell(text: str) -> None:
    target = Path(os.environ["SAMPLE_TELL"])
    target.with_suffix(".new").write_text(text)
    target.with_suffix(".new").rename(target)


def _segfault(_model: nn.Module) -> None:
    ctypes.string_at(0)


def _raise(_model: nn.Module) -> None:
    raise ValueError("the patient's name is in here\nand here")


def _babble(_model: nn.Module) -> None:
    print("x" * 10_000)
    os.write(1, b"\x00\x00\x00\x05hello")
    os.system("echo from a shell")


def _scribble(_model: nn.Module) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # whatever number the daemon's end gave it
        try:
            if descriptor > 2 and "socket" in os.readlink(f"/proc/self/fd/{descriptor}"):
                os.write(descriptor, b"\xff\xff\xff\xff nonsense")
        except OSError:
            continue
    time.sleep(600)


def _result(result: Any) -> Callable[[nn.Module], Any]:
    return lambda _model: result


def _half(model: nn.Module) -> None:
    model.half()


def _leave_gradients(model: nn.Module) -> None:
    torch.set_grad_enabled(False)


def _interrupted() -> None:
    raise RuntimeError("interrupted")


_DEATHS: dict[str, Callable[[], None]] = {"kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "raise": _interrupted}

GOOD = {"accuracy": 1.0, "loss": 0.0}

_DO: dict[str, Callable[[nn.Module], Any]] = {
    "nothing": lambda _model: None,
    "spoil": _spoil,
    "hang": _hang,
    "hang_with_family": _hang_with_family,
    "exit_with_family": _exit_with_family,
    "segfault": _segfault,
    "exit": lambda _model: os._exit(0),
    "raise": _raise,
    "babble": _babble,
    "scribble": _scribble,
    "half": _half,
    "no_grad": _leave_gradients,
    "none": lambda _model: 7,
    "wrong_type": _result(EvaluateResult(weight=1, metrics=GOOD)),
    "missing": _result(TrainResult(weight=1, metrics={"loss": 1.0})),
    "extra": _result(TrainResult(weight=1, metrics={**GOOD, "f1": 1.0})),
    "nan_metric": _result(TrainResult(weight=1, metrics={**GOOD, "loss": math.nan})),
    "text_metric": _result(TrainResult(weight=1, metrics={**GOOD, "loss": "low"})),  # type: ignore[dict-item]
    "vector_metric": _result(TrainResult(weight=1, metrics={**GOOD, "loss": torch.ones(2)})),  # type: ignore[dict-item]
    "metric_list": _result(TrainResult(weight=1, metrics=[1.0])),  # type: ignore[arg-type]
    "numpy": _result(TrainResult(weight=np.int64(4), metrics={"accuracy": np.float32(0.5), "loss": torch.tensor(2)})),  # type: ignore[arg-type,dict-item]
    "zero_weight": _result(TrainResult(weight=0, metrics=GOOD)),
    "nan_weight": _result(TrainResult(weight=math.nan, metrics=GOOD)),
    "bool_weight": _result(TrainResult(weight=True, metrics=GOOD)),
    "huge_weight": _result(TrainResult(weight=2.0**41, metrics=GOOD)),
}
