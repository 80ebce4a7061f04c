"""The example with a CNN and BatchNorm, as its README says: train, evaluate, export, load without Consilo, audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

from participant.tasks.state_dict import write_model
from tests.support.federation import Federation, job_spec, rounds_of, write_toml

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "images_cnn"
MEMBERS = ["hospital-a", "hospital-b", "hospital-c"]


def plain_network() -> nn.Module:
    """The example's network in PyTorch alone."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


def consilo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "consilo", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def test_train_evaluate_export_and_audit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    initial = tmp_path / "initial.safetensors"
    write_model(plain_network(), initial)
    options = {member: {"part": part, "parts": len(MEMBERS)} for part, member in enumerate(MEMBERS)}
    with Federation(tmp_path, entry="digits_task:DigitsTask", options=options, python_path=EXAMPLE) as federation:
        federation.start()
        training = {"local_epochs": 2, "learning_rate": 0.05, "batch_size": 32}
        spec = job_spec(MEMBERS, initial, rounds=3, metrics=("loss", "accuracy"), training=training)
        detail = federation.finish(federation.submit("digits-1", spec, initial))
        operator = federation.consortium.operator()
        write_toml(
            tmp_path / "operator.toml",
            {
                "operator": {"coordinator": federation.address},
                "tls": {name: str(getattr(operator.tls, name)) for name in ("certificate", "key", "ca")},
            },
        )
        last = rounds_of(detail)[-1]["next_model"]
        exported = consilo("model", "export", last[:12], "final.safetensors", cwd=tmp_path)
        assert exported.returncode == 0, exported.stderr
        (closing,) = rounds_of(detail, "evaluate")
        assert closing["next_model"] == last

    network = plain_network()
    network.load_state_dict(load_file(tmp_path / "final.safetensors"))
    network.eval()
    digits = load_digits()
    with torch.no_grad():
        guesses = network(torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16).argmax(1)
    accuracy = (guesses == torch.tensor(digits.target)).float().mean().item()
    assert accuracy > 0.8
    assert abs(closing["metrics"]["evaluate.accuracy"] - accuracy) < 0.15
    counters = load_file(tmp_path / "final.safetensors")
    assert int(counters["1.num_batches_tracked"]) == 0, "integer buffers keep their initial values"
    assert not torch.equal(counters["1.running_mean"], torch.zeros(16)), "statistics of BatchNorm are averaged"

    _audit(tmp_path, federation)


def _audit(folder: Path, federation: Federation) -> None:
    """The log that this federation left verifies, and does not when a byte is changed or its tail is cut."""
    log = folder / "coordinator-data" / "audit.log"
    certificate = str(federation.consortium.coordinator().signing_certificate)
    verify = ["audit", "verify", "--log", str(log), "--certificate", certificate, "--json"]
    good = consilo(*verify, cwd=folder)
    assert good.returncode == 0, good.stderr
    head = json.loads(good.stdout)["head"]
    lines = log.read_bytes().splitlines(keepends=True)
    assert sum(b'"round_committed"' in line for line in lines) == 4

    log.write_bytes(b"".join(lines[:-1]))
    assert consilo(*verify, cwd=folder).returncode == 0, "without a head nobody can know"
    cut = consilo(*verify, "--head", head, cwd=folder)
    assert cut.returncode == 1
    assert "cut" in cut.stderr

    whole = bytearray(b"".join(lines))
    for position in range(0, len(whole), len(whole) // 2):
        changed = whole.copy()
        changed[position] ^= 0x01
        log.write_bytes(changed)
        assert consilo(*verify, cwd=folder).returncode == 1, f"a change at byte {position} went unnoticed"
