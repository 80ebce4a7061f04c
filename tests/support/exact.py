"""Floating-point casts by exact arithmetic, slowly: what the fast ones are held against."""

from __future__ import annotations

import math
from fractions import Fraction

from shared.update import DType

MANTISSA_BITS = {DType.F64: 52, DType.F32: 23, DType.F16: 10, DType.BF16: 7}
EXPONENT_BITS = {DType.F64: 11, DType.F32: 8, DType.F16: 5, DType.BF16: 8}


def dumb_widen(bits: int, dtype: DType) -> float:
    """The number that these bits stand for."""
    mantissa, exponent = MANTISSA_BITS[dtype], EXPONENT_BITS[dtype]
    sign = -1.0 if bits >> (mantissa + exponent) else 1.0
    field, fraction = (bits >> mantissa) & ((1 << exponent) - 1), bits & ((1 << mantissa) - 1)
    if field == (1 << exponent) - 1:
        return math.nan if fraction else sign * math.inf
    significand = fraction + ((1 << mantissa) if field else 0)
    return sign * math.ldexp(significand, max(field, 1) - ((1 << (exponent - 1)) - 1) - mantissa)


def dumb_narrow(value: float, dtype: DType) -> int:
    """The bits of the nearest representable number, ties to even, by exact arithmetic."""
    mantissa, exponent = MANTISSA_BITS[dtype], EXPONENT_BITS[dtype]
    sign = int(math.copysign(1, value) < 0) << (mantissa + exponent)
    infinity = ((1 << exponent) - 1) << mantissa
    if math.isnan(value):
        return infinity + 1
    if math.isinf(value):
        return sign | infinity
    lowest = 2 - (1 << (exponent - 1))
    power = max(math.frexp(value)[1] - 1, lowest) if value else lowest
    steps = round(Fraction(abs(value)) / Fraction(2) ** (power - mantissa))  # Fraction rounds ties to even
    return sign | min(((power - lowest) << mantissa) + steps, infinity)
