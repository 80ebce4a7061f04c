"""Counting the bytes that this silo sends and is sent, where they pass."""

from __future__ import annotations

from typing import Protocol

CONTROL = "control"  # everything on a session, and the small calls
UPDATE = "update"
MODEL = "model"


class ByteCounter(Protocol):
    """Told of each frame, by kind."""

    def sent(self, kind: str, count: int) -> None: ...

    def received(self, kind: str, count: int) -> None: ...


class Uncounted:
    """For who looks whether a coordinator answers, and is no daemon."""

    def sent(self, _kind: str, _count: int) -> None: ...

    def received(self, _kind: str, _count: int) -> None: ...


UNCOUNTED = Uncounted()
