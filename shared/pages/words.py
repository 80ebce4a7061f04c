"""Numbers and texts as people read them (pure)."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime

_KILO = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LAST_UNIT = "TB"
_UNITS = ("bytes", "kB", "MB", "GB", _LAST_UNIT)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # controls, formats (they turn the direction), surrogates
_REPLACEMENT = "\ufffd"
SHORT_DIGEST_CHARS = 12
NOTHING = "\N{EN DASH}"


def plain(text: str) -> str:
    """A text without what nobody sees: each such character becomes a visible one. Line feeds and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _REPLACEMENT if unicodedata.category(character) in _UNSEEN and character not in "\n\t" else character
        for character in text
    )


def duration(seconds: float) -> str:
    """Two units at most: what matters of a length of time at a glance."""
    if not math.isfinite(seconds):
        return "no limit"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def size(count: float) -> str:
    """Bytes, in powers of a thousand as disks are sold."""
    value = float(count)
    for unit in _UNITS:
        if value < _KILO or unit == _LAST_UNIT:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= _KILO
    raise AssertionError("the last unit takes everything")


def moment(at: datetime) -> str:
    """To the second, in UTC: two people on the telephone read the same."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def stamp(text: str) -> str:
    """A time that was recorded as text (RFC 3339), as `moment` shows it; what is no time as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text or NOTHING
    return moment(at.astimezone(UTC)) if at.tzinfo is not None else text


def metric(value: float | None) -> str:
    """A mean; a dash where there is none."""
    return NOTHING if value is None else f"{value:.4f}"


def short(digest: str) -> str:
    """Enough of a digest to tell it from others on one page."""
    return digest[:SHORT_DIGEST_CHARS]


def count(number: int, one: str, many: str) -> str:
    """`1 job`, `3 jobs`."""
    return f"{number} {one if number == 1 else many}"
