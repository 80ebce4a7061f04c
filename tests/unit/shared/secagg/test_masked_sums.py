"""The whole arithmetic of a round: masked uploads add up to the plain integer sum, and one upload alone is noise."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.secagg.masking import Masks, Term, participant_terms
from shared.secagg.ring import STATISTICS_WORD, WORD, add_into, subtract_into
from shared.secagg.threshold import default_max_colluding, threshold
from shared.update import CHUNK_BYTES, Encoding
from tests.support.secagg import MaskedAttempt

MASKED = [Encoding.U32, Encoding.U16, Encoding.U64]
CHI_SQUARE_LIMIT = 450.0  # 255 degrees of freedom: 1e-12 of uniform samples are above; one constant byte gives millions


def noise(words: int, dtype: np.dtype[Any], seed: int) -> np.ndarray[tuple[int], np.dtype[Any]]:
    return np.frombuffer(np.random.default_rng(seed).bytes(words * dtype.itemsize), dtype).copy()


def check_sum(attempt: MaskedAttempt, survivors: set[int], revealing: set[int], words: int, encoding: Encoding) -> None:
    """Each survivor uploads its own numbers in two parts; what opens is the integer sum, in both sections."""
    for section, dtype in ((0, WORD[encoding]), (1, STATISTICS_WORD)):
        modulus = 2 ** (8 * dtype.itemsize)
        first_byte = CHUNK_BYTES - (words // 2) * dtype.itemsize  # the upload spans two chunks of the mask
        total = np.zeros(words, dtype)
        expected = [0] * words
        for index in sorted(survivors):
            upload = noise(words, dtype, index)
            expected = [a + b for a, b in zip(expected, upload.tolist(), strict=True)]
            masks, cut = attempt.masks_of(index), words // 3
            masks.apply(upload[cut:], section=section, first_byte=first_byte + cut * dtype.itemsize)
            masks.apply(upload[:cut], section=section, first_byte=first_byte)
            add_into(total, upload)
        attempt.masks_of_sum(survivors, revealing).remove(total, section=section, first_byte=first_byte)
        assert total.tolist() == [value % modulus for value in expected]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), encoding=st.sampled_from(MASKED), words=st.integers(1, 40))
def test_the_masked_sum_is_the_integer_sum(data: st.DataObject, encoding: Encoding, words: int) -> None:
    members = data.draw(st.integers(2, 9))
    colluding = data.draw(st.integers(0, members - 2))
    needed = threshold(members, colluding)
    if needed > members:
        needed = threshold(members, default_max_colluding(members))

    def subset_of(those: set[int]) -> set[int]:
        return data.draw(st.sets(st.sampled_from(sorted(those)), min_size=needed))

    advertised = subset_of(set(range(1, members + 1)))
    shared = subset_of(advertised)
    survivors = subset_of(shared)
    attempt = MaskedAttempt(members=members, threshold=needed, advertised=advertised, shared=shared)
    check_sum(attempt, survivors, subset_of(survivors), words, encoding)


def test_every_set_of_survivors_of_five() -> None:
    attempt = MaskedAttempt(members=5, threshold=4, advertised=set(range(1, 6)), shared=set(range(1, 6)))
    for count in (4, 5):
        for survivors in combinations(range(1, 6), count):
            check_sum(attempt, set(survivors), set(survivors[:4]), 3, Encoding.U32)


def test_thirty_members_with_drops_in_every_phase() -> None:
    members = set(range(1, 31))
    needed = threshold(30, 5)
    attempt = MaskedAttempt(members=30, threshold=needed, advertised=members - {4}, shared=members - {4, 17})
    survivors = members - {4, 17, 1, 30, 12}
    check_sum(attempt, survivors, set(sorted(survivors)[-needed:]), 5, Encoding.U32)


@pytest.mark.parametrize("encoding", MASKED)
def test_a_last_short_chunk_and_a_single_word(encoding: Encoding) -> None:
    attempt = MaskedAttempt(members=3, threshold=3, advertised={1, 2, 3}, shared={1, 2, 3})
    dtype = WORD[encoding]
    words = CHUNK_BYTES // dtype.itemsize + 1
    total, expected = np.zeros(words, dtype), np.zeros(words, dtype)
    for index in (1, 2, 3):
        upload = noise(words, dtype, index)
        expected += upload
        masks = attempt.masks_of(index)
        masks.apply(upload[:-1], section=0, first_byte=0)
        masks.apply(upload[-1:], section=0, first_byte=CHUNK_BYTES)
        total += upload
    attempt.masks_of_sum({1, 2, 3}, {1, 2, 3}).remove(total, section=0, first_byte=0)
    assert (total == expected).all()


def test_another_transcript_does_not_cancel() -> None:
    """Participants who were shown different histories hold different pair roots: what is left is noise."""
    attempt = MaskedAttempt(members=3, threshold=3, advertised={1, 2, 3}, shared={1, 2, 3})
    zeros = np.zeros(4, "<u4")
    for index in (1, 2, 3):
        attempt.masks_of(index).apply(zeros, section=0, first_byte=0)
        if index == 1:
            attempt.t2 = attempt.h0
    attempt.masks_of_sum({1, 2, 3}, {1, 2, 3}).remove(zeros, section=0, first_byte=0)
    assert zeros.any()


# --- one upload alone -------------------------------------------------------------------------------------------------


def chi_square(words: np.ndarray[tuple[int], np.dtype[Any]]) -> float:
    """Of the bytes, against the uniform distribution."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = words.nbytes / 256
    return float(((counts - expected) ** 2 / expected).sum())


