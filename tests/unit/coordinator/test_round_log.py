"""What the coordinator's log says of a round: each phase once, and the end with its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from structlog.testing import capture_logs

from coordinator.round.effects import AbortAsked
from coordinator.round.machine import begin
from coordinator.round.phases import RoundState
from coordinator.round_log import RoundLog
from shared.ids import RoundKey
from shared.reasons import AttemptAbortReason, Purpose
from tests.support.masked_silo import MaskedRound
from tests.support.rounds import KEY, A, B, make_frame, make_masked_frame


@dataclass
class Kept:
    """The next observer."""

    moves: int = 0
    ends: list[str] = field(default_factory=list)

    def moved(self, state: RoundState) -> None:
        self.moves += 1

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        self.ends.append(outcome)


def test_a_phase_is_logged_once_and_the_end_with_its_summary() -> None:
    kept = Kept()
    log = RoundLog(following=kept)
    state = begin(make_frame(), [], 0.0).state
    with capture_logs() as lines:
        log.moved(state)
        log.moved(state)
        log.finished(KEY, Purpose.TRAIN, "committed", {"survivors": ["hospital-a"], "dropped": {}})
    assert [line["event"] for line in lines] == ["round_moved", "round_finished"]
    assert lines[0]["phase"] == "recruiting"
    assert lines[1]["survivors"] == ["hospital-a"]
    assert kept == Kept(moves=2, ends=["committed"])


def test_who_leaves_an_attempt_is_named_once_with_its_reason() -> None:
    played = MaskedRound(make_masked_frame(attempts=2))
    log = RoundLog(following=Kept())
    with capture_logs() as lines:
        played.until("sharing")
        log.moved(played.state)
        played.tell(A, played.silos[A].leaves(AttemptAbortReason.BAD_ROSTER))
        log.moved(played.state)
        log.moved(played.state)
        played.tell(B, played.silos[B].leaves(AttemptAbortReason.BAD_ROSTER))
        log.moved(played.state)  # which is the next attempt's state: without two, the floor is out of reach
        played.until("sharing")
        played.tell(A, played.silos[A].leaves(AttemptAbortReason.EQUIVOCATION))
        log.moved(played.state)
        played.hear(AbortAsked())
        log.moved(played.state)
    left = [line for line in lines if line["event"] == "attempt_left"]
    assert [(line["attempt"], line["participant"], line["reason"]) for line in left] == [
        (1, A, "bad_roster"),
        (2, A, "equivocation"),
    ]
    assert [line["phase"] for line in lines if line["event"] == "round_moved"] == ["sharing", "advertising", "sharing"]
    assert log._left == {}
