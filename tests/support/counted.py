"""A counter of bytes, as a test reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counted:
    """Implements `participant.rpc.counting.ByteCounter`."""

    sent_by_kind: Counter[str] = field(default_factory=Counter)
    received_by_kind: Counter[str] = field(default_factory=Counter)

    def sent(self, kind: str, count: int) -> None:
        self.sent_by_kind[kind] += count

    def received(self, kind: str, count: int) -> None:
        self.received_by_kind[kind] += count