def layers(attempt: MaskedAttempt, index: int) -> tuple[list[Term], list[Term]]:
    own, *pairs = participant_terms(
        secrets=attempt.secrets[index],
        index=index,
        h0=attempt.h0,
        t2=attempt.t2,
        mask_publics=attempt.mask_publics,
    )
    return [own], pairs


@pytest.mark.parametrize("section", [0, 1])
@pytest.mark.parametrize("encoding", MASKED)
def test_each_layer_alone_hides_an_upload_of_zeros(encoding: Encoding, section: int) -> None:
    dtype = WORD[encoding] if section == 0 else STATISTICS_WORD
    attempt = MaskedAttempt(members=3, threshold=3, advertised={1, 2, 3}, shared={1, 2, 3}, seed=b"chi-square")
    upload = np.zeros((1 << 20) // dtype.itemsize, dtype)
    attempt.masks_of(2).apply(upload, section=section, first_byte=0)
    assert chi_square(upload) < CHI_SQUARE_LIMIT
    own, pairs = layers(attempt, 2)
    for taken_off, left in ((own, pairs), (pairs, own)):
        rest = upload.copy()
        Masks(taken_off).remove(rest, section=section, first_byte=0)
        assert chi_square(rest) < CHI_SQUARE_LIMIT, "the other layer hides it"
        Masks(left).remove(rest, section=section, first_byte=0)
        assert chi_square(rest) > 1e6, "and nothing is left to hide it without that one"
        assert not rest.any()


def test_the_upload_of_one_who_was_declared_dropped_stays_hidden() -> None:
    """Its pair masks are opened, its self mask is not. Without the self mask its upload would lie open."""
    attempt = MaskedAttempt(members=4, threshold=3, advertised={1, 2, 3, 4}, shared={1, 2, 3, 4}, seed=b"late")
    late = np.full(1 << 18, 7, "<u4")
    attempt.masks_of(4).apply(late, section=0, first_byte=0)
    opened = attempt.masks_of_sum({1, 2, 3}, {1, 2, 3})
    pairs_with_4 = [(root, -sign) for root, sign in opened._terms[3:]]  # as they stand in the upload of 4
    Masks(pairs_with_4).remove(late, section=0, first_byte=0)
    assert chi_square(late) < CHI_SQUARE_LIMIT
    own, _ = layers(attempt, 4)
    Masks(own).remove(late, section=0, first_byte=0)
    assert (late == 7).all()


def test_the_difference_of_two_uploads_is_hidden_too() -> None:
    attempt = MaskedAttempt(members=3, threshold=3, advertised={1, 2, 3}, shared={1, 2, 3}, seed=b"difference")
    uploads = []
    for index in (1, 2):
        upload = np.zeros(1 << 18, "<u4")
        attempt.masks_of(index).apply(upload, section=0, first_byte=0)
        uploads.append(upload)
    subtract_into(*uploads)
    assert chi_square(uploads[0]) < CHI_SQUARE_LIMIT
