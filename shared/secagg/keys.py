"""The secrets of one attempt, and X25519 with the checks that a public key from outside needs.

All of it is drawn anew for every attempt and lives in memory only. Deriving rounds from a longer-lived key would let a
share revealed in one of them open the others (secure aggregation design 2.8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from shared.errors import WireError
from shared.ids import Digest
from shared.secagg.transcript import KEY_BYTES, mask_private
from shared.secret import Secret

Draw: TypeAlias = Callable[[int], bytes]
"""That many fresh bytes which nobody can predict: `Entropy.take`."""

PUBLIC_KEY_BYTES = 32

_FIELD = 2**255 - 19
# u-coordinates of the points of order 1, 2, 4 and 8 on the curve and on its twist: an agreement with one of them has
# the same result for every private key. `test_keys` asks X25519 itself about each.
_LOW_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _FIELD - 1,
    }
)


@dataclass(frozen=True, slots=True)
class AttemptSecrets:
    """Everything that a participant keeps to itself in one attempt; 32 bytes each. Never on disk."""

    self_seed: Secret
    """The root of the self mask; shared among the members."""
    mask_seed: Secret
    """The root of the X25519 key of the pairwise masks; shared among the members."""
    share_private: Secret
    """The X25519 private key under which shares are sealed; nobody else ever learns it."""
    encoding_seed: Secret
    """The root of all randomness of the encoding; nobody else ever learns it."""

    @classmethod
    def draw(cls, draw: Draw) -> AttemptSecrets:
        """Fresh secrets."""
        return cls(*(Secret(draw(KEY_BYTES)) for _ in range(4)))

    def mask_public(self, h0: Digest) -> bytes:
        """The advertised key of the pairwise masks, 32 bytes."""
        return public_of(mask_private(self.mask_seed.reveal(), h0))

    def share_public(self) -> bytes:
        """The advertised key of sealed shares, 32 bytes."""
        return public_of(self.share_private.reveal())


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes) -> bytes:
    """The X25519 agreement, 32 bytes: an input of HKDF, not a key. Raises WireError as `check_public_key` does."""
    check_public_key(public)
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise WireError("the agreement with an X25519 public key is zero: a point of low order") from error


def check_public_key(key: bytes) -> None:
    """Refuse what an honest participant never advertises. Raises WireError.

    X25519 itself ignores the top bit and reduces modulo 2^255-19, so that one point has several spellings; and one
    point of low order in a roster would make every honest agreement with it fail.
    """
    if len(key) != PUBLIC_KEY_BYTES:
        raise WireError(f"an X25519 public key has {PUBLIC_KEY_BYTES} bytes, got {len(key)}")
    value = int.from_bytes(key, "little")
    if value >> 255:
        raise WireError("an X25519 public key has its top bit clear, got one with it set")
    if value >= _FIELD:
        raise WireError("an X25519 public key is below 2^255-19, got one above: not the canonical spelling")
    if value in _LOW_ORDER:
        raise WireError("an X25519 public key is a point of large order, got one of low order")
