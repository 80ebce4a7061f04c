"""Write the frozen vectors beside this file: `python tests/vectors/make_vectors.py`.

They are made here a second time, from hashlib, cryptography and a few bytes of protobuf laid by hand, and never by the
code that they test. A change of a vector is a change of the protocol: it needs a new version of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER = Path(__file__).parent


def prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def tagged(label: str, *parts: bytes) -> bytes:
    text = prefixed(b"fedsecagg/v1/" + label.encode())
    return hashlib.sha256(text + b"".join(prefixed(part) for part in parts)).digest()


def field(number: int, content: bytes | int) -> bytes:
    """One protobuf field: a number (below 128) or bytes (fewer than 128)."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def hashing() -> list[dict[str, object]]:
    cases: list[tuple[str, list[bytes]]] = [
        ("t1", [b"a", b"b"]),
        ("t1", [b"ab"]),
        ("t1", [b"ab", b""]),
        ("t1", []),
        ("", [b""]),
        ("jobspec", [b'{"name":"heart"}']),
        ("header", [bytes(300)]),
        ("update", [b"header", bytes(32), b"\xff" * 32]),
    ]
    return [
        {"label": label, "parts": [part.hex() for part in parts], "digest": tagged(label, *parts).hex()}
        for label, parts in cases
    ]


def shapes() -> dict[str, object]:
    """A layout and a manifest."""
    layout = tagged("layout", *(value.to_bytes(8, "big") for value in (1, 300_000, 6)))
    manifest = tagged("manifest", b"bias\0F32\x0010", "größe\0I64\0".encode(), b"weight\0BF16\x0010,30")
    return {
        "layout": {"encoding": 1, "parameters": 300_000, "statistics": 6, "digest": layout.hex()},
        "manifest": {
            "tensors": [["bias", "F32", [10]], ["größe", "I64", []], ["weight", "BF16", [10, 30]]],
            "digest": manifest.hex(),
        },
    }


def sealed() -> dict[str, object]:
    """A RoundAborted of round 7 of job `heart`, for the reason `operator` (3), signed by the coordinator."""
    seed, plan = bytes(range(32)), bytes(range(100, 132))
    key = Ed25519PrivateKey.from_private_bytes(seed)
    payload = field(1, field(1, b"heart") + field(2, 7)) + field(2, plan) + field(3, 3)
    signed = prefixed(b"fedsecagg/v1/sig/round-aborted") + prefixed(payload)
    signature = key.sign(signed)
    return {
        "seed": seed.hex(),
        "public_key": key.public_key().public_bytes_raw().hex(),
        "job": "heart",
        "round": 7,
        "plan": plan.hex(),
        "reason": "operator",
        "payload": payload.hex(),
        "signing_input": signed.hex(),
        "signature": signature.hex(),
        "envelope": (field(1, payload) + field(2, signature) + field(3, 0)).hex(),
    }


def main() -> None:
    for name, content in (("hashing", hashing()), ("shapes", shapes()), ("sealed", sealed())):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
