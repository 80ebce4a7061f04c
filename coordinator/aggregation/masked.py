"""The sum of masked updates: what opens is the total of the survivors, and never one of them.

The words of all survivors are added modulo 2^k, and the masks that are left on the sum are taken off, a *window* of
section 0 at a time. A window is a chunk of the mask stream, so each byte of a mask is made once however many tensors
lie in it. Files have their tensors ordered by element type, section 0 by name; the walk passes over the section once
for each type, and mostly finds its next cells in the window at hand.

Survivors and masks are dealt out to *lanes*, each of which adds up its own part of a window, at once with the others
where somebody provides threads. Integer sums are exact: neither the order of the survivors nor the number of lanes or
the size of a window changes a bit, and a fold that is run again gives the same bytes.

Section 1 is opened when the sum is made, since the weights that it totals are what everything else is divided by, and a
total that honest members cannot have ends the round before the model is touched.

Memory is a window for each lane and a piece of one for each reader. The masks' roots live as long as this object does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coordinator.aggregation.fold import Totals
from coordinator.storage.interface import Reader
from shared.casts import Float64s
from shared.errors import RoundAborted
from shared.job import MaskingSpec
from shared.reasons import AbortReason
from shared.secagg.fixed_point import METRIC_SCALE_BITS, WEIGHT_SCALE_BITS, decode, quantise_weight, weight_of
from shared.secagg.masking import Masks, Term
from shared.secagg.ranges import read_top_cells
from shared.secagg.ring import STATISTICS_WORD, WORD, Words, add_into
from shared.update import CHUNK_BYTES, RANGE_CELLS, STATISTIC_BYTES, StatisticsLayout, UpdateLayout

WINDOW_BYTES = CHUNK_BYTES  # enough work to be worth a handover to a thread
PIECE_BYTES = 1 << 18  # in which masks are made; the words, one mask and one spool's bytes stay in a core's cache
RANGES_AT_ONCE = WINDOW_BYTES // (RANGE_CELLS * STATISTIC_BYTES)  # tensors

Job: TypeAlias = Callable[[], None]
Together: TypeAlias = Callable[[Sequence[Job]], None]
"""Does all of these, at once if it can, and returns when they are done. Raises what one of them raised."""

_PARAMETERS, _STATISTICS = 0, 1  # sections
_EQUAL = 1 << WEIGHT_SCALE_BITS  # the weight of every silo where all weigh the same


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedUpdates:
    """What a masked sum is made of. Nothing here says whose update is whose."""

    readers: Sequence[Reader]
    """One for each survivor; each holds the two sections and nothing else."""
    masks: Sequence[Term]
    """All that the sum of these updates has on it."""
    layout: UpdateLayout
    statistics: StatisticsLayout
    sizes: Sequence[int]
    """Cells of each aggregated tensor, in manifest order; empty in an evaluate round."""
    scale_exponents: Sequence[int]
    """log2 S of each of them."""


def in_turn(jobs: Sequence[Job]) -> None:
    """A `Together` without threads."""
    for job in jobs:
        job()


class MaskedSum:
    """A `WeightedSum` of masked updates."""

    def __init__(
        self, updates: MaskedUpdates, rules: MaskingSpec, *, lanes: int = 1, together: Together = in_turn
    ) -> None:
        """Raises RoundAborted (TOTAL_REFUSED) and StorageError."""
        _require_sound(updates)
        self.layout = updates.layout
        self._updates = updates
        self._together = together
        step = min(lanes, len(updates.readers))  # a lane has one reader at least
        self._lanes = [
            _Lane(updates.readers[lane::step], Masks(updates.masks[lane::step]), updates.layout.parameter_bytes)
            for lane in range(step)
        ]
        self._starts = (0, *accumulate(updates.sizes))
        counted = self._counted_cells()
        _require_honest_weights(counted, rules, silos=len(updates.readers), half=self._half)
        self._weights = counted[f"{self._half}.weight"]
        self.totals = Totals({name: _as_float(name, total) for name, total in counted.items()})
        self._words = np.empty(WINDOW_BYTES // updates.layout.encoding.word_bytes, WORD[updates.layout.encoding])
        self._window = -1  # the number of the window that is in `_words`

    @property
    def weight_total(self) -> float:
        """See `WeightedSum`."""
        return weight_of(self._weights)

    def mean_delta(self, first_cell: int, out: Float64s) -> None:
        """See `WeightedSum`."""
        scale = self._updates.scale_exponents[bisect_right(self._starts, first_cell) - 1]
        done = 0
        while done < out.size:
            number, offset = divmod(first_cell + done, self._words.size)
            total = self._opened_window(number)[offset : offset + out.size - done]
            decode(total, scale_exponent=scale, weight_total=self._weights, out=out[done : done + total.size])
            done += total.size

    def top_cells(self) -> tuple[int, ...]:
        """The top range cell of each aggregated tensor. Raises StorageError."""
        tensors = len(self._updates.sizes)
        top: list[int] = []
        for first in range(0, tensors, RANGES_AT_ONCE):
            count = min(RANGES_AT_ONCE, tensors - first)
            words = np.empty(count * RANGE_CELLS, STATISTICS_WORD)
            start = self._updates.statistics.cells + first * RANGE_CELLS
            self._open(words, section=_STATISTICS, first_byte=start * STATISTIC_BYTES)
            top += read_top_cells(words, count)
        return tuple(top)

    @property
    def _half(self) -> str:
        """The half of the statistics whose weight counts: an evaluate round has no parameters, others have."""
        return "train" if self.layout.parameters else "evaluate"

    def _counted_cells(self) -> Mapping[str, int]:
        statistics = self._updates.statistics
        words = np.empty(statistics.cells, STATISTICS_WORD)
        self._open(words, section=_STATISTICS, first_byte=0)
        return dict(zip(statistics.names, _signed(words).tolist(), strict=True))

    def _opened_window(self, number: int) -> NDArray[np.signedinteger[Any]]:
        """The total of one window, which is valid until the next call."""
        first_cell = number * self._words.size
        words = self._words[: self.layout.parameters - first_cell]
        if number != self._window:
            self._window = -1
            self._open(words, section=_PARAMETERS, first_byte=number * WINDOW_BYTES)
            self._window = number
        return _signed(words)

    def _open(self, words: Words, *, section: int, first_byte: int) -> None:
        """Fill `words` with what the updates have from that byte of the section on, added up and without masks."""
        first, *others = self._lanes
        self._together(
            [
                partial(first.add_up, words, section, first_byte),
                *(partial(lane.add_up, lane.room(words), section, first_byte) for lane in others),
            ]
        )
        for lane in others:
            add_into(words, lane.room(words))


class _Lane:
    """Some of the updates and some of the masks, and room for their sum. Used by one thread at a time."""

    def __init__(self, readers: Sequence[Reader], masks: Masks, parameter_bytes: int) -> None:
        self._readers = readers
        self._masks = masks
        self._section_starts = (0, parameter_bytes)
        self._room = np.empty(0, np.uint8)

    def room(self, words: Words) -> Words:
        """As many words, of this lane's own."""
        if self._room.size < words.nbytes:
            self._room = np.empty(words.nbytes, np.uint8)
        return self._room[: words.nbytes].view(words.dtype)

    def add_up(self, words: Words, section: int, first_byte: int) -> None:
        """Fill `words` with the sum of this lane's updates, without this lane's masks."""
        at_once = PIECE_BYTES // words.itemsize
        for first in range(0, words.size, at_once):
            piece = words[first : first + at_once]
            start = first_byte + first * words.itemsize
            for number, reader in enumerate(self._readers):
                data = reader.read_at(self._section_starts[section] + start, piece.nbytes)
                if number:
                    add_into(piece, np.frombuffer(data, words.dtype))
                else:
                    piece[:] = np.frombuffer(data, words.dtype)
            self._masks.remove(piece, section=section, first_byte=start)


