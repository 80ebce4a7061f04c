"""What happened here since the start, as the silo's page tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from participant.round.driver import Driver
from participant.round.effects import WorkDone, WorkFailed
from participant.round.ending import ALARM_HISTORY
from participant.round.surroundings import Observer
from participant.status import advice
from participant.status.noting import KEPT, Noted
from shared.clock import ManualClock
from shared.reasons import SAID_BY_PARTICIPANT, ConsentRule, DropReason
from tests.support.rounds import KEY, aborted_of, make_plan, make_spec, spooled
from tests.unit.participant.round.test_participant_driver import PLAN, SECOND, Daemon, Unobserved


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=datetime(2026, 11, 29, tzinfo=UTC))


@pytest.fixture
def noted(clock: ManualClock) -> Noted:
    return Noted(following=Unobserved(), clock=clock)


def watched(daemon: Daemon, observer: Observer) -> Driver:
    daemon.driver._around = type(daemon.driver._around)(
        **{name: getattr(daemon.driver._around, name) for name in daemon.driver._around.__slots__}
        | {"observer": observer}
    )
    return daemon.driver


def test_phases_and_since_when(noted: Noted, clock: ManualClock) -> None:
    daemon = Daemon()
    driver = watched(daemon, noted)
    daemon.hears(PLAN)
    began = clock.now()
    assert noted.phases == {KEY: ("training", began)}
    clock.advance(60.0)
    daemon.hears(PLAN)
    assert noted.phases[KEY] == ("training", began), "said again, it is the same phase"
    driver.report(KEY, WorkDone(spooled()))
    assert noted.phases[KEY] == ("ready", clock.now())
    daemon.hears(aborted_of(PLAN))
    assert (dict(noted.phases), [each.survived for each in noted.ended]) == ({}, [False])


def test_what_was_declined_is_noted_once_with_its_rule(noted: Noted) -> None:
    daemon = Daemon(minimum_members=50)
    watched(daemon, noted)
    daemon.hears(PLAN, PLAN)
    (left,) = noted.left
    assert (left.how, left.reason, left.round) == ("declined", "cohort_too_small", 1)
    assert left.meaning == advice.DECLINED[ConsentRule.COHORT_TOO_SMALL]


def test_what_was_left_says_what_to_do(noted: Noted) -> None:
    daemon = Daemon()
    driver = watched(daemon, noted)
    daemon.hears(PLAN)
    driver.report(KEY, WorkFailed(DropReason.TASK_CRASHED))
    daemon.hears(SECOND)
    (left,) = noted.left
    assert (left.how, left.reason, left.meaning) == (
        "withdrew",
        "task_crashed",
        advice.WITHDREW[DropReason.TASK_CRASHED],
    )
    assert list(noted.phases) == [make_plan(make_spec(), number=2).value.key]


def test_alarms_are_passed_on(clock: ManualClock) -> None:
    following = Unobserved()
    noted = Noted(following=following, clock=clock)
    for _ in range(KEPT + 1):
        noted.alarmed(ALARM_HISTORY)
    assert (len(noted.alarms), len(following.alarms)) == (KEPT, KEPT + 1)
    assert noted.alarms[0].meaning == advice.ALARMS[ALARM_HISTORY]


@pytest.mark.parametrize(("table", "reasons"), [(advice.DECLINED, ConsentRule), (advice.WITHDREW, SAID_BY_PARTICIPANT)])
def test_every_reason_has_its_sentence(table: dict[Any, str], reasons: Any) -> None:
    assert table.keys() == set(reasons)
    assert all(text.endswith((".", "?")) for text in table.values())
    assert advice.for_withdrawn(DropReason.ABSENT) == ""


def test_every_alarm_has_its_sentence() -> None:
    from participant.round import ending

    assert set(advice.ALARMS) == {value for name, value in vars(ending).items() if name.startswith("ALARM_")}
