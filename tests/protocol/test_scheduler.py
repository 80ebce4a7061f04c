"""What runs next, and with whom: the pure rules of jobs."""

from __future__ import annotations

from coordinator.cohort import assess
from coordinator.scheduler import Candidate, EndJob, FinishedRound, NextStep, RunRound, next_step, startable
from shared.ids import Digest, JobId, ParticipantId, RoundNumber, TaskName
from shared.reasons import AbortReason, JobState, Purpose
from tests.support.rounds import TASK, A, B, C, D, make_spec

SPEC = make_spec(rounds=2, aborted_rounds_allowed=1)
MODELS = [Digest.of(bytes([number])) for number in range(5)]


def finished(*outcomes: AbortReason | None, closing: bool = False) -> list[FinishedRound]:
    """Rounds one after the other; the last of them is the closing evaluation if asked for."""
    rounds = []
    for number, abort in enumerate(outcomes, start=1):
        last = closing and number == len(outcomes)
        purpose = Purpose.EVALUATE if last else Purpose.TRAIN
        rounds.append(FinishedRound(RoundNumber(number), purpose, abort, MODELS[number]))
    return rounds


def upcoming(*outcomes: AbortReason | None, closing: bool = False) -> NextStep:
    return next_step(SPEC, finished(*outcomes, closing=closing))


def test_a_job_runs_its_rounds_and_a_closing_evaluation() -> None:
    assert upcoming() == RunRound(RoundNumber(1), Purpose.TRAIN, SPEC.initial_model)
    assert upcoming(None) == RunRound(RoundNumber(2), Purpose.TRAIN, MODELS[1])
    assert upcoming(None, None) == RunRound(RoundNumber(3), Purpose.EVALUATE, MODELS[2])
    assert upcoming(None, None, None, closing=True) == EndJob(JobState.COMPLETED, "")


def test_an_aborted_round_is_played_again_from_the_last_committed_model() -> None:
    quorum = AbortReason.BELOW_QUORUM
    assert upcoming(quorum) == RunRound(RoundNumber(2), Purpose.TRAIN, SPEC.initial_model)
    assert upcoming(None, quorum) == RunRound(RoundNumber(3), Purpose.TRAIN, MODELS[1])
    assert upcoming(None, None, quorum, closing=True) == RunRound(RoundNumber(4), Purpose.EVALUATE, MODELS[2])


def test_a_job_gives_up_after_its_allowance_of_aborted_rounds() -> None:
    assert upcoming(AbortReason.BELOW_QUORUM, None, AbortReason.BELOW_FLOOR) == EndJob(
        JobState.ABORTED, "2 rounds aborted, 1 allowed; the last: below_floor"
    )


def test_an_operator_ends_a_job_whatever_its_allowance() -> None:
    assert upcoming(AbortReason.OPERATOR) == EndJob(JobState.ABORTED, "operator")


HEART, LUNG, KNEE = JobId("heart-1"), JobId("lung-1"), JobId("knee-1")


def offers(*participants: ParticipantId, task: TaskName = TASK) -> dict[ParticipantId, frozenset[TaskName]]:
    return {participant: frozenset({task}) for participant in participants}


def test_jobs_start_in_order_of_submission_and_never_share_a_member() -> None:
    both, other = make_spec(), make_spec(members=(A, B), quorum=2)
    start, waiting = startable([Candidate(HEART, both), Candidate(LUNG, other)], {}, offers(A, B, C, D))
    assert start == [HEART]
    assert waiting == {LUNG: "heart-1 has hospital-a, hospital-b"}
    start, waiting = startable([Candidate(LUNG, other)], {HEART: both}, offers(A, B, C, D))
    assert (start, list(waiting)) == ([], [LUNG])


def test_a_job_that_cannot_start_holds_up_no_other_and_says_why() -> None:
    big, small = make_spec(quorum=4), make_spec(members=(A, B), quorum=2)
    start, waiting = startable([Candidate(HEART, big), Candidate(KNEE, small)], {}, offers(A, B))
    assert start == [KNEE]
    assert waiting == {HEART: "2 of quorum 4; not connected: hospital-c, hospital-d"}


def test_a_quorum_of_connected_members_with_the_task_is_enough() -> None:
    spec = make_spec(quorum=2)
    here = {A: frozenset({TASK}), B: frozenset({TaskName("other")}), C: frozenset({TASK, TaskName("other")})}
    assessment = assess(spec, here)
    assert assessment.able == {A, C}
    assert assessment.enough()
    assert not assess(make_spec(quorum=3), here).enough()
    assert assessment.explain() == "2 of quorum 2; not connected: hospital-d; without task heart: hospital-b"


def test_with_everybody_there_nothing_is_left_to_explain() -> None:
    spec = make_spec(quorum=4)
    assert assess(spec, {member: frozenset({TASK}) for member in (A, B, C, D)}).explain() == "4 of quorum 4"


def test_a_job_that_is_bound_waits_for_all_of_these_and_for_nobody_else() -> None:
    """Also with fewer than the quorum."""
    spec = make_spec(quorum=3)
    bound = (A, B)
    waits = assess(spec, offers(A, C, D), bound)
    assert not waits.enough()
    assert waits.explain() == (
        "1 of 2: of this model a total over hospital-a, hospital-b may have been opened; not connected: hospital-b"
    )
    assert assess(spec, offers(A, B), bound).enough()


def test_strangers_do_not_help() -> None:
    assert assess(make_spec(members=(A,), quorum=1, min_survivors=1), offers(B)).able == frozenset()
