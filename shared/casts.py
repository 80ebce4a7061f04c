"""Casts between the element types of a model file and float64.

float64 holds every stored value exactly, so that sums are taken there and rounded once, to nearest, ties to even, when
a value is stored again. BF16 needs care: rounding to float32 first and then to 16 bits would round twice.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.update import DType

Float64s: TypeAlias = NDArray[np.float64]

_STORED: dict[DType, np.dtype[Any]] = {
    DType.F64: np.dtype("<f8"),
    DType.F32: np.dtype("<f4"),
    DType.F16: np.dtype("<f2"),
    DType.BF16: np.dtype("<u2"),  # numpy has no bfloat16: its bits
}
_BFLOAT16_EXPONENT = 0x7F80


def widen(data: memoryview | bytes, dtype: DType, out: Float64s | None = None) -> Float64s:
    """The stored values, exactly, in `out` when it is given (it has one place for each)."""
    stored = _stored(data, dtype)
    values = np.empty(stored.size) if out is None else out
    if dtype is DType.BF16:
        bits = stored.astype("<u4")
        bits <<= 16
        stored = bits.view("<f4")
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        np.copyto(values, stored)
    return values


def narrow(values: Float64s, dtype: DType) -> memoryview:
    """The bytes of `values` as stored, each rounded once: to nearest, ties to even; beyond the range to infinity.

    The result may share memory with `values`.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        stored = _to_bfloat16(values) if dtype is DType.BF16 else values.astype(_STORED[dtype], copy=False)
    return stored.view(np.uint8).data


def all_finite(data: memoryview | bytes, dtype: DType) -> bool:
    """Whether stored values hold neither an infinity nor a NaN."""
    stored = _stored(data, dtype)
    if dtype is DType.BF16:
        return not bool(np.any((stored & _BFLOAT16_EXPONENT) == _BFLOAT16_EXPONENT))
    return bool(np.isfinite(stored).all())


def _stored(data: memoryview | bytes, dtype: DType) -> NDArray[Any]:
    if not dtype.aggregated:
        raise RuntimeError(f"{dtype} values are copied, never cast")
    return np.frombuffer(data, _STORED[dtype]) if len(data) else np.empty(0, _STORED[dtype])


def _to_bfloat16(values: Float64s) -> NDArray[Any]:
    """Round float64 to the upper half of a float32, once.

    Rounding to float32 on the way is harmless but for one case: a value near the middle between two results may land
    exactly on it, and the tie rule would then decide what the lost digits should have. Those few are moved one unit
    of float32 back to the side on which they were.
    """
    singles = values.astype("<f4")
    bits = singles.view("<u4")
    middle = np.flatnonzero((bits & 0xFFFF) == 0x8000)
    if middle.size:
        exact, rounded = np.abs(values[middle]), np.abs(singles[middle]).astype("<f8")
        bits[middle] += (exact > rounded).astype("<u4")
        bits[middle] -= (exact < rounded).astype("<u4")
    not_numbers = np.flatnonzero(np.isnan(values))
    bits[not_numbers] &= 0xFFFF0000  # the carry below must not run through a NaN's payload
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).astype("<u2")
