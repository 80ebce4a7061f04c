from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import TaskError, WireError
from shared.ids import Digest
from shared.secagg import fixed_point
from shared.secagg.fixed_point import (
    Encoder,
    decode,
    decode_metric,
    encode_metric,
    fits,
    largest_products,
    quantise_weight,
    range_cell,
    range_exponents,
    scale_exponent,
    statistics_headroom,
    weight_of,
)
from shared.secagg.masking import KeyStream
from shared.secagg.ring import WORD, add_into, signed
from shared.secagg.transcript import encoding_key
from shared.secret import Secret
from shared.update import RANGE_EXPONENT_MAX, RANGE_EXPONENT_MIN, RANGE_NONE, Encoding

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "secagg.json").read_text("utf-8"))["encoding"]
MASKED = [Encoding.U32, Encoding.U16, Encoding.U64]
H0, SEED = Digest.of(b"h0"), Secret(bytes(range(32)))


def encoder(
    encoding: Encoding,
    *,
    sizes: Sequence[int],
    ranges: Sequence[int],
    members: int = 4,
    weight_q: int = 256,
    seed: Secret = SEED,
) -> Encoder:
    return Encoder(
        encoding=encoding,
        members=members,
        weight_q=weight_q,
        sizes=sizes,
        range_exponents=ranges,
        encoding_seed=seed,
        h0=H0,
    )


# --- weights and metrics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "most", "expected"),
    [(1.0, 2**24, 256), (100.0, 2**24, 25_600), (1e-9, 2**24, 1), (1e30, 2**24, 2**32), (7.0, 5.5, 1408), (0.3, 8, 77)],
)
def test_weights(weight: float, most: float, expected: int) -> None:
    assert quantise_weight(weight, most) == expected
    assert weight_of(expected) == expected / 256


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_no_weight(weight: float) -> None:
    with pytest.raises(TaskError, match="weight"):
        quantise_weight(weight, 10.0)


finite = st.floats(allow_nan=False, allow_infinity=False)
weights_q = st.integers(1, 2**32)


@given(mean=finite, weight_q=weights_q, bound=st.floats(2.0**-10, 2.0**20))
def test_metrics_against_fractions(mean: float, weight_q: int, bound: float) -> None:
    clipped = max(-Fraction(bound), min(Fraction(bound), Fraction(mean)))
    exact = clipped * weight_q * 4096
    assert abs(encode_metric(mean, weight_q, bound) - exact) <= Fraction(1, 2)


@given(st.lists(st.tuples(st.floats(-1024, 1024), weights_q), min_size=1, max_size=8))
def test_the_mean_of_metrics(silos: list[tuple[float, int]]) -> None:
    total, weight = sum(encode_metric(mean, q, 1024.0) for mean, q in silos), sum(q for _, q in silos)
    exact = sum((Fraction(mean) * q for mean, q in silos), Fraction()) / weight
    bound = Fraction(len(silos), 2 * 4096 * weight)
    assert abs(Fraction(decode_metric(total, weight)) - exact) <= bound + abs(exact) * Fraction(1, 2**52)


