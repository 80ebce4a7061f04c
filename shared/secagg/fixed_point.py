"""Between numbers and the ring: weights, scales, ranges, metrics, and whole vectors (secure aggregation design 2.6).

A value x of an update with weight w becomes an integer next to `w * x * S`, S = 2^e. All silos compute S from public
things alone: the encoding, the number of members and the tensor's range R = 2^r, within which |w * x| must lie. S is
the largest power of two for which n integers of magnitude `R * S + 1` cannot leave the ring's signed range, so that a
sum never wraps, whatever the data.

Rounding is to nearest in U32 and U64. In U16 it is stochastic, with random bits that are addressed by the cell's
position. So any part of a section is encoded by itself and always to the same words, and a mask is never used for two
of them. All of it is exact but for two roundings: `w * x` is rounded to float64 (not at all while w <= 2^21), and then
to the grid.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.errors import TaskError, WireError
from shared.ids import Digest
from shared.secagg.masking import KeyStream, pieces, scratch
from shared.secagg.ring import WORD, Words
from shared.secagg.transcript import encoding_key
from shared.secret import Secret
from shared.update import RANGE_EXPONENT_MAX, RANGE_EXPONENT_MIN, RANGE_NONE, Encoding

Float32s: TypeAlias = NDArray[np.float32]
Float64s: TypeAlias = NDArray[np.float64]

WEIGHT_SCALE_BITS = 8  # a weight counts in 1/256 of an example
METRIC_SCALE_BITS = 12  # a metric counts in 1/4096
WIDE_RANGE_EXPONENT = 32  # log2 R of every tensor in the u64 encoding: no range needs to be known
RANGE_MARGIN_BITS = 2  # u32, u16: R is this much above the last round's top cell
RANGE_SPREAD_BITS = 20  # u32, u16: no range is further below that of the largest tensor; 2^20 is a factor of 1e6
_BLOCK_CELLS = 1 << 15  # values worked on at a time: their float64 form stays in the cache; measured best
_RANDOM_BYTES = 4  # of one cell, in stochastic rounding


def quantise_weight(weight: float, max_weight: float) -> int:
    """`w_q = round(min(weight, max_weight) * 2^8)`, 1 at least: the weight in 1/256 of an example, everywhere. Raises
    TaskError for a weight that is not positive and finite.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise TaskError(f"an update's weight is a finite number of examples above 0, got {weight}")
    return max(1, round(min(weight, max_weight) * (1 << WEIGHT_SCALE_BITS)))


def weight_of(weight_q: int) -> float:
    """The weight in examples, exactly."""
    return weight_q / (1 << WEIGHT_SCALE_BITS)


def scale_exponent(*, encoding: Encoding, members: int, range_exponent: int) -> int:
    """The exponent e of S = 2^e: `bit_length((2^(k-1) - 1 - n) // n) - 1 - r` in words of k bits. May be
    negative.
    """
    most = ((1 << 8 * encoding.word_bytes - 1) - 1 - members) // members
    if not encoding.masked or most < 1:
        raise RuntimeError(f"{encoding.name} has no scale for {members} members")
    return most.bit_length() - 1 - range_exponent


def range_exponents(*, encoding: Encoding, top_cells: Sequence[int] | None, tensors: int) -> tuple[int, ...]:
    """log2 R of each aggregated tensor. `top_cells` are the previous result's, None in the first round of a job, which
    is a u64 one. Raises WireError when they are not of that many tensors.
    """
    if encoding is Encoding.U64:
        return (WIDE_RANGE_EXPONENT,) * tensors
    if top_cells is None:
        raise RuntimeError(f"{encoding.name} needs the range of a previous round")
    if len(top_cells) != tensors or any(not RANGE_NONE <= cell <= RANGE_EXPONENT_MAX for cell in top_cells):
        raise WireError(
            f"expected top cells of {tensors} tensors from {RANGE_NONE} to {RANGE_EXPONENT_MAX}, "
            f"got {len(top_cells)} cells from {min(top_cells, default=0)} to {max(top_cells, default=0)}"
        )
    # A tensor whose updates are rounding noise (a bias in front of a normalisation) is a few powers of two larger in
    # one round than in the last. It must not turn the whole round to u64, and nobody needs its last bits.
    least = max(RANGE_EXPONENT_MIN, max(top_cells, default=RANGE_NONE) - RANGE_SPREAD_BITS)
    return tuple(max(cell, least) + RANGE_MARGIN_BITS for cell in top_cells)


