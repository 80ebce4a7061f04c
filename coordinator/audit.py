"""The audit log: what happened, in an order and in words that nobody can change afterwards without being seen.

*One entry is one line*: 128 hexadecimal digits of an Ed25519 signature, a space, and a body in canonical JSON with the
keys `seq`, `prev`, `time`, `kind` and `data`. `prev` is the hash of the body before (zeros in the first), so each line
vouches for all lines above it; the hash of the last body is the log's *head*, and whoever keeps a head can tell later
that nothing up to it was changed or cut. Without a head, a log whose last lines are missing still verifies: the
verifier says so. PROTOCOL.md, section on the audit log, has the format.

*The database is where entries live*, each in the transaction of what it records; the file that people read is a
projection of them. `AuditProjection` appends what is missing and nothing else. A byte that differs stops the
coordinator. A last line that is only half there is what a crash in the middle of an append leaves: it is a prefix of
the line that the database holds, so it is completed, not refused.

*`AuditLog`* makes entries and knows the head. It moves on only by `accept`, once the transaction is durable; an entry
whose transaction failed is forgotten and its number given to the next one.

A Merkle tree will take the place of the chain. What it must keep is here: `entry`, `accept`, `project`, `verify_lines`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Protocol

from coordinator.storage.interface import AuditEntry
from shared.clock import Clock
from shared.errors import AuditError, IdentityError
from shared.hashing import tagged_hash
from shared.identity import VerifyingKey
from shared.ids import DIGEST_BYTES, Digest
from shared.job import canonical_json

MESSAGE_TYPE = "audit"
GENESIS = Digest(bytes(DIGEST_BYTES))
"""What stands in the place of a head before the first entry."""

EntriesFrom = Callable[[int], Sequence[AuditEntry]]
"""`Store.audit_entries`: the entries from a number on, a page at a time, empty at the end."""

_LINE = re.compile(rb"([0-9a-f]{128}) ([^\n]*)")
_BODY_STARTS_AT = 129  # after the signature and the space
_FIELDS = {"seq", "prev", "time", "kind", "data"}
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One entry, read."""

    seq: int
    prev: Digest
    time: str
    kind: str
    data: dict[str, Any]
    head: Digest
    """The head of a log that ends with this entry."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A log that verifies."""

    size: int
    head: Digest
    """Of the last entry; keep it to prove later that nothing up to here was cut."""
    tail_proven: bool
    """A head was given and stands in the log: nothing up to it was cut."""
    entries_after_head: int
    """How many entries follow the given head; of these the last ones may have been cut. Zero without a head."""


class AuditLog:
    """Makes the entries of one log. Pure: the caller stores them."""

    def __init__(self, *, sign: Callable[[bytes], bytes], clock: Clock, last: AuditEntry | None = None) -> None:
        """`sign` is `SigningKey.sign` for the message type "audit"; `last` is the last durable entry, if any."""
        self._sign = sign
        self._clock = clock
        self._size = 0 if last is None else last.seq + 1
        self._head = GENESIS if last is None else head_of(last)
        self._head_time = "" if last is None else _time_of(last)

    @property
    def size(self) -> int:
        """How many entries are durable."""
        return self._size

    @property
    def head(self) -> Digest:
        return self._head

    @property
    def head_time(self) -> str:
        """When the last durable entry was made (RFC 3339, UTC); empty without one."""
        return self._head_time

    def entry(self, kind: str, data: Mapping[str, object]) -> AuditEntry:
        """The entry that would come next. It counts once it is accepted."""
        if not _KIND.fullmatch(kind):
            raise RuntimeError(f"the kind of an audit entry is snake_case, got {kind!r}")
        time = self._clock.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {"seq": self._size, "prev": str(self._head), "time": time, "kind": kind, "data": dict(data)}
        try:
            body = canonical_json(fields)
            same = canonical_json(json.loads(body)) == body
        except (TypeError, ValueError) as error:
            raise RuntimeError(f"the data of an audit entry is plain JSON: {error}") from None
        if not same:
            raise RuntimeError(f"the data of audit entry {kind} does not survive JSON: are all keys strings?")
        return AuditEntry(seq=self._size, line=self._sign(body).hex().encode() + b" " + body)

    def accept(self, entry: AuditEntry) -> None:
        """The transaction that stored `entry` is durable: go on from it."""
        body = json.loads(_body_of(entry))
        if entry.seq != self._size or body["prev"] != str(self._head):
            raise RuntimeError(f"the audit log goes on with entry {self._size}, got another entry {entry.seq}")
        self._head = head_of(entry)
        self._head_time = body["time"]
        self._size += 1


def resume(entries_from: EntriesFrom, *, sign: Callable[[bytes], bytes], clock: Clock) -> AuditLog:
    """The log that goes on where a store's entries end."""
    last: AuditEntry | None = None
    while page := entries_from(0 if last is None else last.seq + 1):
        last = page[-1]
    return AuditLog(sign=sign, clock=clock, last=last)


def head_of(entry: AuditEntry) -> Digest:
    """The head of a log that ends with this entry."""
    return tagged_hash(MESSAGE_TYPE, _body_of(entry))


def _time_of(entry: AuditEntry) -> str:
    """When one of our own entries was made (RFC 3339, UTC)."""
    return str(json.loads(_body_of(entry))["time"])


def _body_of(entry: AuditEntry) -> bytes:
    return entry.line[_BODY_STARTS_AT:]


class AppendOnly(Protocol):
    """The file of a projection (`storage.files.AppendFile`)."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer at the end."""
        ...

    def append(self, data: bytes) -> None:
        """Durable on return."""
        ...


