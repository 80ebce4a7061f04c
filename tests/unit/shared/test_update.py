from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import ModelError, WireError
from shared.ids import Digest
from shared.update import (
    CHUNK_BYTES,
    RANGE_CELLS,
    RANGE_EXPONENT_MAX,
    RANGE_EXPONENT_MIN,
    RANGE_NONE,
    TENSOR_NAME_MAX_BYTES,
    TENSOR_RANK_MAX,
    TENSORS_MAX,
    WEIGHT_MAX,
    DType,
    Encoding,
    ModelManifest,
    StatisticsLayout,
    TensorSpec,
    UpdateHeader,
    UpdateLayout,
    update_digest,
)

CHUNK_CELLS = CHUNK_BYTES // 4
WORD_BYTES = {Encoding.PLAIN: 4, Encoding.U32: 4, Encoding.U16: 2, Encoding.U64: 8}


@given(parameters=st.integers(0, 40 * CHUNK_CELLS), statistics=st.integers(2, 130), encoding=st.sampled_from(Encoding))
@example(parameters=1, statistics=2, encoding=Encoding.PLAIN)
@example(parameters=CHUNK_CELLS, statistics=2, encoding=Encoding.PLAIN)
@example(parameters=CHUNK_CELLS + 1, statistics=130, encoding=Encoding.U32)
@example(parameters=3 * CHUNK_CELLS - 1, statistics=CHUNK_BYTES // 8 + 1, encoding=Encoding.PLAIN)
@example(parameters=CHUNK_BYTES // 2, statistics=2, encoding=Encoding.U16)
@example(parameters=CHUNK_BYTES // 8 + 1, statistics=2, encoding=Encoding.U64)
@example(parameters=0, statistics=CHUNK_BYTES // 8, encoding=Encoding.U64)
def test_chunks_cover_both_sections_exactly(parameters: int, statistics: int, encoding: Encoding) -> None:
    layout = UpdateLayout(encoding, parameters, statistics)
    ranges = list(layout.chunk_ranges())
    assert len(ranges) == layout.chunks
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == layout.total_bytes == WORD_BYTES[encoding] * parameters + 8 * statistics
    assert all(0 < end - start <= CHUNK_BYTES for start, end in ranges)
    assert layout.parameter_bytes in {0, *(end for _, end in ranges)}, "no chunk spans two sections"
    short = [start for start, end in ranges if end - start < CHUNK_BYTES]
    assert len(short) <= 2, "only the last chunk of a section is shorter"


def test_a_masked_round_has_cells_for_the_range_of_each_tensor() -> None:
    statistics = StatisticsLayout(("loss",))
    sizes = {
        encoding: UpdateLayout.of_round(encoding=encoding, parameters=1000, tensors=7, statistics=statistics)
        for encoding in Encoding
    }
    assert sizes == {
        Encoding.PLAIN: UpdateLayout(Encoding.PLAIN, 1000, 4),
        Encoding.U32: UpdateLayout(Encoding.U32, 1000, 4 + 7 * 64),
        Encoding.U16: UpdateLayout(Encoding.U16, 1000, 4 + 7 * 64),
        Encoding.U64: UpdateLayout(Encoding.U64, 1000, 4 + 7 * 64),
    }
    assert {encoding: made.parameter_bytes for encoding, made in sizes.items()} == {
        encoding: 1000 * count for encoding, count in WORD_BYTES.items()
    }
    assert len({made.digest for made in sizes.values()}) == len(sizes), "a layout names its encoding"


@pytest.mark.parametrize("encoding", Encoding)
def test_a_round_to_evaluate_has_totals_alone(encoding: Encoding) -> None:
    statistics = StatisticsLayout(("loss", "accuracy"))
    made = UpdateLayout.of_round(encoding=encoding, parameters=0, tensors=0, statistics=statistics)
    assert (made.parameters, made.statistics, made.chunks, made.total_bytes) == (0, 6, 1, 48)


def test_the_cells_of_a_range() -> None:
    assert RANGE_CELLS == len(range(RANGE_EXPONENT_MIN, RANGE_EXPONENT_MAX + 1)) == 64
    assert RANGE_NONE == RANGE_EXPONENT_MIN - 1, "outside of the cells, so that nothing is filled"


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**20)), min_size=2, max_size=2, unique=True))
def test_other_layouts_have_another_digest(shapes: list[tuple[int, int]]) -> None:
    first, second = (UpdateLayout(Encoding.PLAIN, *shape).digest for shape in shapes)
    assert first != second


def test_the_digest_of_an_update_is_over_its_header_and_its_chunks_in_order() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    digests = {
        update_digest(b"h", [one, two]),
        update_digest(b"h", [two, one]),
        update_digest(b"h", [one]),
        update_digest(b"i", [one, two]),
        update_digest(b"h" + one.raw, [two]),
    }
    assert len(digests) == 5
    assert update_digest(b"h", iter([one, two])) in digests


