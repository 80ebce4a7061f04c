"""The fold against one written with Python floats and exact casts, one number at a time."""

from __future__ import annotations

import hashlib
import math
import struct
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation.fold import CHUNK_ELEMENTS, Totals, fold
from coordinator.aggregation.plain import PlainSum, PlainUpdate
from coordinator.aggregation.strategy import FedAvg, Visibility, strategy_for
from shared.errors import RoundAborted
from shared.hashing import tagged_hash
from shared.ids import Digest, parse_participant_id
from shared.job import StrategySpec
from shared.reasons import AbortReason
from shared.tensors import encode_header, read_index
from shared.update import (
    CHUNK_BYTES,
    DType,
    Encoding,
    ModelManifest,
    StatisticsLayout,
    TensorSpec,
    UpdateLayout,
)
from tests.support import models
from tests.support.exact import dumb_narrow, dumb_widen
from tests.support.readers import MemoryReader, MemoryStaged

STATISTICS = StatisticsLayout(("loss", "accuracy"))


@dataclass(frozen=True)
class Update:
    """An update as a silo would send it."""

    participant: str
    weight: float
    deltas: Sequence[float]
    cells: Sequence[float] = (0.0,) * STATISTICS.cells

    def as_input(self) -> PlainUpdate:
        sections = np.array(self.deltas, "<f4").tobytes() + np.array(self.cells, "<f8").tobytes()
        return PlainUpdate(
            participant=parse_participant_id(self.participant), weight=self.weight, reader=MemoryReader(sections)
        )


@dataclass(frozen=True)
class Folded:
    digest: Digest
    weight_total: float
    totals: Totals


def run_fold(base: bytes, updates: Sequence[Update]) -> tuple[Folded, bytes]:
    reader = MemoryReader(base)
    index = read_index(reader)
    out = MemoryStaged()
    added = PlainSum(
        updates=[update.as_input() for update in updates],
        layout=UpdateLayout(Encoding.PLAIN, index.manifest.parameters, STATISTICS.cells),
        statistics=STATISTICS,
    )
    digest = fold(base=reader, base_index=index, updates=added, strategy=FedAvg(), out=out)
    return Folded(digest, added.weight_total, added.totals), out.content()


def dumb_fold(manifest: ModelManifest, tensors: models.Tensors, updates: Sequence[Update]) -> dict[str, bytes]:
    ordered = sorted(updates, key=lambda update: update.participant)
    weight_total = 0.0
    for update in ordered:
        weight_total += update.weight
    result = dict(tensors)
    cell = 0
    for tensor in manifest.tensors:
        if not tensor.dtype.aggregated:
            continue
        code = {8: "Q", 4: "I", 2: "H"}[tensor.dtype.item_bytes]
        new = []
        for (bits,) in struct.iter_unpack("<" + code, tensors[tensor.name]):
            total = ordered[0].weight * single(ordered[0].deltas[cell])
            for update in ordered[1:]:
                total += update.weight * single(update.deltas[cell])
            new.append(dumb_narrow(dumb_widen(bits, tensor.dtype) + total / weight_total, tensor.dtype))
            cell += 1
        result[tensor.name] = struct.pack(f"<{len(new)}{code}", *new)
    return result


def single(value: float) -> float:
    return float(np.float32(value))


def some_updates(manifest: ModelManifest, count: int, seed: int) -> list[Update]:
    generator = np.random.default_rng(seed)
    return [
        Update(
            f"silo-{number}",
            float(generator.integers(1, 1000) if number % 2 else generator.uniform(0.1, 3)),
            generator.normal(scale=0.1, size=manifest.parameters).tolist(),
            generator.uniform(0, 100, STATISTICS.cells).tolist(),
        )
        for number in range(count)
    ]


@given(models.manifests(), models.metadata, st.integers(1, 5), st.integers(0, 2**32), st.data())
def test_the_fold_is_the_dumb_fold_bit_for_bit(
    manifest: ModelManifest, metadata: Mapping[str, str], count: int, seed: int, data: st.DataObject
) -> None:
    tensors = models.random_tensors(manifest, seed)
    updates = data.draw(st.permutations(some_updates(manifest, count, seed)))
    result, written = run_fold(models.model_bytes(manifest, tensors, metadata), updates)
    assert written == models.model_bytes(manifest, dumb_fold(manifest, tensors, updates), metadata)
    assert str(result.digest) == hashlib.sha256(written).hexdigest()
    ordered = sorted(updates, key=lambda update: update.participant)
    assert result.weight_total == sum(update.weight for update in ordered)
    assert list(result.totals.cells.values()) == [
        sum(cells) for cells in zip(*(update.cells for update in ordered), strict=True)
    ]


