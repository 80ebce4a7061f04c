"""The conductor's thread: everything that touches rounds, jobs and the store happens here, one thing after another.

Theory of operation. Work arrives in two ways. `call` is for those who wait for the answer (a stream, an operator):
errors go back to them. `post` is for what must happen and has nobody to wait for it (a session ended, a fold is done):
after a StorageError, which changed nothing, it is done again until it succeeds. Between two pieces of work the thread
lets rounds whose deadline is over go on, and when nothing waits it calls `on_idle`, which is where the audit file
catches up with the database, off the path of a message. Before it ends, the timers of open rounds are noted.

Two errors are not for whoever asked. After DurabilityUnknown nobody knows what is on disk, and nothing may be
acknowledged any more: `on_unknown` ends the process at once. What `on_idle` finds wrong (an audit file that somebody
changed) stops the coordinator: `on_broken`. An error that nothing here expects ends the process too (`on_bug`, after
its traceback is logged): a process with a dead conductor would keep its sessions and do nothing.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import structlog

from shared.busy import BusyTime
from shared.clock import Clock
from shared.errors import DurabilityUnknown, FederationError, StorageError

RETRY_S = 1.0  # between two tries of what must happen, and after a tick that failed
TICK_LEAST_S = 0.005  # a deadline that does not move must not take the whole thread

P = ParamSpec("P")
T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Ticking(Protocol):
    """What this thread drives (`coordinator.conductor.Conductor`)."""

    @property
    def next_tick(self) -> float: ...

    def tick(self) -> None: ...

    def note_timers(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Work:
    run: Callable[[], None]
    not_before: float


class ConductorThread:
    """Runs work for a conductor, in order of arrival."""

    def __init__(
        self,
        *,
        clock: Clock,
        on_idle: Callable[[], None],
        on_unknown: Callable[[DurabilityUnknown], None],
        on_broken: Callable[[FederationError], None],
        on_bug: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._busy = BusyTime(monotonic=clock.monotonic)
        self._on_idle = on_idle
        self._on_unknown = on_unknown
        self._on_broken = on_broken
        self._on_bug = on_bug
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._later: list[_Work] = []
        self._next_tick = 0.0
        self._ticking: Ticking | None = None
        self._listeners: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)

    def start(self, ticking: Ticking) -> None:
        """Go. From here on only this thread may touch `ticking`."""
        self._ticking = ticking
        self._thread.start()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` on this thread after each piece of work: something may have changed."""
        self._listeners.append(listener)

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` here and return what it returns. Whoever stops waiting before its turn takes it back."""
        return await asyncio.wrap_future(self.ask(work, *args, **kwargs))

    def ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """`call` for a thread that has no event loop. Whoever gives up cancels what is returned."""
        answer: Future[T] = Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                result = work(*args, **kwargs)
            except DurabilityUnknown as error:
                self._on_unknown(error)
                answer.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to whoever asked
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self._queue.put(_Work(run, 0.0))
        return answer

    def post(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run `work` here, again after each StorageError. From any thread; never raises."""

        def run() -> None:
            try:
                work(*args, **kwargs)
            except DurabilityUnknown as error:
                self._on_unknown(error)
            except StorageError as error:
                _log.warning("storage_failed", doing=getattr(work, "__name__", "work"), reason=str(error))
                self._later.append(_Work(run, self._clock.monotonic() + RETRY_S))
            except FederationError as error:
                _log.warning("refused", doing=getattr(work, "__name__", "work"), reason=str(error))
            except Exception:  # noqa: BLE001 - a bug in one event must not end all rounds; the line has its traceback
                _log.exception("internal_error", doing=getattr(work, "__name__", "work"))

        self._queue.put(_Work(run, 0.0))

    def close(self, *, wait_s: float) -> bool:
        """Finish what was asked until now, and stop. Whether that was done in time."""
        if self._ticking is None:
            return True
        self._queue.put(None)
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for their turn."""
        return self._queue.qsize()

    @property
    def busy_s(self) -> float:
        """How long this thread worked until now."""
        return self._busy.seconds

    # --- on the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._busy.begin()
        try:
            self._loop()
        except Exception:  # noqa: BLE001 - the last line of defence: a process whose conductor is dead only looks alive
            _log.exception("internal_error", doing="conductor")
            self._on_bug()
        finally:
            self._busy.end()

    def _loop(self) -> None:
        while True:
            try:
                work = self._wait()
            except queue.Empty:
                pass
            else:
                if work is None:
                    self._note_timers()
                    self._idle()
                    return
                work.run()
            self._run_due()

    def _wait(self) -> _Work | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            self._idle()
        due = self._due_in_s()
        if due <= 0:
            return self._queue.get_nowait()
        self._busy.end()
        try:
            return self._queue.get(timeout=min(due, threading.TIMEOUT_MAX))
        finally:
            self._busy.begin()

    def _run_due(self) -> None:
        now = self._clock.monotonic()
        due = [work for work in self._later if work.not_before <= now]
        self._later = [work for work in self._later if work.not_before > now]
        for work in due:
            work.run()
        if self._tick_at() <= now:
            self._tick(now)
        for listener in self._listeners:
            listener()

    def _tick(self, now: float) -> None:
        self._next_tick = now + TICK_LEAST_S
        assert self._ticking is not None  # noqa: S101 - the thread starts after it was set
        try:
            self._ticking.tick()
        except DurabilityUnknown as error:
            self._on_unknown(error)
        except StorageError as error:
            self._next_tick = now + RETRY_S
            _log.warning("storage_failed", doing="tick", reason=str(error))
        except Exception:  # noqa: BLE001 - as in `post`
            self._next_tick = now + RETRY_S
            _log.exception("internal_error", doing="tick")

    def _note_timers(self) -> None:
        assert self._ticking is not None  # noqa: S101 - as above
        try:
            self._ticking.note_timers()
        except DurabilityUnknown as error:
            self._on_unknown(error)

    def _idle(self) -> None:
        try:
            self._on_idle()
        except DurabilityUnknown as error:
            self._on_unknown(error)
        except StorageError as error:
            _log.warning("storage_failed", doing="audit_file", reason=str(error))
            self._later.append(_Work(self._idle, self._clock.monotonic() + RETRY_S))
        except FederationError as error:
            self._on_broken(error)

    def _tick_at(self) -> float:
        assert self._ticking is not None  # noqa: S101 - as above
        return max(self._ticking.next_tick, self._next_tick)

    def _due_in_s(self) -> float:
        at = min([self._tick_at(), *(work.not_before for work in self._later)])
        return at - self._clock.monotonic()