@pytest.mark.parametrize("mean", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number(mean: float) -> None:
    with pytest.raises(TaskError, match="a metric is a finite number"):
        encode_metric(mean, 256, 1024.0)


def test_headroom_of_statistics() -> None:
    assert statistics_headroom(511, 2.0**24, 1024.0)
    assert not statistics_headroom(512, 2.0**24, 1024.0), "512 * 2^24 * 2^8 * 2^10 * 2^12 is 2^63"
    assert statistics_headroom(100, 2.0**24, 2048.0)
    for members, most, bound in ((511, 2.0**24, 1024.0), (3, 1e6, 0.3), (7, 1.7, 1e9)):
        assert statistics_headroom(members, most, bound)
        cell = encode_metric(-bound, quantise_weight(1e300, most), bound)
        assert -(2**63) <= members * cell <= members * -cell <= 2**63 - 1


# --- ranges and scales ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", MASKED)
def test_a_sum_cannot_leave_the_ring_and_the_next_scale_could(encoding: Encoding) -> None:
    top = 2 ** (8 * encoding.word_bytes - 1) - 1
    for members in range(2, 301):  # U16 and 255 members: there the `- n` of the formula decides
        for reach in (-29, 0, 34):
            exponent = scale_exponent(encoding=encoding, members=members, range_exponent=reach)
            largest = Fraction(2) ** (exponent + reach)  # R * S
            assert members * (largest + 1) <= top
            assert members * (2 * largest + 1) > top


def test_scales_of_the_design() -> None:
    found = {
        (encoding, members): scale_exponent(encoding=encoding, members=members, range_exponent=0)
        for encoding in MASKED
        for members in (4, 10, 100)
    }
    assert found == {
        (Encoding.U32, 4): 28, (Encoding.U32, 10): 27, (Encoding.U32, 100): 24,
        (Encoding.U16, 4): 12, (Encoding.U16, 10): 11, (Encoding.U16, 100): 8,
        (Encoding.U64, 4): 60, (Encoding.U64, 10): 59, (Encoding.U64, 100): 56,
    }  # fmt: skip
    assert scale_exponent(encoding=Encoding.U16, members=100, range_exponent=34) == -26


def test_no_scale() -> None:
    for encoding, members in ((Encoding.PLAIN, 3), (Encoding.U16, 40_000)):
        with pytest.raises(RuntimeError, match="no scale"):
            scale_exponent(encoding=encoding, members=members, range_exponent=0)


def test_ranges() -> None:
    assert range_exponents(encoding=Encoding.U64, top_cells=None, tensors=2) == (32, 32)
    assert range_exponents(encoding=Encoding.U64, top_cells=(1, 2), tensors=2) == (32, 32)
    cells = (RANGE_NONE, RANGE_EXPONENT_MIN, -13, -12)
    for encoding in (Encoding.U32, Encoding.U16):
        assert range_exponents(encoding=encoding, top_cells=cells, tensors=4) == (-29, -29, -11, -10)
        assert range_exponents(encoding=encoding, top_cells=(RANGE_NONE,), tensors=1) == (-29,)
        spread = (RANGE_NONE, RANGE_EXPONENT_MAX - 21, RANGE_EXPONENT_MAX - 20, RANGE_EXPONENT_MAX)
        assert range_exponents(encoding=encoding, top_cells=spread, tensors=4) == (14, 14, 14, 34), (
            "noise beside weights"
        )
        with pytest.raises(RuntimeError, match="a previous round"):
            range_exponents(encoding=encoding, top_cells=None, tensors=4)
        for wrong in (cells[:3], (), (0, 0, 0, 33), (0, 0, 0, -33)):
            with pytest.raises(WireError, match="top cells of 4 tensors"):
                range_exponents(encoding=encoding, top_cells=wrong, tensors=4)


@given(st.floats(0, allow_infinity=False))
@example(0.0)
@example(5e-324)
@example(2.0**-31)
@example(math.nextafter(2.0**-31, 1))
@example(2.0**32)
@example(math.nextafter(2.0**32, math.inf))
@example(1.0)
def test_the_cell_of_a_range(largest: float) -> None:
    cell = range_cell(largest)
    if largest == 0:
        assert cell == RANGE_NONE
        return
    assert RANGE_EXPONENT_MIN <= cell <= RANGE_EXPONENT_MAX
    assert largest <= 2.0**cell or cell == RANGE_EXPONENT_MAX
    assert largest > 2.0 ** (cell - 1) or cell == RANGE_EXPONENT_MIN


@pytest.mark.parametrize("largest", [math.nan, math.inf, -1.0])
def test_no_cell(largest: float) -> None:
    with pytest.raises(TaskError, match="finite"):
        range_cell(largest)


def test_what_fits() -> None:
    assert fits([1.0, 0.0, 2.0**-29], [0, -29, -29])
    assert not fits([math.nextafter(1.0, 2)], [0])
    assert not fits([math.nan], [34])
    assert fits([], [])


def test_the_largest_products() -> None:
    values = np.array([1, -3, 2, 0, 0, np.nan, 1], np.float32)
    found = largest_products(values, 128, [3, 2, 0, 2])
    assert found[:3] == (1.5, 0.0, 0.0)
    assert math.isnan(found[3])


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: Encoding(vector["encoding"]).name)
def test_frozen_vectors(vector: dict[str, Any]) -> None:
    encoding = Encoding(vector["encoding"])
    made = encoder(encoding, sizes=[3, 3], ranges=vector["ranges"], weight_q=640)
    assert list(made.scale_exponents) == vector["exponents"]
    words = made.encode(np.array(vector["values"], np.float32), first_cell=0)
    assert words.tolist() == vector["words"]
    assert words.dtype == WORD[encoding]


