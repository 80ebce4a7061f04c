"""A picture of a moment, kept for a second."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from shared.clock import ManualClock
from shared.pages import remembered
from shared.pages.remembered import KEPT_S, Remembered


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=datetime(2026, 11, 29, tzinfo=UTC))


def test_it_is_taken_once_a_second_for_each_key(clock: ManualClock) -> None:
    taken: list[str] = []

    def take(key: str) -> int:
        taken.append(key)
        return len(taken)

    pictures = Remembered(take, clock=clock)
    assert [pictures.get(key) for key in ("a", "b", "a", "b")] == [1, 2, 1, 2]
    clock.advance(KEPT_S)
    assert pictures.get("a") == 3
    assert len(pictures._kept) == 1, "what is old is not kept"


def test_a_failure_is_not_kept(clock: ManualClock) -> None:
    answers: list[ValueError | int] = [ValueError("not now"), 7]

    def take(_: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    pictures = Remembered(take, clock=clock)
    with pytest.raises(ValueError, match="not now"):
        pictures.get("a")
    assert pictures.get("a") == 7


def test_many_readers_take_one_picture(clock: ManualClock) -> None:
    begun, go_on, taken = threading.Event(), threading.Event(), []

    def take(key: str) -> int:
        taken.append(key)
        begun.set()
        go_on.wait()
        return len(taken)

    pictures = Remembered(take, clock=clock)
    answers: list[int] = []
    readers = [threading.Thread(target=lambda: answers.append(pictures.get("a"))) for _ in range(8)]
    for reader in readers:
        reader.start()
    begun.wait()
    go_on.set()
    for reader in readers:
        reader.join()
    assert (answers, taken) == ([1] * 8, ["a"])


def test_nobody_waits_for_ever_behind_a_look_that_hangs(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "TURN_S", 0.01)
    begun, go_on = threading.Event(), threading.Event()

    def take(_: str) -> int:
        begun.set()
        go_on.wait()
        return 1

    pictures = Remembered(take, clock=clock)
    hanging = threading.Thread(target=pictures.get, args=("a",))
    hanging.start()
    begun.wait()
    with pytest.raises(TimeoutError):
        pictures.get("a")
    go_on.set()
    hanging.join()