def _require_sound(updates: MaskedUpdates) -> None:
    """What cannot be, after the checks at the upload, is a bug of the caller."""
    layout, sizes = updates.layout, updates.sizes
    cells = updates.statistics.cells + RANGE_CELLS * len(sizes)
    if not layout.encoding.masked or layout.statistics != cells or layout.parameters != sum(sizes):
        raise RuntimeError(f"a layout of {sum(sizes)} parameters and {cells} cells is expected, not {layout}")
    if len(updates.scale_exponents) != len(sizes):
        raise RuntimeError(f"{len(sizes)} tensors have {len(updates.scale_exponents)} scales")
    if not updates.readers or any(reader.size != layout.total_bytes for reader in updates.readers):
        raise RuntimeError(f"there are no updates, or one does not have the {layout.total_bytes} bytes of its layout")


def _require_honest_weights(counted: Mapping[str, int], rules: MaskingSpec, *, silos: int, half: str) -> None:
    """Totals of weights that so many honest silos can have. A silo that lies within them has that much of the mean and
    no more; one that wraps around the ring would have all of it.
    """
    highest = silos * (_EQUAL if rules.weights == "equal" else quantise_weight(rules.max_weight, rules.max_weight))
    lowest = highest if rules.weights == "equal" else silos
    other = "evaluate" if half == "train" else "train"
    for name, least in ((half, lowest), (other, 0)):  # who did not evaluate adds nothing to the other half
        total = counted[f"{name}.weight"]
        if not least <= total <= highest:
            raise RoundAborted(
                AbortReason.TOTAL_REFUSED,
                f"{silos} updates have a {name}.weight of {weight_of(total)} examples in total, "
                f"expected {weight_of(least)} to {weight_of(highest)}",
            )


def _as_float(name: str, total: int) -> float:
    """A weight in examples, or a sum of weight * mean."""
    bits = WEIGHT_SCALE_BITS + (0 if name.endswith(".weight") else METRIC_SCALE_BITS)
    return math.ldexp(float(total), -bits)


def _signed(words: Words) -> NDArray[np.signedinteger[Any]]:
    """The words as integers nearest to zero: a view."""
    return words.view(f"<i{words.itemsize}")
