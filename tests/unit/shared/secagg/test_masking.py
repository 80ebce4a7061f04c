from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.entropy import SeededEntropy
from shared.errors import WireError
from shared.ids import Digest
from shared.secagg import masking
from shared.secagg.keys import AttemptSecrets
from shared.secagg.masking import Masks, MaskStream, Term, pair_sign, participant_terms
from shared.secagg.transcript import stream_key
from shared.secret import Secret
from shared.update import CHUNK_BYTES

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "secagg.json").read_text("utf-8"))["streams"]
ROOT = Secret(bytes(range(32)))
WORDS = [np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8")]


def dumb_stream(root: bytes, section: int, first_byte: int, length: int) -> bytes:
    """Each chunk by itself from its beginning, in one go."""
    out, chunk = b"", first_byte // CHUNK_BYTES
    skip = first_byte % CHUNK_BYTES
    while len(out) < skip + length:
        counter = chunk.to_bytes(8, "big") + bytes(8)
        cipher = Cipher(algorithms.AES(stream_key(root, section)), modes.CTR(counter)).encryptor()
        out += cipher.update(bytes(CHUNK_BYTES))
        chunk += 1
    return out[skip : skip + length]


def test_the_vector_of_the_specification() -> None:
    words = np.frombuffer(MaskStream(ROOT, 0).raw(CHUNK_BYTES, 16), "<u4")
    assert words.tolist() == [868062297, 2271785561, 13897115, 2855708556]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['section']}-{vector['first_byte']}")
def test_frozen_vectors(vector: dict[str, Any]) -> None:
    expected = bytes.fromhex(vector["bytes"])
    assert MaskStream(ROOT, vector["section"]).raw(vector["first_byte"], len(expected)) == expected


places = st.integers(0, 3 * CHUNK_BYTES) | st.integers(-40, 40).map(lambda near: CHUNK_BYTES + near)


