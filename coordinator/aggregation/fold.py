"""Folding: committed updates and a model become the next model, a chunk at a time.

For every aggregated tensor the new value is

    cast(strategy.apply(float64(old), sum(weight * delta) / sum(weight)))

with every product, sum and quotient in float64, both sums over the participants in the order of their names (the first
product starts its sum), and one rounding, to nearest, ties to even, in the cast. So the result depends on the updates
and on nothing else: not on the order of arrival, not on the size of a chunk, not on how often a fold was interrupted
and begun again. Integer and boolean tensors and the metadata are the base's.

The output has the canonical layout of `shared.tensors` and is written from front to back, so that its digest is known
at the end without reading it again. Memory is a few buffers of one chunk, whatever the size of the model and the number
of participants. There is no state here: a restart folds again from the committed spools.

A number that is not finite aborts the round. The error names the tensor, never a participant: who sent what stays
between that silo and the coordinator.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.aggregation.strategy import Strategy, Visibility
from coordinator.storage.interface import Reader, Staged
from shared.casts import Float64s, all_finite, narrow, widen
from shared.errors import RoundAborted
from shared.hashing import tagged_hash
from shared.ids import Digest, ParticipantId
from shared.reasons import AbortReason
from shared.tensors import ModelIndex, encode_header
from shared.update import CHUNK_BYTES, StatisticsLayout, TensorSpec, UpdateLayout

DELTA_BYTES = 4  # PLAIN: float32
CELL_BYTES = 8  # float64
CHUNK_ELEMENTS = 1 << 16  # 256 KiB of deltas: measured best; the float64 buffers stay in a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldInput:
    """One survivor's committed update. `reader` holds the two sections and nothing else."""

    participant: ParticipantId
    weight: float
    reader: Reader


@dataclass(frozen=True, slots=True)
class Totals:
    """What section 1 adds up to: `train.weight`, `train.<metric>`.., `evaluate.weight`, `evaluate.<metric>`.."""

    cells: Mapping[str, float]

    @property
    def digest(self) -> Digest:
        """What a RoundResult can say of the totals without saying them: over the cells, float64 in wire order."""
        return tagged_hash("totals", np.array(list(self.cells.values()), "<f8").tobytes())

    def means(self) -> dict[str, float]:
        """`train.<metric>` and `evaluate.<metric>`, each total over its half's weight; nothing for a half without."""
        means: dict[str, float] = {}
        for name, total in self.cells.items():
            half, _, metric = name.partition(".")
            weight = self.cells.get(f"{half}.weight", 0.0)
            if metric != "weight" and weight > 0:
                means[name] = total / weight
        return means


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """What a train round has to commit, beside the staged file."""

    model_digest: Digest
    weight_total: float
    totals: Totals


def fold(
    *,
    base: Reader,
    base_index: ModelIndex,
    updates: Sequence[FoldInput],
    layout: UpdateLayout,
    statistics: StatisticsLayout,
    strategy: Strategy,
    out: Staged,
) -> FoldResult:
    """Write the next model to `out`. Raises RoundAborted (FOLD_FAILED) and StorageError; `out` is then worthless."""
    if layout.parameters != base_index.manifest.parameters:
        raise RuntimeError(f"the layout has {layout.parameters} parameters, not {base_index.manifest.parameters}")
    if strategy.sees is not Visibility.SUM:
        raise RuntimeError(f"strategy {strategy.name} needs more than a sum of updates")
    ordered = _in_order(updates, layout, statistics)
    weight_total = _weight_total(ordered)
    totals = _totals(ordered, layout, statistics)
    header, out_index = encode_header(base_index.manifest, base_index.metadata)
    out.allocate(out_index.file_size)
    sink = _Sink(out)
    sink.write(memoryview(header))
    walk = _Walk(
        base=base, base_index=base_index, updates=ordered, weight_total=weight_total, strategy=strategy, sink=sink
    )
    starts = _section_starts(base_index)
    for tensor in out_index.in_file_order():
        if tensor.dtype.aggregated:
            walk.fold_tensor(tensor, starts[tensor.name])
        else:
            walk.copy_tensor(tensor)
    return FoldResult(model_digest=sink.digest(), weight_total=weight_total, totals=totals)


def fold_statistics(*, updates: Sequence[FoldInput], layout: UpdateLayout, statistics: StatisticsLayout) -> Totals:
    """Add up section 1 only: all that a round of purpose `evaluate` has. Raises RoundAborted and StorageError."""
    return _totals(_in_order(updates, layout, statistics), layout, statistics)


