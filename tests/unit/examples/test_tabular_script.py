"""The example of a training script that becomes a task: the task does what the script does, bit for bit."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from consilo import Round, Task
from participant.tasks.entry import import_task, parse_entry

EXAMPLE = Path(__file__).parents[3] / "examples" / "tabular_script"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    made = subprocess.run(
        [sys.executable, EXAMPLE / "make_rows.py", "1", "50"], capture_output=True, text=True, check=True
    )
    path = tmp_path / "patients.csv"
    path.write_text(made.stdout)
    return path


@pytest.fixture
def task_class() -> Iterator[type[Task[Any]]]:
    before = list(sys.path)
    yield import_task(parse_entry("heart_task:HeartTask"), [EXAMPLE])
    sys.path[:] = before


def test_the_task_trains_and_measures_as_the_script_does(task_class: type[Task[Any]], rows: Path) -> None:
    script: ModuleType = sys.modules["heart_script"]
    training = tomllib.loads((EXAMPLE / "job.toml").read_text())["training"]
    task = task_class({"csv": str(rows)})
    torch.manual_seed(1)
    model, plain = task.build_model(), script.build_model()
    plain.load_state_dict(model.state_dict())
    train_rows, test_rows = script.load_rows(str(rows))
    told = Round(job_id="heart-1", job_name="heart", number=1, training=training, device=torch.device("cpu"), seed=1)

    torch.manual_seed(2)
    trained = task.train(model, told)
    torch.manual_seed(2)
    script.train(plain, train_rows, **training)

    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
    assert (trained.weight, trained.metrics) == (40, script.measure(plain, train_rows))
    evaluated = task.evaluate(model, told)
    assert (evaluated.weight, evaluated.metrics) == (10, script.measure(plain, test_rows))
    assert not torch.equal(plain.state_dict()["0.weight"], script.build_model().state_dict()["0.weight"])