def random_bits(cells: int) -> list[int]:
    stream = KeyStream(Secret(encoding_key(SEED.reveal(), H0, 0)))
    return [int(word) for word in np.frombuffer(stream.raw(0, 4 * cells), "<u4")]


def dumb_words(encoding: Encoding, values: list[float], weight_q: int, exponent: int) -> list[int]:
    """By fractions. In U16 the float64 sum with the random fraction is part of the definition."""
    scale = Fraction(weight_q, 256) * Fraction(2) ** exponent
    if encoding is Encoding.U16:
        bits = random_bits(len(values))
        return [math.floor(float(Fraction(x) * scale) + r / 2**32) for x, r in zip(values, bits, strict=True)]
    return [round(Fraction(float(Fraction(x) * scale))) for x in values]


float32s = st.floats(-1, 1, width=32) | st.floats(-(2.0**-20), 2.0**-20, width=32)


@pytest.mark.parametrize("encoding", MASKED)
@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(float32s, min_size=1, max_size=30),
    weight_q=weights_q,
    members=st.integers(2, 100),
    slack=st.integers(0, 3),
)
def test_words_against_fractions(
    encoding: Encoding, values: list[float], weight_q: int, members: int, slack: int
) -> None:
    reach = math.ceil(math.log2(weight_q / 256)) + slack
    made = encoder(encoding, sizes=[len(values)], ranges=[reach], members=members, weight_q=weight_q)
    words = made.encode(np.array(values, np.float32), first_cell=0)
    assert signed(words).tolist() == dumb_words(encoding, values, weight_q, made.scale_exponents[0])
    # Off the exact product by no more than the rounding to the grid, and half a unit of float64 for heavy weights.
    scale = Fraction(weight_q, 256) * Fraction(2) ** made.scale_exponents[0]
    for value, word in zip(values, signed(words).tolist(), strict=True):
        exact = Fraction(value) * scale
        grid = Fraction(1) if encoding is Encoding.U16 else Fraction(1, 2)
        assert abs(word - exact) <= grid + abs(exact) * Fraction(1, 2**52)


@pytest.mark.parametrize("encoding", MASKED)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_part_is_encoded_as_in_the_whole(encoding: Encoding, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(sum))
    ranges = data.draw(st.lists(st.integers(0, 3), min_size=len(sizes), max_size=len(sizes)))
    made, count = encoder(encoding, sizes=sizes, ranges=ranges), sum(sizes)
    values = np.linspace(-1, 1, count, dtype=np.float32)
    whole = made.encode(values, first_cell=0)
    first = data.draw(st.integers(0, count))
    last = data.draw(st.integers(first, count))
    assert (made.encode(values[first:last], first_cell=first) == whole[first:last]).all()


@pytest.mark.parametrize("encoding", MASKED)
def test_long_vectors_and_threads(encoding: Encoding) -> None:
    """Beyond a block, a piece of the random stream and a chunk of it."""
    sizes = [3, 200_000, 1, 160_000]
    made = encoder(encoding, sizes=sizes, ranges=[0, 1, 2, 3])
    values = np.random.default_rng(1).uniform(-1, 1, sum(sizes)).astype(np.float32)
    whole = made.encode(values, first_cell=0)
    bounds = [0, 2, 3, 70_001, 262_143, 262_145, sum(sizes)]
    with ThreadPoolExecutor(3) as pool:
        parts = pool.map(
            lambda at: made.encode(values[bounds[at] : bounds[at + 1]], first_cell=bounds[at]), range(len(bounds) - 1)
        )
        assert (np.concatenate(list(parts)) == whole).all()
    if encoding is Encoding.U32:
        made.encode(values, first_cell=0, out=values.view("<u4"))
        assert (values.view("<u4") == whole).all(), "in the memory of the values themselves"


