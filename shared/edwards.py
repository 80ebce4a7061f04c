"""Which 32 bytes may be an Ed25519 public key.

The library that verifies signatures takes any 32 bytes. Two kinds of them are no key of somebody's:

* *Points of small order.* There are eight. Whoever names one as its key has signed everything: one signature, which
  nobody made, holds for every message or for one in eight. A member with such a key could be played by anybody, and
  could deny each of its words.
* *Other spellings of a point.* The y-coordinate is a number below 2^255 - 19; the few above it are a second spelling of
  small numbers. Then two keys that differ would be the same one.
"""

from __future__ import annotations

_FIELD = 2**255 - 19
_SIGN = 1 << 255  # the bit of the x-coordinate; both values are points of the same order
_ORDER_8 = 55188659117513257062467267217118295137698188065244968500265048394206261417927
# y-coordinates of the points of order 1, 2, 4 and 8
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8})


def check_point(key: bytes) -> None:
    """Raises ValueError for 32 bytes that are no key of anybody's."""
    y = int.from_bytes(key, "little") & (_SIGN - 1)
    if y >= _FIELD:
        raise ValueError("a verifying key is a point in canonical spelling, got one in another spelling")
    if y in _SMALL_ORDER:
        raise ValueError("a verifying key is a point of large order, got one of small order: it would sign anything")
