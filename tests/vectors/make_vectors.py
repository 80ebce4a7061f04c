"""Write the frozen vectors beside this file: `python tests/vectors/make_vectors.py`.

They are made here a second time, from hashlib, cryptography and a few bytes of protobuf laid by hand, and never by the
code that they test. A change of a vector is a change of the protocol: it needs a new version of it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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


# A masked job of four, with every default resolved: its bytes, as a submitter makes and everybody hashes them.
JOB = (
    '{"initial":"5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",'
    '"masking":{"allow_no_collusion":false,"allow_two_party":false,"encoding":"u32","max_colluding":1,'
    '"max_weight":16777216.0,"metric_bound":1024.0,"mode":"masked","protocol":"fedsecagg/v1","suite":1,'
    '"weights":"examples"},'
    '"members":["hospital-a","hospital-b","hospital-c","hospital-d"],"metrics":["loss","accuracy"],"name":"heart",'
    '"round":{"aborted_rounds_allowed":3,"attempts":2,"deadline_s":600.0,"exchange_deadline_s":30.0,"grace_s":5.0,'
    '"min_survivors":3,"quorum":3,"upload_deadline_s":600.0},'
    '"rounds":10,"seed":42,"strategy":{"name":"fedavg"},"task":"heart","training":{"learning_rate":0.05},"version":1}'
)


def shapes() -> dict[str, object]:
    """Layouts, a manifest, and a job."""
    layout = tagged("layout", *(value.to_bytes(8, "big") for value in (1, 300_000, 6)))
    # Two tensors, each with the 64 cells of its range, after the six totals.
    masked = tagged("layout", *(value.to_bytes(8, "big") for value in (2, 300_000, 6 + 2 * 64)))
    manifest = tagged("manifest", b"bias\0F32\x0010", "größe\0I64\0".encode(), b"weight\0BF16\x0010,30")
    return {
        "layout": {"encoding": 1, "parameters": 300_000, "statistics": 6, "digest": layout.hex()},
        "masked_layout": {
            "encoding": 2,
            "parameters": 300_000,
            "tensors": 2,
            "metrics": ["loss", "accuracy"],
            "digest": masked.hex(),
        },
        "manifest": {
            "tensors": [["bias", "F32", [10]], ["größe", "I64", []], ["weight", "BF16", [10, 30]]],
            "digest": manifest.hex(),
        },
        "job": {"text": JOB, "digest": tagged("jobspec", JOB.encode()).hex()},
    }


def masking() -> dict[str, str]:
    """Payloads of what member 3 seals in a masked attempt, and the header of its update. `number(k)` is k 32 times."""

    def number(value: int) -> bytes:
        return bytes([value]) * 32

    h0, t1, t2, t3 = map(number, range(1, 5))
    checkpoint = field(1, 1) + field(2, 6) + field(3, number(20))  # CHAIN, of round 6
    revealed = [field(1, dealer) + field(2, bytes([dealer]) * 66) for dealer in (1, 3, 4)]
    header = field(1, 2) + field(3, 1)  # U32, without a weight, for one contributor
    return {
        "advertise-keys": (
            field(1, h0) + field(2, 3) + field(3, number(10)) + field(4, number(11)) + field(5, number(12))
            + field(6, checkpoint)
        ).hex(),
        "share-keys": (
            field(1, h0) + field(2, t1) + field(3, 3) + field(4, number(13)) + field(5, number(14))
        ).hex(),
        "upload-commit": (
            field(1, h0) + field(2, 3) + field(3, header) + field(4, number(15)) + field(5, 7) + field(6, t2)
        ).hex(),
        "consistency-signature": (field(1, h0) + field(2, t3) + field(3, 3)).hex(),
        "unmask-shares": (
            field(1, h0) + field(2, t3) + field(3, 3) + field(4, revealed[0]) + field(4, revealed[1])
            + field(5, revealed[2])
        ).hex(),
        "attempt-abort": (field(1, h0) + field(2, 3) + field(3, 7)).hex(),  # REPEATED_TOTAL
    }  # fmt: skip


def sealed() -> dict[str, object]:
    """A RoundAborted of round 7 of job `heart`, for the reason `operator` (3), signed by the coordinator; and payloads
    of masking.
    """
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
        "masking": masking(),
    }


# --- secure aggregation, a second time: with HMAC, single blocks of AES and schoolbook arithmetic --------------------


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 to 32 bytes, which is one block of its expansion."""
    return expand(hmac.digest(salt, secret, "sha256"), info)