@pytest.mark.parametrize("encoding", MASKED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.0000001, -1.0000001])
@pytest.mark.parametrize("place", [0, 5, 9])
def test_what_cannot_be_encoded(encoding: Encoding, bad: float, place: int) -> None:
    values = np.zeros(10, np.float32)
    values[place] = bad
    with pytest.raises(TaskError, match=r"aggregated tensor 1: .*(finite|beyond its range)"):
        encoder(encoding, sizes=[3, 10], ranges=[0, 0]).encode(values, first_cell=3)


def test_a_signalling_nan_is_refused_without_a_warning() -> None:
    values = np.array([0, 0x7F800001, 0], "<u4").view("<f4")
    with pytest.raises(TaskError, match="a finite number"):
        encoder(Encoding.U32, sizes=[3], ranges=[0]).encode(values, first_cell=0)
    assert math.isnan(largest_products(values, 256, [3])[0])


def test_mistakes_of_the_caller() -> None:
    made = encoder(Encoding.U32, sizes=[3], ranges=[0])
    for count, first in ((4, 0), (1, 3), (1, -1)):
        with pytest.raises(RuntimeError, match="do not go into"):
            made.encode(np.zeros(count, np.float32), first_cell=first)
    with pytest.raises(RuntimeError, match="do not go into"):
        made.encode(np.zeros(3, np.float32), first_cell=0, out=np.zeros(2, "<u4"))
    with pytest.raises(RuntimeError, match="expected 3 contiguous words of uint32"):
        made.encode(np.zeros(3, np.float32), first_cell=0, out=np.zeros(3, "<u8"))
    with pytest.raises(RuntimeError, match="a range for each"):
        encoder(Encoding.U32, sizes=[3, 3], ranges=[0])
    for function in (
        lambda: decode(np.zeros(1, np.int64), scale_exponent=0, weight_total=0),
        lambda: decode_metric(1, 0),
    ):
        with pytest.raises(RuntimeError, match="sum of weights"):
            function()


def test_empty_parts() -> None:
    made = encoder(Encoding.U32, sizes=[0, 3, 0], ranges=[0, 0, 0])
    for first in (0, 3):
        assert made.encode(np.zeros(0, np.float32), first_cell=first).size == 0
    assert encoder(Encoding.U32, sizes=[], ranges=[]).encode(np.zeros(0, np.float32), first_cell=0).size == 0


@pytest.mark.parametrize("encoding", MASKED)
@pytest.mark.parametrize("members", [2, 3, 4, 7, 8, 10, 100])
@pytest.mark.parametrize("pattern", ["all up", "all down", "mixed"])
def test_sums_at_the_edge_of_the_range_do_not_wrap(encoding: Encoding, members: int, pattern: str) -> None:
    """Every silo at |w * x| = R, for weights of all sizes; in mixed, half of them at the other end."""
    reach, cells = 5, 64
    total = np.zeros(cells, WORD[encoding])
    expected = [0] * cells
    for silo in range(members):
        weight_q = 256 << (silo % 5)
        sign = -1 if pattern == "all down" or (pattern == "mixed" and silo % 2) else 1
        values = np.full(cells, sign * 2.0**reach / weight_of(weight_q), np.float32)
        made = encoder(
            encoding, sizes=[cells], ranges=[reach], members=members, weight_q=weight_q, seed=Secret(bytes([silo]) * 32)
        )
        words = made.encode(values, first_cell=0)
        expected = [a + b for a, b in zip(expected, signed(words).tolist(), strict=True)]
        add_into(total, words)
    assert signed(total).tolist() == expected
    exponent = scale_exponent(encoding=encoding, members=members, range_exponent=reach)
    if pattern != "mixed":
        assert expected == [(-1 if pattern == "all down" else 1) * members * 2 ** (exponent + reach)] * cells
    # With the next larger scale the same sum leaves what the ring can tell apart from its neighbours' other end.
    assert members * (2 ** (exponent + 1 + reach) + 1) > 2 ** (8 * encoding.word_bytes - 1) - 1


