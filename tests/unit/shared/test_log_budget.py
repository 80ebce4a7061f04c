"""What a peer can make us write is bounded, and what was left out is said."""

from __future__ import annotations

import io
import json

import pytest
import structlog
from structlog import DropEvent

from shared.log import configure_logging, log_context
from shared.log_budget import LINES_MAX, OTHERS, PEERS_MAX, TEXT_MAX_CHARS, WINDOW_S, LineBudget


class _Log:
    """A budget with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.budget = LineBudget(monotonic=lambda: self.now)

    def says(self, event: str, **fields: object) -> dict[str, object] | None:
        """The line as it is written, or None."""
        try:
            return dict(self.budget(None, "warning", {"event": event, **fields}))
        except DropEvent:
            return None

    def written(self, count: int, event: str, **fields: object) -> int:
        return sum(self.says(event, **fields) is not None for _ in range(count))


@pytest.mark.parametrize("name", ["peer", "participant"])
def test_a_peer_has_so_many_lines_a_minute(name: str) -> None:
    log = _Log()
    assert log.written(LINES_MAX + 500, "call_refused", **{name: "a"}) == LINES_MAX
    log.now = WINDOW_S - 1
    assert log.says("call_refused", **{name: "a"}) is None
    log.now = WINDOW_S
    assert log.says("call_refused", **{name: "a"}) == {"event": "call_refused", name: "a", "left_out": 501}
    assert log.says("call_refused", **{name: "a"}) == {"event": "call_refused", name: "a"}


def test_the_last_line_says_that_more_are_left_out() -> None:
    log = _Log()
    lines = [log.says("call_refused", peer="a") for _ in range(LINES_MAX)]
    assert [line is not None and "more" in line for line in lines] == [False] * (LINES_MAX - 1) + [True]


def test_one_peers_flood_hides_no_other_peer_and_no_other_event() -> None:
    log = _Log()
    log.written(LINES_MAX + 1, "call_refused", peer="a")
    assert log.says("call_refused", peer="b") is not None
    assert log.says("session_opened", peer="a") is not None


def test_many_alarms_of_one_kind_hide_none_of_another() -> None:
    log = _Log()
    assert log.written(LINES_MAX + 1, "alarm", peer="coordinator", what="repeated_total") == LINES_MAX
    assert log.says("alarm", peer="coordinator", what="another_history") is not None


def test_lines_that_name_nobody_are_all_written() -> None:
    assert _Log().written(10 * LINES_MAX, "round_moved", job="heart") == 10 * LINES_MAX


def test_many_peers_share_one_budget_in_the_end_and_the_table_does_not_grow() -> None:
    log = _Log()
    written = sum(log.written(1, "call_refused", peer=f"p{number}") for number in range(PEERS_MAX + 1000))
    assert written == PEERS_MAX + LINES_MAX
    assert len(log.budget._counts) == PEERS_MAX + 1
    assert ("call_refused", OTHERS) in log.budget._counts
    log.now = WINDOW_S  # all of them are quiet by now
    assert log.says("call_refused", peer="new") is not None
    assert len(log.budget._counts) == 1


def test_a_text_in_a_line_about_a_peer_is_cut() -> None:
    long = "x" * (TEXT_MAX_CHARS + 1)
    line = _Log().says("message_refused", peer="a", reason=long, detail=long[1:], bytes=7)
    assert line == {
        "event": "message_refused", "peer": "a", "reason": long[1:] + "...", "detail": long[1:], "bytes": 7
    }  # fmt: skip
    ours = _Log().says("round_moved", job="heart", reason=long)
    assert ours is not None
    assert ours["reason"] == long


def test_the_process_wide_log_has_the_budget_and_the_context_counts() -> None:
    stream = io.StringIO()
    configure_logging(style="json", level="info", stream=stream)
    with log_context(peer="spiffe://hearts.example/participant/a"):
        for _ in range(LINES_MAX + 10):
            structlog.get_logger().warning("call_refused")
    structlog.get_logger().warning("call_refused", peer="another")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == LINES_MAX + 1
    assert lines[-1]["peer"] == "another"
