"""The sum of plain updates: float32 deltas and float64 statistics, which the coordinator reads.

With every product, sum and quotient in float64, both sums over the participants in the order of their names (the first
product starts its sum). So the result depends on the updates and on nothing else, neither on the order of arrival nor
on the size of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.aggregation.fold import CHUNK_ELEMENTS, Totals, fold_failed
from coordinator.storage.interface import Reader
from shared.casts import Float64s
from shared.ids import ParticipantId
from shared.update import STATISTIC_BYTES, StatisticsLayout, UpdateLayout

DELTA_BYTES = 4  # float32


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainUpdate:
    """One survivor's committed update. `reader` holds the two sections and nothing else."""

    participant: ParticipantId
    weight: float
    reader: Reader


class PlainSum:
    """A `WeightedSum` of plain updates."""

    def __init__(self, *, updates: Sequence[PlainUpdate], layout: UpdateLayout, statistics: StatisticsLayout) -> None:
        """Raises RoundAborted (FOLD_FAILED) and StorageError."""
        self.layout = layout
        self._updates = _in_order(updates, layout, statistics)
        self._weights = _weight_total(self._updates)
        self.totals = _totals(self._updates, layout, statistics)
        self._term = np.empty(CHUNK_ELEMENTS)

    @property
    def weight_total(self) -> float:
        """See `WeightedSum`."""
        return self._weights if self.layout.parameters else self.totals.cells["evaluate.weight"]

    def mean_delta(self, first_cell: int, out: Float64s) -> None:
        """See `WeightedSum`."""
        target = out
        for update in self._updates:
            data = update.reader.read_at(first_cell * DELTA_BYTES, out.size * DELTA_BYTES)
            np.multiply(np.frombuffer(data, "<f4"), update.weight, out=target, dtype=np.float64)
            if target is not out:
                out += target
            target = self._term[: out.size]
        out /= self._weights


def _in_order(
    updates: Sequence[PlainUpdate], layout: UpdateLayout, statistics: StatisticsLayout
) -> tuple[PlainUpdate, ...]:
    """The updates by participant. What cannot be, after the checks at the upload, is a bug of the caller."""
    ordered = tuple(sorted(updates, key=lambda update: update.participant))
    if len({update.participant for update in ordered}) != len(ordered):
        raise RuntimeError("a participant has two updates in one fold")
    if layout.statistics != statistics.cells:
        raise RuntimeError(f"the layout has {layout.statistics} cells of statistics, not {statistics.cells}")
    if any(update.reader.size != layout.total_bytes for update in ordered):
        raise RuntimeError(f"an update does not have the {layout.total_bytes} bytes of its layout")
    return ordered


def _weight_total(updates: Sequence[PlainUpdate]) -> float:
    total = 0.0
    for update in updates:
        total += update.weight
    if not (math.isfinite(total) and total > 0):
        raise fold_failed(f"the total weight of {len(updates)} updates is {total}, expected a finite number above 0")
    return total


def _totals(updates: Sequence[PlainUpdate], layout: UpdateLayout, statistics: StatisticsLayout) -> Totals:
    sums = np.zeros(layout.statistics)
    with np.errstate(over="ignore", invalid="ignore"):
        for update in updates:
            cells = update.reader.read_at(layout.parameter_bytes, layout.statistics * STATISTIC_BYTES)
            sums += np.frombuffer(cells, "<f8")
    for name, total in zip(statistics.names, sums.tolist(), strict=True):
        if not math.isfinite(total):
            raise fold_failed(f"the total of {name} is {total}, expected a finite number")
    return Totals(dict(zip(statistics.names, sums.tolist(), strict=True)))
