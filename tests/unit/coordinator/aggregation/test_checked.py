"""What is read of an update is what was committed, in whatever order it is read; or it is known that it is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation.checked import CheckedReader
from shared.errors import StorageError
from shared.ids import Digest
from shared.update import CHUNK_BYTES, Encoding, UpdateLayout, update_digest
from tests.support.readers import MemoryReader

HEADER = b"header"
PARAMETERS = 2 * CHUNK_BYTES // 4 + 100  # two chunks of section 0, and a short one
LAYOUT = UpdateLayout(encoding=Encoding.PLAIN, parameters=PARAMETERS, statistics=7)
CONTENT = random.Random(7).randbytes(LAYOUT.total_bytes)
UPDATE = update_digest(HEADER, [Digest.of(CONTENT[start:end]) for start, end in LAYOUT.chunk_ranges()])
READS = st.lists(st.tuples(st.integers(0, LAYOUT.total_bytes), st.integers(0, CHUNK_BYTES + 5)), max_size=8)


def reader_of(content: bytes, *, update: Digest = UPDATE, header: bytes = HEADER) -> CheckedReader:
    return CheckedReader(MemoryReader(content), layout=LAYOUT, header=header, update=update)


def read(reader: CheckedReader, reads: list[tuple[int, int]], content: bytes) -> None:
    for offset, most in reads:
        end = min(offset + most, LAYOUT.total_bytes)
        assert reader.read_at(offset, end - offset) == content[offset:end]


@settings(max_examples=60, deadline=None)
@given(READS)
def test_reads_are_those_of_the_file_and_all_of_it_is_looked_at(reads: list[tuple[int, int]]) -> None:
    reader = reader_of(CONTENT)
    read(reader, reads, CONTENT)
    assert reader.sound()
    assert reader.sound(), "asked again, it says the same"


@settings(max_examples=60, deadline=None)
@given(READS, st.integers(0, LAYOUT.total_bytes - 1))
def test_a_changed_byte_is_found_wherever_it_is_and_whatever_was_read(reads: list[tuple[int, int]], at: int) -> None:
    content = bytearray(CONTENT)
    content[at] ^= 1
    reader = reader_of(bytes(content))
    read(reader, reads, bytes(content))
    assert not reader.sound()


class _Changing(MemoryReader):
    """A disk that gives one byte otherwise once, and well afterwards."""

    def __init__(self, content: bytes, at: int) -> None:
        super().__init__(content)
        self._at = at
        self._struck = False

    def read_at(self, offset: int, length: int) -> memoryview:
        data = super().read_at(offset, length)
        if not self._struck and offset <= self._at < offset + length:
            self._struck = True
            data[self._at - offset] ^= 1
        return data


@pytest.mark.parametrize("reads", [[(0, 10)], [(0, 10), (CHUNK_BYTES, 10), (0, 10)]], ids=["once", "twice"])
def test_what_was_handed_out_is_what_is_judged(reads: list[tuple[int, int]]) -> None:
    """Looking at the file before or after would not find it."""
    reader = CheckedReader(_Changing(CONTENT, 5), layout=LAYOUT, header=HEADER, update=UPDATE)
    for offset, length in reads:
        reader.read_at(offset, length)
    assert not reader.sound()


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"0"], ids=["empty", "short", "long"])
def test_a_file_of_another_size_is_another_update(content: bytes) -> None:
    assert not reader_of(content).sound()


def test_the_header_is_part_of_it() -> None:
    assert not reader_of(CONTENT, header=b"another").sound()
    assert not reader_of(CONTENT, update=Digest.of(b"another")).sound()


def test_beyond_the_end_nothing_is_read() -> None:
    reader = reader_of(CONTENT)
    with pytest.raises(StorageError):
        reader.read_at(LAYOUT.total_bytes - 1, 2)
    assert reader.sound()
