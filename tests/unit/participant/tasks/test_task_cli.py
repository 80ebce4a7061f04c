from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from participant.tasks.cli import task
from shared.errors import ConfigError, TaskError
from tests.support.task_builders import SAMPLES

SAMPLE = ["--entry", "sample_tasks:Behaving", "--path", str(SAMPLES), "--device", "cpu"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(task, list(arguments))


def test_a_model_is_made_and_a_round_is_tried_from_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "initial.safetensors"
    made = call("init-model", *SAMPLE, "--seed", "5", "--json", str(out))
    assert made.exit_code == 0, made.exception
    assert json.loads(made.stdout) == {
        "path": str(out),
        "digest": hashlib.sha256(out.read_bytes()).hexdigest(),
        "tensors": 9,
        "parameters": 37,
    }
    job = tmp_path / "job.toml"
    job.write_text('seed = 5\nmetrics = ["accuracy", "loss"]\n[training]\ndo = "raise"\n')
    # Evaluation gives a loss only: with the job's metrics the task breaks its contract, and try says so.
    tried = call("try", *SAMPLE, "--job", str(job), "--model", str(out))
    assert isinstance(tried.exception, TaskError)
    assert "the job declares the metrics ['accuracy', 'loss']" in str(tried.exception)
    job.write_text('seed = 5\n[training]\ndo = "raise"\n')
    tried = call("try", *SAMPLE, "--training", "do=nothing", "--training", "rate=0.5", "--json")
    found = json.loads(tried.stdout)
    assert (found["device"], found["parameters"], found["keeps_state"]) == ("cpu", 37, False)
    assert found["train"]["weight"] == 8
    assert found["evaluate_before"]["metrics"] != found["evaluate_after"]["metrics"]
    assert {move["tensor"]: move["norm"] > 0 for move in found["update"]}["2.weight"]
    assert "a task that prints" in capfd.readouterr().err


def test_a_failure_shows_the_traceback_and_people_get_tables(capfd: pytest.CaptureFixture[str]) -> None:
    failed = call("try", *SAMPLE, "--training", "do=raise")
    assert isinstance(failed.exception, TaskError)
    assert str(failed.exception) == "task_crashed: ValueError: the patient's name is in here"
    assert "Traceback (most recent call last)" in capfd.readouterr().err
    shown = call("try", *SAMPLE)
    assert shown.exit_code == 0
    for text in ("evaluate before", "2.weight", "norm of change", "37 parameters"):
        assert text in shown.stdout


@pytest.mark.long  # a daemon that goes on is in tests/cluster/test_task_checkpoint.py
def test_a_training_is_interrupted_once_and_goes_on(tmp_path: Path) -> None:
    saving = ["--entry", "sample_tasks:Saving", *SAMPLE[2:], "--training", f"steps={tmp_path / 'steps'}"]
    tried = call("try", *saving, "--interrupt", "--json")
    assert tried.exit_code == 0, tried.exception
    assert json.loads(tried.stdout)["interruption"] == {"saved": True, "same_update": True}
    shown = call("try", *saving, "--training", "forgets=true", "--interrupt")
    assert "another update" in " ".join(shown.stdout.split())
    shown = call("try", *SAMPLE, "--interrupt")
    assert "saves nothing" in " ".join(shown.stdout.split())
    assert json.loads(call("try", *SAMPLE, "--json").stdout)["interruption"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--entry module:Class, or --config"),
        (["--entry", "a:B", "--option", "x"], "--option takes KEY=VALUE, got 'x'"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: list[str], message: str) -> None:
    result = call("try", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("seed = ")
    assert isinstance(call("try", *SAMPLE, "--job", str(tmp_path / "job.toml")).exception, ConfigError)
    (tmp_path / "job.toml").write_text('seed = "x"')
    assert isinstance(call("try", *SAMPLE, "--job", str(tmp_path / "job.toml")).exception, ConfigError)
    assert isinstance(call("try", "--entry", "nonsense").exception, TaskError)


def test_without_pytorch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has only the coordinator's packages: the task's process finds no torch."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as finder\n"
        "find = finder.find_spec\n"
        "finder.find_spec = lambda name, package=None: None if name == 'torch' else find(name, package)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tried = call("try", *SAMPLE)
    assert isinstance(tried.exception, TaskError)
    assert "torch (PyTorch) is not installed here: pip install " in str(tried.exception)
    assert "[participant]" in str(tried.exception)