@settings(max_examples=40, deadline=None)
@given(first_byte=places, length=st.integers(0, 100) | st.integers(0, 2 * CHUNK_BYTES), section=st.sampled_from([0, 1]))
@example(first_byte=0, length=3 * CHUNK_BYTES, section=0)
@example(first_byte=CHUNK_BYTES - 1, length=2, section=1)
@example(first_byte=2 * CHUNK_BYTES - 5, length=CHUNK_BYTES + 10, section=0)
def test_any_part_of_a_stream_is_the_same(first_byte: int, length: int, section: int) -> None:
    assert MaskStream(ROOT, section).raw(first_byte, length) == dumb_stream(ROOT.reveal(), section, first_byte, length)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(WORDS),
    first_word=st.integers(0, 50) | st.integers(2**17 - 30, 2**17 + 30),
    count=st.integers(0, 70) | st.integers(2**17, 2**17 + 50),
)
def test_adding_against_plain_integers(dtype: np.dtype[Any], first_word: int, count: int) -> None:
    first_byte, bits = first_word * dtype.itemsize, 8 * dtype.itemsize
    before = np.frombuffer(SeededEntropy(b"w").take(dtype.itemsize * min(count, 64)) * (count // 64 + 1), dtype)[:count]
    mask = np.frombuffer(dumb_stream(ROOT.reveal(), 0, first_byte, count * dtype.itemsize), dtype)
    words = before.copy()
    MaskStream(ROOT, 0).add(words, first_byte=first_byte)
    shown = slice(None, None, max(1, count // 64))
    assert words.tolist()[shown] == [
        (a + b) % 2**bits for a, b in zip(before.tolist()[shown], mask.tolist()[shown], strict=True)
    ]
    MaskStream(ROOT, 0).subtract(words, first_byte=first_byte)
    assert (words == before).all()


def terms(count: int) -> list[Term]:
    return [(Secret(bytes([number]) * 32), 1 if number % 3 else -1) for number in range(count)]


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(WORDS),
    count=st.integers(0, 5),
    words=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    section=st.sampled_from([0, 1]),
)
def test_masks_are_the_signed_sum_of_their_streams_however_cut(
    dtype: np.dtype[Any], count: int, words: int, cuts: list[int], section: int
) -> None:
    first_byte = CHUNK_BYTES - 8 * 12
    masks = Masks(terms(count))
    made = np.zeros(words, dtype)
    bounds = sorted({0, words, *(cut for cut in cuts if cut < words)})
    for start, end in pairwise(bounds):
        masks.apply(made[start:end], section=section, first_byte=first_byte + start * dtype.itemsize)
    streams = [
        (np.frombuffer(dumb_stream(root.reveal(), section, first_byte, made.nbytes), dtype).tolist(), sign)
        for root, sign in terms(count)
    ]
    expected = [
        sum(sign * stream[place] for stream, sign in streams) % 2 ** (8 * dtype.itemsize) for place in range(words)
    ]
    assert made.tolist() == expected
    masks.remove(made, section=section, first_byte=first_byte)
    assert not made.any()


def test_one_masks_may_be_used_by_several_threads() -> None:
    masks = Masks(terms(4))
    expected, made = np.zeros(CHUNK_BYTES, "<u4"), np.zeros(CHUNK_BYTES, "<u4")
    masks.apply(expected, section=0, first_byte=0)
    parts = np.split(made, 8)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda place: masks.apply(parts[place], section=0, first_byte=place * parts[0].nbytes),
                range(len(parts)),
            )
        )
    assert (made == expected).all()


def test_mistakes_of_the_caller() -> None:
    with pytest.raises(RuntimeError, match="sign of a mask"):
        Masks([(ROOT, 0)])
    with pytest.raises(RuntimeError, match="no common mask with itself"):
        pair_sign(3, 3)
    words = np.zeros(8, "<u4")
    for part, first_byte in ((words[::2], 0), (words, 2)):
        with pytest.raises(RuntimeError, match="contiguous words at a multiple of 4"):
            MaskStream(ROOT, 0).add(part, first_byte=first_byte)
    with pytest.raises(ValueError, match="read-only"):
        MaskStream(ROOT, 0).add(np.frombuffer(bytes(8), "<u4"), first_byte=0)


def test_the_masks_of_a_participant() -> None:
    draw = SeededEntropy(b"terms").take
    h0, t2 = Digest.of(b"h0"), Digest.of(b"t2")
    members = {index: AttemptSecrets.draw(draw) for index in (1, 2, 4)}
    publics = {index: secrets.mask_public(h0) for index, secrets in members.items()}
    made = {
        index: participant_terms(secrets=secrets, index=index, h0=h0, t2=t2, mask_publics=publics)
        for index, secrets in members.items()
    }
    assert {index: [sign for _, sign in found] for index, found in made.items()} == {
        1: [1, 1, 1],
        2: [1, -1, 1],
        4: [1, -1, -1],
    }
    assert made[1][1][0] == made[2][1][0], "a pair has one root"
    assert made[2][2][0] == made[4][2][0]
    roots = {root.reveal() for found in made.values() for root, _ in found}
    assert len(roots) == 3 + 3
    with pytest.raises(WireError, match="low order"):
        participant_terms(secrets=members[1], index=1, h0=h0, t2=t2, mask_publics={**publics, 3: bytes(32)})


def test_no_block_of_a_mask_is_used_twice() -> None:
    """Two equal pairs of key and IV would be two equal blocks; of distinct ones, two blocks agree with 2^-90."""
    blocks: list[bytes] = []
    for attempt in range(3):
        draw = SeededEntropy(f"attempt {attempt}".encode()).take
        h0, t2 = Digest.of(draw(32)), Digest.of(draw(32))
        members = {index: AttemptSecrets.draw(draw) for index in (1, 2, 3)}
        publics = {index: secrets.mask_public(h0) for index, secrets in members.items()}
        roots = {
            root.reveal()
            for index, secrets in members.items()
            for root, _ in participant_terms(secrets=secrets, index=index, h0=h0, t2=t2, mask_publics=publics)
        }
        assert len(roots) == 3 + 3, "a self mask for each and a mask for each pair"
        for root in roots:
            for section in (0, 1):
                stream = MaskStream(Secret(root), section)
                for chunk in (0, 1, 2, 255, 256, 65_535, 65_536, 2**32):
                    for first_byte, length in ((0, 1024), (CHUNK_BYTES - 256, 256)):
                        data = bytes(stream.raw(chunk * CHUNK_BYTES + first_byte, length))
                        blocks += (data[at : at + 16] for at in range(0, length, 16))
    assert len(set(blocks)) == len(blocks) == 3 * 6 * 2 * 8 * 80


def test_a_long_stream_repeats_no_block() -> None:
    data = np.frombuffer(MaskStream(ROOT, 0).raw(0, 3 * CHUNK_BYTES), "V16")
    assert len(set(data.tolist())) == data.size


def test_pieces_never_span_chunks() -> None:
    for start, end in masking.pieces(CHUNK_BYTES - 7, 3 * CHUNK_BYTES):
        assert start < end
        assert start // CHUNK_BYTES == (end - 1) // CHUNK_BYTES
