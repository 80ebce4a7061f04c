"""The demo's task and the example's, trained in this process through the host that a real round uses."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from consilo.demo.task import TumourTask, read_rows
from participant.tasks.contract import DeviceRequest
from participant.tasks.host import CallFailed, TaskHost
from participant.tasks.messages import CallContext, Evaluate, InitModel, Load, Measured, Train
from participant.tasks.rehearsal import apply_update

EXAMPLES = Path(__file__).parents[4] / "examples"
DEVICE = DeviceRequest.AUTO if torch.cuda.is_available() else DeviceRequest.CPU


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    path, threads = list(sys.path), torch.get_num_threads()
    yield
    sys.path[:] = path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=False)


def write_csv(path: Path, rows: int, seed: int) -> Path:
    draw = random.Random(seed)
    lines = ["held_out,size,shape,malignant"]
    for number in range(rows):
        label = draw.randrange(2)
        lines.append(f"{int(number % 5 == 0)},{100 + 20 * label + draw.gauss(0, 5):.3f},{draw.gauss(0, 1):.3f},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def run(entry: str, options: dict[str, Any], folder: Path, training: dict[str, Any]) -> tuple[Measured, Measured]:
    """One round and the evaluation of what came of it."""
    search_path = [str(EXAMPLES / "images_cnn")]
    host, _ = TaskHost.load(
        Load(entry=entry, options=options, device=DEVICE, threads=1, search_path=search_path, seed=1)
    )
    host.init_model(InitModel(out=str(folder / "model")))
    context = CallContext(
        job="j", job_name="j", number=1, participant="a", job_seed=1, training=training, metrics=["loss", "accuracy"]
    )
    trained = host.train(
        Train(
            context=context,
            model=str(folder / "model"),
            state_in=None,
            update_out=str(folder / "update"),
            state_out=str(folder / "state"),
        ),
        lambda _: None,
    )
    apply_update(folder / "model", folder / "update", folder / "next.safetensors")
    evaluated = host.evaluate(
        Evaluate(context=context, model=str(folder / "next.safetensors"), state_in=None), lambda _: None
    )
    return trained, evaluated


def test_the_demos_task_learns_from_one_hospitals_file(tmp_path: Path) -> None:
    options = {
        "rows": str(write_csv(tmp_path / "rows.csv", 250, 1)),
        "mean": [110.0, 0.0],
        "std": [10.0, 1.0],
    }
    trained, evaluated = run("consilo.demo.task:TumourTask", options, tmp_path, {"local_epochs": 5})
    assert (trained.weight, evaluated.weight) == (200, 50)
    assert evaluated.metrics["accuracy"] > 0.9


def test_the_demos_model_needs_no_data() -> None:
    assert TumourTask({"features": 30}).build_model().get_parameter("0.weight").shape == (16, 30)
    assert TumourTask({"mean": [0.0] * 4, "std": [1.0] * 4}).build_model().get_parameter("0.weight").shape == (16, 4)


def test_the_demos_task_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", 3, 1)
    rows = read_rows(path)
    assert (rows.features.shape, rows.labels.shape) == ((3, 2), (3,))
    assert rows.held_out.tolist() == [True, False, False]
    with pytest.raises(ValueError, match="has 2 features, mean has 1"):
        TumourTask({"rows": str(path), "mean": [1.0], "std": [1.0]})
    path.write_text("a,b\n1\n")
    with pytest.raises(ValueError, match="expected rows of 2 columns"):
        read_rows(path)
    with pytest.raises(CallFailed, match="names no file with rows to train on"):
        run("consilo.demo.task:TumourTask", {"features": 2}, tmp_path, {})


def test_the_example_learns_and_its_export_is_plain_pytorch(tmp_path: Path) -> None:
    _, evaluated = run("digits_task:DigitsTask", {"parts": 2}, tmp_path, {"local_epochs": 3})
    assert evaluated.metrics["accuracy"] > 0.9
    nn = torch.nn
    plain = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32),
        nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "next.safetensors"), strict=True)
    assert int(plain.get_buffer("1.num_batches_tracked")) == 0
