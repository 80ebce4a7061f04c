"""The open round in words: each phase, whom it waits for and why, and that no number of one silo is among them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from coordinator.round.driver import RoundTimes
from coordinator.round.phases import Aborted, Committed, RoundState, Uploading, phase_name
from coordinator.status import advice
from coordinator.status.look import LiveRoundSeen
from coordinator.status.open_round import MASKED_PHASES, PLAIN_PHASES, OpenRound, open_round
from shared.ids import ParticipantId
from shared.reasons import AbortReason, DropReason
from tests.support.coordinator_transcript import Transcript
from tests.support.masked_silo import FOLDED, MaskedRound
from tests.support.rounds import MEMBERS, A, B, C, D, make_masked_frame

SENTINEL = 73193.25


def seen(state: RoundState, now: float = 10.0, progress: dict[ParticipantId, int] | None = None) -> OpenRound:
    assert not isinstance(state, Committed | Aborted)
    times = RoundTimes(started=0.0, phase_since=8.0, deadline=600.0, spent_s={"recruiting": 8.0})
    return open_round(LiveRoundSeen(state, times, progress or {}), now)


def waited(round_: OpenRound) -> dict[str, str]:
    return {member.participant.removeprefix("hospital-"): member.waited_for for member in round_.waited_for}


def test_before_the_attempt_it_waits_for_ready() -> None:
    played = Transcript(present=(A, B, C))
    played.consents(A, B)
    played.ready(A)
    shown = seen(played.state, progress={B: 45})
    assert (shown.phase, shown.ready, shown.quorum, shown.updates, shown.attempt) == ("recruiting", 1, 3, 0, 0)
    assert waited(shown) == {
        "b": "it trains, 45 % done",
        "c": "it has not answered the plan",
        "d": "it has not answered the plan; it was not connected in this round",
    }
    assert (shown.age_s, shown.phase_age_s, shown.ends_in_s, shown.overdue) == (10.0, 2.0, 590.0, False)
    assert seen(played.state, now=601.0).overdue


def test_one_that_went_away_and_one_that_left() -> None:
    played = Transcript()
    played.consents(A, B, C, D)
    played.disconnects(A)
    played.hear(played.withdraws(C, DropReason.DISK))
    shown = seen(played.state)
    assert waited(shown) == {"a": "it trains; it is not connected", "b": "it trains", "d": "it trains"}
    (away,) = [member for member in shown.members if member.participant == A]
    assert (away.connected, away.away_s) == (False, 10.0)
    (left,) = shown.dropped
    assert (left.participant, left.dropped, left.advice) == (C, "disk", advice.DROPPED[DropReason.DISK])


def test_updates_are_counted_and_nothing_in_them_is_read() -> None:
    played = Transcript()
    played.consents(A, B, C, D)
    played.ready(A, B, C, D)
    played.uploads(A, B)
    state = played.state
    assert isinstance(state, Uploading)
    planted = {
        member: replace(came, header=replace(came.header, weight=SENTINEL))
        for member, came in state.contributions.items()
    }
    shown = seen(replace(state, contributions=planted))
    assert (shown.phase, shown.updates, shown.floor, shown.attempt) == ("uploading", 2, 2, 1)
    assert waited(shown) == {"c": "its update has not arrived", "d": "its update has not arrived"}
    assert str(SENTINEL) in repr(planted), "it is there to be found"
    assert str(SENTINEL) not in repr(asdict(shown))


def test_every_phase_of_a_masked_round() -> None:
    played = MaskedRound(make_masked_frame())
    phases: list[str] = []
    while played.phase != "committed":
        shown = seen(played.state)
        if shown.phase not in phases:
            phases.append(shown.phase)
        standing = [step.standing for step in shown.steps]
        at = MASKED_PHASES.index(shown.phase)
        assert standing == ["done"] * at + ["current"] + ["ahead"] * (7 - at)
        assert all(member.waited_for for member in shown.waited_for)
        if not played.waiting:
            played.hear(FOLDED)
            break
        member, message = played.waiting.popleft()
        for _, event in played.silos[member].hears(message):
            played.tell(member, event)
    assert tuple(phases) == MASKED_PHASES


def test_a_plain_round_has_the_phases_of_a_plain_round() -> None:
    assert tuple(step.name for step in seen(Transcript().state).steps) == PLAIN_PHASES


def test_a_fold_waits_for_nobody_and_has_no_deadline() -> None:
    played = Transcript()
    played.consents(*MEMBERS)
    played.ready(*MEMBERS)
    played.uploads(*MEMBERS)
    assert phase_name(played.state) == "folding"
    assert not isinstance(played.state, Committed | Aborted)
    times = RoundTimes(started=0.0, phase_since=8.0, deadline=float("inf"), spent_s={})
    shown = open_round(LiveRoundSeen(played.state, times, {}), 10.0)
    assert (shown.waited_for, shown.ends_in_s, shown.updates) == ((), None, 4)


@pytest.mark.parametrize(("table", "reasons"), [(advice.DROPPED, DropReason), (advice.ABORTED, AbortReason)])
def test_every_reason_has_its_advice(table: dict[Any, str], reasons: Any) -> None:
    assert table.keys() == set(reasons)
    assert all(text.endswith((".", "?")) and len(text) < 120 for text in table.values())


def test_a_reason_of_another_version_has_none() -> None:
    assert (advice.for_dropped("tired"), advice.for_aborted("tired"), advice.for_dropped("")) == ("", "", "")
