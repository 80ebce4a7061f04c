"""One thread, in order; what must happen is done again; what nobody can know ends the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from coordinator import conducting
from coordinator.conducting import ConductorThread
from shared.clock import SystemClock
from shared.errors import AuditError, DurabilityUnknown, FederationError, StorageError, UnknownError


@dataclass
class _Rounds:
    """Something with a deadline."""

    next_tick: float = float("inf")
    ticks: list[str] = field(default_factory=list)
    ticked: threading.Event = field(default_factory=threading.Event)
    fails: list[Exception] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def tick(self) -> None:
        self.ticks.append(threading.current_thread().name)
        if self.fails:
            raise self.fails.pop()
        self.next_tick = float("inf")
        self.ticked.set()

    def note_timers(self) -> None:
        self.noted.append(threading.current_thread().name)
        if self.fails:
            raise self.fails.pop()


@dataclass
class _Heard:
    unknown: list[DurabilityUnknown] = field(default_factory=list)
    broken: list[FederationError] = field(default_factory=list)
    idle: list[Exception] = field(default_factory=list)
    bug: threading.Event = field(default_factory=threading.Event)
    idled: threading.Event = field(default_factory=threading.Event)

    def on_idle(self) -> None:
        if self.idle:
            raise self.idle.pop()
        self.idled.set()


@contextmanager
def _running(rounds: _Rounds | None = None, heard: _Heard | None = None) -> Iterator[ConductorThread]:
    heard = heard or _Heard()
    thread = ConductorThread(
        clock=SystemClock(),
        on_idle=heard.on_idle,
        on_unknown=heard.unknown.append,
        on_broken=heard.broken.append,
        on_bug=heard.bug.set,
    )
    thread.start(rounds or _Rounds())
    try:
        yield thread
    finally:
        assert thread.close(wait_s=5)


def _raise(error: Exception) -> None:
    raise error


def test_work_is_done_in_order_on_one_thread() -> None:
    done: list[int] = []
    names: set[str] = set()

    def work(number: int) -> int:
        done.append(number)
        names.add(threading.current_thread().name)
        return number

    async def ask(thread: ConductorThread) -> list[int]:
        return list(await asyncio.gather(*(thread.call(work, number) for number in range(100))))

    with _running() as thread:
        assert asyncio.run(ask(thread)) == list(range(100))
    assert done == list(range(100))
    assert names == {"conductor"}


def test_errors_go_to_whoever_asked() -> None:
    heard = _Heard()
    with _running(heard=heard) as thread:
        with pytest.raises(UnknownError):
            asyncio.run(thread.call(_raise, UnknownError("no")))
        with pytest.raises(StorageError):
            asyncio.run(thread.call(_raise, StorageError("full")))
        with pytest.raises(ZeroDivisionError):
            asyncio.run(thread.call(_raise, ZeroDivisionError()))
        assert heard.unknown == []
        with pytest.raises(DurabilityUnknown):
            asyncio.run(thread.call(_raise, DurabilityUnknown("who knows")))
        assert len(heard.unknown) == 1


def test_a_thread_without_an_event_loop_asks_too() -> None:
    gate = threading.Event()
    with _running() as thread:
        assert thread.ask(lambda: threading.current_thread().name).result() == "conductor"
        with pytest.raises(UnknownError):
            thread.ask(_raise, UnknownError("no")).result()
        thread.post(gate.wait)
        late = thread.ask(lambda: 7)
        with pytest.raises(TimeoutError):
            late.result(0.001)
        late.cancel()
        gate.set()
        assert thread.ask(lambda: 8).result() == 8
        assert late.cancelled(), "what nobody waits for is not done"


def test_what_is_no_longer_wanted_is_not_done() -> None:
    gate, done = threading.Event(), threading.Event()

    async def ask(thread: ConductorThread) -> None:
        thread.post(gate.wait)
        asked = asyncio.create_task(thread.call(done.set))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        gate.set()
        await thread.call(int)

    with _running() as thread:
        asyncio.run(ask(thread))
    assert not done.is_set()


def test_what_must_happen_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conducting, "RETRY_S", 0.01)
    failures: list[Exception] = [StorageError("full"), StorageError("still full")]
    done = threading.Event()

    def work() -> None:
        if failures:
            raise failures.pop()
        done.set()

    with _running() as thread:
        thread.post(work)
        assert done.wait(5)


def test_nothing_posted_stops_the_thread() -> None:
    heard = _Heard()
    with _running(heard=heard) as thread:
        thread.post(_raise, UnknownError("no such round"))
        thread.post(_raise, ZeroDivisionError())
        thread.post(_raise, DurabilityUnknown("who knows"))
        assert asyncio.run(thread.call(lambda: 7)) == 7
    assert len(heard.unknown) == 1


def test_deadlines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conducting, "RETRY_S", 0.01)
    rounds = _Rounds(SystemClock().monotonic() + 0.05, fails=[StorageError("full"), ZeroDivisionError()])
    with _running(rounds):
        assert rounds.ticked.wait(5)
    assert rounds.ticks == ["conductor"] * 3


def test_a_deadline_that_comes_with_work_is_kept_too() -> None:
    rounds = _Rounds()

    def plan() -> None:
        rounds.next_tick = 0.0

    with _running(rounds) as thread:
        thread.post(plan)
        assert rounds.ticked.wait(5)


def test_timers_are_noted_when_the_thread_ends_and_not_before() -> None:
    rounds = _Rounds()
    with _running(rounds) as thread:
        asyncio.run(thread.call(lambda: None))
        assert rounds.noted == []
    assert rounds.noted == ["conductor"]


def test_a_note_of_which_nobody_knows_ends_the_process_at_the_end_too() -> None:
    rounds, heard = _Rounds(), _Heard()
    with _running(rounds, heard):
        rounds.fails.append(DurabilityUnknown("fsync"))
    assert [str(error) for error in heard.unknown] == ["fsync"]


def test_the_audit_file_catches_up_when_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conducting, "RETRY_S", 0.01)
    heard = _Heard(idle=[StorageError("still full"), StorageError("full")])
    with _running(heard=heard):
        assert heard.idled.wait(5)
    assert heard.broken == []


def test_an_audit_file_that_somebody_changed_stops_the_coordinator() -> None:
    heard = _Heard(idle=[AuditError("line 3 differs")])
    with _running(heard=heard):
        pass
    assert [str(error) for error in heard.broken] == ["line 3 differs"]


def test_an_error_that_nothing_expects_ends_the_process_and_not_the_thread_alone() -> None:
    heard = _Heard(idle=[OSError("from somewhere below")])
    with _running(heard=heard):
        assert heard.bug.wait(5)


def test_listeners_hear_of_each_change() -> None:
    changes: list[int] = []
    with _running() as thread:
        thread.listen(lambda: changes.append(1))
        asyncio.run(thread.call(int))
        asyncio.run(thread.call(int))
    assert changes


def test_a_thread_that_never_started_is_closed() -> None:
    heard = _Heard()
    thread = ConductorThread(
        clock=SystemClock(),
        on_idle=heard.on_idle,
        on_unknown=heard.unknown.append,
        on_broken=heard.broken.append,
        on_bug=heard.bug.set,
    )
    assert thread.close(wait_s=0)


def test_what_waits_and_how_long_the_thread_worked_is_known() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def holds() -> None:
        begun.set()
        go_on.wait(10)

    with _running() as thread:
        thread.post(holds)
        assert begun.wait(10)
        for _ in range(3):
            thread.post(lambda: None)
        assert thread.waiting == 3
        before = thread.busy_s
        while thread.busy_s == before:
            pass  # it grows while one piece of work goes on
        go_on.set()
        asyncio.run(thread.call(lambda: None))
        assert thread.waiting == 0
    ended = thread.busy_s
    assert ended > before
    assert thread.busy_s == ended