def expand(root: bytes, info: bytes) -> bytes:
    return hmac.digest(root, info + b"\x01", "sha256")


def tag(label: str) -> bytes:
    return prefixed(b"fedsecagg/v1/" + label.encode())


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def counter_mode(key: bytes, first_byte: int, length: int) -> bytes:
    """Block by block: the IV is the chunk of 2^20 bytes and the block in it."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - counter mode is built from it
    first, last = first_byte // 16, (first_byte + length + 15) // 16
    blocks = b"".join(encryptor.update(u64(block >> 16) + u64(block & 0xFFFF)) for block in range(first, last))
    return blocks[first_byte % 16 :][:length]


def stream_of_bytes(seed: bytes) -> Callable[[int], bytes]:
    """The draws of a test: SHA-256 in counter mode, each draw starting at a fresh block."""
    count = 0

    def draw(length: int) -> bytes:
        nonlocal count
        out = b""
        while len(out) < length:
            out += hashlib.sha256(seed + u64(count)).digest()
            count += 1
        return out[:length]

    return draw


def shares_of(secret: bytes, threshold: int, holders: list[int], draw: Callable[[int], bytes]) -> dict[int, bytes]:
    """Term by term, powers written out; the draws are the coefficients from the highest power down."""
    prime = 2**521 - 1
    highest_first = [int.from_bytes(draw(66), "big") % 2**521 for _ in range(threshold - 1)]
    terms = [int.from_bytes(secret, "big"), *reversed(highest_first)]
    values = {x: sum(term * x**power for power, term in enumerate(terms)) % prime for x in holders}
    return {x: value.to_bytes(66, "big") for x, value in values.items()}


def tree_head(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + tree_head(leaves[:half]) + tree_head(leaves[half:])).digest()


def x25519(private: bytes, public: bytes | None = None) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    if public is None:
        return key.public_key().public_bytes_raw()
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def secagg_transcript() -> dict[str, object]:
    h0, t1, t2 = (hashlib.sha256(name).digest() for name in (b"h0", b"t1", b"t2"))
    payloads = [(1, b"advert of a"), (3, b"advert of c"), (4, b"")]
    listed = [u32(index) + hashlib.sha256(payload).digest() for index, payload in payloads]
    secret, share, digest = bytes(range(32)), bytes(range(66)), hashlib.sha256(b"some").digest()
    members = ["bank-a", "hospital-b", "x"]
    core = [
        b"heart-1", digest, t1, u64(7), h0, b"".join(prefixed(name.encode()) for name in members), u64(1),
        u64(300_000), u64(134), b"", b"train", t2,
    ]  # fmt: skip
    made = {
        "t1": tagged("t1", h0, *listed),
        "t2": tagged("t2", t1, *listed),
        "t3": tagged("t3", t2, *listed),
        "core": tagged("core", *core),
        "core_plain": tagged("core", *core[:2], b"", *core[3:]),
        "self_seed_commitment": tagged("com-b", t1, u32(3), secret),
        "share_commitment_self": tagged("com-share", t1, u32(3), u32(1), b"\x01", share),
        "share_commitment_mask": tagged("com-share", t1, u32(3), u32(1), b"\x02", share),
        "share_leaf": u32(4) + prefixed(share) + h0 + digest,
        "share_key": hkdf(secret, t1, tag("share-enc") + u32(3) + u32(1)),
        "share_context": tag("share") + t1 + u32(3) + u32(1),
        "mask_private": hkdf(secret, h0, tag("mask-key")),
        "pair_root": hkdf(secret, t2, tag("pair-mask") + u32(1) + u32(3)),
        "self_root": hkdf(secret, t2, tag("self-mask") + u32(3)),
        "stream_key_0": expand(secret, tag("stream") + b"\x00"),
        "stream_key_1": expand(secret, tag("stream") + b"\x01"),
        "encoding_key_0": hkdf(secret, h0, tag("encode") + b"\x00"),
        "encoding_key_1": hkdf(secret, h0, tag("encode") + b"\x01"),
    }
    return {name: value.hex() for name, value in made.items()}


def secagg_streams() -> list[dict[str, object]]:
    """Pieces of masks: at the start, at the second chunk, across a chunk's end, inside a block."""
    root = bytes(range(32))
    places = [(0, 0, 32), (0, 2**20, 16), (0, 2**20 - 24, 48), (0, 40, 8), (1, 3 * 2**20 + 8, 40), (0, 2**52, 16)]
    return [
        {
            "section": section,
            "first_byte": first,
            "bytes": counter_mode(expand(root, tag("stream") + bytes([section])), first, length).hex(),
        }
        for section, first, length in places
    ]


