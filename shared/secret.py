"""A wrapper for bytes that must not leave by accident.

What leaks secrets in practice is convenience: a log line with the whole object, an error message with an f-string, a
pickle on its way to another process. So every convenience is closed here, and the one way out has a name that stands
out in review: `reveal()`. What this cannot do is erase the bytes from memory: Python copies them as it likes.
"""

from __future__ import annotations

import hmac
from typing import Never, SupportsIndex, final

_HIDDEN = "<secret>"


@final
class Secret:
    """Bytes that never print, format, pickle or copy, and compare in constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes. Hand them to the one function that needs them and keep no other name for them."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return _HIDDEN

    def __format__(self, format_spec: str) -> str:
        raise TypeError("a Secret cannot be formatted into text")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment] # a hash table compares in variable time and keeps the value alive

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError("a Secret cannot be pickled or copied")
