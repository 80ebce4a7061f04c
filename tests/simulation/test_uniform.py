"""What the coordinator holds of a masked round is noise: a chi-square test of its bytes, on updates that are all zeros.

Zeros are what shows a mask that is not there at once. Each silo's upload has two layers, its self mask and its masks
with the others. With either of them taken off, by this test, which knows the secrets, the rest is noise still; with
both off, nothing is left of it. The test has two sides: bytes that are too even are no noise either. Everything is
drawn from fixed seeds, so that it passes always or never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

import numpy as np
import pytest
import structlog

from coordinator.round.effects import SharesFixed
from coordinator.round.journal import decode_record
from participant.round.phases import Masked, Uploading
from shared.ids import ParticipantId
from shared.secagg.masking import Masks, Term
from shared.secagg.ring import WORD, Words
from shared.update import Encoding
from tests.simulation.settings import Shape
from tests.simulation.silo import Silo
from tests.simulation.steps import Federation, note

STEPS_MAX = 2000
VALUES = 256
DEVIATIONS_MAX = 4.5  # of a chi-square of 255 degrees, near enough normal: one of 150,000 fair draws is beyond it
MEMBERS = 4


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


def deviations(data: bytes) -> float:
    """How far the counts of byte values are from even, in standard deviations: above 0 too uneven, below too even."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=VALUES)
    even = len(data) / VALUES
    statistic = float(((counts - even) ** 2).sum() / even)
    degrees = VALUES - 1
    return (statistic - degrees) / math.sqrt(2 * degrees)


def is_noise(data: bytes) -> bool:
    return abs(deviations(data)) < DEVIATIONS_MAX


@dataclass(frozen=True, slots=True)
class Seen:
    """One round's first attempt at the coordinator, and what only the silos know of it."""

    uploads: dict[ParticipantId, bytes]
    """Section 0 of each, as in its spool."""
    own: dict[ParticipantId, Term]
    others: dict[ParticipantId, tuple[Term, ...]]
    sealed: bytes
    """All sealed shares in the journal."""
    encoding: Encoding

    def words(self, name: ParticipantId) -> Words:
        words: Words = np.frombuffer(bytearray(self.uploads[name]), WORD[self.encoding])
        return words

    def without(self, name: ParticipantId, terms: tuple[Term, ...]) -> bytes:
        """This upload when these of its masks are taken off."""
        words = self.words(name)
        Masks(terms).remove(words, section=0, first_byte=0)
        return words.tobytes()


def _round(number: int, encoding: Literal["u16", "u32"]) -> Seen:
    """The masked round of that number; the first is in 64 bits, the others in the job's encoding."""
    shape = Shape(members=MEMBERS, rounds=2, quorum=4, masked=True, encoding=encoding, padding=16_384)
    federation = Federation(shape)
    masks: dict[ParticipantId, tuple[Term, ...]] = {}
    for silo in federation.silos:
        silo.value = 0.0
    for taken in range(STEPS_MAX):
        steps = federation.steps()
        federation._take(steps[taken % len(steps)])
        for silo in federation.silos:
            masks |= _masks(silo, number)
        orders = federation.host.up().folds.orders
        if orders and orders[0].attempt.round.number == number:
            break
    (order,) = federation.host.up().folds.orders
    parameters = order.frame.layout(order.encoding).parameter_bytes
    journal = [decode_record(entry) for entry in federation.host.store._records.journals[order.attempt.round][1:]]
    dealt = next(record.dealt for record in journal if isinstance(record, SharesFixed))
    shares = chain.from_iterable(one.shares for one in dealt.values())
    spools = federation.host.blobs._spools
    return Seen(
        uploads={name: bytes(spools[order.attempt, name].content[:parameters]) for name in order.survivors},
        own={name: terms[0] for name, terms in masks.items()},
        others={name: terms[1:] for name, terms in masks.items()},
        sealed=b"".join(share.ciphertext for share in shares),
        encoding=order.encoding,
    )


def _masks(silo: Silo, number: int) -> dict[ParticipantId, tuple[Term, ...]]:
    for state in silo.states:
        if isinstance(state, Uploading) and isinstance(state.protection, Masked) and state.offer.key.number == number:
            return {silo.name: state.protection.masks._terms}
    return {}


@pytest.mark.parametrize(("number", "encoding"), [(1, "u32"), (2, "u32"), (2, "u16")])
def test_uploads_of_zeros_are_noise_until_their_last_layer_is_off(number: int, encoding: Literal["u16", "u32"]) -> None:
    seen = _round(number, encoding)
    assert len(seen.uploads) == MEMBERS
    for name, upload in seen.uploads.items():
        own, others = seen.own[name], seen.others[name]
        assert len(others) == MEMBERS - 1
        assert is_noise(upload)
        assert is_noise(seen.without(name, (own,)))
        assert is_noise(seen.without(name, others))
        assert is_noise(seen.without(name, (own, *others[1:]))), "one mask of another member is enough"
        bare = seen.without(name, (own, *others))
        assert not is_noise(bare)
        assert bare == bytes(len(bare))


def test_no_two_uploads_have_anything_in_common() -> None:
    seen = _round(1, "u32")
    for one, other in pairwise(sorted(seen.uploads)):
        first, second = seen.words(one), seen.words(other)
        assert is_noise((first - second).tobytes())
        assert is_noise((first + second).tobytes()), "masks of two cancel, those of the others stay"


def test_sealed_shares_are_noise() -> None:
    sealed = _round(1, "u32").sealed
    assert len(sealed) > 2000
    assert is_noise(sealed)


def test_the_test_tells_noise_from_what_is_none() -> None:
    noise = np.random.default_rng(7).bytes(100_000)
    assert is_noise(noise)
    assert not is_noise(bytes(100_000))
    assert not is_noise(bytes(range(256)) * 400), "too even"
    some = bytearray(noise)
    some[:2000] = bytes(2000)
    assert not is_noise(bytes(some)), "2% of zeros"
