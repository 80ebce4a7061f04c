"""How long a thread worked, and how many of a pool have work."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from shared.busy import BusyTime, CountedThreads
from shared.clock import ManualClock


def test_work_that_goes_on_is_seen_as_it_grows() -> None:
    clock = ManualClock(start=datetime(2026, 11, 29, tzinfo=UTC))
    busy = BusyTime(monotonic=clock.monotonic)
    clock.advance(5)
    assert busy.seconds == 0
    busy.begin()
    clock.advance(2)
    assert busy.seconds == 2
    busy.end()
    clock.advance(5)
    busy.begin()
    clock.advance(1)
    assert busy.seconds == 3
    busy.end()
    busy.end()  # once more: nothing happens
    assert busy.seconds == 3


def test_threads_with_work_are_counted_and_those_that_failed_are_free_again() -> None:
    begun, go_on = threading.Barrier(3), threading.Event()

    def works() -> int:
        begun.wait(10)
        go_on.wait(10)
        return 7

    def fails() -> None:
        raise ValueError("no")

    with CountedThreads(4, name="test") as threads:
        futures = [threads.submit(works) for _ in range(2)]
        begun.wait(10)
        assert (threads.threads, threads.busy) == (4, 2)
        with pytest.raises(ValueError, match="no"):
            threads.submit(fails).result(10)
        go_on.set()
        assert [future.result(10) for future in futures] == [7, 7]
    assert threads.busy == 0