def _in_order(
    updates: Sequence[FoldInput], layout: UpdateLayout, statistics: StatisticsLayout
) -> tuple[FoldInput, ...]:
    """The updates by participant. What cannot be, after the checks at the upload, is a bug of the caller."""
    ordered = tuple(sorted(updates, key=lambda update: update.participant))
    if len({update.participant for update in ordered}) != len(ordered):
        raise RuntimeError("a participant has two updates in one fold")
    if layout.statistics != statistics.cells:
        raise RuntimeError(f"the layout has {layout.statistics} cells of statistics, not {statistics.cells}")
    if any(update.reader.size != layout.total_bytes for update in ordered):
        raise RuntimeError(f"an update does not have the {layout.total_bytes} bytes of its layout")
    return ordered


def _weight_total(updates: Sequence[FoldInput]) -> float:
    total = 0.0
    for update in updates:
        total += update.weight
    if not (math.isfinite(total) and total > 0):
        raise _failed(f"the total weight of {len(updates)} updates is {total}, expected a finite number above 0")
    return total


def _totals(updates: Sequence[FoldInput], layout: UpdateLayout, statistics: StatisticsLayout) -> Totals:
    sums = np.zeros(layout.statistics)
    with np.errstate(over="ignore", invalid="ignore"):
        for update in updates:
            cells = update.reader.read_at(layout.parameter_bytes, layout.statistics * CELL_BYTES)
            sums += np.frombuffer(cells, "<f8")
    for name, total in zip(statistics.names, sums.tolist(), strict=True):
        if not math.isfinite(total):
            raise _failed(f"the total of {name} is {total}, expected a finite number")
    return Totals(dict(zip(statistics.names, sums.tolist(), strict=True)))


def _section_starts(index: ModelIndex) -> dict[str, int]:
    """Byte offset of each aggregated tensor in section 0."""
    starts: dict[str, int] = {}
    position = 0
    for tensor in index.manifest.aggregated():
        starts[tensor.name] = position
        position += tensor.elements * DELTA_BYTES
    return starts


class _Sink:
    """The staged file, written from front to back and hashed on the way."""

    def __init__(self, out: Staged) -> None:
        self._out = out
        self._running = hashlib.sha256()
        self._position = 0

    def write(self, data: memoryview) -> None:
        self._out.write_at(self._position, data)
        self._running.update(data)
        self._position += len(data)

    def digest(self) -> Digest:
        return Digest(self._running.digest())


class _Walk:
    """One walk over the model, with the buffers that every chunk reuses."""

    def __init__(
        self,
        *,
        base: Reader,
        base_index: ModelIndex,
        updates: Sequence[FoldInput],
        weight_total: float,
        strategy: Strategy,
        sink: _Sink,
    ) -> None:
        self._base = base
        self._base_index = base_index
        self._updates = updates
        self._weight_total = weight_total
        self._strategy = strategy
        self._sink = sink
        self._old, self._sum, self._term = (np.empty(CHUNK_ELEMENTS) for _ in range(3))

    def fold_tensor(self, tensor: TensorSpec, section_start: int) -> None:
        """Combine one tensor of all updates with the base's, and write it."""
        file_start = self._base_index.offset_of(tensor.name)
        item_bytes = tensor.dtype.item_bytes
        for first in range(0, tensor.elements, CHUNK_ELEMENTS):
            count = min(CHUNK_ELEMENTS, tensor.elements - first)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # found below, in the result
                mean = self._mean_delta(section_start + first * DELTA_BYTES, count)
                finite_mean = bool(np.isfinite(mean).all())
                stored = self._base.read_at(file_start + first * item_bytes, count * item_bytes)
                old = widen(stored, tensor.dtype, self._old[:count])
                new = narrow(self._strategy.apply(old, mean), tensor.dtype)
            if not finite_mean:
                raise _failed(f"tensor {tensor.name!r}: the mean of the updates is not finite")
            if not all_finite(new, tensor.dtype):
                raise _failed(f"tensor {tensor.name!r}: the new values are not finite or do not fit {tensor.dtype}")
            self._sink.write(new)

    def _mean_delta(self, start: int, count: int) -> Float64s:
        total, term = self._sum[:count], self._term[:count]
        target = total
        for update in self._updates:
            deltas = np.frombuffer(update.reader.read_at(start, count * DELTA_BYTES), "<f4")
            np.multiply(deltas, update.weight, out=target, dtype=np.float64)
            if target is term:
                total += term
            target = term
        total /= self._weight_total
        return total

    def copy_tensor(self, tensor: TensorSpec) -> None:
        """Write one tensor as the base has it."""
        file_start = self._base_index.offset_of(tensor.name)
        for offset in range(0, tensor.data_bytes, CHUNK_BYTES):
            length = min(CHUNK_BYTES, tensor.data_bytes - offset)
            self._sink.write(self._base.read_at(file_start + offset, length))


def _failed(message: str) -> RoundAborted:
    return RoundAborted(AbortReason.FOLD_FAILED, message)
