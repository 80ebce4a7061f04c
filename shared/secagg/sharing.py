"""Shamir secret sharing over the integers modulo the Mersenne prime 2^521 - 1.

A secret of 32 bytes is the constant term of a polynomial of degree `threshold - 1` with uniform coefficients; the
share of holder x is its value at x. That many shares determine the polynomial, and fewer say nothing. Holders are
counted from 1: the value at 0 is the secret.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from shared.errors import WireError
from shared.secagg.keys import Draw
from shared.secagg.transcript import KEY_BYTES

PRIME = 2**521 - 1
SHARE_BYTES = 66  # 521 bits, big-endian


def split(secret: bytes, *, threshold: int, holders: int, draw: Draw) -> tuple[bytes, ...]:
    """The shares of holders 1..`holders`, SHARE_BYTES each, any `threshold` of which give the secret (32 bytes)."""
    if len(secret) != KEY_BYTES or not 1 <= threshold <= holders:
        raise RuntimeError(
            f"expected a secret of {KEY_BYTES} bytes and 1 <= threshold <= holders, "
            f"got {len(secret)} bytes, {threshold} and {holders}"
        )
    constant = int.from_bytes(secret, "big")
    rest = [_element(draw) for _ in range(threshold - 1)]  # from the highest power down
    shares = []
    for point in range(1, holders + 1):
        value = 0
        for coefficient in rest:
            value = (value + coefficient) * point % PRIME
        shares.append(((value + constant) % PRIME).to_bytes(SHARE_BYTES, "big"))
    return tuple(shares)


def combine(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """The secret (32 bytes) from shares by holder; of more than `threshold` the ones of the lowest holders count.

    Raises WireError for too few of them, for one that is no element of the field, and for a result that no honest
    dealer shares. A wrong share that is an element gives a wrong secret: hold the result against its commitment.
    """
    if len(shares) < threshold:
        raise WireError(f"a secret needs {threshold} shares, got {len(shares)}")
    points = tuple(sorted(shares))[:threshold]
    secret = sum(_parsed(shares[point], point) * weight for point, weight in zip(points, _weights(points), strict=True))
    secret %= PRIME
    if secret >> (8 * KEY_BYTES):
        raise WireError(f"a shared secret is below 2^{8 * KEY_BYTES}; these shares combine to more")
    return secret.to_bytes(KEY_BYTES, "big")


def check_share(share: bytes, holder: int) -> None:
    """Raises WireError for what is no element of the field."""
    _parsed(share, holder)


def _parsed(share: bytes, holder: int) -> int:
    if len(share) != SHARE_BYTES:
        raise WireError(f"the share of holder {holder}: expected {SHARE_BYTES} bytes, got {len(share)}")
    value = int.from_bytes(share, "big")
    if value >= PRIME:
        raise WireError(f"the share of holder {holder} is not below 2^521-1")
    return value


def _element(draw: Draw) -> int:
    """A uniform element of the field: 521 bits, but not all of them ones."""
    while True:
        value = int.from_bytes(draw(SHARE_BYTES), "big") & PRIME
        if value != PRIME:
            return value


@functools.lru_cache(maxsize=8)  # a coordinator combines the shares of many dealers, held by the same holders
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at zero: `prod x_j / (x_j - x_i)` over the other points."""
    if not points or points[0] < 1:
        raise RuntimeError("holders are counted from 1, and there is one at least")
    weights = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above *= other
                below *= other - point
        weights.append(above % PRIME * pow(below % PRIME, -1, PRIME) % PRIME)
    return tuple(weights)
