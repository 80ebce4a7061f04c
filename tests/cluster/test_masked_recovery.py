"""Processes that are killed in each step of a masked round. What is on record decides, and nobody is counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from consilo.demo.moment import Blow, Moment
from participant.tasks.state_dict import write_model
from shared.reasons import DropReason
from tests.cluster.tasks.regression_task import build
from tests.support.federation import Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 64, "hospital-d": 16}
TRAINING = {"learning_rate": 0.05}
VICTIM, SLOW = "hospital-d", "hospital-c"
COMMITTED_IN = 4

# In which round it is killed, and in which state (participant.round.phases).
SILO_KILLED = [
    (1, "Advertised"),
    (2, "Shared"),
    (3, "Uploading"),
    (COMMITTED_IN, "Committed"),
    (5, "Confirmed"),
    (6, "Opened"),
]
# While its keys cost nothing but two exchanges, a new attempt is made with it. Once they are shared the round goes on
# without it; once its update is in, its update counts.
WITHOUT_IT = {3}


def federation_of(folder: Path, members: int) -> tuple[Federation, Path]:
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    chosen = list(ROWS.items())[:members]
    options = {member: {"silo": silo, "rows": rows} for silo, (member, rows) in enumerate(chosen)}
    return Federation(folder, entry="regression_task:RegressionTask", options=options), initial


def test_a_silo_killed_in_each_step_is_back_in_the_next_round(tmp_path: Path) -> None:
    federation, initial = federation_of(tmp_path, 4)
    lives = [Moment(number, state, Blow.KILL) for number, state in SILO_KILLED]
    with federation:
        federation.start_coordinator()
        federation.start_participants([member for member in federation.members if member not in {VICTIM, SLOW}])
        # While it stands still the survivors are not fixed: a silo that is last sees their list before the word that
        # its own update is in, and is never in the state Committed.
        slow = federation.start_doomed(SLOW, Moment(COMMITTED_IN, "Uploading", Blow.STOP))
        rounds = len(lives) + 1
        job = federation.submit(
            "study-1", job_spec(federation.members, initial, rounds=rounds, training=TRAINING), initial
        )
        for moment in lives:
            federation.start_doomed(VICTIM, moment).wait_until_killed()
            if moment.round == COMMITTED_IN:
                slow.wait_until_stopped()
                slow.go_on()
        federation.start_participant(VICTIM)
        committed = rounds_of(federation.finish(job))
    assert len(committed) == rounds
    for number, summary in enumerate(committed, start=1):
        assert (VICTIM in summary["survivors"]) == (number not in WITHOUT_IT), f"round {number}: {summary}"
        assert set(summary["survivors"]) | {VICTIM} == set(ROWS)
    # It says itself that its keys are gone, unless it takes its time to come back.
    assert committed[2]["dropped"][VICTIM] in {DropReason.ATTEMPT_LEFT, DropReason.DISCONNECTED}


def test_a_coordinator_killed_in_masked_phases_commits_every_round(tmp_path: Path) -> None:
    """Of three silos all must help: while one stands still, the round stays in its phase."""
    federation, initial = federation_of(tmp_path, 3)
    *others, slow = federation.members
    phases = {1: ("Shared", "sharing"), 2: ("Uploading", "uploading"), 3: ("Opened", "unmasking")}
    moments = [Moment(number, state, Blow.STOP) for number, (state, _) in phases.items()]
    with federation:
        federation.start_coordinator()
        federation.start_participants(others)
        silo = federation.start_doomed(slow, *moments)
        spec = job_spec(federation.members, initial, rounds=len(phases) + 1, training=TRAINING)
        job = federation.submit("study-1", spec, initial)
        for number, (_, phase) in phases.items():
            silo.wait_until_stopped()
            federation.process("coordinator").wait_for("round_moved", round=number, phase=phase)
            federation.kill("coordinator")
            federation.start_coordinator()
            silo.go_on()
        committed = rounds_of(federation.finish(job))
    assert len(committed) == len(phases) + 1
    assert all(summary["survivors"] == federation.members for summary in committed)
