"""The masked fold against sums of Python integers: whatever the members, the drops, the encoding and the tensors."""

from __future__ import annotations

import math
import struct
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation.fold import CHUNK_ELEMENTS, fold
from coordinator.aggregation.masked import RANGES_AT_ONCE, WINDOW_BYTES, Job, MaskedSum, MaskedUpdates
from coordinator.aggregation.strategy import FedAvg
from coordinator.aggregation.unmask import Blame, remaining_masks
from shared.errors import RoundAborted, StorageError
from shared.ids import ParticipantId
from shared.job import JobSpec
from shared.reasons import AbortReason
from shared.secagg.fixed_point import quantise_weight
from shared.secret import Secret
from shared.tensors import encode_header, read_index
from shared.update import (
    CHUNK_BYTES,
    RANGE_NONE,
    DType,
    Encoding,
    ModelManifest,
    StatisticsLayout,
    TensorSpec,
    UpdateLayout,
)
from tests.support import models
from tests.support.exact import dumb_narrow, dumb_widen
from tests.support.masked import MaskedAttempt, SiloUpdate, make_masked
from tests.support.readers import MemoryReader, MemoryStaged
from tests.support.rounds import METRICS, make_masked_spec

STATISTICS = StatisticsLayout(METRICS)
MASKED = (Encoding.U16, Encoding.U32, Encoding.U64)


def spec_of(members: int, **masking: object) -> JobSpec:
    names = [ParticipantId(f"silo-{number:02}") for number in range(members)]
    return make_masked_spec(members=names, masking={"allow_two_party": members == 2, **masking})


def sizes_of(manifest: ModelManifest) -> list[int]:
    return [tensor.elements for tensor in manifest.aggregated()]


def layout_of(sizes: Sequence[int], encoding: Encoding) -> UpdateLayout:
    return UpdateLayout.of_round(encoding=encoding, parameters=sum(sizes), tensors=len(sizes), statistics=STATISTICS)


def some_updates(
    names: Sequence[ParticipantId], sizes: Sequence[int], seed: int, magnitudes: Sequence[float] | None = None
) -> dict[ParticipantId, SiloUpdate]:
    """Deltas of up to a hundredth (or of the magnitude of each tensor), weights from a part of an example to 100."""
    generator = np.random.default_rng(seed)
    scales = np.repeat(magnitudes if magnitudes is not None else [0.01] * len(sizes), sizes)
    return {
        name: SiloUpdate(
            deltas=(generator.uniform(-1, 1, sum(sizes)) * scales).astype("<f4"),
            weight=float(generator.choice([0.37, 1.0, 12.0, 100.0])),
            means=[float(generator.uniform(-3, 3))],
            evaluate_weight=float(generator.integers(0, 3)),
            evaluate_means=[float(generator.uniform(0, 1))],
        )
        for name in names
    }


def ranges_for(updates: Mapping[ParticipantId, SiloUpdate], sizes: Sequence[int]) -> list[int]:
    """Top cells of a round before, as if it had been like this one."""
    bounds = (0, *accumulate(sizes))
    largest = [
        max((float(np.abs(one.deltas[start:end]).max(initial=0)) * one.weight for one in updates.values()), default=0)
        for start, end in pairwise(bounds)
    ]
    return [math.ceil(math.log2(value)) if value else RANGE_NONE for value in largest]


def backwards(jobs: Sequence[Job]) -> None:
    for job in reversed(jobs):
        job()


def added(attempt: MaskedAttempt, spec: JobSpec, sizes: Sequence[int], lanes: int = 1) -> MaskedSum:
    terms = remaining_masks(
        attempt.opening, survivors=attempt.contributions, members=spec.members, threshold=spec.threshold
    )
    assert not isinstance(terms, Blame)
    return MaskedSum(
        MaskedUpdates(
            readers=[MemoryReader(content) for content in attempt.sections.values()],
            masks=terms,
            layout=attempt.layout,
            statistics=STATISTICS,
            sizes=sizes,
            scale_exponents=attempt.scale_exponents,
        ),
        spec.masking,
        lanes=lanes,
        together=backwards,
    )


def integers(attempt: MaskedAttempt, section: int, bits: int) -> list[int]:
    """The sum of what was masked, by Python's integers."""
    columns = zip(*(words[section].tolist() for words in attempt.words.values()), strict=True)
    half = 2 ** (bits - 1)
    return [(sum(column) + half) % 2**bits - half for column in columns]