def range_cell(largest: float) -> int:
    """The cell of a tensor with that largest |w * x|: `ceil(log2 largest)`, clamped; RANGE_NONE for 0. Raises TaskError
    for what is not finite.
    """
    if not math.isfinite(largest) or largest < 0:
        raise TaskError(f"a tensor's largest |weight * delta| is a finite number, got {largest}")
    if largest == 0:
        return RANGE_NONE
    mantissa, exponent = math.frexp(largest)  # largest = mantissa * 2^exponent, 0.5 <= mantissa < 1
    return min(max(exponent - (mantissa == 0.5), RANGE_EXPONENT_MIN), RANGE_EXPONENT_MAX)


def fits(largest: Sequence[float], exponents: Sequence[int]) -> bool:
    """Whether |w * x| of every tensor is within its range: what `Ready{fits}` answers. NaN is not."""
    return all(value <= math.ldexp(1.0, exponent) for value, exponent in zip(largest, exponents, strict=True))


def decode(
    total: NDArray[np.signedinteger[Any]], *, scale_exponent: int, weight_total: int, out: Float64s | None = None
) -> Float64s:
    """The weighted mean, `total / (S * weight_total / 2^8)`, float64, of the signed sum of one tensor's words; in `out`
    when it is given.

    `weight_total` is the sum of the survivors' w_q. Off the true mean of the rounded products by no more than
    `n / (2 S sum(w))` for words rounded to nearest, `n / (S sum(w))` for stochastic ones.
    """
    if weight_total <= 0:
        raise RuntimeError(f"a sum of weights is above 0, got {weight_total}")
    divisor = math.ldexp(float(weight_total), scale_exponent - WEIGHT_SCALE_BITS)
    mean: Float64s = np.divide(total, divisor, out=out, dtype=np.float64)
    return mean


def encode_metric(mean: float, weight_q: int, bound: float) -> int:
    """`round(clip(mean, -bound, bound) * w_q * 2^12)`, signed, computed exactly. Raises TaskError for NaN and
    infinities.
    """
    if not math.isfinite(mean):
        raise TaskError(f"a metric is a finite number, got {mean}")
    clipped = Fraction(min(max(mean, -bound), bound))
    return round(clipped * (weight_q << METRIC_SCALE_BITS))


def decode_metric(total: int, weight_total: int) -> float:
    """The weighted mean of a metric, from the signed sum of its cells and the sum of w_q."""
    if weight_total <= 0:
        raise RuntimeError(f"a sum of weights is above 0, got {weight_total}")
    return float(Fraction(total, weight_total << METRIC_SCALE_BITS))


def statistics_headroom(members: int, max_weight: float, metric_bound: float) -> bool:
    """Whether no sum of `members` metric cells can leave [-2^63, 2^63): a rule of the job."""
    largest = Fraction(metric_bound) * (quantise_weight(max_weight, max_weight) << METRIC_SCALE_BITS)
    return members * math.ceil(largest) <= 2**63 - 1