@pytest.mark.parametrize("weight", [5e-324, 1.0, WEIGHT_MAX])
def test_weights(weight: float) -> None:
    assert UpdateHeader(Encoding.PLAIN, weight, 1).weight == weight


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, -math.inf, math.nextafter(WEIGHT_MAX, math.inf)])
def test_no_weight(weight: float) -> None:
    with pytest.raises(WireError, match="a finite number in"):
        UpdateHeader(Encoding.PLAIN, weight, 1)


@pytest.mark.parametrize("encoding", Encoding)
def test_a_weight_is_said_in_the_plain_encoding_and_in_no_other(encoding: Encoding) -> None:
    """Of a masked update it is a masked cell; in the header it would be in clear."""
    said, kept = (None, 1.0) if encoding.masked else (1.0, None)
    assert UpdateHeader(encoding, said, 1).weight == said
    with pytest.raises(WireError, match="a plain update has its weight, that of a masked one has none"):
        UpdateHeader(encoding, kept, 1)


@pytest.mark.parametrize("contributors", [0, 2, -1])
@pytest.mark.parametrize("encoding", Encoding)
def test_an_update_stands_for_one(encoding: Encoding, contributors: int) -> None:
    with pytest.raises(WireError, match="1 contributor"):
        UpdateHeader(encoding, None if encoding.masked else 1.0, contributors)


def test_statistics_are_named_in_wire_order() -> None:
    layout = StatisticsLayout(("loss", "accuracy"))
    assert layout.names == (
        "train.weight", "train.loss", "train.accuracy", "evaluate.weight", "evaluate.loss", "evaluate.accuracy",
    )  # fmt: skip
    assert layout.cells == len(layout.names)
    assert StatisticsLayout(()).names == ("train.weight", "evaluate.weight")


# --- manifests --------------------------------------------------------------------------------------------------------


def f32(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, DType.F32, shape)


def test_a_manifest_is_in_utf8_order() -> None:
    names = ["b", "a", "é", "z", "\U0001f600", "\uffff", "a.b", "a-b"]
    manifest = ModelManifest.of(f32(name, 1) for name in names)
    assert [tensor.name for tensor in manifest.tensors] == sorted(names, key=lambda name: name.encode())
    assert ModelManifest(manifest.tensors) == manifest
    with pytest.raises(ModelError, match="distinct tensor names in UTF-8 order"):
        ModelManifest(tuple(reversed(manifest.tensors)))
    with pytest.raises(ModelError, match="distinct tensor names in UTF-8 order"):
        ModelManifest((f32("a", 1), f32("a", 1)))


def test_only_floating_point_tensors_are_aggregated() -> None:
    tensors = [TensorSpec(str(dtype).lower(), dtype, (2, 3)) for dtype in DType]
    manifest = ModelManifest.of(tensors)
    assert {tensor.dtype for tensor in manifest.aggregated()} == {DType.F64, DType.F32, DType.F16, DType.BF16}
    assert manifest.parameters == 4 * 6
    assert [tensor.name for tensor in manifest.aggregated()] == ["bf16", "f16", "f32", "f64"]


def test_a_model_with_nothing_to_train_is_refused() -> None:
    for tensors in ([], [TensorSpec("steps", DType.I64, ())], [f32("empty", 0)]):
        with pytest.raises(ModelError, match="nothing to train"):
            ModelManifest.of(tensors)


def test_sizes_of_tensors() -> None:
    assert f32("x").elements == 1
    assert f32("x", 3, 0).elements == 0
    assert {dtype: TensorSpec("x", dtype, (5,)).data_bytes // 5 for dtype in DType} == {
        dtype: {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BOOL": 1, "I8": 1, "U8": 1}.get(dtype, 2)
        for dtype in DType
    }


def test_limits_of_tensors() -> None:
    f32("x" * TENSOR_NAME_MAX_BYTES, *[1] * TENSOR_RANK_MAX)
    for name in ("", "x" * (TENSOR_NAME_MAX_BYTES + 1), "ä" * 257):
        with pytest.raises(ModelError, match="a tensor name has"):
            f32(name, 1)
    beyond: list[tuple[int, ...]] = [(1,) * (TENSOR_RANK_MAX + 1), (-1,)]
    for shape in beyond:
        with pytest.raises(ModelError, match="beyond rank"):
            f32("x", *shape)


def test_the_number_of_tensors_is_limited() -> None:
    one = f32("x", 1)
    with pytest.raises(ModelError, match="at most 100000 tensors"):
        ModelManifest((one,) * (TENSORS_MAX + 1))


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
specs = st.builds(TensorSpec, st.text(min_size=1, max_size=4), st.sampled_from(DType), shapes)


@given(st.lists(specs, max_size=4), st.lists(specs, max_size=4))
def test_other_manifests_have_another_digest(first: list[TensorSpec], second: list[TensorSpec]) -> None:
    made = []
    for tensors in (first, second):
        distinct = {tensor.name: tensor for tensor in tensors} | {"w": f32("w", 1)}
        made.append(ModelManifest.of(distinct.values()))
    assert (made[0] == made[1]) == (made[0].digest == made[1].digest)
