"""Protobuf messages by hand, field by field: what the tests of limits change one field of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.pb.v1 import session_pb2 as pb

KEY = {"job_id": "heart", "round": 1}
DIGEST = bytes(32)
ENVELOPE: dict[str, Any] = {"payload": b"", "signature": bytes(64), "signer": 0}

Write = Callable[..., bytes]
"""Makes the bytes of a message, with the fields that it is given changed."""


def writer(message: type[Any], fields: dict[str, Any]) -> Write:
    """Of a message by itself."""

    def write(**changed: Any) -> bytes:
        data: bytes = message(**fields | changed).SerializeToString()
        return data

    return write


def collection(name: str, message: type[Any], part: str) -> Write:
    """Of a frame with the signed parts that the coordinator collected."""

    def write(**changed: Any) -> bytes:
        fields: dict[str, Any] = {"key": KEY, "attempt": 1, part: [ENVELOPE]} | changed
        return pb.SessionResponse(**{name: message(**fields)}).SerializeToString()

    return write
