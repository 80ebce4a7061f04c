"""Casts against exact rational arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.casts import all_finite, narrow, widen
from shared.update import DType
from tests.support.exact import EXPONENT_BITS, MANTISSA_BITS, dumb_narrow, dumb_widen
from tests.support.models import FLOATS

BITS = {DType.F64: "<u8", DType.F32: "<u4", DType.F16: "<u2", DType.BF16: "<u2"}


@st.composite
def near_ties(draw: st.DrawFn, dtype: DType) -> float:
    """Middles between neighbours of a narrow type, and their closest float64 neighbours."""
    low = draw(st.integers(0, ((2 ** EXPONENT_BITS[dtype] - 1) << MANTISSA_BITS[dtype]) - 2))
    middle = (dumb_widen(low, dtype) + dumb_widen(low + 1, dtype)) / 2
    nudged = draw(st.sampled_from([middle, math.nextafter(middle, 0), math.nextafter(middle, math.inf)]))
    return draw(st.sampled_from([1, -1])) * nudged


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_narrowing_rounds_once_to_nearest_even(dtype: DType, data: st.DataObject) -> None:
    some = st.floats(allow_nan=False) | st.floats(allow_nan=False, width=32) | st.floats(-70_000, 70_000)
    values = data.draw(st.lists(some | near_ties(dtype), max_size=40))
    stored = narrow(np.array(values, np.float64), dtype)
    assert np.frombuffer(bytes(stored), BITS[dtype]).tolist() == [dumb_narrow(value, dtype) for value in values]


@pytest.mark.parametrize("dtype", FLOATS)
def test_many_random_bit_patterns_narrow_exactly(dtype: DType) -> None:
    generator = np.random.default_rng(7)
    patterns = generator.integers(0, 2**64, 4000, np.uint64).view(np.float64)
    around = np.ldexp(generator.normal(size=4000), generator.integers(-160, 140, 4000))
    values = np.concatenate([patterns[np.isfinite(patterns)], around])
    bits = np.frombuffer(bytes(narrow(values, dtype)), BITS[dtype])
    assert bits.tolist() == [dumb_narrow(value, dtype) for value in values.tolist()]


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_all_sixteen_bit_values_widen_exactly_and_come_back(dtype: DType) -> None:
    every = np.arange(2**16, dtype="<u2")
    wide = widen(every.tobytes(), dtype)
    expected = np.array([dumb_widen(bits, dtype) for bits in every.tolist()])
    assert np.array_equal(wide, expected, equal_nan=True)
    back = np.frombuffer(bytes(narrow(wide, dtype)), "<u2")
    numbers = ~np.isnan(wide)
    assert np.array_equal(back[numbers], every[numbers])
    assert np.isnan(widen(back[~numbers].tobytes(), dtype)).all()


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_every_middle_of_sixteen_bit_values_narrows_exactly(dtype: DType) -> None:
    """All ties of the type, each also one unit of float64 to either side: where rounding twice would show."""
    finite = np.arange((2 ** EXPONENT_BITS[dtype] - 1) << MANTISSA_BITS[dtype], dtype="<u2")
    numbers = widen(finite.tobytes(), dtype)
    middles = (numbers[:-1] + numbers[1:]) / 2
    ties = np.frombuffer(bytes(narrow(middles, dtype)), "<u2")
    assert np.array_equal(ties, finite[:-1] + (finite[:-1] & 1))
    below = np.frombuffer(bytes(narrow(np.nextafter(middles, 0), dtype)), "<u2")
    above = np.frombuffer(bytes(narrow(-np.nextafter(middles, np.inf), dtype)), "<u2")
    assert np.array_equal(below, finite[:-1])
    assert np.array_equal(above, finite[1:] | 0x8000)


def test_bfloat16_of_singles_agrees_with_torch() -> None:
    values = np.random.default_rng(3).integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    values = values[~np.isnan(values)]
    theirs = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(np.frombuffer(bytes(narrow(values.astype(np.float64), DType.BF16)), "<u2"), theirs)


@pytest.mark.parametrize("dtype", FLOATS)
def test_not_a_number_stays_one(dtype: DType) -> None:
    payloads = [0x7FF0000000000001, 0xFFF0000000000001, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0x7FF8000000000000]
    stored = narrow(np.array(payloads, np.uint64).view(np.float64), dtype)
    assert np.isnan(widen(stored, dtype)).all()
    assert not all_finite(stored, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_finite_is_told_from_the_rest(dtype: DType) -> None:
    largest = dumb_widen(((2 ** EXPONENT_BITS[dtype] - 1) << MANTISSA_BITS[dtype]) - 1, dtype)
    assert all_finite(narrow(np.array([0.0, -0.0, 1.0, largest, -largest]), dtype), dtype)
    assert not all_finite(narrow(np.array([0.0, math.inf]), dtype), dtype)
    assert not all_finite(narrow(np.array([-math.inf, 0.0]), dtype), dtype)
    assert all_finite(b"", dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_widens_and_narrows_to_nothing(dtype: DType) -> None:
    assert widen(b"", dtype).size == 0
    assert len(narrow(np.empty(0), dtype)) == 0


def test_widening_writes_where_it_is_told() -> None:
    out = np.empty(2)
    assert widen(b"\x80\x3f\0\xc0", DType.BF16, out) is out
    assert out.tolist() == [1.0, -2.0]


def test_integers_are_not_cast() -> None:
    with pytest.raises(RuntimeError, match="copied, never cast"):
        widen(b"\0", DType.U8)
