from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import Digest
from shared.secagg.ranges import fill_cells, range_words, read_top_cells
from shared.secagg.ring import STATISTICS_WORD, add_into
from shared.secret import Secret
from shared.update import RANGE_CELLS, RANGE_EXPONENT_MAX, RANGE_EXPONENT_MIN, RANGE_NONE

H0 = Digest.of(b"h0")
cells = st.integers(RANGE_NONE, RANGE_EXPONENT_MAX)


def words_of(silo: int, tensors: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return range_words(Secret(bytes([silo]) * 32), H0, tensors)


@given(st.lists(cells, max_size=4))
def test_one_silo(own: list[int]) -> None:
    filled = fill_cells(own, words_of(1, len(own)))
    assert filled.dtype == STATISTICS_WORD
    assert filled.shape == (RANGE_CELLS * len(own),)
    shown = [word != 0 for word in filled.tolist()]
    expected = [cell <= top for top in own for cell in range(RANGE_EXPONENT_MIN, RANGE_EXPONENT_MAX + 1)]
    assert shown == expected
    assert read_top_cells(filled, len(own)) == tuple(own)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
def test_the_sum_shows_the_largest_of_each_tensor(silos: list[tuple[int, int]]) -> None:
    total = np.zeros(2 * RANGE_CELLS, STATISTICS_WORD)
    for silo, own in enumerate(silos):
        add_into(total, fill_cells(own, words_of(silo, 2)))
    assert read_top_cells(total, 2) == (max(a for a, _ in silos), max(b for _, b in silos))


def test_a_random_zero_would_not_show() -> None:
    filled = fill_cells([-30], np.zeros(RANGE_CELLS, STATISTICS_WORD))
    assert filled.tolist() == [1, 1] + [0] * 62


def test_random_words_are_of_the_attempt_and_the_same_each_time() -> None:
    one = words_of(1, 3)
    assert one.size == 3 * RANGE_CELLS == len(set(one.tolist()))
    assert (one == words_of(1, 3)).all()
    assert (one[:RANGE_CELLS] == words_of(1, 1)).all()
    assert not (one == words_of(2, 3)).any()
    assert not (one == range_words(Secret(bytes([1]) * 32), Digest.of(b"other"), 3)).any()


def test_mistakes_of_the_caller() -> None:
    for own in (RANGE_EXPONENT_MAX + 1, RANGE_NONE - 1):
        with pytest.raises(RuntimeError, match="a range cell is from"):
            fill_cells([own], words_of(1, 1))
    with pytest.raises(RuntimeError, match="128 random words"):
        fill_cells([0, 0], words_of(1, 1))
    with pytest.raises(RuntimeError, match="128 range cells"):
        read_top_cells(words_of(1, 1), 2)
