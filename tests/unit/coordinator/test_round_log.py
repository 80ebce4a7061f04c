"""What the coordinator's log says of a round: each phase once, and the end with its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from structlog.testing import capture_logs

from coordinator.round.machine import begin
from coordinator.round.phases import RoundState
from coordinator.round_log import RoundLog
from shared.ids import RoundKey
from shared.reasons import Purpose
from tests.support.rounds import KEY, make_frame


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
