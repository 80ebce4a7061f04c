"""Real processes, real mutual TLS, real disks: what a federation computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from participant.tasks.state_dict import write_model
from shared.reasons import DropReason
from tests.cluster.tasks.regression_task import ShuffledTask, build, rows_of, train_locally
from tests.support.federation import Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 64, "hospital-d": 16}
TRAINING = {"learning_rate": 0.05}


def initial_model(model: nn.Module, folder: Path) -> Path:
    path = folder / "initial.safetensors"
    write_model(model, path)
    return path


def options(**more: Mapping[str, object]) -> dict[str, dict[str, object]]:
    return {
        member: {"silo": silo, "rows": ROWS[member], **more.get(member.replace("-", "_"), {})}
        for silo, member in enumerate(ROWS)
    }


def reference(start: nn.Module, absent: dict[int, str], rounds: int) -> list[dict[str, torch.Tensor]]:
    """Federated averaging in one process: the global state after each round, in float64."""
    current = start
    states = []
    for number in range(1, rounds + 1):
        base = {name: value.double() for name, value in current.state_dict().items()}
        total = 0.0
        moved = {name: torch.zeros_like(value) for name, value in base.items()}
        for silo, (member, rows) in enumerate(ROWS.items()):
            if absent.get(number) == member:
                continue
            local = copy.deepcopy(current)
            train_locally(local, *rows_of(silo, rows), learning_rate=TRAINING["learning_rate"])
            total += rows
            for name, value in local.state_dict().items():
                moved[name] += rows * (value.double() - base[name])
        after = copy.deepcopy(current)
        after.load_state_dict(
            {
                name: (base[name] + moved[name] / total).to(value.dtype) if value.is_floating_point() else value
                for name, value in start.state_dict().items()
            }
        )
        states.append(after.state_dict())
        current = after
    return states


def test_the_federation_computes_what_one_process_would(tmp_path: Path) -> None:
    """Unequal weights, and one silo whose training fails in rounds 2 and 4: equal to 1e-6 after every round."""
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    initial = initial_model(build(), tmp_path)
    failing = {"fail_in_rounds": [2, 4]}
    with Federation(
        tmp_path, entry="regression_task:RegressionTask", options=options(hospital_c=failing)
    ) as federation:
        federation.start()
        spec = job_spec(federation.members, initial, rounds=5, training=TRAINING, quorum=3, grace_s=60.0)
        detail = federation.finish(federation.submit("study-1", spec, initial))
        rounds = rounds_of(detail)
        assert [bool(summary["dropped"]) for summary in rounds] == [False, True, False, True, False]
        assert rounds[1]["dropped"] == {"hospital-c": DropReason.TASK_CRASHED}
        expected = reference(build(), {2: "hospital-c", 4: "hospital-c"}, rounds=5)
        for summary, state in zip(rounds, expected, strict=True):
            committed = load_file(federation.model(summary["next_model"]))
            assert committed.keys() == state.keys()
            for name, value in state.items():
                torch.testing.assert_close(committed[name], value, rtol=0, atol=1e-6)


def final_model(folder: Path, *, order: list[str], restart: bool) -> str:
    """The digest of the last version of a job with quorum = members; perhaps with everything restarted in between."""
    folder.mkdir()
    model = ShuffledTask({"silo": 0, "rows": 8}).build_model()
    initial = initial_model(model, folder)
    with Federation(folder, entry="regression_task:ShuffledTask", options=options()) as federation:
        federation.start_coordinator()
        for member in order:
            federation.start_participant(member)
        spec = job_spec(federation.members, initial, rounds=4, training=TRAINING)
        job = federation.submit("study-1" if restart else "study-other", spec, initial)
        if restart:
            for seen in federation.watch(job):
                if len(seen.rounds) >= 2:
                    break
            for name in [*federation.members, "coordinator"]:
                federation.stop(name)
            federation.start_coordinator()
            for member in reversed(order):
                federation.start_participant(member)
        detail = federation.finish(job)
        return str(rounds_of(detail)[-1]["next_model"])


def test_the_same_job_gives_the_same_bytes(tmp_path: Path) -> None:
    """Again in another order of arrival, and with a restart of every process between two rounds."""
    members = sorted(ROWS)
    once = final_model(tmp_path / "once", order=members, restart=False)
    restarted = final_model(tmp_path / "restarted", order=members[::-1], restart=True)
    assert once == restarted