class Encoder:
    """Turns parts of one update's section 0 into words. A function of its arguments: it keeps no state.

    `sizes` and `range_exponents` (log2 R) are of the aggregated tensors in manifest order; `weight_q` as of
    `quantise_weight`; `encoding_seed` and `h0` give the random bits of U16, and the other encodings use none.
    """

    def __init__(
        self,
        *,
        encoding: Encoding,
        members: int,
        weight_q: int,
        sizes: Sequence[int],
        range_exponents: Sequence[int],
        encoding_seed: Secret,
        h0: Digest,
    ) -> None:
        if len(sizes) != len(range_exponents):
            raise RuntimeError(f"expected a range for each of {len(sizes)} tensors, got {len(range_exponents)}")
        self._encoding = encoding
        self._weight = weight_of(weight_q)
        self._starts = (0, *accumulate(sizes))
        self._ranges = tuple(range_exponents)
        self.scale_exponents = tuple(
            scale_exponent(encoding=encoding, members=members, range_exponent=exponent) for exponent in range_exponents
        )
        self._random = KeyStream(Secret(encoding_key(encoding_seed.reveal(), h0, 0)))

    def encode(self, values: Float32s, *, first_cell: int, out: Words | None = None) -> Words:
        """The words of cells `first_cell`.. of section 0, in `out` when it is given.

        `out` is contiguous, of the encoding's word; with U32 it may be the memory of `values` itself. Raises TaskError
        that names the tensor (by number) for a NaN, an infinity, or |w * x| beyond the tensor's range.
        """
        words: Words = np.empty(values.size, WORD[self._encoding]) if out is None else out
        last = first_cell + values.size
        if not 0 <= first_cell <= last <= self._starts[-1] or words.shape != values.shape:
            raise RuntimeError(f"cells {first_cell} to {last} of {self._starts[-1]} do not go into {words.size} words")
        if words.dtype != WORD[self._encoding] or not words.flags.c_contiguous:
            raise RuntimeError(f"expected {values.size} contiguous words of {WORD[self._encoding]}, got {words.dtype}")
        room = _Room(self._encoding)
        tensor, start = bisect_right(self._starts, first_cell) - 1, first_cell
        while start < last:
            end = min(self._starts[tensor + 1], last)
            part = slice(start - first_cell, end - first_cell)
            self._encode_tensor(tensor, values[part], words[part], start, room)
            tensor, start = tensor + 1, end
        return words

    def _encode_tensor(self, tensor: int, values: Float32s, words: Words, first_cell: int, room: _Room) -> None:
        exponent = self.scale_exponents[tensor]
        factor = math.ldexp(self._weight, exponent)  # exact: rounding to float64 happens once, in the product
        limit = math.ldexp(1.0, exponent + self._ranges[tensor])
        for begin in range(0, values.size, _BLOCK_CELLS):
            block = values[begin : begin + _BLOCK_CELLS]
            lowest, highest = float(block.min()) * factor, float(block.max()) * factor
            if not (-limit <= lowest and highest <= limit):  # NaN is neither
                raise TaskError(_refusal(tensor, lowest, highest, limit))
            scaled = np.multiply(block, factor, out=room.scaled[: block.size], dtype=np.float64)
            if self._encoding is Encoding.U16:
                self._add_fraction(scaled, first_cell + begin, room)
                np.floor(scaled, out=scaled)
            else:
                np.rint(scaled, out=scaled)
            target = words[begin : begin + block.size].view(f"<i{words.itemsize}")
            np.copyto(target, scaled, casting="unsafe")

    def _add_fraction(self, scaled: Float64s, first_cell: int, room: _Room) -> None:
        """Add r / 2^32 to each, r being the four random bytes of its cell: floor then rounds without bias."""
        offset = _RANDOM_BYTES * first_cell
        for start, end in pieces(offset, _RANDOM_BYTES * scaled.size):
            words = np.frombuffer(self._random.piece(start, end, room.bytes), "<u4")
            fraction = np.multiply(words, 2.0**-32, out=room.fraction[: words.size])
            scaled[(start - offset) // _RANDOM_BYTES : (end - offset) // _RANDOM_BYTES] += fraction


class _Room:
    """Buffers of one call, so that an Encoder may be used by several threads."""

    def __init__(self, encoding: Encoding) -> None:
        self.scaled: Float64s = np.empty(_BLOCK_CELLS)
        self.fraction: Float64s = np.empty(_BLOCK_CELLS)
        self.bytes = scratch() if encoding is Encoding.U16 else memoryview(b"")


def largest_products(values: Float32s, weight_q: int, sizes: Sequence[int]) -> tuple[float, ...]:
    """The largest |w * x| of each tensor of a whole section 0, as the encoder rounds it; NaN where there is one."""
    weight = weight_of(weight_q)
    bounds = (0, *accumulate(sizes))
    return tuple(weight * _largest(values[start:end]) for start, end in pairwise(bounds))


def _largest(values: NDArray[Any]) -> float:
    if not values.size:
        return 0.0
    return float(np.maximum(-values.min(), values.max()))


def _refusal(tensor: int, lowest: float, highest: float, limit: float) -> str:
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return f"aggregated tensor {tensor}: a delta is a finite number, got NaN or an infinity"
    return (
        f"aggregated tensor {tensor}: |weight * delta| is beyond its range, {max(-lowest, highest) / limit:.3g} times R"
    )
