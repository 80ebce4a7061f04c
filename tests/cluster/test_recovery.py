"""Processes that die in the middle: the round goes on, and nobody is counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from participant.tasks.state_dict import write_model
from shared.wire.operations import JobDetail
from tests.cluster.tasks.regression_task import build
from tests.support.federation import Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 64}
TRAINING = {"learning_rate": 0.05}


def wait_until(federation: Federation, job: str, reached: str) -> None:
    """Follow the job until its open round is in this phase."""
    for seen in federation.watch(job):  # type: ignore[arg-type] # a parsed id is a str
        if seen.live is not None and seen.live.phase == reached:
            return
    raise AssertionError(f"the job ended before a round was {reached}")


def run(folder: Path, *, disturb: bool) -> JobDetail:
    folder.mkdir()
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    options = {member: {"silo": silo, "rows": rows} for silo, (member, rows) in enumerate(ROWS.items())}
    with Federation(folder, entry="regression_task:RegressionTask", options=options) as federation:
        federation.start()
        spec = job_spec(federation.members, initial, rounds=3, training=TRAINING)
        job = federation.submit("study-1", spec, initial)
        if disturb:
            wait_until(federation, job, "recruiting")
            federation.kill("coordinator")
            federation.start_coordinator()
            federation.kill("hospital-b")
            federation.start_participant("hospital-b")
        return federation.finish(job)


def test_kill_9_of_coordinator_and_participant_changes_nothing(tmp_path: Path) -> None:
    calm, disturbed = run(tmp_path / "calm", disturb=False), run(tmp_path / "disturbed", disturb=True)
    models = [[summary["next_model"] for summary in rounds_of(detail)] for detail in (calm, disturbed)]
    assert models[0] == models[1]
    assert all(not summary["dropped"] for summary in rounds_of(disturbed))