LARGE = ModelManifest.of(
    [
        TensorSpec("a.half", DType.F16, (3, 1)),
        TensorSpec("a.scalar", DType.F32, ()),
        TensorSpec("b.bf", DType.BF16, (CHUNK_ELEMENTS + 3,)),
        TensorSpec("b.empty", DType.F32, (0, 7)),
        TensorSpec("b.steps", DType.I64, (CHUNK_BYTES // 8 + 1,)),
        TensorSpec("c.double", DType.F64, (2 * CHUNK_ELEMENTS,)),
        TensorSpec("c.mask", DType.BOOL, (5,)),
    ]
)


def test_tensors_larger_than_a_chunk_and_odd_sizes() -> None:
    tensors = models.random_tensors(LARGE, 5)
    updates = some_updates(LARGE, 2, 5)
    result, written = run_fold(models.model_bytes(LARGE, tensors), updates)
    assert written == models.model_bytes(LARGE, dumb_fold(LARGE, tensors, updates))
    assert str(result.digest) == hashlib.sha256(written).hexdigest()


def test_folding_again_in_another_order_gives_the_same_bytes() -> None:
    base = models.model_bytes(LARGE, models.random_tensors(LARGE, 5), {"format": "pt"})
    updates = some_updates(LARGE, 3, 6)
    assert run_fold(base, updates) == run_fold(base, updates[::-1])


def test_a_base_in_another_layout_gives_the_canonical_one() -> None:
    manifest = ModelManifest.of([TensorSpec("a", DType.U8, (1,)), TensorSpec("b", DType.F32, (1,))])
    header = (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}'
    )
    base = len(header).to_bytes(8, "little") + header + b"\7" + struct.pack("<f", 1.5)
    _, written = run_fold(base, [Update("silo-a", 2.0, [0.25])])
    assert written == models.model_bytes(manifest, {"a": b"\7", "b": struct.pack("<f", 1.75)})


def test_a_frozen_fold() -> None:
    """By hand: 1 + (3 * 0.5 + 1.5) / 4 is 1.75; BF16 has 1 and 1.0078125, and of a tie takes the even one, 1."""
    manifest = ModelManifest.of([TensorSpec("w", DType.F32, (1,)), TensorSpec("x", DType.BF16, (1,))])
    tensors = {"w": struct.pack("<f", 1), "x": b"\x80\x3f"}
    updates = [Update("silo-b", 1.0, [1.5, 0.015625]), Update("silo-a", 3.0, [0.5, 0.0])]
    result, written = run_fold(models.model_bytes(manifest, tensors), updates)
    assert written[-6:] == struct.pack("<f", 1.75) + b"\x80\x3f"
    assert result.weight_total == 4.0
    assert str(result.digest) == "7abb8e3dc8566b07be556285945cf24ba10f8525c11ce4ee9da6c330bf0faab3"


TINY = ModelManifest.of([TensorSpec("h", DType.F16, (1,)), TensorSpec("w", DType.F32, (1,))])
TINY_BASE = models.model_bytes(TINY, {"h": struct.pack("<e", 60_000), "w": struct.pack("<f", 1)})


@pytest.mark.parametrize(
    ("updates", "says"),
    [
        ([("silo-a", 1.0, [0.0, math.inf])], "tensor 'w': the mean of the updates is not finite"),
        ([("silo-a", 1.0, [0.0, math.nan])], "tensor 'w': the mean of the updates is not finite"),
        ([("silo-a", 1.0, [0.0, math.inf]), ("silo-b", 1.0, [0.0, -math.inf])], "tensor 'w': the mean"),
        ([("silo-a", 1.0, [10_000.0, 0.0])], "tensor 'h': the new values are not finite or do not fit F16"),
        ([("silo-a", math.inf, [0.0, 0.0])], "total weight of 1 updates is inf"),
        ([("silo-a", 0.0, [0.0, 0.0])], "total weight of 1 updates is 0"),
        ([], "total weight of 0 updates is 0"),
    ],
)
def test_numbers_that_are_not_finite_abort_the_round(updates: list[tuple[str, float, list[float]]], says: str) -> None:
    with pytest.raises(RoundAborted, match=says) as raised:
        run_fold(TINY_BASE, [Update(*update) for update in updates])
    assert raised.value.reason is AbortReason.FOLD_FAILED
    assert "silo" not in str(raised.value)


def test_a_statistic_that_is_not_finite_aborts_the_round() -> None:
    cells = [1.0, math.inf, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(RoundAborted, match=r"total of train\.loss is inf") as raised:
        run_fold(TINY_BASE, [Update("silo-a", 1.0, [0.0, 0.0], cells)])
    assert "silo" not in str(raised.value)


def test_an_evaluate_round_folds_statistics_only() -> None:
    cells = ([0.0, 0.0, 0.0, 10.0, 5.0, 9.0], [0.0, 0.0, 0.0, 30.0, 25.0, 21.0])
    updates = [Update(name, 1.0, [], cell).as_input() for name, cell in zip(("b", "a"), cells, strict=True)]
    layout = UpdateLayout(Encoding.PLAIN, 0, STATISTICS.cells)
    added = PlainSum(updates=updates, layout=layout, statistics=STATISTICS)
    totals = added.totals
    assert added.weight_total == 40.0
    assert totals.cells == dict(zip(STATISTICS.names, [0.0, 0.0, 0.0, 40.0, 30.0, 30.0], strict=True))
    assert totals.means() == {"evaluate.loss": 0.75, "evaluate.accuracy": 0.75}


def test_means_are_per_half() -> None:
    cells = {"train.weight": 4.0, "train.loss": 2.0, "evaluate.weight": 2.0, "evaluate.loss": 3.0}
    totals = Totals(cells)
    assert totals.means() == {"train.loss": 0.5, "evaluate.loss": 1.5}
    assert Totals({"train.loss": 2.0, "odd": 1.0}).means() == {}
    assert totals.digest == tagged_hash("totals", struct.pack("<4d", 4.0, 2.0, 2.0, 3.0))


def test_what_the_upload_checks_exclude_is_a_bug() -> None:
    update = Update("silo-a", 1.0, [0.0, 0.0])
    with pytest.raises(RuntimeError, match="two updates"):
        run_fold(TINY_BASE, [update, update])
    with pytest.raises(RuntimeError, match="does not have the 56 bytes"):
        run_fold(TINY_BASE, [replace(update, deltas=[0.0])])


def test_a_layout_of_another_model_is_a_bug() -> None:
    reader = MemoryReader(TINY_BASE)
    index = read_index(reader)
    update = Update("silo-a", 1.0, [0.0, 0.0, 0.0]).as_input()
    added = PlainSum(updates=[update], layout=UpdateLayout(Encoding.PLAIN, 3, STATISTICS.cells), statistics=STATISTICS)
    with pytest.raises(RuntimeError, match="3 parameters, not 2"):
        fold(base=reader, base_index=index, updates=added, strategy=FedAvg(), out=MemoryStaged())
    with pytest.raises(RuntimeError, match="2 cells of statistics, not 6"):
        PlainSum(updates=[update], layout=UpdateLayout(Encoding.PLAIN, 2, 2), statistics=STATISTICS)


def test_a_strategy_says_what_it_sees() -> None:
    strategy = strategy_for(StrategySpec(name="fedavg"))
    assert (strategy.name, strategy.sees) == ("fedavg", Visibility.SUM)
    assert strategy.apply(np.array([1.0, 2.0]), np.array([0.5, -1.0])).tolist() == [1.5, 1.0]


def test_memory_is_a_few_chunks_whatever_the_model() -> None:
    manifest = ModelManifest.of([TensorSpec(f"layer-{number}", DType.F32, (1024, 2048)) for number in range(8)])
    header, index = encode_header(manifest, {})
    base = header + bytes(index.file_size - len(header))  # 64 MB
    layout = UpdateLayout(Encoding.PLAIN, manifest.parameters, STATISTICS.cells)
    sections = bytes(layout.total_bytes)
    updates = [
        PlainUpdate(participant=parse_participant_id(f"silo-{number}"), weight=1.0, reader=MemoryReader(sections))
        for number in range(8)
    ]
    out = MemoryStaged()
    reader = MemoryReader(base)
    out.allocate(index.file_size)  # the fold allocates again: keep it from counting as the fold's
    tracemalloc.start()
    try:
        fold(
            base=reader,
            base_index=index,
            updates=PlainSum(updates=updates, layout=layout, statistics=STATISTICS),
            strategy=FedAvg(),
            out=_AllocatedBefore(out),
        )
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert out.content() == base
    assert peak_bytes < 8 << 20


class _AllocatedBefore:
    """A staged file whose memory was counted before."""

    def __init__(self, inner: MemoryStaged) -> None:
        self._inner = inner

    def allocate(self, size: int) -> None:
        """Done."""

    def write_at(self, offset: int, data: memoryview) -> None:
        self._inner.write_at(offset, data)

    def reader(self) -> MemoryReader:
        return self._inner.reader()

    def discard(self) -> None:
        self._inner.discard()