class HeldFile:
    """A projection that is held in memory."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    @property
    def size(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def append(self, data: bytes) -> None:
        self.content += data


class AuditProjection:
    """Keeps a file equal to the entries of a store. The first call compares all of it, later ones what is new."""

    def __init__(self, *, file: AppendOnly) -> None:
        self._file = file
        self._seq = 0
        self._end = 0

    @property
    def published(self) -> int:
        """How many entries the file has, as far as this has looked."""
        return self._seq

    def project(self, entries_from: EntriesFrom) -> int:
        """Append the missing entries; how many there were. Raises AuditError when the file says anything else."""
        if self._file.size < self._end:
            raise AuditError(f"the audit file had {self._end} bytes and now has {self._file.size}: it was cut")
        added = 0
        while page := entries_from(self._seq):
            expected = b"".join(entry.line + b"\n" for entry in page)
            present = self._file.read_at(self._end, len(expected))
            if not expected.startswith(present):
                raise AuditError(_difference(page, present))
            if len(present) < len(expected):
                self._file.append(expected[len(present) :])
                added += len(page) - present.count(b"\n")
            self._end += len(expected)
            self._seq += len(page)
        if self._file.size > self._end:
            raise AuditError(
                f"the audit file has {self._file.size - self._end} bytes after line {self._seq}, where the database "
                "ends: was the database restored from an older backup?"
            )
        return added


def compare(entries_from: EntriesFrom, file: bytes) -> int:
    """Compare a store's entries with a file; how many of them the file still lacks. Raises AuditError.

    A running coordinator's file may lag by the entry being written; its next start adds what is missing.
    """
    return AuditProjection(file=HeldFile(file)).project(entries_from)


def _difference(page: Sequence[AuditEntry], present: bytes) -> str:
    start = 0
    for entry in page:
        expected = entry.line + b"\n"
        if not expected.startswith(present[start : start + len(expected)]):
            return (
                f"line {entry.seq + 1} of the audit file differs from the database: one of the two was changed. Keep "
                "both as they are; `consilo audit verify --log` says whether the file still bears its signatures"
            )
        start += len(expected)
    raise AssertionError("called without a difference")


def verify_lines(log: bytes | Iterable[bytes], *, verifying_key: VerifyingKey, head: Digest | None = None) -> Verified:
    """Verify a whole log: its bytes, or its lines with their line feeds (an open binary file).

    With a `head` kept from before, that head must be in the log. Raises AuditError with the line and the cause.
    """
    last, size, found_at = GENESIS, 0, -1
    for record in read_entries(log, verifying_key=verifying_key):
        last, size = record.head, record.seq + 1
        if last == head:
            found_at = record.seq
    if head is not None and found_at < 0:
        raise AuditError(
            f"no entry of this log ({size} entries, head {last}) has the head {head}: "
            "its tail was cut, or this is another log"
        )
    return Verified(
        size=size,
        head=last,
        tail_proven=head is not None,
        entries_after_head=0 if head is None else size - 1 - found_at,
    )


def read_entries(log: bytes | Iterable[bytes], *, verifying_key: VerifyingKey | None) -> Iterator[AuditRecord]:
    """The entries of a log in order, each checked before it is handed out; without a key, all but the signatures."""
    head = GENESIS
    for seq, line in enumerate(io.BytesIO(log) if isinstance(log, bytes) else log):
        try:
            record = _read_line(line, verifying_key)
            if record.seq != seq:
                raise AuditError(f"expected entry {seq}, found entry {record.seq}: lines were removed, added or moved")
            if record.prev != head:
                raise AuditError("it does not follow the line above: one of the two belongs to another log")
        except AuditError as error:
            raise AuditError(f"line {seq + 1}: {error}") from None
        head = record.head
        yield record


def verify_entry(entry: AuditEntry, *, verifying_key: VerifyingKey) -> AuditRecord:
    """One entry by itself: its form and its signature, not its place in the chain. Raises AuditError."""
    return _read_line(entry.line + b"\n", verifying_key)


def _read_line(line: bytes, verifying_key: VerifyingKey | None) -> AuditRecord:
    if not line.endswith(b"\n"):
        raise AuditError("it has no line feed at its end: it was cut, or written only half before a crash")
    parts = _LINE.fullmatch(line[:-1])
    if parts is None:
        raise AuditError("expected 128 lower-case hexadecimal digits, one space and a body")
    body = parts[2]
    if verifying_key is not None:
        try:
            verifying_key.verify(MESSAGE_TYPE, body, bytes.fromhex(parts[1].decode()))
        except IdentityError:
            raise AuditError("the signature does not verify: the line was changed, or another key signed it") from None
    try:
        fields = json.loads(body)
        canonical = canonical_json(fields)
    except (ValueError, RecursionError):
        raise AuditError("the body is not JSON") from None
    if canonical != body:
        raise AuditError("the body is not canonical JSON")
    return _record(fields, tagged_hash(MESSAGE_TYPE, body))


def _record(fields: Any, head: Digest) -> AuditRecord:
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise AuditError(f"the body has the keys {', '.join(sorted(_FIELDS))}, and no others")
    seq, prev, time, kind, data = (fields[name] for name in ("seq", "prev", "time", "kind", "data"))
    if type(seq) is not int or not isinstance(data, dict):
        raise AuditError("`seq` is an integer and `data` an object")
    if not (isinstance(time, str) and _TIME.fullmatch(time) and isinstance(kind, str) and _KIND.fullmatch(kind)):
        raise AuditError("`time` is RFC 3339 in UTC with milliseconds, `kind` is snake_case")
    try:
        previous = Digest.parse(prev) if isinstance(prev, str) else None
    except ValueError:
        previous = None
    if previous is None:
        raise AuditError("`prev` is 64 lower-case hexadecimal digits")
    return AuditRecord(seq=seq, prev=previous, time=time, kind=kind, data=data, head=head)
