"""When rounds can go on, and when not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from coordinator.cohort import Offers
from coordinator.health import Health
from coordinator.readiness import Readiness, readiness
from coordinator.scheduler import Candidate
from shared import heartbeat
from shared.control import JobControl
from shared.heartbeat import Heartbeat
from shared.ids import JobId, ParticipantId, TaskName
from tests.support.rounds import MEMBERS, TASK, make_spec

QUORUM = 3
WHO = "spiffe://hearts.example/coordinator/coordinator"


def _job(name: str = "heart-1", **changed: object) -> Candidate:
    return Candidate(JobId(name), make_spec(quorum=QUORUM), **changed)  # type: ignore[arg-type] # fields of a Candidate


def _here(members: Iterable[ParticipantId], task: TaskName = TASK) -> Offers:
    return {member: frozenset({task}) for member in members}


def test_without_a_job_somebody_must_be_there() -> None:
    assert readiness([], [], {}) == Readiness(ready=False, why="no participant is connected")
    assert readiness([], [], _here(MEMBERS[:1])).ready


@pytest.mark.parametrize("running", [True, False])
def test_the_job_that_runs_or_would_run_next_has_its_quorum(running: bool) -> None:  # noqa: FBT001 - a parameter
    jobs = ([_job()], []) if running else ([], [_job()])
    assert readiness(*jobs, _here(MEMBERS[:QUORUM])) == Readiness(ready=True, why="")
    below = readiness(*jobs, _here(MEMBERS[: QUORUM - 1]))
    assert not below.ready
    assert below.why.startswith(f"job heart-1: {QUORUM - 1} of quorum {QUORUM}; not connected: {MEMBERS[QUORUM - 1]}")


def test_whoever_lacks_the_task_does_not_count() -> None:
    offers = {**_here(MEMBERS[: QUORUM - 1]), **_here(MEMBERS[QUORUM - 1 : QUORUM], TaskName("other"))}
    assert "without task" in readiness([_job()], [], offers).why


def test_a_changed_quorum_counts() -> None:
    control = JobControl(quorum=2)
    assert readiness([_job(control=control)], [], _here(MEMBERS[:2])).ready


def test_whom_a_round_is_bound_to_must_be_there() -> None:
    bound = MEMBERS[-2:]
    assert not readiness([_job(bound=bound)], [], _here(MEMBERS[:QUORUM])).ready
    assert readiness([_job(bound=bound)], [], _here(bound)).ready


def test_jobs_behind_the_next_one_are_not_asked() -> None:
    others = make_spec(members=tuple(map(ParticipantId, ("clinic-a", "clinic-b", "clinic-c"))))
    behind = Candidate(JobId("lungs-1"), others)
    assert readiness([_job()], [behind], _here(MEMBERS)).ready
    assert readiness([], [_job(), behind], _here(MEMBERS)).ready
    assert readiness([], [behind, _job()], _here(MEMBERS)).why.startswith("job lungs-1: 0 of quorum")
    assert readiness([_job(), behind], [], _here(MEMBERS)).why.startswith("job lungs-1: ")


def test_draining_is_never_ready_and_live_to_the_end() -> None:
    health = Health(who=WHO)
    changes = [health.readiness.ready]
    health.listen(lambda: changes.append(health.readiness.ready))
    health.see(Readiness(ready=True, why=""))
    health.see(Readiness(ready=True, why=""))
    health.drain()
    health.see(Readiness(ready=True, why=""))
    assert health.readiness == Readiness(ready=False, why="it was told to end, and drains")
    assert health.live
    assert changes == [False, True, False]


@pytest.mark.parametrize(("hanging", "named"), [("loop", "the event loop"), ("conductor", "the conductor's thread")])
def test_live_is_what_goes_on(hanging: str, named: str) -> None:
    health, now = Health(who=WHO), [0.0]
    health.loop, health.conductor = Heartbeat(monotonic=lambda: now[0]), Heartbeat(monotonic=lambda: now[0])
    now[0] = heartbeat.ALIVE_S - 1
    going_on = health.conductor if hanging == "loop" else health.loop
    going_on.beat()
    assert (health.live, health.why_not_live) == (True, "")
    now[0] += 2
    said = f"{named} has not answered for {heartbeat.ALIVE_S + 1:.0f} s"
    assert (health.live, health.why_not_live) == (False, said)
    (health.loop if hanging == "loop" else health.conductor).beat()
    assert (health.live, health.why_not_live) == (True, "")
