"""Domain-separated hashing and signing input (secure-aggregation design 2.3; PROTOCOL.md section 2).

`H(s, p1, p2, ..) = SHA256(LP("fedsecagg/v1/" || s) || LP(p1) || LP(p2) || ..)` with `LP(x) = u32be(len(x)) || x`.
The length prefixes make the input unambiguous, and the tag keeps a hash made for one purpose from passing for another.
"""

from __future__ import annotations

import hashlib

from shared.ids import Digest

_PREFIX = b"fedsecagg/v1/"


def length_prefixed(data: bytes) -> bytes:
    """`LP(x)`: four bytes of big-endian length, then the bytes."""
    return len(data).to_bytes(4, "big") + data


def tag(label: str) -> bytes:
    """The domain separator for `label`."""
    return length_prefixed(_PREFIX + label.encode())


def tagged_hash(label: str, *parts: bytes) -> Digest:
    """`H(label, *parts)`."""
    running = hashlib.sha256(tag(label))
    for part in parts:
        running.update(length_prefixed(part))
    return Digest(running.digest())


def signing_input(message_type: str, payload: bytes) -> bytes:
    """What an Ed25519 key signs: the type is inside, so that one message's signature is never another's."""
    return tag("sig/" + message_type) + length_prefixed(payload)
