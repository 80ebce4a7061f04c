"""The only way out for an update: the same bytes each time, in the layout's order, and nothing that is not a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant.protect import UpdateChunks
from participant.round.phases import SpooledUpdate
from shared.errors import StorageError, TaskError
from shared.update import CHUNK_BYTES, Encoding, UpdateHeader, UpdateLayout

HEADER = UpdateHeader(Encoding.PLAIN, 3.0, contributors=1)
STATISTICS = (3.0, 1.5, 2.0, 0.25)


def make(folder: Path, values: np.ndarray) -> UpdateChunks:
    deltas = folder / "deltas.f32"
    deltas.write_bytes(values.astype("<f4").tobytes())
    layout = UpdateLayout(Encoding.PLAIN, len(values), len(STATISTICS))
    return UpdateChunks(deltas=deltas, update=SpooledUpdate(HEADER, STATISTICS, len(values)), layout=layout)


@given(count=st.sampled_from([1, 7, CHUNK_BYTES // 4 - 1, CHUNK_BYTES // 4, CHUNK_BYTES // 4 + 1, CHUNK_BYTES]))
def test_the_chunks_are_both_sections_end_to_end(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    values = np.arange(count, dtype="<f4")
    chunks = make(tmp_path_factory.mktemp("spool"), values)
    sent = [bytes(chunk) for chunk in chunks]
    assert b"".join(sent) == values.tobytes() + np.array(STATISTICS, "<f8").tobytes()
    assert all(len(chunk) <= CHUNK_BYTES for chunk in sent)
    assert [bytes(chunk) for chunk in chunks] == sent


def test_a_round_without_parameters_sends_statistics_only(tmp_path: Path) -> None:
    chunks = make(tmp_path, np.empty(0))
    (tmp_path / "deltas.f32").unlink()
    assert [bytes(chunk) for chunk in chunks] == [np.array(STATISTICS, "<f8").tobytes()]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_does_not_leave_the_silo(tmp_path: Path, poison: float) -> None:
    values = np.zeros(CHUNK_BYTES // 4 + 5)
    values[-1] = poison
    leaving = iter(make(tmp_path, values))
    next(leaving)
    with pytest.raises(TaskError, match="nothing of it leaves this silo"):
        next(leaving)


def test_a_spool_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    chunks = make(tmp_path, np.zeros(1000))
    with (tmp_path / "deltas.f32").open("r+b") as file:
        file.truncate(3996)
    with pytest.raises(StorageError, match="cut short"):
        list(chunks)


def test_a_spool_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    chunks = make(tmp_path, np.zeros(10))
    (tmp_path / "deltas.f32").unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        list(chunks)
