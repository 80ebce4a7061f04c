from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from shared.entropy import SeededEntropy
from shared.errors import WireError
from shared.ids import Digest
from shared.secagg.keys import _LOW_ORDER, AttemptSecrets, agree, check_public_key, public_of
from shared.secret import Secret

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "secagg.json").read_text("utf-8"))["dealing"]
FIELD = 2**255 - 19
H0 = Digest.of(b"h0")


def spelled(value: int) -> bytes:
    return value.to_bytes(32, "little")


def test_frozen_vectors() -> None:
    secrets = AttemptSecrets(
        self_seed=Secret(bytes.fromhex(VECTORS["self_seed"])),
        mask_seed=Secret(bytes.fromhex(VECTORS["mask_seed"])),
        share_private=Secret(bytes.fromhex(VECTORS["share_privates"]["2"])),
        encoding_seed=Secret(bytes(32)),
    )
    assert secrets.mask_public(H0).hex() == VECTORS["mask_public"]
    assert secrets.share_public().hex() == VECTORS["share_public"]


def test_secrets_are_drawn_apart_and_never_shown() -> None:
    draw = SeededEntropy(b"keys").take
    one, other = AttemptSecrets.draw(draw), AttemptSecrets.draw(draw)
    parts = [
        secret.reveal()
        for secrets in (one, other)
        for secret in (secrets.self_seed, secrets.mask_seed, secrets.share_private, secrets.encoding_seed)
    ]
    assert len(set(parts)) == 8
    assert {len(part) for part in parts} == {32}
    assert not any(part.hex() in repr(one) or str(part) in repr(one) for part in parts)


def test_a_mask_key_is_of_one_attempt() -> None:
    secrets = AttemptSecrets.draw(SeededEntropy(b"keys").take)
    assert secrets.mask_public(H0) != secrets.mask_public(Digest.of(b"another"))


def test_both_sides_agree() -> None:
    draw = SeededEntropy(b"agree").take
    mine, yours = draw(32), draw(32)
    assert agree(mine, public_of(yours)) == agree(yours, public_of(mine))


def test_the_vector_of_rfc_7748() -> None:
    private = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    public = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert agree(private, public).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


@pytest.mark.parametrize("value", sorted(_LOW_ORDER))
def test_points_of_low_order_are_what_x25519_itself_refuses(value: int) -> None:
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.from_private_bytes(bytes(range(32))).exchange(
            X25519PublicKey.from_public_bytes(spelled(value))
        )
    with pytest.raises(WireError, match="low order"):
        check_public_key(spelled(value))
    with pytest.raises(WireError, match="low order"):
        agree(bytes(range(32)), spelled(value))


@pytest.mark.parametrize("value", [2, 9, FIELD - 2])
def test_other_keys_pass(value: int) -> None:
    check_public_key(spelled(value))
    agree(bytes(range(32)), spelled(value))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (b"", "32 bytes, got 0"),
        (bytes(31), "32 bytes, got 31"),
        (bytes(33), "32 bytes, got 33"),
        (spelled(9 + 2**255), "top bit"),
        (spelled(2**256 - 1), "top bit"),
        *((spelled(value), "canonical") for value in range(FIELD, 2**255)),
    ],
)
def test_keys_that_are_refused(key: bytes, said: str) -> None:
    with pytest.raises(WireError, match=said):
        check_public_key(key)
    with pytest.raises(WireError, match=said):
        agree(bytes(range(32)), key)
