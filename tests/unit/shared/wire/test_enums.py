"""Closed lists have the same members here and on the wire."""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from shared.errors import WireError
from shared.pb.v1 import session_pb2 as pb
from shared.protocol.messages import AnswerKind, CheckpointKind
from shared.update import Encoding
from shared.wire.fields import _WIRE_ENUMS, from_wire, to_wire

# A message and its field in which each list travels.
CARRIERS: dict[str, tuple[Any, str]] = {
    "AbortReason": (pb.RoundAborted, "reason"),
    "AttemptAbortReason": (pb.AttemptAbort, "reason"),
    "ConsentRule": (pb.Decline, "rule"),
    "DropReason": (pb.Withdraw, "reason"),
    "Purpose": (pb.RoundPlan, "purpose"),
    "RefusalReason": (pb.Refused, "reason"),
}


@pytest.mark.parametrize("enum", _WIRE_ENUMS, ids=lambda enum: enum.__name__)
def test_each_member_has_one_number_and_each_number_one_member(enum: type[StrEnum]) -> None:
    wrapper, prefix = _WIRE_ENUMS[enum]
    ours = {prefix + member.value.upper() for member in enum}
    assert ours == set(wrapper.keys()) - {f"{prefix}UNSPECIFIED"}
    assert sorted(to_wire(member) for member in enum) == list(range(1, len(enum) + 1))


@pytest.mark.parametrize("enum", _WIRE_ENUMS, ids=lambda enum: enum.__name__)
def test_each_member_travels_and_other_numbers_are_refused(enum: type[StrEnum]) -> None:
    message_type, field = CARRIERS[enum.__name__]
    for member in enum:
        assert from_wire(message_type(**{field: to_wire(member)}), field, enum) is member
    for number in (0, len(enum) + 1, -1):
        with pytest.raises(WireError, match=f"{number} is no known {enum.__name__}"):
            from_wire(message_type(**{field: number}), field, enum)


COUNTED: dict[str, tuple[type[IntEnum], Any]] = {
    "ANSWER_KIND_": (AnswerKind, pb.AnswerKind),
    "CHECKPOINT_KIND_": (CheckpointKind, pb.CheckpointKind),
    "ENCODING_": (Encoding, pb.Encoding),
}


@pytest.mark.parametrize("prefix", COUNTED)
def test_lists_that_are_counted_have_the_numbers_of_the_wire(prefix: str) -> None:
    enum, wrapper = COUNTED[prefix]
    ours = {f"{prefix}{member.name}": member.value for member in enum}
    assert ours | {f"{prefix}UNSPECIFIED": 0} == dict(wrapper.items())


# What has been said on the wire keeps its number for ever: a new member goes to the end, and none moves.
FROZEN: dict[str, tuple[str, ...]] = {
    "Purpose": ("TRAIN", "EVALUATE"),
    "Encoding": ("PLAIN", "U32", "U16", "U64"),
    "AbortReason": (
        "BELOW_QUORUM", "BELOW_FLOOR", "OPERATOR", "FOLD_FAILED", "UNOPENABLE", "TOTAL_REFUSED",
        "RESTORED", "DAMAGED",
    ),
    "DropReason": (
        "DECLINED", "TASK_UNAVAILABLE", "TASK_CRASHED", "TASK_DEADLINE", "TASK_INVALID", "NON_FINITE",
        "MANIFEST_MISMATCH", "MODEL_UNAVAILABLE", "DISK", "LOST", "ABSENT", "DISCONNECTED", "NOT_READY", "UPLOAD_LATE",
        "REVOKED", "OUT_OF_RANGE", "EXCHANGE_LATE", "ATTEMPT_LEFT", "NOT_ASKED",
    ),
    "ConsentRule": (
        "JOB_NOT_ALLOWED", "TASK_NOT_INSTALLED", "COHORT_TOO_SMALL", "NOT_A_MEMBER", "MASKING_REQUIRED",
        "JOBSPEC_CHANGED", "ROUND_REPLAYED", "TRAINING_TOO_LONG", "JOURNAL_DOUBTFUL", "NOT_IN_CONSORTIUM", "TWO_PARTY",
        "NO_COLLUSION", "COLLUSION_TOO_LOW", "SURVIVORS_TOO_FEW", "JOB_STOPPED", "JOB_NOT_APPROVED",
        "CONTROL_OUT_OF_BOUNDS",
    ),
    "AnswerKind": ("ADVERTISE_KEYS", "SHARE_KEYS", "CONSISTENCY_SIGNATURE", "UNMASK_SHARES", "ATTEMPT_ABORT"),
    "CheckpointKind": ("CHAIN",),
    "AttemptAbortReason": (
        "GONE", "EQUIVOCATION", "BAD_ATTEMPT", "BAD_ROSTER", "BAD_SHARES", "BAD_SURVIVORS", "REPEATED_TOTAL",
        "RESEND_DIFFERS",
    ),
    "RefusalReason": (
        "NO_COMMON_VERSION", "MISSING_CAPABILITY", "SIGNING_IDENTITY", "SUPERSEDED", "NOT_ALLOWED", "DRAINING",
        "SILENT", "PROTOCOL",
    ),
}  # fmt: skip


def test_every_list_of_the_session_is_frozen() -> None:
    assert set(FROZEN) == set(pb.DESCRIPTOR.enum_types_by_name)


@pytest.mark.parametrize("name", FROZEN)
def test_a_number_once_given_stays(name: str) -> None:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
    numbers = {f"{prefix}_{member}": number for number, member in enumerate(("UNSPECIFIED", *FROZEN[name]))}
    assert dict(getattr(pb, name).items()) == numbers
