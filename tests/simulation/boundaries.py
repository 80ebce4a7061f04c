"""Where a process may die: right before and right after each call that has an effect outside of it.

A boundary is a call of storage (of each verb), a word that is sent, a piece of work that is begun or ended. The faults
of `coordinator.storage.faults` let such a call fail; here the process is killed at it, so that no handler of its own
runs any more. Storage announces its calls by itself (`FaultPlan.take` and `done`), the rest is put `around`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from coordinator.storage.faults import Fault, FaultPlan
from shared.errors import DurabilityUnknown


class Died(BaseException):
    """The process was killed. Of no class that a component may catch."""


ENDS = (DurabilityUnknown, Died)
"""What ends a process."""


class Death(StrEnum):
    """A kill at a call."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens at the `index`-th call (from 0) of a verb."""

    verb: str
    index: int
    how: Fault | Death

    def __str__(self) -> str:
        return f"{self.verb}[{self.index}] {self.how}"


class Boundaries(FaultPlan):
    """The fault plan of one machine, through all lives of its process. Each strike and each death comes once."""

    def __init__(self, strike: Strike | None = None) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.writes: set[str] = set()
        """Verbs that were seen to be done: what only reads has no moment after it."""
        self.struck = False
        self._strike = strike
        self._left: int | None = None

    def die_after(self, boundaries: int) -> None:
        """Let the process die once it has passed so many boundaries more."""
        self._left = boundaries

    def forget(self) -> None:
        """Nothing that is planned happens any more."""
        self._planned.clear()
        self._strike = self._left = None

    def take(self, verb: str) -> Fault | None:
        index = self.calls[verb]
        self.calls[verb] += 1
        self._pass()
        if self._strike is not None and (verb, index) == (self._strike.verb, self._strike.index):
            match self._strike.how:
                case Fault() as fault:
                    self._strike, self.struck = None, True
                    return fault
                case Death.BEFORE:
                    self._end()
                case Death.AFTER:
                    pass
        return super().take(verb)

    def done(self, verb: str) -> None:
        self.writes.add(verb)
        strike = self._strike
        if (
            strike is not None
            and strike.how is Death.AFTER
            and (verb, self.calls[verb] - 1)
            == (
                strike.verb,
                strike.index,
            )
        ):
            self._end()
        self._pass()

    @contextmanager
    def around(self, verb: str) -> Iterator[None]:
        """What is no storage, and cannot fail."""
        if self.take(verb) is not None:
            raise RuntimeError(f"{verb} has no way to fail")
        yield
        self.done(verb)

    def _pass(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._end()

    def _end(self) -> None:
        self._strike = self._left = None
        self.struck = True
        raise Died