def secagg_dealing() -> dict[str, object]:
    """Member 2 of 5 deals, threshold 3, among those who advertised: 1, 2, 4 and 5."""
    h0, t1 = (hashlib.sha256(name).digest() for name in (b"h0", b"t1"))
    holders = [1, 2, 4, 5]
    privates = {index: hashlib.sha256(b"share private" + u32(index)).digest() for index in holders}
    self_seed, mask_seed = hashlib.sha256(b"self").digest(), hashlib.sha256(b"mask").digest()
    draw = stream_of_bytes(b"dealing")
    self_shares, mask_shares = (shares_of(seed, 3, holders, draw) for seed in (self_seed, mask_seed))
    sealed, leaves = [], []
    for holder in holders:
        agreed = x25519(privates[2], x25519(privates[holder]))
        key = hkdf(agreed, t1, tag("share-enc") + u32(2) + u32(holder))
        nonce, pair = draw(12), self_shares[holder] + mask_shares[holder]
        box = nonce + AESGCM(key).encrypt(nonce, pair, tag("share") + t1 + u32(2) + u32(holder))
        commitments = [
            tagged("com-share", t1, u32(2), u32(holder), kind, share)
            for kind, share in ((b"\x01", self_shares[holder]), (b"\x02", mask_shares[holder]))
        ]
        sealed.append([holder, box.hex(), *(commitment.hex() for commitment in commitments)])
        leaves.append(u32(holder) + prefixed(box) + b"".join(commitments))
    return {
        "self_seed": self_seed.hex(),
        "mask_seed": mask_seed.hex(),
        "share_privates": {str(index): private.hex() for index, private in privates.items()},
        "mask_public": x25519(hkdf(mask_seed, h0, tag("mask-key"))).hex(),
        "share_public": x25519(privates[2]).hex(),
        "sealed": sealed,
        "root": tree_head(leaves).hex(),
    }


def secagg_encoding() -> list[dict[str, object]]:
    """Words of a few values, in fractions. Two tensors of 3 cells each; 4 members, weight 2.5, encoding seed 00..1f."""
    values = [0.0, 0.375, -0.8125, 3.0, -2.0, 0.0009765625]
    key = hkdf(bytes(range(32)), hashlib.sha256(b"h0").digest(), tag("encode") + b"\x00")
    cases: list[dict[str, object]] = []
    for encoding, bits, ranges in ((2, 32, (2, 4)), (3, 16, (2, 4)), (4, 64, (32, 32))):
        exponents = [(((1 << bits - 1) - 1 - 4) // 4).bit_length() - 1 - reach for reach in ranges]
        words = []
        for cell, value in enumerate(values):
            exact = Fraction(5, 2) * Fraction(value) * Fraction(2) ** exponents[cell // 3]
            if encoding == 3:
                random = int.from_bytes(counter_mode(key, 4 * cell, 4), "little")
                words.append(math.floor(exact + Fraction(random, 2**32)) % 2**bits)
            else:
                words.append(round(exact) % 2**bits)
        cases.append({"encoding": encoding, "ranges": ranges, "values": values, "exponents": exponents, "words": words})
    return cases


def secagg() -> dict[str, object]:
    return {
        "transcript": secagg_transcript(),
        "streams": secagg_streams(),
        "dealing": secagg_dealing(),
        "encoding": secagg_encoding(),
    }


def main() -> None:
    made = {"hashing": hashing(), "shapes": shapes(), "sealed": sealed(), "secagg": secagg()}
    for name, content in made.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
