"""What the federation is compared with: each hospital alone, and everybody's rows in one place.

The same task, the same initial model, the same number of epochs, measured on the same test rows. It runs in a process
of its own (`python -m consilo.demo.baselines`), so that the demo itself never loads PyTorch; the plan comes as JSON on
standard input, and the accuracies go out as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from consilo import Round
from consilo.demo.task import TumourTask
from shared.job import Table


class Plan(Table):
    """What to train and what to measure; all paths are files."""

    initial: str
    federated: str
    train: dict[str, str]
    """By name: the file whose rows to train a model of its own on."""
    test: str
    """The file whose held-out rows are the common test."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: dict[str, Any]
    """The job's [training] table, with `local_epochs` for the whole training."""
    seed: int


def compare(plan: Plan) -> dict[str, float]:
    """Accuracy on the test rows by name, with `federated` for the federation's model."""
    torch.set_num_threads(1)
    measured = {"federated": _accuracy(plan, Path(plan.federated), None)}
    for name, rows in plan.train.items():
        measured[name] = _accuracy(plan, Path(plan.initial), rows)
    return measured


def _accuracy(plan: Plan, start: Path, rows: str | None) -> float:
    constants: dict[str, Any] = {"mean": list(plan.mean), "std": list(plan.std)}
    judge = TumourTask({"rows": plan.test, **constants})
    model = judge.build_model()
    model.load_state_dict(load_file(start))
    if rows is not None:
        torch.manual_seed(plan.seed)
        TumourTask({"rows": rows, **constants}).train(model.train(), _round("train", plan.training, plan.seed))
    return judge.evaluate(model.eval(), _round("evaluate", plan.training, plan.seed)).metrics["accuracy"]


def _round(purpose: Literal["train", "evaluate"], training: Mapping[str, Any], seed: int) -> Round:
    return Round(
        job_id=f"comparison-{purpose}",
        job_name="comparison",
        number=1,
        training=training,
        device=torch.device("cpu"),
        seed=seed,
    )


if __name__ == "__main__":
    json.dump(compare(Plan.model_validate_json(sys.stdin.buffer.read())), sys.stdout)
