"""Jobs that are paused, resumed and controlled: what is on record, what is planned, and what a restart makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordinator.audit import read_entries
from coordinator.round.phases import Recruiting
from coordinator.storage.faults import Fault
from shared.control import AS_SUBMITTED, ControlChange, JobControl
from shared.errors import ConflictError, StorageError, UnknownError, WireError
from shared.ids import JobId
from shared.job import DEADLINE_MAX_S
from shared.protocol.messages import RoundPlan, Sealed
from shared.reasons import AbortReason, JobState
from tests.support.audit_log import as_file
from tests.support.rounds import MEMBERS, A, B, C, D, make_masked_spec, make_spec
from tests.unit.coordinator.test_conductor import HEART, KNEE, LUNG, OPERATOR, OTHERS, Machine
from tests.unit.coordinator.test_masked_jobs import Federation, manifest

DEADLINE_S = 600.0
STEERING = {"job_pause_asked", "job_paused", "job_resumed", "job_controlled"}


@pytest.fixture
def machine() -> Machine:
    """A coordinator with a model and nobody connected."""
    made = Machine()
    made.add_model(8)
    return made


def submit(machine: Machine, job: JobId, **changed: Any) -> None:
    machine.conductor.desk.submit_job(job, make_spec(elements=8, **changed).to_bytes(), OPERATOR)


def pause(machine: Machine, job: JobId = HEART, reason: str = "power cut") -> bool:
    return machine.conductor.desk.pause_job(job, reason, OPERATOR).changed


def resume(machine: Machine, job: JobId = HEART) -> bool:
    return machine.conductor.desk.resume_job(job, OPERATOR).changed


def control(machine: Machine, job: JobId = HEART, **change: Any) -> bool:
    return machine.conductor.desk.control_job(job, ControlChange(**change), OPERATOR).changed


def standing(machine: Machine, job: JobId = HEART) -> JobState:
    return machine.conductor.desk.job_view(job).record.standing


def end_of_round(machine: Machine, seconds: float = DEADLINE_S) -> None:
    """Nobody becomes Ready until the deadline, and the round aborts."""
    machine.clock.advance(seconds)
    machine.conductor.tick()


def again(machine: Machine) -> None:
    """The process is killed, and its successor finds everybody again."""
    machine.restart().start()
    machine.connect()


def stay(_: Machine) -> None:
    """The process goes on."""


def plans(machine: Machine, job: JobId = HEART) -> list[RoundPlan]:
    """Those that hospital-a was told, each once."""
    told = [said for member, said in machine.outside.sent if member == A and isinstance(said, Sealed)]
    found = {said.value.key: said.value for said in told if isinstance(said.value, RoundPlan)}
    return [plan for key, plan in found.items() if key.job == job]


def steered(machine: Machine) -> list[tuple[str, object]]:
    content = as_file(machine.store.audit_entries(0))
    return [(entry.kind, entry.data) for entry in read_entries(content, verifying_key=None) if entry.kind in STEERING]


whatever_happens = pytest.mark.parametrize("then", [stay, again])


@whatever_happens
def test_a_queued_job_is_paused_at_once_and_goes_back_to_its_place(
    machine: Machine, then: Callable[[Machine], None]
) -> None:
    for job in (HEART, LUNG, KNEE):
        submit(machine, job)
    assert pause(machine)
    assert standing(machine) is JobState.PAUSED
    machine.connect()
    then(machine)
    assert plans(machine, HEART) == []
    assert [standing(machine, job) for job in (HEART, LUNG, KNEE)] == [
        JobState.PAUSED, JobState.RUNNING, JobState.QUEUED,
    ]  # fmt: skip
    assert resume(machine)
    then(machine)
    machine.conductor.desk.abort_job(LUNG, "", OPERATOR)
    assert [standing(machine, job) for job in (HEART, KNEE)] == [JobState.RUNNING, JobState.QUEUED]
    assert machine.conductor.desk.job_view(KNEE).waits_for.startswith("heart-1 has hospital-a")


@whatever_happens
def test_a_running_job_ends_its_open_round_and_holds_no_members_then(
    machine: Machine, then: Callable[[Machine], None]
) -> None:
    submit(machine, HEART)
    submit(machine, LUNG)
    machine.connect()
    assert pause(machine)
    then(machine)
    assert standing(machine) is JobState.PAUSING
    assert isinstance(machine.phase_of(HEART), Recruiting), "the open round goes on"
    end_of_round(machine, DEADLINE_S + 30)  # a restart gives it a little more
    then(machine)
    assert standing(machine) is JobState.PAUSED
    assert [plan.key.number for plan in plans(machine)] == [1]
    assert standing(machine, LUNG) is JobState.RUNNING
    assert resume(machine)
    then(machine)
    assert standing(machine) is JobState.QUEUED
    machine.conductor.desk.abort_job(LUNG, "", OPERATOR)
    assert [plan.key.number for plan in plans(machine)] == [1, 2], "it goes on where it was"


def test_a_running_job_with_no_open_round_is_paused_at_once(machine: Machine) -> None:
    submit(machine, HEART)
    machine.connect()
    for member in MEMBERS:
        machine.conductor.session_closed(member, f"session-{member}")
    end_of_round(machine)
    assert machine.phase_of(HEART) is None
    assert machine.conductor.desk.job_view(HEART).waits_for.startswith("0 of quorum")
    pause(machine)
    assert standing(machine) is JobState.PAUSED
    assert machine.conductor.desk.job_view(HEART).waits_for == ""


def test_a_pause_that_is_taken_back_in_time_changes_nothing(machine: Machine) -> None:
    submit(machine, HEART)
    machine.connect()
    pause(machine)
    assert resume(machine)
    assert standing(machine) is JobState.RUNNING
    end_of_round(machine)
    assert [plan.key.number for plan in plans(machine)] == [1, 2]


def test_asking_again_changes_nothing_and_says_so(machine: Machine) -> None:
    submit(machine, HEART)
    assert not resume(machine)
    assert pause(machine, reason="first")
    assert not pause(machine, reason="second")
    view = machine.conductor.desk.job_view(HEART)
    assert view.record.pause is not None
    assert (view.record.pause.by, view.record.pause.reason) == (OPERATOR.uri, "first")
    assert resume(machine)
    assert not resume(machine)
    assert control(machine, quorum=3)
    assert not control(machine, quorum=3)
    assert not control(machine)
    assert [kind for kind, _ in steered(machine)] == ["job_paused", "job_resumed", "job_controlled"]


def test_the_log_says_who_asked_for_what(machine: Machine) -> None:
    submit(machine, HEART)
    machine.connect()
    pause(machine)
    control(machine, quorum=3)
    end_of_round(machine)
    resume(machine)
    by = {"job": HEART, "by": OPERATOR.uri}
    assert steered(machine) == [
        ("job_pause_asked", {**by, "reason": "power cut"}),
        ("job_controlled", {**by, "revision": 1, "deadline_s": None, "quorum": 3}),
        ("job_paused", {**by, "reason": "power cut"}),
        ("job_resumed", by),
    ]


@pytest.mark.parametrize("ask", [pause, resume, lambda machine: control(machine, quorum=3)])
def test_a_job_that_is_over_is_over(machine: Machine, ask: Callable[[Machine], bool]) -> None:
    with pytest.raises(UnknownError):
        ask(machine)
    submit(machine, HEART)
    machine.conductor.desk.abort_job(HEART, "", OPERATOR)
    with pytest.raises(ConflictError, match="job heart-1 is aborted already"):
        ask(machine)


@whatever_happens
def test_a_job_is_aborted_in_each_of_these_states(machine: Machine, then: Callable[[Machine], None]) -> None:
    for job in (HEART, LUNG):
        submit(machine, job, **({"members": OTHERS} if job == LUNG else {}))
    pause(machine, LUNG)
    machine.connect()
    pause(machine)
    then(machine)
    assert [standing(machine, job) for job in (HEART, LUNG)] == [JobState.PAUSING, JobState.PAUSED]
    for job in (HEART, LUNG):
        machine.conductor.desk.abort_job(job, "enough", OPERATOR)
        assert machine.conductor.desk.job_view(job).record.reason == "operator: enough"
    assert machine.store.rounds(HEART)[0].outcome == AbortReason.OPERATOR
    then(machine)
    assert [standing(machine, job) for job in (HEART, LUNG)] == [JobState.ABORTED, JobState.ABORTED]


def test_a_job_that_gives_up_with_its_last_round_is_over_and_not_paused(machine: Machine) -> None:
    submit(machine, HEART, aborted_rounds_allowed=0)
    machine.connect()
    pause(machine)
    end_of_round(machine)
    assert standing(machine) is JobState.ABORTED
    assert [kind for kind, _ in steered(machine)] == ["job_pause_asked"]


def test_a_pause_that_was_not_stored_is_none(machine: Machine) -> None:
    submit(machine, HEART)
    machine.connect()
    machine.faults.inject("hold_job", Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError):
        pause(machine)
    assert standing(machine) is JobState.RUNNING
    assert pause(machine)
    machine.faults.inject("set_job_state", Fault.FAILED_NOT_PERSISTED)  # as the round ends
    end_of_round(machine)
    assert standing(machine) is JobState.PAUSING
    assert [plan.key.number for plan in plans(machine)] == [1], "it was said that no other is planned"
    machine.conductor.tick()
    assert standing(machine) is JobState.PAUSED


def paused_after_a_total_was_opened(*, quorum: int) -> Federation:
    """The total of its first round, of hospitals a, b and c, may have been opened; then it was paused."""
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec())
    federation.connect()
    federation.conductor.desk.control_job(HEART, ControlChange(quorum=quorum), OPERATOR)
    federation.conductor.desk.pause_job(HEART, "", OPERATOR)
    federation.open_and_damage(without=D)
    return federation


@pytest.mark.parametrize("restarted", [False, True])
def test_a_resumed_job_starts_with_those_that_its_next_round_asks_whatever_the_quorum(*, restarted: bool) -> None:
    federation = paused_after_a_total_was_opened(quorum=4)
    federation.conductor.session_closed(D, f"session-{D}")
    federation.conductor.desk.resume_job(HEART, OPERATOR)
    if restarted:
        federation.restart(manifest(*MEMBERS))
        federation.connect((A, B, C))
    assert federation.frame is not None
    assert federation.frame.bound == (A, B, C)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_resumed_job_holds_nobody_while_one_that_its_next_round_asks_is_away(*, restarted: bool) -> None:
    federation = paused_after_a_total_was_opened(quorum=3)
    federation.conductor.session_closed(A, f"session-{A}")
    federation.conductor.desk.resume_job(HEART, OPERATOR)
    if restarted:
        federation.restart(manifest(*MEMBERS))
        federation.connect((B, C, D))
    federation.conductor.desk.control_job(HEART, ControlChange(deadline_s=60.0), OPERATOR)
    view = federation.conductor.desk.job_view(HEART)
    assert view.record.state is JobState.QUEUED
    assert view.waits_for == (
        "2 of 3: of this model a total over hospital-a, hospital-b, hospital-c may have been opened; "
        "not connected: hospital-a"
    )
    federation.connect()
    assert federation.frame is not None
    assert federation.frame.bound == (A, B, C)


# --- control ----------------------------------------------------------------------------------------------------------


@whatever_happens
def test_a_control_is_in_force_from_the_next_round_on(machine: Machine, then: Callable[[Machine], None]) -> None:
    submit(machine, HEART)
    machine.connect()
    assert control(machine, deadline_s=60.0)
    assert control(machine, quorum=3)
    then(machine)
    end_of_round(machine, 61)
    assert [plan.key.number for plan in plans(machine)] == [1], "the open round keeps its own deadline"
    end_of_round(machine, DEADLINE_S)
    then(machine)
    first, second = plans(machine)
    assert (first.control, first.deadline_s) == (AS_SUBMITTED, DEADLINE_S)
    assert (second.control, second.deadline_s) == (JobControl(2, 60.0, 3), 60.0)
    state = machine.phase_of(HEART)
    assert isinstance(state, Recruiting)
    assert state.frame.quorum == 3
    end_of_round(machine, 61 + 20)  # what a restart gives it is in this
    assert [plan.key.number for plan in plans(machine)] == [1, 2, 3]
    assert machine.outside.ended[-1][2]["control"] == 2
    assert "control" not in machine.outside.ended[0][2]
    assert control(machine, reset=True)
    end_of_round(machine, 61 + 20)
    assert (plans(machine)[3].control, plans(machine)[3].deadline_s) == (JobControl(3), DEADLINE_S)


def test_a_lower_quorum_lets_a_job_start_that_waits_for_members(machine: Machine) -> None:
    submit(machine, HEART, quorum=4)
    machine.connect()
    machine.conductor.desk.abort_job(HEART, "", OPERATOR)
    submit(machine, LUNG, quorum=4)
    machine.conductor.session_closed(B, f"session-{B}")
    submit(machine, KNEE, quorum=4)
    machine.conductor.desk.abort_job(LUNG, "", OPERATOR)
    assert machine.conductor.desk.job_view(KNEE).waits_for == "3 of quorum 4; not connected: hospital-b"
    control(machine, KNEE, quorum=3)
    assert standing(machine, KNEE) is JobState.RUNNING
    (plan,) = plans(machine, KNEE)
    assert plan.control == JobControl(1, quorum=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quorum": 1}, r"quorum: expected 2 \(the job's floor\) to 4 \(its members\), got 1"),
        ({"quorum": 5}, "got 5"),
        ({"deadline_s": DEADLINE_MAX_S + 1}, "deadline_s: expected seconds above 0 and at most 2592000"),
    ],
)
def test_what_the_job_does_not_allow_is_refused_and_changes_nothing(
    machine: Machine, change: dict[str, Any], message: str
) -> None:
    submit(machine, HEART)
    with pytest.raises(WireError, match=message):
        control(machine, **change)
    assert machine.store.job(HEART).control == AS_SUBMITTED
    assert steered(machine) == []


def test_a_control_that_was_not_stored_is_none(machine: Machine) -> None:
    submit(machine, HEART)
    machine.faults.inject("control_job", Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError):
        control(machine, deadline_s=60.0)
    machine.connect()
    assert [plan.control for plan in plans(machine)] == [AS_SUBMITTED]
