"""Closed lists have the same members here and on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from shared.errors import WireError
from shared.pb.v1 import session_pb2 as pb
from shared.update import Encoding
from shared.wire.fields import _WIRE_ENUMS, from_wire, to_wire

# A message and its field in which each list travels.
CARRIERS: dict[str, tuple[Any, str]] = {
    "AbortReason": (pb.RoundAborted, "reason"),
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


def test_encodings_have_the_numbers_of_the_wire() -> None:
    assert {f"ENCODING_{member.name}": member.value for member in Encoding} | {"ENCODING_UNSPECIFIED": 0} == dict(
        pb.Encoding.items()
    )
