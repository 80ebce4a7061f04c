"""Vectors of integers modulo 2^16, 2^32 or 2^64: little-endian unsigned words, whose arithmetic wraps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.update import Encoding

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]
Integers: TypeAlias = NDArray[np.int64]

WORD: Mapping[Encoding, np.dtype[Any]] = MappingProxyType(
    {Encoding.U16: np.dtype("<u2"), Encoding.U32: np.dtype("<u4"), Encoding.U64: np.dtype("<u8")}
)
"""The words of section 0."""

STATISTICS_WORD: np.dtype[np.uint64] = np.dtype("<u8")
"""The words of section 1, in every masked encoding."""


def add_into(total: Words, words: Words) -> None:
    """`total += words`, in place, modulo the word's power of two. Both have one dtype and one length."""
    _same(total, words)
    np.add(total, words, out=total)


def subtract_into(total: Words, words: Words) -> None:
    """`total -= words`, in place, modulo the word's power of two. Both have one dtype and one length."""
    _same(total, words)
    np.subtract(total, words, out=total)


def signed(words: Words) -> Integers:
    """The words as integers nearest to zero, int64; of 64-bit words a view."""
    return words.view(f"<i{words.itemsize}").astype(np.int64, copy=False)


def to_words(values: Iterable[int]) -> NDArray[np.uint64]:
    """Integers of [-2^63, 2^63) as words of section 1."""
    return np.fromiter(values, dtype="<i8").view(STATISTICS_WORD)


def _same(total: Words, words: Words) -> None:
    if total.dtype != words.dtype or total.shape != words.shape:
        raise RuntimeError(f"expected {total.size} words of {total.dtype}, got {words.size} of {words.dtype}")
