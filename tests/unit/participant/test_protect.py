"""The only way out for an update: the same bytes each time, in the layout's order, and nothing that is not a number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant.protect import MaskedChunks, PlainChunks, ResendDiffers, SentDigests
from participant.round.phases import Masked, Measured, SpooledUpdate
from shared.errors import StorageError, TaskError
from shared.ids import Digest
from shared.job import JobSpec, MaskingSpec
from shared.secagg.fixed_point import decode, decode_metric, scale_exponent
from shared.secagg.masking import Masks
from shared.secagg.ranges import fill_cells, range_words, read_top_cells
from shared.secagg.ring import STATISTICS_WORD, WORD, Words, add_into, signed
from shared.secret import Secret
from shared.update import CHUNK_BYTES, RANGE_NONE, Encoding, StatisticsLayout, UpdateLayout
from tests.support.rounds import make_masked_spec, make_spec
from tests.support.secagg import MaskedAttempt

H0, T2 = Digest.of(b"h0"), Digest.of(b"t2")
TRAIN, EVALUATE = Measured(3.0, (0.5,)), Measured(2.0, (0.125,))
STATISTICS = (3.0, 1.5, 2.0, 0.25)
PLAIN = make_spec().masking
ENCODINGS = [Encoding.U32, Encoding.U16, Encoding.U64]
RANGE = 3


def write(folder: Path, values: np.ndarray) -> Path:
    deltas = folder / "deltas.f32"
    deltas.write_bytes(values.astype("<f4").tobytes())
    return deltas


def plain(folder: Path, values: np.ndarray, **masking: Any) -> PlainChunks:
    layout = UpdateLayout(Encoding.PLAIN, len(values), len(STATISTICS))
    update = SpooledUpdate(TRAIN, EVALUATE, len(values), (), fits=True)
    rules = PLAIN.model_copy(update=masking)
    return PlainChunks(deltas=write(folder, values), update=update, layout=layout, masking=rules)


@given(count=st.sampled_from([1, 7, CHUNK_BYTES // 4 - 1, CHUNK_BYTES // 4, CHUNK_BYTES // 4 + 1, CHUNK_BYTES]))
def test_the_chunks_are_both_sections_end_to_end(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    values = np.arange(count, dtype="<f4")
    chunks = plain(tmp_path_factory.mktemp("spool"), values)
    sent = [bytes(chunk.data) for chunk in chunks]
    assert b"".join(sent) == values.tobytes() + np.array(STATISTICS, "<f8").tobytes()
    assert all(len(chunk) <= CHUNK_BYTES for chunk in sent)
    assert [bytes(chunk.data) for chunk in chunks] == sent
    assert [chunk.digest for chunk in chunks] == list(map(Digest.of, sent))


def test_a_round_without_parameters_sends_statistics_only(tmp_path: Path) -> None:
    layout = UpdateLayout(Encoding.PLAIN, 0, len(STATISTICS))
    update = SpooledUpdate(None, EVALUATE, 0, (), fits=True)
    chunks = PlainChunks(deltas=tmp_path / "none", update=update, layout=layout, masking=PLAIN)
    assert [bytes(chunk.data) for chunk in chunks] == [np.array([0, 0, 2.0, 0.25], "<f8").tobytes()]


def test_equal_weights_count_one_each(tmp_path: Path) -> None:
    *_, last = [bytes(chunk.data) for chunk in plain(tmp_path, np.zeros(1), weights="equal")]
    assert list(np.frombuffer(last, "<f8")) == [1.0, 0.5, 1.0, 0.125]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_does_not_leave_the_silo(tmp_path: Path, poison: float) -> None:
    values = np.zeros(CHUNK_BYTES // 4 + 5)
    values[-1] = poison
    leaving = iter(plain(tmp_path, values))
    next(leaving)
    with pytest.raises(TaskError, match="nothing of it leaves this silo"):
        next(leaving)


# --- masked -----------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One masked update, and everything that it is made with."""

    folder: Path
    sizes: Sequence[int] = (3, 0, 5)
    encoding: Encoding = Encoding.U32
    cells: tuple[int, ...] = (2, RANGE_NONE, 3)
    train: Measured | None = TRAIN
    members: int = 4
    weights: str = "examples"

    def __post_init__(self) -> None:
        self.count = sum(self.sizes)
        self.values = np.random.default_rng(7).uniform(-1, 1, self.count).astype("<f4")
        self.deltas = write(self.folder, self.values)
        self.sent = SentDigests(T2)
        self.terms = [(Secret(bytes([root]) * 32), 1 if root % 2 else -1) for root in range(1, self.members + 1)]

    @property
    def spec(self) -> JobSpec:
        return make_masked_spec(masking={"weights": self.weights})

    @property
    def update(self) -> SpooledUpdate:
        return SpooledUpdate(self.train, EVALUATE, self.count, self.cells, fits=True)

    @property
    def layout(self) -> UpdateLayout:
        trains = self.train is not None
        return UpdateLayout.of_round(
            encoding=self.encoding,
            parameters=self.count if trains else 0,
            tensors=len(self.cells),
            statistics=StatisticsLayout(("loss",)),
        )

    def protection(self, **changes: Any) -> Masked:
        exponent = scale_exponent(encoding=self.encoding, members=len(self.spec.members), range_exponent=RANGE)
        made = Masked(H0, T2, Masks(self.terms), Secret(bytes(32)), (exponent,) * len(self.sizes))
        return replace(made, **changes)

    def chunks(self, **changes: Any) -> MaskedChunks:
        return MaskedChunks(
            deltas=self.deltas,
            update=self.update,
            layout=self.layout,
            spec=self.spec,
            sizes=self.sizes,
            protection=self.protection(**changes),
            sent=self.sent,
        )

    def sections(self, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Both sections as they are sent, with their masks taken off."""
        data = b"".join(bytes(chunk.data) for chunk in self.chunks(**changes))
        assert len(data) == self.layout.total_bytes
        boundary = self.layout.parameter_bytes
        parameters = np.frombuffer(data[:boundary], WORD[self.encoding]).copy()
        statistics = np.frombuffer(data[boundary:], STATISTICS_WORD).copy()
        masks = Masks(self.terms)
        masks.remove(parameters, section=0, first_byte=0)
        masks.remove(statistics, section=1, first_byte=0)
        return parameters, statistics


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sizes", [(3, 0, 5), (CHUNK_BYTES // 2, 1, CHUNK_BYTES // 8 - 1)])
def test_under_the_masks_is_the_weighted_update(tmp_path: Path, encoding: Encoding, sizes: tuple[int, ...]) -> None:
    case = Case(tmp_path, sizes=sizes, encoding=encoding)
    parameters, _ = case.sections()
    exponent = case.protection().scale_exponents[0]
    means = decode(signed(parameters), scale_exponent=exponent, weight_total=3 * 256)
    assert np.abs(means - case.values).max() <= 2.0**-exponent / 3


def test_under_the_masks_are_the_weights_the_metrics_and_the_range(tmp_path: Path) -> None:
    _, statistics = Case(tmp_path).sections()
    assert list(statistics[[0, 2]]) == [3 * 256, 2 * 256]
    assert decode_metric(int(signed(statistics)[1]), 3 * 256) == 0.5
    assert decode_metric(int(signed(statistics)[3]), 2 * 256) == 0.125
    assert read_top_cells(statistics[4:], 3) == (2, RANGE_NONE, 3)
    assert (statistics[4:] == fill_cells((2, RANGE_NONE, 3), range_words(Secret(bytes(32)), H0, 3))).all()


def test_equal_weights_hide_the_count(tmp_path: Path) -> None:
    _, statistics = Case(tmp_path, weights="equal").sections()
    assert list(statistics[[0, 2]]) == [256, 256]
    assert decode_metric(int(signed(statistics)[1]), 256) == 0.5


def test_a_weight_and_a_mean_are_cut_to_the_jobs_bounds(tmp_path: Path) -> None:
    case = Case(tmp_path, train=Measured(2.0**39, (-1e9,)))
    case.values[:] = 0
    write(tmp_path, case.values)
    _, statistics = case.sections()
    masking: MaskingSpec = case.spec.masking
    assert statistics[0] == masking.max_weight * 256
    assert decode_metric(int(signed(statistics)[1]), int(statistics[0])) == -masking.metric_bound


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_evaluation_has_statistics_only_and_no_half_of_training(tmp_path: Path, encoding: Encoding) -> None:
    case = Case(tmp_path, sizes=(), cells=(), train=None, encoding=encoding)
    case.deltas.unlink()
    parameters, statistics = case.sections()
    assert parameters.size == 0
    assert list(statistics[:3]) == [0, 0, 2 * 256]
    assert statistics.size == 4


def test_section_one_of_a_model_of_many_tensors_is_cut_like_any_other(tmp_path: Path) -> None:
    tensors = 2 * CHUNK_BYTES // 512 + 3
    case = Case(tmp_path, sizes=(1,) * tensors, cells=tuple(cell % 30 for cell in range(tensors)))
    _, statistics = case.sections()
    assert case.layout.chunks == 4
    assert (statistics[4:] == fill_cells(case.cells, range_words(Secret(bytes(32)), H0, tensors))).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_two_passes_give_the_same_bytes(tmp_path: Path, encoding: Encoding) -> None:
    case = Case(tmp_path, sizes=(CHUNK_BYTES // 3, 17, CHUNK_BYTES // 4), encoding=encoding)
    chunks = case.chunks()
    first = [(bytes(chunk.data), chunk.digest) for chunk in chunks]
    assert [(bytes(chunk.data), chunk.digest) for chunk in chunks] == first
    assert [(bytes(chunk.data), chunk.digest) for chunk in case.chunks()] == first
    assert [digest for _, digest in first] == [Digest.of(data) for data, _ in first]
    assert len(first) == case.layout.chunks


def test_other_masks_give_other_bytes(tmp_path: Path) -> None:
    case = Case(tmp_path)
    first = [bytes(chunk.data) for chunk in case.chunks()]
    case.sent = SentDigests(Digest.of(b"the next attempt"))
    second = [bytes(chunk.data) for chunk in case.chunks(masks=Masks([(Secret(bytes(32)), 1)]))]
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_chunk_that_would_differ_is_not_sent_again(tmp_path: Path) -> None:
    case = Case(tmp_path, sizes=(CHUNK_BYTES // 4, 0, CHUNK_BYTES // 4))
    assert len(list(case.chunks())) == 3
    values = case.values.copy()
    values[CHUNK_BYTES // 4] += 0.25
    write(tmp_path, values)
    again = iter(case.chunks())
    next(again)
    with pytest.raises(ResendDiffers, match="chunk 1 of a masked update is not what was sent before"):
        next(again)


def test_a_broken_pass_is_remembered_as_far_as_it_came(tmp_path: Path) -> None:
    case = Case(tmp_path, sizes=(CHUNK_BYTES // 4, 0, CHUNK_BYTES // 4))
    next(iter(case.chunks()))
    values = case.values.copy()
    values[-1] += 0.25
    write(tmp_path, values)
    assert len(list(case.chunks())) == 3, "what was never sent may still become something else"
    values[0] += 0.25
    write(tmp_path, values)
    with pytest.raises(ResendDiffers):
        next(iter(case.chunks()))


def test_memory_does_not_depend_on_the_model(tmp_path: Path) -> None:
    def peak(chunks: int) -> int:
        case = Case(tmp_path, sizes=(chunks * CHUNK_BYTES // 4, 0, 0))
        del case.values
        made = case.chunks()
        next(iter(made))  # streams are set up once
        tracemalloc.start()
        for _ in made:
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(2), peak(24)
    assert large < 6 * CHUNK_BYTES
    assert large < small + CHUNK_BYTES // 4


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_sum_of_survivors_opens_to_their_weighted_mean(tmp_path: Path, encoding: Encoding) -> None:
    """Four silos mask, one of them is not in the sum, and three give shares: real keys, from end to end."""
    attempt = MaskedAttempt(members=4, threshold=3, advertised={1, 2, 3, 4}, shared={1, 2, 3, 4})
    survivors = {1, 2, 4}
    cases: dict[int, Case] = {}
    parameters: Words = np.zeros(8, WORD[encoding])
    statistics: Words = np.zeros(4 + 64 * 3, STATISTICS_WORD)
    for index in sorted(survivors):
        folder = tmp_path / str(index)
        folder.mkdir()
        case = Case(folder, encoding=encoding, train=Measured(float(index), (index / 8,)), cells=(index, -31, index))
        case.values = np.random.default_rng(index).uniform(-1, 1, 8).astype("<f4")
        write(folder, case.values)
        secret = attempt.secrets[index].encoding_seed
        made = case.chunks(masks=attempt.masks_of(index), encoding_seed=secret, h0=attempt.h0, transcript=attempt.t2)
        sections = [bytes(chunk.data) for chunk in made]
        add_into(parameters, np.frombuffer(sections[0], WORD[encoding]))
        add_into(statistics, np.frombuffer(sections[1], STATISTICS_WORD))
        cases[index] = case
    masks = attempt.masks_of_sum(survivors, {1, 2, 4})
    masks.remove(parameters, section=0, first_byte=0)
    masks.remove(statistics, section=1, first_byte=0)
    assert statistics[0] == (1 + 2 + 4) * 256
    assert decode_metric(int(signed(statistics)[1]), 7 * 256) == pytest.approx((1 + 4 + 16) / 8 / 7, abs=1e-4)
    assert read_top_cells(statistics[4:], 3) == (4, -31, 4)
    exponent = cases[1].protection().scale_exponents[0]
    means = decode(signed(parameters), scale_exponent=exponent, weight_total=7 * 256)
    expected = sum(index * case.values.astype("<f8") for index, case in cases.items()) / 7
    assert np.abs(means - expected).max() <= 3 * 2.0**-exponent / 7


@pytest.mark.parametrize(("value", "match"), [(np.nan, "NaN or an infinity"), (1e6, "beyond its range")])
def test_what_cannot_be_encoded_does_not_leave(tmp_path: Path, value: float, match: str) -> None:
    case = Case(tmp_path)
    case.values[-1] = value
    write(tmp_path, case.values)
    with pytest.raises(TaskError, match=match):
        list(case.chunks())


def test_a_model_of_another_size_than_the_spool_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.sizes = (3, 0, 6)
    case.count = 8
    with pytest.raises(StorageError, match="have 9 elements, but 8 were spooled"):
        case.chunks()


# --- the spool --------------------------------------------------------------------------------------------------------


def test_a_spool_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    chunks: list[PlainChunks | MaskedChunks] = [plain(tmp_path, np.zeros(8)), Case(tmp_path).chunks()]
    with (tmp_path / "deltas.f32").open("r+b") as file:
        file.truncate(28)
    for source in chunks:
        with pytest.raises(StorageError, match="cut short"):
            list(source)


def test_a_spool_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    chunks: list[PlainChunks | MaskedChunks] = [plain(tmp_path, np.zeros(8)), Case(tmp_path).chunks()]
    (tmp_path / "deltas.f32").unlink()
    for source in chunks:
        with pytest.raises(StorageError, match="cannot be read"):
            list(source)
