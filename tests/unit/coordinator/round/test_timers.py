"""Deadlines count up time: any number of restarts makes a wait longer by little, and never shorter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from coordinator.audit import AuditLog
from coordinator.round.driver import RoundDriver
from coordinator.round.effects import Connected, Replied, Tick
from coordinator.round.frame import RoundFrame
from coordinator.round.gathering import RECONNECT_WINDOW_S
from coordinator.round.machine import next_deadline
from coordinator.round.phases import Gracing, Recruiting, RoundState, Uploading, phase_name
from coordinator.round.restore import restore
from coordinator.round.surroundings import FoldOrder, Surroundings
from coordinator.round.timers import TIMER_NOTE_S, note_of
from coordinator.storage.faults import Fault, FaultPlan
from coordinator.storage.interface import JobRecord, TimerNote
from coordinator.storage.memory import MemoryStore
from shared.clock import ManualClock
from shared.errors import DurabilityUnknown
from shared.ids import ParticipantId, RoundKey
from shared.protocol.messages import Ready, RoundBroadcast, plan_digest
from shared.reasons import JobState, Purpose
from tests.support.coordinator_transcript import Transcript
from tests.support.rounds import COORDINATOR_KEY, JOB, MEMBERS, A, B, C, D, coordinator_seal, make_frame

DEADLINE_S = 100.0
SLACK_S = 1e-6  # sums of floating-point seconds


class _Rest:
    """What a round asks for beside its store."""

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None: ...

    def start(self, order: FoldOrder) -> None: ...

    def drop(self, key: RoundKey) -> None: ...

    def moved(self, state: RoundState) -> None: ...

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None: ...


class _Lives:
    """One open round, and the processes that drive it one after the other."""

    def __init__(self, frame: RoundFrame, *, ready: Iterable[ParticipantId] = ()) -> None:
        self.faults = FaultPlan()
        self.store = MemoryStore(faults=self.faults)
        self.clock = ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC))
        audit = AuditLog(sign=partial(COORDINATOR_KEY.sign, "audit"), clock=self.clock)
        record = JobRecord(JOB, frame.spec.to_bytes(), "olga", "today", JobState.RUNNING, "")
        entry = audit.entry("job_submitted", {})
        self.store.submit_job(record, entry)
        audit.accept(entry)
        rest = _Rest()
        self.around = Surroundings(
            store=self.store,
            audit=audit,
            outbox=rest,
            folds=rest,
            seal=coordinator_seal,
            clock=self.clock,
            observer=rest,
        )
        self.frame = frame
        self.driver = RoundDriver.plan(frame, earlier=(), present=MEMBERS, around=self.around)
        for member in ready:
            self.driver.handle(Replied(member, Ready(frame.key, plan_digest(frame.plan), fits=True)))
        self.up_s = 0.0

    def live(self, seconds: float) -> None:
        """The process is up for so long, or until the round is over."""
        end = self.up_s + seconds
        while not self.driver.finished and self.up_s < end:
            step = min(end - self.up_s, max(0.0, self.driver.next_tick - self.clock.monotonic()))
            self.clock.advance(step)
            self.up_s += step
            if self.driver.next_tick <= self.clock.monotonic():
                self.driver.tick()

    def restart(self, down_s: float) -> None:
        self.clock.advance(down_s)
        self.driver = RoundDriver.resume(self.frame, earlier=(), around=self.around)

    @property
    def noted(self) -> TimerNote | None:
        return self.store.timer_of(self.frame.key)


def in_phase(phase: str, **policy: Any) -> _Lives:
    """A round that waits in this phase, with DEADLINE_S."""
    frame = make_frame(deadline_s=DEADLINE_S, upload_deadline_s=DEADLINE_S, attempts=1, **policy)
    lives = _Lives(frame, ready=MEMBERS if phase == "uploading" else ())
    assert phase_name(lives.driver.state) == phase
    return lives


CRASHES = st.lists(st.tuples(st.floats(0.0, 2 * DEADLINE_S), st.floats(0.0, 1e6), st.booleans()), max_size=12)


@settings(max_examples=200, deadline=None)
@given(phase=st.sampled_from(("recruiting", "uploading")), crashes=CRASHES)
def test_no_round_is_without_an_outcome_past_its_deadline(phase: str, crashes: list[tuple[float, float, bool]]) -> None:
    """Of a wait with deadline D and n restarts in it: D <= up time <= D + n * (window + time between two notes)."""
    lives, restarts, left = in_phase(phase), 0, DEADLINE_S
    for up_s, down_s, well in crashes:
        lives.live(up_s)
        if lives.driver.finished:
            break
        if well:
            lives.driver.note_timer()
        noted = lives.noted
        assert noted is None or noted.remaining_s <= left, "a note of one wait only falls"
        left = left if noted is None else noted.remaining_s
        lives.restart(down_s)
        restarts += 1
    lives.live(DEADLINE_S + RECONNECT_WINDOW_S + SLACK_S)
    assert lives.driver.finished
    assert lives.up_s >= DEADLINE_S - SLACK_S
    assert lives.up_s <= DEADLINE_S + restarts * (RECONNECT_WINDOW_S + TIMER_NOTE_S) + SLACK_S


@pytest.mark.parametrize(("phase", "name"), [("recruiting", "0 recruiting"), ("uploading", "1 uploading")])
def test_a_wait_goes_on_with_what_was_left(phase: str, name: str) -> None:
    lives = in_phase(phase)
    lives.live(43.0)
    assert lives.noted == TimerNote(name, 60.0), "the last note is of 40 s"
    lives.restart(1e5)
    assert lives.driver.deadline == lives.clock.monotonic() + 60.0 + RECONNECT_WINDOW_S
    lives.live(RECONNECT_WINDOW_S)
    assert lives.noted == TimerNote(name, 60.0), "the window is not charged"
    lives.live(TIMER_NOTE_S)
    assert lives.noted is not None
    assert lives.noted.remaining_s == pytest.approx(60.0 - TIMER_NOTE_S)


def test_a_process_that_ends_well_notes_the_very_second() -> None:
    lives = in_phase("recruiting")
    lives.live(43.0)
    lives.driver.note_timer()
    assert lives.noted == TimerNote("0 recruiting", 57.0)


def test_a_wait_that_the_note_does_not_name_starts_afresh() -> None:
    lives = in_phase("recruiting")
    lives.live(43.0)
    for member in MEMBERS:
        lives.driver.handle(Replied(member, Ready(lives.frame.key, plan_digest(lives.frame.plan), fits=True)))
    lives.restart(1.0)
    assert isinstance(lives.driver.state, Uploading)
    assert lives.driver.deadline == lives.clock.monotonic() + DEADLINE_S + RECONNECT_WINDOW_S


def test_a_note_never_gives_a_wait_more_than_its_deadline() -> None:
    state = restore(make_frame(deadline_s=10.0), [], 50.0, TimerNote("0 recruiting", 1e9)).state
    assert next_deadline(state) == 50.0 + 10.0 + RECONNECT_WINDOW_S


def test_a_fold_has_no_timer() -> None:
    seen = Transcript()
    seen.to_uploading(*MEMBERS)
    seen.uploads(*MEMBERS)
    assert seen.phase == "folding"
    assert note_of(seen.state, None, seen.now) is None


# --- the grace --------------------------------------------------------------------------------------------------------


def test_the_grace_does_not_begin_before_members_could_come_back() -> None:
    frame = make_frame(quorum=3, grace_s=5.0)
    seen = Transcript(frame=frame)
    seen.now, seen.state = 1000.0, restore(frame, [], 1000.0, None).state
    for member in (A, B, C):
        seen.hear(Connected(member))
        seen.hear(seen.says_ready(member))
    assert isinstance(seen.state, Gracing)
    assert next_deadline(seen.state) == 1000.0 + RECONNECT_WINDOW_S + 5.0
    seen.now += RECONNECT_WINDOW_S + 4.0
    assert seen.hear(Tick()) == []
    seen.hear(Connected(D))
    assert seen.hear(seen.says_ready(D))[0] == "journal attempt 1 with a b c d"


def test_with_everybody_back_nothing_is_waited_for() -> None:
    frame = make_frame(quorum=3, grace_s=5.0)
    seen = Transcript(frame=frame)
    seen.now, seen.state = 1000.0, restore(frame, [], 1000.0, None).state
    lines: list[str] = []
    for member in MEMBERS:
        seen.hear(Connected(member))
        lines = seen.hear(seen.says_ready(member))
    assert lines[0] == "journal attempt 1 with a b c d"


def test_a_grace_that_ends_with_a_withdrawal_begins_as_late_the_next_time() -> None:
    frame = make_frame(quorum=3, grace_s=5.0)
    seen = Transcript(frame=frame)
    seen.now, seen.state = 1000.0, restore(frame, [], 1000.0, None).state
    for member in (A, B, C):
        seen.hear(Connected(member))
        seen.hear(seen.says_ready(member))
    seen.hear(seen.withdraws(C))
    assert isinstance(seen.state, Recruiting)
    assert seen.state.grace_from == 1000.0 + RECONNECT_WINDOW_S


# --- a store that fails -----------------------------------------------------------------------------------------------


def test_a_note_that_fails_hurts_no_round_and_is_said_once() -> None:
    lives = in_phase("recruiting")
    for good in range(4):
        lives.faults.inject("note_timer", Fault.FAILED_NOT_PERSISTED, after=good)
    with capture_logs() as lines:
        lives.live(23.0)
    assert [line["event"] for line in lines] == ["timer_not_noted"]
    assert lines[0]["wait"] == "0 recruiting"
    assert lives.store.timer_of(lives.frame.key) is None
    lives.live(5.0)
    assert lives.noted == TimerNote("0 recruiting", 75.0), "it is tried again each time"
    lives.faults.inject("note_timer", Fault.FAILED_NOT_PERSISTED)
    with capture_logs() as lines:
        lives.live(5.0)
    assert [line["event"] for line in lines] == ["timer_not_noted"], "a new trouble is said again"
    lives.live(DEADLINE_S)
    assert lives.driver.finished


def test_a_note_of_which_nobody_knows_ends_the_process() -> None:
    lives = in_phase("recruiting")
    lives.faults.inject("note_timer", Fault.FAILED_BUT_PERSISTED)
    with pytest.raises(DurabilityUnknown):
        lives.live(5.0)
