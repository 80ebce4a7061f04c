"""A small audit log to tamper with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from coordinator.audit import MESSAGE_TYPE, AuditLog
from coordinator.storage.interface import AuditEntry
from shared.clock import ManualClock
from shared.identity import SigningKey
from shared.secret import Secret

KEY = SigningKey.from_seed(Secret(bytes(range(32))))


def new_log(*, key: SigningKey = KEY, last: AuditEntry | None = None) -> AuditLog:
    clock = ManualClock(start=datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC))
    return AuditLog(sign=partial(key.sign, MESSAGE_TYPE), clock=clock, last=last)


def some_entries(count: int, *, key: SigningKey = KEY) -> list[AuditEntry]:
    log = new_log(key=key)
    entries = []
    for number in range(count):
        entries.append(log.entry("round_committed", {"job": f"heart-{number % 2}", "round": number, "who": "Ä\u2028b"}))
        log.accept(entries[-1])
    return entries


def as_file(entries: Sequence[AuditEntry]) -> bytes:
    return b"".join(entry.line + b"\n" for entry in entries)


def paged(entries: Sequence[AuditEntry], start: int) -> Sequence[AuditEntry]:
    """As `Store.audit_entries`, with small pages."""
    return entries[start : start + 3]
