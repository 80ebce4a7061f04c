from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from participant.tasks.contract import DeviceRequest
from participant.tasks.host import CallFailed, TaskHost, resolve_device
from participant.tasks.messages import CallContext, Evaluate, InitModel, Load, Measured, Train
from participant.tasks.seeding import init_seed
from shared.reasons import DropReason
from shared.tensors import read_index_file
from tests.support.task_builders import SAMPLES


def loading(class_name: str = "Behaving", *, seed: int = 0, entry: str | None = None, **options: Any) -> Load:
    return Load(
        entry=entry or f"sample_tasks:{class_name}",
        options=options,
        device=DeviceRequest.CPU,
        threads=1,
        search_path=[str(SAMPLES)],
        seed=seed,
    )


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Loading a task changes the process that it is in: put it back."""
    path, threads = list(sys.path), torch.get_num_threads()
    yield
    sys.path[:] = path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=False)
    torch.set_grad_enabled(True)


class Bench:
    """A host with an initial model and files to write to."""

    def __init__(self, folder: Path, class_name: str = "Behaving", **options: Any) -> None:
        self.folder = folder
        self.host, self.loaded = TaskHost.load(loading(class_name, seed=init_seed(7), **options))
        self.model, self.update, self.state = folder / "model", folder / "update", folder / "state"
        self.host.init_model(InitModel(out=str(self.model)))
        self.reports: list[float] = []

    def context(self, do: str, number: int, metrics: list[str] | None, **training: Any) -> CallContext:
        return CallContext(
            job="heart-1",
            job_name="heart",
            number=number,
            participant="hospital-a",
            job_seed=42,
            training={"do": do, **training},
            metrics=metrics,
        )

    def train(
        self,
        do: str = "nothing",
        *,
        number: int = 1,
        metrics: list[str] | None = None,
        state_in: Path | None = None,
    ) -> Measured:
        command = Train(
            context=self.context(do, number, metrics),
            model=str(self.model),
            state_in=None if state_in is None else str(state_in),
            update_out=str(self.update),
            state_out=str(self.state),
        )
        return self.host.train(command, self.reports.append)

    def evaluate(self, *, metrics: list[str] | None = None, state_in: Path | None = None) -> Measured:
        command = Evaluate(
            context=self.context("nothing", 1, metrics, draws=metrics is None),
            model=str(self.model),
            state_in=None if state_in is None else str(state_in),
        )
        return self.host.evaluate(command, self.reports.append)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def failure_of(call: Any, *arguments: Any, **named: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        call(*arguments, **named)
    return caught.value


def test_training_writes_the_update_and_gives_metrics_in_the_jobs_order(bench: Bench) -> None:
    done = bench.train(metrics=["loss", "accuracy"])
    assert list(done.metrics) == ["loss", "accuracy"]
    assert (done.weight, done.parameters, done.has_state) == (8, 37, False)
    assert bench.update.stat().st_size == 4 * 37
    assert np.fromfile(bench.update, "<f4").any()
    assert bench.reports == [0.5, 1]
    assert (bench.loaded.tensors, bench.loaded.parameters, bench.loaded.keeps_state) == (9, 37, False)


def test_the_same_call_gives_the_same_bytes_whatever_came_before(bench: Bench, tmp_path: Path) -> None:
    bench.train()
    first, evaluation = bench.update.read_bytes(), bench.evaluate().metrics
    bench.train(number=2)
    assert bench.update.read_bytes() != first
    bench.train("no_grad")
    bench.train()
    assert bench.update.read_bytes() == first
    assert bench.evaluate().metrics == evaluation
    (tmp_path / "other").mkdir()
    again = Bench(tmp_path / "other")
    again.train()
    assert again.update.read_bytes() == first
    assert again.model.read_bytes() == bench.model.read_bytes()


def test_metrics_may_be_numbers_of_numpy_and_torch(bench: Bench) -> None:
    done = bench.train("numpy", metrics=["loss", "accuracy"])
    assert (done.weight, done.metrics) == (4, {"loss": 2, "accuracy": 0.5})


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("none", "expected a TrainResult, the task returned int"),
        ("wrong_type", "expected a TrainResult, the task returned EvaluateResult"),
        ("missing", r"declares the metrics \['accuracy', 'loss'\], the task returned \['loss'\]"),
        ("extra", r"the task returned \['accuracy', 'f1', 'loss'\]"),
        ("nan_metric", r"metric 'loss' is a finite number, got nan \(float\)"),
        ("text_metric", r"metric 'loss' is a finite number, got low \(str\)"),
        ("vector_metric", "cannot be converted to Scalar"),
        ("metric_list", "metrics is a dictionary, got list"),
        ("zero_weight", "above 0 .* got 0.0"),
        ("nan_weight", "weight is a finite number, got nan"),
        ("bool_weight", "weight is a finite number, got True"),
        ("huge_weight", "at most 1099511627776; got 2199023255552.0"),
    ],
)
def test_a_task_that_breaks_its_contract_is_invalid(bench: Bench, do: str, message: str) -> None:
    failed = failure_of(bench.train, do, metrics=["loss", "accuracy"])
    assert failed.reason is DropReason.TASK_INVALID
    assert re.search(message, str(failed)), str(failed)


def test_weights_that_are_not_finite_are_named_before_anything_else(bench: Bench) -> None:
    failed = failure_of(bench.train, "spoil", metrics=["nothing_like_it"])
    assert failed.reason is DropReason.NON_FINITE
    assert "tensor '0.weight' holds a NaN" in str(failed)


def test_a_model_changed_by_training_is_a_mismatch(bench: Bench) -> None:
    failed = failure_of(bench.train, "half")
    assert failed.reason is DropReason.MANIFEST_MISMATCH
    assert "tensor '0.bias': expected F32 of shape [4], got F16 of shape [4]" in str(failed)


def test_an_exception_is_a_crash_with_its_first_line_and_a_traceback_on_standard_error(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = failure_of(bench.train, "raise")
    assert failed.reason is DropReason.TASK_CRASHED
    assert str(failed) == "ValueError: the patient's name is in here"
    assert "Traceback" in capsys.readouterr().err


def test_a_model_file_of_another_model_or_none_at_all(bench: Bench) -> None:
    safetensors.torch.save_file({"other": torch.zeros(2)}, bench.model)
    assert failure_of(bench.train).reason is DropReason.MANIFEST_MISMATCH
    assert failure_of(bench.evaluate).reason is DropReason.MANIFEST_MISMATCH
    bench.model.write_bytes(b"not a model")
    assert failure_of(bench.train).reason is DropReason.MODEL_UNAVAILABLE
    bench.model.unlink()
    assert failure_of(bench.evaluate).reason is DropReason.MODEL_UNAVAILABLE


def test_an_update_that_cannot_be_written_is_about_the_disk(bench: Bench) -> None:
    bench.update = bench.folder / "absent" / "update"
    assert failure_of(bench.train).reason is DropReason.DISK


def test_state_is_kept_from_the_committed_round_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Keeping")
    assert bench.loaded.keeps_state
    assert bench.train().metrics == {"rounds": 1}
    committed = bench.state.rename(tmp_path / "committed")
    assert bench.train(state_in=committed).metrics == {"rounds": 2}
    # The round aborted: the next one starts from the same state again.
    assert bench.train(number=2, state_in=committed).metrics == {"rounds": 2}
    assert bench.evaluate(state_in=committed).metrics == {"rounds": 1}
    committed.write_bytes(b"broken")
    assert failure_of(bench.train, state_in=committed).reason is DropReason.LOST


def test_state_that_cannot_be_kept_is_refused_by_name(tmp_path: Path) -> None:
    failed = failure_of(Bench(tmp_path, "Keeping", odd=True).train)
    assert failed.reason is DropReason.TASK_INVALID
    assert "state['deep'][0]['odd']: a task's state is made of" in str(failed)


@pytest.mark.parametrize(
    ("load", "reason", "message"),
    [
        (loading("NoModel"), DropReason.TASK_INVALID, "build_model returns a torch.nn.Module, got dict"),
        (loading("Lazy"), DropReason.TASK_INVALID, "tensor '0.bias': it is lazy"),
        (loading("Half"), DropReason.TASK_UNAVAILABLE, "the class has no evaluate, train"),
        (loading("NOT_A_TASK"), DropReason.TASK_UNAVAILABLE, "expected a subclass of consilo.Task, got 3"),
        (loading("Absent"), DropReason.TASK_UNAVAILABLE, "module 'sample_tasks' has no class 'Absent'"),
        (
            loading(entry="no_such_module:X"),
            DropReason.TASK_UNAVAILABLE,
            "no module 'no_such_module' is installed here",
        ),
        (loading(entry="shared.task:X"), DropReason.TASK_UNAVAILABLE, "a task's package cannot be called 'shared'"),
        (loading(entry="sample_tasks"), DropReason.TASK_UNAVAILABLE, "package.module:Class, got 'sample_tasks'"),
        (loading(fail="x.csv"), DropReason.TASK_UNAVAILABLE, "FileNotFoundError: x.csv"),
    ],
)
def test_a_task_that_cannot_be_loaded_says_why(load: Load, reason: DropReason, message: str) -> None:
    failed = failure_of(TaskHost.load, load)
    assert failed.reason is reason
    assert message in str(failed)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="needs a bare machine")
def test_devices_on_a_machine_without_any() -> None:
    assert resolve_device(DeviceRequest.CPU) == (torch.device("cpu"), None)
    device, note = resolve_device(DeviceRequest.AUTO)
    assert device == torch.device("cpu")
    assert note is not None
    assert "neither cuda nor mps" in note
    for request in (DeviceRequest.CUDA, DeviceRequest.MPS):
        failed = failure_of(resolve_device, request)
        assert failed.reason is DropReason.TASK_UNAVAILABLE
        assert f"training.device is {request}" in str(failed)


def test_the_initial_model_depends_on_the_seed_alone(bench: Bench, tmp_path: Path) -> None:
    host, _ = TaskHost.load(loading(seed=init_seed(8)))
    host.init_model(InitModel(out=str(tmp_path / "other")))
    assert (tmp_path / "other").read_bytes() != bench.model.read_bytes()
    assert read_index_file(tmp_path / "other").manifest == read_index_file(bench.model).manifest
