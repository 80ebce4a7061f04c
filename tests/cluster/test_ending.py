"""Real processes that are told to end in the middle of something: how long it takes, and what the others see of it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.federation import Federation, Process, job_spec, rounds_of
from tests.support.links import MEMBERS, VICTIM, assert_no_traceback, constant_federation, linked

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ENDS_WITHIN_S = 8.0
SMALL = 10
LARGE = 25_000_000
MEDIUM = 2_500_000  # 10 MB down; 20 MB up in a job's first masked round


def told_to_end(process: Process) -> float:
    """Seconds that it took, with exit code 0."""
    began = time.monotonic()
    assert process.stop() == 0
    return time.monotonic() - began


def running_job(federation: Federation, initial: Path, **changes: object) -> str:
    federation.start()
    spec = job_spec(federation.members, initial, rounds=1, metrics=(), **changes)
    return federation.submit("study-1", spec, initial)


def test_a_silo_that_dealt_shares_finishes_what_the_others_wait_for(tmp_path: Path) -> None:
    """Of three silos all must help to open: this round has no total without the one that is told to end."""
    federation, initial = constant_federation(tmp_path, parameters=MEDIUM)
    with federation, linked(federation) as link:
        link.bytes_per_s = 10e6
        job = running_job(federation, initial)
        coordinator, victim = federation.process("coordinator"), federation.process(VICTIM)
        coordinator.wait_for("round_moved", round=1, phase="uploading")
        assert told_to_end(victim) < ENDS_WITHIN_S
        coordinator.wait_for("session_ended", why="closed")
        link.bytes_per_s = None
        federation.start_participant(VICTIM)
        (committed,) = rounds_of(federation.finish(job))  # type: ignore[arg-type] # a parsed id is a str
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
    assert "attempt_not_finished" not in (tmp_path / f"{VICTIM}.log").read_text()


@pytest.mark.long
def test_a_silo_that_cannot_finish_in_time_goes_all_the_same(tmp_path: Path) -> None:
    federation, initial = constant_federation(tmp_path, parameters=MEDIUM)
    with federation, linked(federation) as link:
        job = running_job(federation, initial)
        coordinator = federation.process("coordinator")
        coordinator.wait_for("round_moved", round=1, phase="sharing")
        link.bytes_per_s = 0.5e6
        coordinator.wait_for("round_moved", round=1, phase="uploading")
        assert 5.0 < told_to_end(federation.process(VICTIM)) < ENDS_WITHIN_S
        coordinator.wait_for("session_ended", why="closed")
        again = federation.start_participant(VICTIM)
        coordinator.wait_for("round_moved", phase="uploading")  # another attempt, with new keys
        again.ask_to_stop()
        time.sleep(0.2)
        began = time.monotonic()
        assert again.strike(signal.SIGINT) == 128 + signal.SIGINT
        assert time.monotonic() - began < 1.0
        link.bytes_per_s = None
        federation.start_participant(VICTIM)
        (committed,) = rounds_of(federation.finish(job))  # type: ignore[arg-type] # as above
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)


def test_training_is_ended_and_the_coordinator_knows_at_once(tmp_path: Path) -> None:
    """And says of itself what it knows: nothing waits for readiness, which comes with the silos and goes with one."""
    federation, initial = constant_federation(tmp_path, parameters=SMALL, seconds=120.0, status=True)
    with federation:
        federation.start_coordinator()
        assert federation.until_ready("coordinator", ready=False).why == "no participant is connected"
        federation.start_participants(MEMBERS)
        federation.until_ready(VICTIM, ready=True)
        federation.until_ready("coordinator", ready=True)
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=1, metrics=()), initial)
        coordinator, victim = federation.process("coordinator"), federation.process(VICTIM)
        for seen in federation.watch(job):
            members = {} if seen.live is None else {live.participant: live.phase for live in seen.live.members}
            if [members.get(other) for other in MEMBERS] == ["ready", "ready", "training"]:  # type: ignore[call-overload]
                break
        assert federation.health("coordinator").ready
        assert told_to_end(victim) < 5.0
        coordinator.wait_for("session_ended", why="closed")
        below = federation.until_ready("coordinator", ready=False)
        assert below.why == f"job study-1: 2 of quorum 3; not connected: {VICTIM}"
        with federation.operations() as operations:
            live = operations.job(job).live
            assert live is not None
            assert {member.participant for member in live.members if not member.connected} == {VICTIM}
            operations.abort_job(job, "seen enough")


@pytest.mark.parametrize("phase", [pytest.param("recruiting", marks=pytest.mark.long), "uploading"])
def test_a_coordinator_ends_in_the_middle_of_transfers(tmp_path: Path, phase: str) -> None:
    """Of a model on its way down, of an update on its way up. What came is there after the restart."""
    federation, initial = constant_federation(tmp_path, parameters=MEDIUM)
    with federation, linked(federation) as link:
        link.bytes_per_s = 0.5e6 if phase == "recruiting" else 10e6
        job = running_job(federation, initial)
        coordinator = federation.process("coordinator")
        coordinator.wait_for("round_moved", round=1, phase=phase)
        link.bytes_per_s = 0.5e6
        before = link.bytes_to_target + link.bytes_to_client
        while link.bytes_to_target + link.bytes_to_client < before + 2**20:
            time.sleep(0.02)
        assert told_to_end(coordinator) < ENDS_WITHIN_S
        link.bytes_per_s = None
        federation.start_coordinator()
        (committed,) = rounds_of(federation.finish(job))  # type: ignore[arg-type] # as above
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
    assert link.bytes_to_target < 1.25 * 2 * 4 * MEDIUM


def test_a_second_signal_ends_a_coordinator_that_drains(tmp_path: Path) -> None:
    federation, initial = constant_federation(tmp_path, parameters=MEDIUM)
    with federation, linked(federation) as link:
        link.bytes_per_s = 0.5e6
        job = running_job(federation, initial)
        coordinator = federation.process("coordinator")
        coordinator.wait_for("round_moved", round=1, phase="recruiting")
        while link.bytes_to_client < 2**20:
            time.sleep(0.02)
        coordinator.ask_to_stop()
        coordinator.wait_for("coordinator_draining")
        began = time.monotonic()
        assert coordinator.strike(signal.SIGTERM) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 1.0
        link.bytes_per_s = None
        federation.start_coordinator()
        federation.finish(job)  # type: ignore[arg-type] # as above


@pytest.mark.long
def test_a_coordinator_leaves_a_fold_to_its_next_start(tmp_path: Path) -> None:
    federation, initial = constant_federation(tmp_path, parameters=LARGE)
    with federation:
        job = running_job(federation, initial)
        coordinator = federation.process("coordinator")
        coordinator.wait_for("round_moved", round=1, phase="folding")
        assert told_to_end(coordinator) < ENDS_WITHIN_S
        assert '"phase": "committed"' not in (tmp_path / "coordinator.log").read_text()
        federation.start_coordinator()
        (committed,) = rounds_of(federation.finish(job))  # type: ignore[arg-type] # as above
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
