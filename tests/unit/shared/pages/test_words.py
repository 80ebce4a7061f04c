"""Numbers and texts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared.pages import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.0, "59 min 59 s"),
        (3 * 3600.0 + 5 * 60, "3 h 05 min"),
        (2 * 86400.0 + 7 * 3600, "2 d 7 h"),
        (float("inf"), "no limit"),
        (float("nan"), "no limit"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (10**15, "1000.0 TB")],
)
def test_sizes(count: int, said: str) -> None:
    assert words.size(count) == said


def test_what_nobody_sees_is_made_visible() -> None:
    assert words.plain("a\x00\x1b\u202e\u2066\u200b\ud800\x85b") == "a" + 7 * "\ufffd" + "b"
    assert words.plain("Zürich\tΩ 東京\nя") == "Zürich\tΩ 東京\nя"


def test_times_are_in_utc_and_what_is_no_time_stays() -> None:
    berlin = datetime(2026, 11, 29, 16, 0, tzinfo=timezone(timedelta(hours=1)))
    assert words.moment(datetime(2026, 11, 29, 15, 0, tzinfo=UTC)) == "2026-11-29 15:00:00 UTC"
    assert words.stamp(berlin.isoformat()) == "2026-11-29 15:00:00 UTC"
    assert words.stamp("2026-11-29T15:18:16.300Z") == "2026-11-29 15:18:16 UTC"
    assert [words.stamp(text) for text in ("", "soon", "2026-11-29")] == ["\N{EN DASH}", "soon", "2026-11-29"]


def test_counts() -> None:
    assert [words.count(number, "job", "jobs") for number in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert [words.metric(value) for value in (None, 0.12345)] == ["\N{EN DASH}", "0.1235"]
