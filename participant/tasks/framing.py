"""Frames between the daemon and a task's process: four bytes of big-endian length, then that many bytes of JSON.

Both ends are ours, but the user's code lives in one of them and may write to any descriptor: a frame that is no frame
is a `FrameError` and ends the process. Models and updates never travel here; frames name their files.
"""

from __future__ import annotations

import json
import os
from typing import Any

FRAME_MAX_BYTES = 4 << 20  # the largest command carries a job's training table and a task's options
LENGTH_BYTES = 4


class FrameError(ValueError):
    """Bytes that are no frame. Never leaves `participant.tasks`."""


def encode_frame(message: dict[str, Any]) -> bytes:
    """One frame. Raises FrameError for what JSON cannot carry, or too much of it."""
    try:
        body = json.dumps(message, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise FrameError(f"not JSON: {error}") from None
    if len(body) > FRAME_MAX_BYTES:
        raise FrameError(f"a frame has at most {FRAME_MAX_BYTES} bytes, got {len(body)}")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_length(head: bytes) -> int:
    """The length that a frame's first bytes announce. Raises FrameError."""
    length = int.from_bytes(head, "big")
    if len(head) != LENGTH_BYTES or length > FRAME_MAX_BYTES:
        raise FrameError(f"a frame has at most {FRAME_MAX_BYTES} bytes, {head!r} announces {length}")
    return length


def decode_body(body: bytes) -> dict[str, Any]:
    """Raises FrameError unless `body` is one JSON object."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise FrameError(f"a frame is a JSON object, got {type(message).__name__}")
    return message


def read_frame(descriptor: int) -> dict[str, Any] | None:
    """The next frame of a blocking pipe; None at its end."""
    head = _read_exactly(descriptor, LENGTH_BYTES)
    if head is None:
        return None
    body = _read_exactly(descriptor, decode_length(head))
    return None if body is None else decode_body(body)


def write_frame(descriptor: int, message: dict[str, Any]) -> None:
    """Write one frame to a blocking pipe. Raises FrameError, or OSError when nobody reads."""
    frame = memoryview(encode_frame(message))
    while frame:
        frame = frame[os.write(descriptor, frame) :]


def _read_exactly(descriptor: int, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(descriptor, count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