def dumb_fold(manifest: ModelManifest, tensors: models.Tensors, attempt: MaskedAttempt) -> dict[str, bytes]:
    totals = integers(attempt, 0, 8 * attempt.layout.encoding.word_bytes)
    weight_q = integers(attempt, 1, 64)[0]
    result, cell = dict(tensors), 0
    for tensor, scale in zip(manifest.aggregated(), attempt.scale_exponents, strict=True):
        code = {8: "Q", 4: "I", 2: "H"}[tensor.dtype.item_bytes]
        divisor = math.ldexp(weight_q, scale - 8)
        new = []
        for (bits,) in struct.iter_unpack("<" + code, tensors[tensor.name]):
            new.append(dumb_narrow(dumb_widen(bits, tensor.dtype) + float(totals[cell]) / divisor, tensor.dtype))
            cell += 1
        result[tensor.name] = struct.pack(f"<{len(new)}{code}", *new)
    return result


def run_fold(base: bytes, updates: MaskedSum) -> bytes:
    reader, out = MemoryReader(base), MemoryStaged()
    fold(base=reader, base_index=read_index(reader), updates=updates, strategy=FedAvg(), out=out)
    return out.content()


@settings(max_examples=60)
@given(
    manifest=models.manifests(),
    members=st.integers(2, 7),
    encoding=st.sampled_from(MASKED),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_the_masked_fold_is_the_dumb_one_bit_for_bit(
    manifest: ModelManifest, members: int, encoding: Encoding, seed: int, data: st.DataObject
) -> None:
    spec = spec_of(members)
    sizes = sizes_of(manifest)
    present = data.draw(st.permutations(spec.members))[: data.draw(st.integers(spec.floor, members))]
    alive = present[: data.draw(st.integers(spec.floor, len(present)))]
    updates = some_updates(alive, sizes, seed)
    revealing = alive[: data.draw(st.integers(spec.threshold, len(alive)))]
    attempt = make_masked(
        spec,
        layout=layout_of(sizes, encoding),
        sizes=sizes,
        updates=updates,
        dropped=present[len(alive) :],
        revealing=revealing,
        top_cells=ranges_for(updates, sizes),
        seed=seed.to_bytes(8, "big"),
    )
    opened = added(attempt, spec, sizes, lanes=data.draw(st.integers(1, 4)))
    tensors = models.random_tensors(manifest, seed)
    written = run_fold(models.model_bytes(manifest, tensors), opened)
    assert written == models.model_bytes(manifest, dumb_fold(manifest, tensors, attempt))
    cells = integers(attempt, 1, 64)
    bits = (8, 20, 8, 20)
    expected = [cell / 2**places for cell, places in zip(cells, bits, strict=False)]
    assert list(opened.totals.cells.items()) == list(zip(STATISTICS.names, expected, strict=True))
    assert opened.weight_total == sum(quantise_weight(one.weight, 2.0**24) for one in updates.values()) / 256
    assert list(opened.top_cells()) == ranges_for(
        {name: replace(one, weight=quantise_weight(one.weight, 2.0**24) / 256) for name, one in updates.items()}, sizes
    )


LARGE = ModelManifest.of(
    [
        TensorSpec("a.half", DType.F16, (3, 1)),
        TensorSpec("a.scalar", DType.F32, ()),
        TensorSpec("b.bf", DType.BF16, (CHUNK_ELEMENTS + 3,)),
        TensorSpec("b.empty", DType.F32, (0, 7)),
        TensorSpec("b.steps", DType.I64, (CHUNK_BYTES // 8 + 1,)),
        TensorSpec("c.double", DType.F64, (CHUNK_BYTES // 2 + 1,)),
        TensorSpec("c.single", DType.F32, (1,)),
        TensorSpec("d.mask", DType.BOOL, (5,)),
        TensorSpec("e.float", DType.F32, (7,)),
    ]
)
LARGE_SIZES = sizes_of(LARGE)


def large_attempt(encoding: Encoding) -> tuple[JobSpec, MaskedAttempt]:
    spec = spec_of(4)
    updates = some_updates(spec.members[1:], LARGE_SIZES, 3)
    attempt = make_masked(
        spec,
        layout=layout_of(LARGE_SIZES, encoding),
        sizes=LARGE_SIZES,
        updates=updates,
        dropped=spec.members[:1],
        top_cells=ranges_for(updates, LARGE_SIZES),
    )
    return spec, attempt


@pytest.mark.parametrize("encoding", MASKED)
def test_tensors_across_windows_and_chunks_in_another_order_than_the_file(encoding: Encoding) -> None:
    spec, attempt = large_attempt(encoding)
    assert attempt.layout.parameter_bytes > WINDOW_BYTES
    tensors = models.random_tensors(LARGE, 5)
    base = models.model_bytes(LARGE, tensors)
    opened = added(attempt, spec, LARGE_SIZES)
    written = run_fold(base, opened)
    manifest_order = {name: tensors[name] for name in tensors}
    wrapped = np.add.reduce([words[0] for words in attempt.words.values()], dtype=f"<u{encoding.word_bytes}")
    totals = wrapped.view(f"<i{encoding.word_bytes}").astype(np.int64)
    weight_q = integers(attempt, 1, 64)[0]
    index = read_index(MemoryReader(base))
    cell = 0
    for tensor, scale in zip(LARGE.aggregated(), attempt.scale_exponents, strict=True):
        mean = totals[cell : cell + tensor.elements] / math.ldexp(weight_q, scale - 8)
        cell += tensor.elements
        code = {8: "<u8", 4: "<u4", 2: "<u2"}[tensor.dtype.item_bytes]
        stored = np.frombuffer(manifest_order[tensor.name], code).tolist()
        picked = sorted({*range(min(3, len(stored))), *range(max(0, len(stored) - 3), len(stored)), len(stored) // 2})
        result = np.frombuffer(written, code, tensor.elements, index.offset_of(tensor.name))
        for place in picked if stored else ():
            new = dumb_narrow(dumb_widen(stored[place], tensor.dtype) + float(mean[place]), tensor.dtype)
            assert int(result[place]) == new, (tensor.name, place)
    # All other cells: by the same sum with windows that the walk asks for backwards.
    means = np.empty(sum(LARGE_SIZES))
    starts = (0, *accumulate(LARGE_SIZES))
    for start, end in reversed(list(pairwise(starts))):
        for first in reversed(range(start, end, CHUNK_ELEMENTS)):
            opened.mean_delta(first, means[first : min(first + CHUNK_ELEMENTS, end)])
    scales = np.repeat([math.ldexp(weight_q, scale - 8) for scale in attempt.scale_exponents], LARGE_SIZES)
    assert np.array_equal(means, totals / scales)
    assert run_fold(base, opened) == written
    for lanes in (1, 2, 3):
        assert run_fold(base, added(attempt, spec, LARGE_SIZES, lanes)) == written


@pytest.mark.parametrize("encoding", MASKED)
@pytest.mark.parametrize("dropped", [0, 1])
def test_masked_is_plain_up_to_rounding_for_each_tensor(encoding: Encoding, dropped: int) -> None:
    spec = spec_of(5)
    sizes, magnitudes = [500, 1, 400], [1.0, 1e-6, 1e3]
    names = spec.members[dropped:]
    updates = some_updates(names, sizes, 11, magnitudes)
    updates = {name: replace(one, weight=max(one.weight, 1.0)) for name, one in updates.items()}
    attempt = make_masked(
        spec,
        layout=layout_of(sizes, encoding),
        sizes=sizes,
        updates=updates,
        dropped=spec.members[:dropped],
        top_cells=ranges_for(updates, sizes),
    )
    opened = added(attempt, spec, sizes)
    weight = sum(one.weight for one in updates.values())
    assert opened.weight_total == weight
    factor = Fraction(1) if encoding is Encoding.U16 else Fraction(1, 2)
    for scale, (start, end) in zip(attempt.scale_exponents, pairwise((0, *accumulate(sizes))), strict=True):
        mean = np.empty(end - start)
        opened.mean_delta(start, mean)
        bound = factor * len(names) / (Fraction(2) ** scale * Fraction(weight))
        for cell, value in enumerate(mean.tolist(), start):
            exact = sum(Fraction(one.weight) * Fraction(float(one.deltas[cell])) for one in updates.values())
            error = abs(Fraction(value) - exact / Fraction(weight))
            assert error <= bound + abs(Fraction(value)) / 2**52


def test_equal_weights_count_silos() -> None:
    spec = spec_of(3, weights="equal")
    updates = {name: SiloUpdate(deltas=np.full(2, 0.5, "<f4"), means=[2.0]) for name in spec.members}
    attempt = make_masked(spec, layout=layout_of([2], Encoding.U64), sizes=[2], updates=updates)
    opened = added(attempt, spec, [2])
    assert opened.weight_total == 3.0
    assert opened.totals.means() == {"train.loss": 2.0}
    attempt = make_masked(spec_of(3), layout=attempt.layout, sizes=[2], updates=changed_weights(updates, 1.5))
    with pytest.raises(RoundAborted, match=r"train\.weight of 4\.5 examples in total, expected 3\.0 to 3\.0"):
        added(attempt, spec, [2])


def changed_weights(updates: Mapping[ParticipantId, SiloUpdate], weight: float) -> dict[ParticipantId, SiloUpdate]:
    return {name: replace(one, weight=weight) for name, one in updates.items()}


def test_an_evaluate_round_has_totals_only() -> None:
    spec = spec_of(4)
    nothing = np.empty(0, "<f4")
    updates = {
        name: SiloUpdate(deltas=nothing, evaluate_weight=weight, evaluate_means=[mean])
        for name, weight, mean in zip(spec.members, (10.0, 30.0, 0.5, 20.0), (0.5, 0.75, -1.0, 0.0), strict=True)
    }
    attempt = make_masked(spec, layout=layout_of([], Encoding.U64), sizes=[], updates=updates)
    opened = added(attempt, spec, [])
    assert opened.weight_total == 60.5
    assert opened.totals.cells == {
        "train.weight": 0.0, "train.loss": 0.0, "evaluate.weight": 60.5, "evaluate.loss": 27.0,
    }  # fmt: skip
    assert opened.top_cells() == ()


def lie(attempt: MaskedAttempt, cell: int, by: int) -> MaskedAttempt:
    """One survivor adds something to a cell of section 1."""
    name, content = next(iter(attempt.sections.items()))
    start = attempt.layout.parameter_bytes + 8 * cell
    word = (int.from_bytes(content[start : start + 8], "little") + by) % 2**64
    changed = content[:start] + word.to_bytes(8, "little") + content[start + 8 :]
    return replace(attempt, sections={**attempt.sections, name: changed})


@pytest.mark.parametrize(
    ("cell", "total", "refused"),
    [
        (0, 3, False), (0, 2, True), (0, 0, True), (0, -1, True), (0, 3 * 2**32, False), (0, 3 * 2**32 + 1, True),
        (0, -(2**63), True), (2, 0, False), (2, 3 * 2**32, False), (2, 3 * 2**32 + 1, True), (2, -1, True),
    ],
)  # fmt: skip
def test_a_total_of_weights_that_honest_members_cannot_have(cell: int, total: int, refused: bool) -> None:  # noqa: FBT001 - a table's column
    spec = spec_of(3)
    updates = {name: SiloUpdate(deltas=np.zeros(1, "<f4"), weight=1.0) for name in spec.members}
    attempt = make_masked(spec, layout=layout_of([1], Encoding.U32), sizes=[1], updates=updates, top_cells=[0])
    honest = 3 * 256 if cell == 0 else 0
    lied = lie(attempt, cell, total - honest)
    if refused:
        with pytest.raises(RoundAborted, match=r"examples in total, expected") as raised:
            added(lied, spec, [1])
        assert raised.value.reason is AbortReason.TOTAL_REFUSED
        assert "silo" not in str(raised.value)
    else:
        assert added(lied, spec, [1]).totals.cells[STATISTICS.names[cell]] == total / 256


def test_ranges_of_more_tensors_than_are_read_at_once() -> None:
    sizes = [1] * (2 * RANGES_AT_ONCE + 1)
    spec = spec_of(3)
    exponents = np.random.default_rng(1).integers(-30, 5, len(sizes))
    deltas = np.ldexp(1.0, exponents).astype("<f4")
    deltas[7] = 0
    zero = np.zeros(len(sizes), "<f4")
    updates = {name: SiloUpdate(deltas=deltas if name == spec.members[1] else zero) for name in spec.members}
    attempt = make_masked(spec, layout=layout_of(sizes, Encoding.U64), sizes=sizes, updates=updates)
    expected = exponents.tolist()
    expected[7] = RANGE_NONE
    assert list(added(attempt, spec, sizes).top_cells()) == expected


class _Failing(MemoryReader):
    """Fails at one offset, once."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        self.fails_at: int | None = offset

    def read_at(self, offset: int, length: int) -> memoryview:
        if offset == self.fails_at:
            self.fails_at = None
            raise StorageError("unreadable")
        return super().read_at(offset, length)


def test_a_window_that_could_not_be_read_is_not_taken_for_one_that_was() -> None:
    spec, attempt = large_attempt(Encoding.U64)
    whole = added(attempt, spec, LARGE_SIZES)
    *others, last = attempt.sections.values()
    terms = remaining_masks(
        attempt.opening, survivors=attempt.contributions, members=spec.members, threshold=spec.threshold
    )
    assert not isinstance(terms, Blame)
    readers = [*map(MemoryReader, others), _Failing(last, WINDOW_BYTES)]
    shaken = MaskedSum(
        MaskedUpdates(
            readers=readers,
            masks=terms,
            layout=attempt.layout,
            statistics=STATISTICS,
            sizes=LARGE_SIZES,
            scale_exponents=attempt.scale_exponents,
        ),
        spec.masking,
    )
    means, expected = np.empty(10), np.empty(10)
    shaken.mean_delta(4, means)
    with pytest.raises(StorageError):
        shaken.mean_delta(sum(LARGE_SIZES[:3]) + WINDOW_BYTES // 8, means)
    shaken.mean_delta(4, means)
    whole.mean_delta(4, expected)
    assert means.tolist() == expected.tolist()


def test_what_the_upload_checks_exclude_is_a_bug() -> None:
    spec = spec_of(3)
    updates = some_updates(spec.members, [2], 1)
    attempt = make_masked(spec, layout=layout_of([2], Encoding.U64), sizes=[2], updates=updates)
    readers = [MemoryReader(content) for content in attempt.sections.values()]
    sound = MaskedUpdates(
        readers=readers,
        masks=(),
        layout=attempt.layout,
        statistics=STATISTICS,
        sizes=[2],
        scale_exponents=attempt.scale_exponents,
    )
    for wrong, says in (
        (replace(sound, readers=[]), "there are no updates"),
        (replace(sound, readers=[*readers, MemoryReader(b"")]), "one does not have"),
        (replace(sound, sizes=[3]), "3 parameters"),
        (replace(sound, layout=replace(attempt.layout, statistics=4)), "expected, not"),
        (replace(sound, layout=replace(attempt.layout, encoding=Encoding.PLAIN)), "expected, not"),
        (replace(sound, scale_exponents=()), "0 scales"),
    ):
        with pytest.raises(RuntimeError, match=says):
            MaskedSum(wrong, spec.masking)


def test_memory_is_a_few_windows_whatever_the_model() -> None:
    """Of zeros, with masks that take each other away."""
    manifest = ModelManifest.of([TensorSpec(f"layer-{number}", DType.F32, (1024, 1024)) for number in range(8)])
    header, index = encode_header(manifest, {})
    base = header + bytes(index.file_size - len(header))  # 32 MB
    sizes = sizes_of(manifest)
    layout = layout_of(sizes, Encoding.U32)
    honest = np.zeros(layout.statistics, "<u8")
    honest[0] = 256
    sections = bytes(layout.parameter_bytes) + honest.tobytes()
    out = MemoryStaged()
    out.allocate(index.file_size)  # what the fold writes is counted before it starts
    updates = MaskedUpdates(
        readers=[MemoryReader(sections) for _ in range(6)],
        masks=[(root, sign) for root in (Secret(bytes(32)), Secret(bytes(31) + b"1")) for sign in (1, -1)],
        layout=layout,
        statistics=STATISTICS,
        sizes=sizes,
        scale_exponents=[0] * len(sizes),
    )
    reader = MemoryReader(base)
    tracemalloc.start()
    try:
        opened = MaskedSum(updates, spec_of(6).masking)
        opened.top_cells()
        fold(base=reader, base_index=index, updates=opened, strategy=FedAvg(), out=_AllocatedBefore(out))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert out.content() == base
    assert peak_bytes < 6 << 20


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
