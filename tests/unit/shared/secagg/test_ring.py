from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.secagg.ring import STATISTICS_WORD, WORD, add_into, signed, subtract_into, to_words
from shared.update import Encoding

MASKED = [encoding for encoding in Encoding if encoding.masked]


def test_words_are_little_endian_and_unsigned() -> None:
    assert {encoding: str(word) for encoding, word in WORD.items()} == {
        Encoding.U16: "uint16",
        Encoding.U32: "uint32",
        Encoding.U64: "uint64",
    }
    assert set(WORD) == set(MASKED)
    for encoding, word in WORD.items():
        assert word.itemsize == encoding.word_bytes
        assert np.array([1], word).tobytes() == b"\x01" + bytes(encoding.word_bytes - 1)
    assert np.array([1], STATISTICS_WORD).tobytes() == b"\x01" + bytes(7)


@pytest.mark.parametrize("encoding", MASKED)
@given(data=st.data())
def test_against_plain_integers(encoding: Encoding, data: st.DataObject) -> None:
    bits = 8 * encoding.word_bytes
    numbers = st.integers(0, 2**bits - 1) | st.sampled_from([0, 1, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1])
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), max_size=6))
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    words = np.array(left, WORD[encoding])
    add_into(words, np.array(right, WORD[encoding]))
    assert words.tolist() == [(a + b) % 2**bits for a, b in pairs]
    assert signed(words).tolist() == [(a + b + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for a, b in pairs]
    assert signed(words).dtype == np.int64
    subtract_into(words, np.array(right, WORD[encoding]))
    assert words.tolist() == left
    subtract_into(words, np.array(right, WORD[encoding]))
    assert words.tolist() == [(a - b) % 2**bits for a, b in pairs]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_integers_as_words(values: list[int]) -> None:
    assert to_words(values).tolist() == [value % 2**64 for value in values]
    assert signed(to_words(values)).tolist() == values


def test_mixed_words_are_a_mistake() -> None:
    words = np.zeros(2, "<u4")
    for other in (np.zeros(2, "<u8"), np.zeros(1, "<u4")):
        for operation in (add_into, subtract_into):
            with pytest.raises(RuntimeError, match="expected 2 words of uint32"):
                operation(words, other)
