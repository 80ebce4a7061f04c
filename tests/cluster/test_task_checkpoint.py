"""Trainings that are killed in the middle, daemon or task: they go on, and the model is what it would have been."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from participant.tasks.state_dict import write_model
from tests.cluster.tasks.regression_task import FEATURES
from tests.support.federation import Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 64}
ROUNDS = 2
STEPS = 12
CAUGHT_AFTER = 7  # the eighth step: two more than the last that was saved
SAVED = 6


def test_a_training_killed_in_the_middle_goes_on_to_the_same_model(tmp_path: Path) -> None:
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    expected, steps = _finished(undisturbed, {})
    assert steps == {member: _steps(range(STEPS), range(STEPS)) for member in ROWS}
    blows = {"hospital-a": {"waits_after": CAUGHT_AFTER}, "hospital-b": {"dies_after": CAUGHT_AFTER}}
    found, steps = _finished(disturbed, blows)
    caught = [*range(CAUGHT_AFTER + 1), *range(SAVED, STEPS)]
    assert steps["hospital-c"] == _steps(range(STEPS), range(STEPS))
    assert steps["hospital-a"] == _steps(caught, range(STEPS)), "the daemon was killed in its first round only"
    assert steps["hospital-b"] == _steps(caught, caught), "the task's process was killed in each round"
    assert found == expected
    left = [path for path in disturbed.glob("hospital-*/data/spool/**/*") if path.is_file()]
    assert left == [], "nothing that was saved is left behind"


def _steps(*rounds: Any) -> list[str]:
    return [f"{number}.{step}" for number, steps in enumerate(rounds, start=1) for step in steps]


def _finished(folder: Path, extra: Mapping[str, Mapping[str, object]]) -> tuple[bytes, dict[str, list[str]]]:
    """The last model of a plain job, whose totals are no matter of chance, and what was trained for it."""
    folder.mkdir()
    initial = folder / "initial.safetensors"
    torch.manual_seed(5)
    write_model(nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1)), initial)
    options = {
        member: {"silo": silo, "rows": rows, "steps": str(folder / f"{member}.steps"), **extra.get(member, {})}
        for silo, (member, rows) in enumerate(ROWS.items())
    }
    caught = folder / "hospital-a.caught"
    os.mkfifo(caught)
    with Federation(folder, entry="saving_task:SavingTask", options=options) as federation:
        federation.start()
        spec = job_spec(
            federation.members, initial, rounds=ROUNDS, training={"learning_rate": 0.01}, masking={"mode": "plain"}
        )
        job = federation.submit("study-1", spec, initial)
        if "waits_after" in options["hospital-a"]:
            caught.read_bytes()
            federation.kill("hospital-a")
            federation.start_participant("hospital-a").wait_for("task_checkpoint_restored", round=1)
        committed = rounds_of(federation.finish(job))
        model = federation.model(committed[-1]["next_model"]).read_bytes()
    steps = {member: (folder / f"{member}.steps").read_text().split() for member in ROWS}
    return model, steps
