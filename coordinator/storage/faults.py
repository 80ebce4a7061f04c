"""Failures on order: the twins of every write, for the in-memory storage and for tests of the real one.

A write can fail in three ways that a caller must tell apart, and the caller sees only two of them. That is the point:
`DurabilityUnknown` is raised both when the write is on disk and when it is not, so code that guesses is found out.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from shared.errors import DurabilityUnknown, StorageError

T = TypeVar("T")


class Fault(StrEnum):
    """How a call fails."""

    FAILED_NOT_PERSISTED = "failed_not_persisted"  # StorageError; nothing changed. The only one that a read can have
    FAILED_BUT_PERSISTED = "failed_but_persisted"  # DurabilityUnknown; it is on disk
    FAILED_UNKNOWN_NOT_PERSISTED = "failed_unknown_not_persisted"  # DurabilityUnknown; it is not on disk


class FaultPlan:
    """Which coming call of which verb fails, and how. Each planned fault strikes once."""

    def __init__(self) -> None:
        self._planned: dict[str, list[tuple[int, Fault]]] = {}

    def inject(self, verb: str, fault: Fault, *, after: int = 0) -> None:
        """Let the call of `verb` fail that comes after `after` good ones."""
        self._planned.setdefault(verb, []).append((after, fault))

    def take(self, verb: str) -> Fault | None:
        """Count one call of `verb`; the fault that strikes it, if any."""
        waiting = self._planned.get(verb)
        if not waiting:
            return None
        struck = next((fault for calls_left, fault in waiting if calls_left == 0), None)
        self._planned[verb] = [(calls_left - 1, fault) for calls_left, fault in waiting if calls_left > 0]
        return struck

    def done(self, verb: str) -> None:
        """A write of `verb` is done. Nothing happens here; a plan that also ends processes does it at this moment."""


class ProcessLife:
    """What one process may still do with its storage: everything, only read, or nothing."""

    def __init__(self, faults: FaultPlan) -> None:
        self.faults = faults
        self._unknown = False
        self._ended = False

    def end(self) -> None:
        """The process is gone: whatever of it is still called belongs to no living process."""
        self._ended = True

    def read(self, verb: str) -> None:
        """Admit a read of `verb`. Raises StorageError when a fault was planned."""
        self._check_alive(verb)
        if self.faults.take(verb) is not None:
            raise StorageError(f"{verb}: the read failed (planned)")

    def write(self, verb: str, apply: Callable[[], T]) -> T:
        """Perform a write, or fail it as planned. `apply` changes either everything or nothing."""
        self._check_alive(verb)
        if self._unknown:
            raise DurabilityUnknown(f"{verb}: an earlier write has an unknown fate; this process must end")
        fault = self.faults.take(verb)
        if fault is Fault.FAILED_NOT_PERSISTED:
            raise StorageError(f"{verb}: the write failed and changed nothing (planned)")
        if fault is None:
            result = apply()
            self.faults.done(verb)
            return result
        self._unknown = True
        if fault is Fault.FAILED_BUT_PERSISTED:
            apply()
        raise DurabilityUnknown(f"{verb}: the write failed and may be on disk (planned)")

    def _check_alive(self, verb: str) -> None:
        if self._ended:
            raise RuntimeError(f"{verb} was called by a process that has crashed")
