"""How single fields are read: presence, limits and closed lists. Every refusal here is a WireError.

proto3 gives an absent scalar the value zero; so each required one is `optional` in the .proto and its absence is
refused here, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import DecodeError, Message

from shared.errors import WireError
from shared.ids import (
    AttemptKey,
    Digest,
    RoundKey,
    parse_attempt_number,
    parse_job_id,
    parse_round_number,
)
from shared.pb.v1 import session_pb2 as pb
from shared.reasons import AbortReason, AttemptAbortReason, ConsentRule, DropReason, Purpose, RefusalReason

CONTROL_MAX_BYTES = 4 * 1024 * 1024  # the largest, a share delivery to one of 1,000 members, has 780 KiB
TEXT_MAX_CHARS = 1024
DURATION_MAX_S = 366 * 24 * 3600.0

M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

_WIRE_ENUMS: dict[type[StrEnum], tuple[EnumTypeWrapper, str]] = {
    AbortReason: (pb.AbortReason, "ABORT_REASON_"),
    AttemptAbortReason: (pb.AttemptAbortReason, "ATTEMPT_ABORT_REASON_"),
    ConsentRule: (pb.ConsentRule, "CONSENT_RULE_"),
    DropReason: (pb.DropReason, "DROP_REASON_"),
    Purpose: (pb.Purpose, "PURPOSE_"),
    RefusalReason: (pb.RefusalReason, "REFUSAL_REASON_"),
}


def parse(message_type: type[M], data: bytes | memoryview, *, limit: int = CONTROL_MAX_BYTES) -> M:
    """Parse protobuf bytes. Unknown fields are kept out of our values but do not make a message invalid."""
    if len(data) > limit:
        raise WireError(f"a {message_type.__name__} has at most {limit} bytes, got {len(data)}")
    message = message_type()
    try:
        message.ParseFromString(bytes(data))
    except DecodeError:
        raise WireError(f"the bytes are not a {message_type.__name__}") from None
    return message


def need(message: Message, *names: str) -> None:
    """Refuse a message in which one of these fields is absent."""
    for name in names:
        if not message.HasField(name):
            raise WireError(f"{type(message).__name__}.{name} is missing")


def digest(message: Message, name: str) -> Digest:
    """A required digest."""
    need(message, name)
    return checked(message, name, Digest)


def checked(message: Message, name: str, parser: Callable[[Any], T]) -> T:
    """Apply a parser that raises ValueError to one field."""
    try:
        return parser(getattr(message, name))
    except ValueError as error:
        raise WireError(f"{type(message).__name__}.{name}: {error}") from None


def exactly(message: Message, name: str, count: int) -> bytes:
    """A required field of exactly `count` bytes."""
    need(message, name)
    value = bytes(getattr(message, name))
    if len(value) != count:
        raise WireError(f"{type(message).__name__}.{name} has {count} bytes, got {len(value)}")
    return value


def text(message: Message, name: str, *, limit: int = TEXT_MAX_CHARS) -> str:
    """A required text of at most `limit` characters."""
    need(message, name)
    value = getattr(message, name)
    if len(value) > limit:
        raise WireError(f"{type(message).__name__}.{name} has at most {limit} characters, got {len(value)}")
    return str(value)


def duration_s(message: Message, name: str) -> float:
    """A required duration in seconds: finite, positive, at most a year."""
    need(message, name)
    value = float(getattr(message, name))
    if not (math.isfinite(value) and 0 < value <= DURATION_MAX_S):
        raise WireError(f"{type(message).__name__}.{name} is a duration in (0, {DURATION_MAX_S:.0f}] s, got {value}")
    return value


def few(message: Message, name: str, limit: int) -> Sequence[Any]:
    """A repeated field with at most `limit` elements."""
    values: Sequence[Any] = getattr(message, name)
    if len(values) > limit:
        raise WireError(f"{type(message).__name__}.{name} has at most {limit} elements, got {len(values)}")
    return values


def round_key(message: Message) -> RoundKey:
    """The required field `key`."""
    need(message, "key")
    key = getattr(message, "key")  # noqa: B009 - the generated classes share the field, not a type
    need(key, "job_id", "round")
    return RoundKey(checked(key, "job_id", parse_job_id), checked(key, "round", parse_round_number))


def attempt_key(message: Message) -> AttemptKey:
    """The required fields `key` and `attempt`."""
    key = round_key(message)
    need(message, "attempt")
    return AttemptKey(key, checked(message, "attempt", parse_attempt_number))


def pb_key(key: RoundKey) -> pb.RoundKey:
    return pb.RoundKey(job_id=key.job, round=key.number)


def from_wire(message: Message, name: str, enum: type[E]) -> E:
    """A required member of a closed list; a number that this version does not know is refused."""
    need(message, name)
    number = getattr(message, name)
    wrapper, prefix = _WIRE_ENUMS[enum]
    try:
        return enum(wrapper.Name(number).removeprefix(prefix).lower())
    except ValueError:
        raise WireError(f"{type(message).__name__}.{name}: {number} is no known {enum.__name__}") from None


def to_wire(value: StrEnum) -> Any:
    """The wire's number for a member of a closed list."""
    wrapper, prefix = _WIRE_ENUMS[type(value)]
    return wrapper.Value(prefix + value.value.upper())
