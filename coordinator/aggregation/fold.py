"""Folding: committed updates and a model become the next model, a chunk at a time.

For every aggregated tensor the new value is

    cast(strategy.apply(float64(old), sum(weight * delta) / sum(weight)))

with one rounding, to nearest, ties to even, in the cast. The quotient is a `WeightedSum`'s business: `plain` has one
over updates that the coordinator reads, `masked` one that takes the masks off their sum and never sees a single update.
Either depends on the updates and on nothing else: not on the order of arrival, not on the size of a chunk, not on how
often a fold was interrupted and begun again. Integer and boolean tensors and the metadata are the base's.

The output has the canonical layout of `shared.tensors` and is written from front to back, so that its digest is known
at the end without reading it again. Memory is a few buffers of one chunk, whatever the size of the model and the number
of participants. There is no state here: a restart folds again from the committed spools.

A number that is not finite aborts the round. The error names the tensor, never a participant: who sent what stays
between that silo and the coordinator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coordinator.aggregation.strategy import Strategy, Visibility
from coordinator.storage.interface import Reader, Staged
from shared.casts import Float64s, all_finite, narrow, widen
from shared.errors import RoundAborted
from shared.hashing import tagged_hash
from shared.ids import Digest
from shared.reasons import AbortReason
from shared.tensors import ModelIndex, encode_header
from shared.update import CHUNK_BYTES, TensorSpec, UpdateLayout

CHUNK_ELEMENTS = 1 << 16  # 256 KiB of deltas: measured best; the float64 buffers stay in a core's cache


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


class WeightedSum(Protocol):
    """The survivors' updates, added up. Its totals were checked when it was made."""

    @property
    def layout(self) -> UpdateLayout:
        """Of each of the updates."""
        ...

    @property
    def totals(self) -> Totals: ...

    @property
    def weight_total(self) -> float:
        """The examples that count: trained on, or in an evaluate round (a layout without parameters) evaluated on."""
        ...

    def mean_delta(self, first_cell: int, out: Float64s) -> None:
        """Fill `out` with the weighted mean of the cells `first_cell`.. of section 0, which all lie in one tensor and
        are CHUNK_ELEMENTS at most. Raises StorageError.
        """
        ...


def fold(*, base: Reader, base_index: ModelIndex, updates: WeightedSum, strategy: Strategy, out: Staged) -> Digest:
    """Write the next model to `out`; returns its digest.

    Raises RoundAborted (FOLD_FAILED) and StorageError; `out` is then worthless.
    """
    parameters = updates.layout.parameters
    if parameters != base_index.manifest.parameters:
        raise RuntimeError(f"the layout has {parameters} parameters, not {base_index.manifest.parameters}")
    if strategy.sees is not Visibility.SUM:
        raise RuntimeError(f"strategy {strategy.name} needs more than a sum of updates")
    header, out_index = encode_header(base_index.manifest, base_index.metadata)
    out.allocate(out_index.file_size)
    sink = _Sink(out)
    sink.write(memoryview(header))
    walk = _Walk(base=base, base_index=base_index, updates=updates, strategy=strategy, sink=sink)
    first_cells = _first_cells(base_index)
    for tensor in out_index.in_file_order():
        if tensor.dtype.aggregated:
            walk.fold_tensor(tensor, first_cells[tensor.name])
        else:
            walk.copy_tensor(tensor)
    return sink.digest()


def fold_failed(message: str) -> RoundAborted:
    """The updates cannot be combined."""
    return RoundAborted(AbortReason.FOLD_FAILED, message)


def _first_cells(index: ModelIndex) -> dict[str, int]:
    """Where each aggregated tensor begins in section 0."""
    first_cells: dict[str, int] = {}
    cell = 0
    for tensor in index.manifest.aggregated():
        first_cells[tensor.name] = cell
        cell += tensor.elements
    return first_cells


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
        updates: WeightedSum,
        strategy: Strategy,
        sink: _Sink,
    ) -> None:
        self._base = base
        self._base_index = base_index
        self._updates = updates
        self._strategy = strategy
        self._sink = sink
        self._old, self._mean = np.empty(CHUNK_ELEMENTS), np.empty(CHUNK_ELEMENTS)

    def fold_tensor(self, tensor: TensorSpec, first_cell: int) -> None:
        """Combine one tensor of all updates with the base's, and write it."""
        file_start = self._base_index.offset_of(tensor.name)
        item_bytes = tensor.dtype.item_bytes
        for first in range(0, tensor.elements, CHUNK_ELEMENTS):
            count = min(CHUNK_ELEMENTS, tensor.elements - first)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # found below, in the result
                mean = self._mean[:count]
                self._updates.mean_delta(first_cell + first, mean)
                finite_mean = bool(np.isfinite(mean).all())
                stored = self._base.read_at(file_start + first * item_bytes, count * item_bytes)
                old = widen(stored, tensor.dtype, self._old[:count])
                new = narrow(self._strategy.apply(old, mean), tensor.dtype)
            if not finite_mean:
                raise fold_failed(f"tensor {tensor.name!r}: the mean of the updates is not finite")
            if not all_finite(new, tensor.dtype):
                raise fold_failed(f"tensor {tensor.name!r}: the new values are not finite or do not fit {tensor.dtype}")
            self._sink.write(new)

    def copy_tensor(self, tensor: TensorSpec) -> None:
        """Write one tensor as the base has it."""
        file_start = self._base_index.offset_of(tensor.name)
        for offset in range(0, tensor.data_bytes, CHUNK_BYTES):
            length = min(CHUNK_BYTES, tensor.data_bytes - offset)
            self._sink.write(self._base.read_at(file_start + offset, length))
