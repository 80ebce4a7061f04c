"""The silo's own record of what left it: which job and round, how many bytes, when, under which digest.

An answer for a privacy officer, on disk beside the journal. Three lines for an upload: before its first byte (so many
bytes may leave); when all of it left, with the digest of exactly that, which the silo is about to sign; and when the
coordinator acknowledged it. One that has no second line was cut off, refused, or is on its way. One that has no third
may be in a result all the same, since the round's end can come before the acknowledgement. Of what was measured on the
silo's data there is nothing here.

The file is for reading; nothing is decided by it. So a disk that refuses a line costs that line, with a warning in the
log (`sent_not_recorded`), and not the round; and a line that a crash cut is passed over. Its size is bounded: a full
file takes the place of the one before it. The daemon's event loop writes, as it does to the journal; who reads opens
it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from shared.clock import Clock
from shared.ids import AttemptKey, Digest
from shared.job import canonical_json

SENT_FILE = "sent.jsonl"
BEFORE_SUFFIX = ".before"
FILE_MAX_BYTES = 4 * 1024 * 1024  # more than 10,000 uploads in each of the two files
READ_BYTES = 128 * 1024  # at the end of the file: enough for what a page shows

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """One upload."""

    job: str
    round: int
    attempt: int
    protection: str
    """`masked` or `plain`."""
    size: int
    """Bytes of the update as it is sent."""
    began_at: str
    """RFC 3339, UTC; of one that was begun again after a restart, the last time."""
    left_at: str = ""
    """Empty while not all of it left."""
    update: str = ""
    """The digest that stands in the signed commitment; with `left_at`."""
    acknowledged_at: str = ""
    """Empty while the coordinator has not acknowledged it."""


class SentRecord:
    """The file."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._path = folder / SENT_FILE
        self._clock = clock

    def began(self, attempt: AttemptKey, size: int, *, protection: str) -> None:
        """Before the first byte. Never raises."""
        self._note({**_names(attempt), "began_at": self._now(), "size": size, "protection": protection})

    def left(self, attempt: AttemptKey, update: Digest) -> None:
        """All of it left. Never raises."""
        self._note({**_names(attempt), "left_at": self._now(), "update": str(update)})

    def acknowledged(self, attempt: AttemptKey) -> None:
        """The coordinator says that it has it. Never raises."""
        self._note({**_names(attempt), "acknowledged_at": self._now()})

    def last(self, count: int) -> tuple[Sent, ...]:
        """The newest first. What cannot be read is left out."""
        found: dict[tuple[str, int, int], Sent] = {}
        for line in self._lines():
            key = (line["job"], line["round"], line["attempt"])
            known = found.pop(key, None)
            made = _read(line, known)
            if made is not None:
                found[key] = made
        return tuple(list(found.values())[: -count - 1 : -1])

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="seconds")

    def _note(self, facts: Mapping[str, object]) -> None:
        try:
            if self._path.exists() and self._path.stat().st_size >= FILE_MAX_BYTES:
                self._path.replace(self._path.with_name(SENT_FILE + BEFORE_SUFFIX))
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a crash in the middle of a line
                os.write(descriptor, (b"\n" if cut else b"") + canonical_json(facts) + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("sent_not_recorded", detail=str(error), **{name: facts[name] for name in ("job", "round")})

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in (self._path.with_name(SENT_FILE + BEFORE_SUFFIX), self._path):
            for line in _tail(path).splitlines():
                try:
                    facts = json.loads(line)
                except (ValueError, RecursionError):  # half of it, after a crash
                    continue
                if isinstance(facts, dict) and _has(facts, _KEY):
                    yield facts


_KEY: Mapping[str, type] = {"job": str, "round": int, "attempt": int}
_BEGAN: Mapping[str, type] = {"began_at": str, "size": int, "protection": str}
_LEFT: Mapping[str, type] = {"left_at": str, "update": str}
_ACKNOWLEDGED: Mapping[str, type] = {"acknowledged_at": str}


def _names(attempt: AttemptKey) -> dict[str, object]:
    return {"job": attempt.round.job, "round": attempt.round.number, "attempt": attempt.attempt}


def _fits(value: object, kind: type) -> bool:
    return type(value) is kind


def _read(line: Mapping[str, Any], known: Sent | None) -> Sent | None:
    """What is known of an upload after this line."""
    if _has(line, _BEGAN):
        return Sent(**{name: line[name] for name in (*_KEY, *_BEGAN)})
    for facts in (_LEFT, _ACKNOWLEDGED):
        if known is not None and _has(line, facts):
            return replace(known, **{name: line[name] for name in facts})
    return known


def _has(line: Mapping[str, Any], facts: Mapping[str, type]) -> bool:
    return all(_fits(line.get(name), kind) for name, kind in facts.items())


def _tail(path: Path) -> bytes:
    """Whole lines at the end of a file, as many as a page needs; nothing of one that is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - READ_BYTES))
            data = file.read(READ_BYTES)
    except OSError:
        return b""
    return data.partition(b"\n")[2] if start else data
