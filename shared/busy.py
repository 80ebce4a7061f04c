"""How long a thread worked, for whoever asks from another one. It costs two readings of a clock for a piece of work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BusyTime:
    """One thread says when it begins and ends; any thread reads, and sees work that goes on as it grows."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._spent: tuple[float, float | None] = (0.0, None)
        """In the past, and since when again; replaced as a whole, so that nobody reads half of a change."""

    def begin(self) -> None:
        self._spent = (self._spent[0], self._monotonic())

    def end(self) -> None:
        self._spent = (self.seconds, None)

    @property
    def seconds(self) -> float:
        past, since = self._spent
        return past if since is None else past + self._monotonic() - since


class CountedThreads(ThreadPoolExecutor):
    """A pool that knows how many of its threads have work now."""

    def __init__(self, threads: int, *, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.threads = threads
        self._working: set[int] = set()  # a thread adds and takes away itself alone: nothing to lock

    @property
    def busy(self) -> int:
        return len(self._working)

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(self._run, work, *args, **kwargs)

    def _run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        me = threading.get_ident()
        self._working.add(me)
        try:
            return work(*args, **kwargs)
        finally:
            self._working.discard(me)