def mean_error_within_bound(encoding: Encoding, members: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    cells = 300
    weights = [quantise_weight(float(w), 2.0**24) for w in random.uniform(1, 1000, members)]
    values = [random.uniform(-1, 1, cells).astype(np.float32) for _ in range(members)]
    reach = 10
    total = np.zeros(cells, WORD[encoding])
    for silo, (weight_q, vector) in enumerate(zip(weights, values, strict=True)):
        made = encoder(
            encoding,
            sizes=[cells],
            ranges=[reach],
            members=members,
            weight_q=weight_q,
            seed=Secret(seed.to_bytes(31, "big") + bytes([silo])),
        )
        add_into(total, made.encode(vector, first_cell=0))
    exponent = scale_exponent(encoding=encoding, members=members, range_exponent=reach)
    found = decode(signed(total), scale_exponent=exponent, weight_total=sum(weights))
    assert found.dtype == np.float64
    weight = Fraction(sum(weights), 256)
    steps = Fraction(1) if encoding is Encoding.U16 else Fraction(1, 2)
    bound = members * steps / (Fraction(2) ** exponent * weight)
    for cell in range(cells):
        exact = sum(Fraction(q, 256) * Fraction(float(v[cell])) for q, v in zip(weights, values, strict=True)) / weight
        # decode rounds the integer, and then the quotient, to float64
        assert abs(Fraction(float(found[cell])) - exact) <= bound + abs(exact) * Fraction(1, 2**51)


@pytest.mark.parametrize("encoding", MASKED)
@pytest.mark.parametrize("members", [2, 10, 100])
def test_the_error_of_a_mean_is_within_the_design_bound(encoding: Encoding, members: int) -> None:
    mean_error_within_bound(encoding, members, seed=members)


@settings(max_examples=60)
@given(total=st.integers(-(2**63), 2**63 - 1), exponent=st.integers(-26, 88), weight_total=st.integers(1, 100 * 2**32))
def test_decoding_against_fractions(total: int, exponent: int, weight_total: int) -> None:
    found = decode(np.array([total]), scale_exponent=exponent, weight_total=weight_total)[0]
    exact = Fraction(total) / (Fraction(2) ** exponent * Fraction(weight_total, 256))
    assert abs(Fraction(float(found)) - exact) <= abs(exact) * Fraction(1, 2**52)


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<i8"])
def test_narrow_words_are_decoded_as_exactly_into_any_buffer(dtype: str) -> None:
    total, room = np.array([3, -5], dtype), np.empty(2)
    found = decode(total, scale_exponent=8, weight_total=7, out=room)
    assert found is room
    assert found.tolist() == decode(total, scale_exponent=8, weight_total=7).tolist() == [3 / 7, -5 / 7]


def test_stochastic_rounding_is_without_bias() -> None:
    cells, fraction = 200_000, 0.3125
    made = encoder(Encoding.U16, sizes=[cells], ranges=[0])
    value = np.full(cells, (7 + fraction) * 2.0 ** -made.scale_exponents[0], np.float32)
    words = signed(made.encode(value, first_cell=0))
    assert set(words.tolist()) == {7, 8}
    up = float((words - 7).mean())
    assert abs(up - fraction) < 5 * math.sqrt(fraction * (1 - fraction) / cells)


def test_another_attempt_rounds_otherwise() -> None:
    values = np.full(64, 0.3, np.float32)
    made = [
        encoder(Encoding.U16, sizes=[64], ranges=[0], seed=seed).encode(values, first_cell=0)
        for seed in (SEED, SEED, Secret(bytes(32)))
    ]
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()


def test_constants_of_the_protocol() -> None:
    assert (fixed_point.WEIGHT_SCALE_BITS, fixed_point.METRIC_SCALE_BITS) == (8, 12)
    assert (fixed_point.WIDE_RANGE_EXPONENT, fixed_point.RANGE_MARGIN_BITS) == (32, 2)
