"""What a silo's log says of its rounds: each thing once, when it is on record, and never what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from participant.round.effects import WorkDone, WorkFailed
from participant.round.phases import Opened
from shared.errors import StorageError
from shared.protocol.messages import RoundAborted, RoundPlan, RoundResult, Sealed
from shared.protocol.phases import Phase
from shared.reasons import DropReason
from tests.support.masked_cohort import ALL, CELLS, Cohort
from tests.support.masked_daemon import Daemon
from tests.support.participant_journal import Fault, FaultPlan, MemoryJournal
from tests.support.rounds import KEY, MEMBERS, aborted_of, make_masked_spec, make_plan, result_of

FIELDS = {
    "round_accepted": {"job", "round", "purpose", "model", "deadline_s"},
    "total_opened": {"job", "round", "survivors", "names"},
    "round_over": {"job", "round", "how", "counted"},
}


def told(logs: list[EventDict]) -> list[tuple[str, Any, Any]]:
    """The lines of this log, each with what only some of them have."""
    lines = [line for line in logs if line["event"] in FIELDS]
    for line in lines:
        assert line["log_level"] == "info"
        assert set(line) == {"event", "log_level"} | FIELDS[line["event"]]
        assert (line["job"], line["round"]) == (KEY.job, KEY.number)
    return [(line["event"], line.get("how"), line.get("counted")) for line in lines]


def aborted(cohort: Cohort) -> Sealed[RoundAborted]:
    return aborted_of(cohort.plan)


def result_over(daemon: Daemon) -> Sealed[RoundResult]:
    assert isinstance(daemon.state, Opened)
    return result_of(daemon.cohort.start(), ALL, transcript=daemon.state.opening.survivors, top_cells=CELLS)


def next_plan(_: Cohort) -> Sealed[RoundPlan]:
    return make_plan(make_masked_spec(), number=2)


def test_a_round_is_told_from_its_consent_to_its_result() -> None:
    daemon = Daemon(Cohort())
    with capture_logs() as logs:
        daemon.to(Phase.OPENING)
        daemon.hears(daemon.cohort.plan)  # repeated, and told once
        daemon.hears(daemon.cohort.bundle().bundle)
        daemon.hears(result_over(daemon))
    assert told(logs) == [
        ("round_accepted", None, None),
        ("total_opened", None, None),
        ("round_over", "committed", "yes"),
    ]
    accepted, opened, _ = [line for line in logs if line["event"] in FIELDS]
    plan = daemon.cohort.plan.value
    assert (accepted["purpose"], accepted["model"]) == ("train", str(plan.model))
    assert accepted["deadline_s"] == plan.deadline_s
    assert (opened["survivors"], opened["names"]) == (len(MEMBERS), list(MEMBERS))


def test_a_restart_tells_nothing_again() -> None:
    for phase in (Phase.TRAINING, Phase.READY, Phase.COMMITTED, Phase.OPENING):
        daemon = at(phase)
        with capture_logs() as logs:
            again = daemon.restarted()
            again.hears(again.cohort.plan)
            if phase is Phase.OPENING:
                assert again.hears(again.cohort.bundle().bundle) == ["unmask_shares"]
            assert told(logs) == [], phase
            again.hears(result_over(again) if phase is Phase.OPENING else aborted(again.cohort))
        assert [name for name, _, _ in told(logs)] == ["round_over"], phase


@pytest.mark.parametrize(
    ("phase", "end", "how", "counted"),
    [
        (Phase.TRAINING, aborted, "aborted", "no"),
        (Phase.COMMITTED, aborted, "aborted", "no"),
        (Phase.TRAINING, next_plan, "passed_over", "no"),
        (Phase.READY, next_plan, "passed_over", "no"),
        (Phase.COMMITTED, next_plan, "passed_over", "unknown"),
    ],
)
def test_how_a_round_ended(
    phase: Phase, end: Callable[[Cohort], Sealed[RoundAborted] | Sealed[RoundPlan]], how: str, counted: str
) -> None:
    daemon = at(phase)
    with capture_logs() as logs:
        daemon.hears(end(daemon.cohort))
    over = [line for line in logs if line["event"] == "round_over"]
    assert [(line["round"], line["how"], line["counted"]) for line in over] == [(1, how, counted)]


def test_a_result_without_this_silo_says_so() -> None:
    daemon = at(Phase.READY)
    with capture_logs() as logs:
        daemon.hears(result_of(daemon.cohort.start(), ALL[1:], top_cells=CELLS))
    assert told(logs) == [("round_over", "committed", "no")]


def test_a_silo_that_left_says_it_once_and_one_that_declined_never() -> None:
    daemon = Daemon(Cohort())
    with capture_logs() as logs:
        daemon.hears(daemon.cohort.plan)
        daemon.driver.report(KEY, WorkFailed(DropReason.TASK_CRASHED))
        daemon.hears(aborted(daemon.cohort))
    assert told(logs) == [("round_accepted", None, None), ("round_over", "left", "no")]
    with capture_logs() as logs:
        daemon = Daemon(Cohort(), allowed_jobs=("nothing",))
        assert daemon.hears(daemon.cohort.plan) == ["Decline"]
        daemon.hears(aborted(daemon.cohort))
    assert told(logs) == []


def test_a_consent_that_the_policy_takes_back_ends_the_round() -> None:
    daemon = at(Phase.COMMITTED)
    with capture_logs() as logs:
        again = daemon.restarted(allowed_jobs=("nothing",))
        again.hears(again.cohort.plan)
    assert told(logs) == [("round_over", "left", "unknown")]


@pytest.mark.parametrize(("verb", "event"), [("record_opening", "total_opened"), ("record_end", "round_over")])
def test_nothing_is_told_that_is_not_on_record(verb: str, event: str) -> None:
    faults = FaultPlan()
    daemon = Daemon(Cohort(), MemoryJournal(faults=faults)).to(Phase.FIXED)
    message = daemon.cohort.bundle().bundle if verb == "record_opening" else aborted(daemon.cohort)
    faults.inject(verb, Fault.FAILED_NOT_PERSISTED)
    with capture_logs() as logs:
        with pytest.raises(StorageError):
            daemon.hears(message)
        assert told(logs) == []
        daemon.hears(message)
    assert [name for name, _, _ in told(logs)] == [event]


def at(phase: Phase) -> Daemon:
    daemon = Daemon(Cohort())
    if phase not in {Phase.TRAINING, Phase.READY}:
        return daemon.to(phase)
    daemon.hears(daemon.cohort.plan)
    if phase is Phase.READY:
        daemon.driver.report(KEY, WorkDone(daemon.cohort.update))
    return daemon
