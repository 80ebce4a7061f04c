"""What survivors reveal: taken whole and exactly, or not; and who is to blame for a secret that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from coordinator.aggregation.unmask import Blame, check_revealed, remaining_masks
from coordinator.round.phases import Opening
from shared.errors import WireError
from shared.ids import Digest, ParticipantId
from shared.protocol.messages import UnmaskShares
from shared.secagg.masking import Masks
from shared.secagg.sharing import PRIME, SHARE_BYTES
from shared.update import Encoding, StatisticsLayout, UpdateLayout
from tests.support.masked import MaskedAttempt, SiloUpdate, make_masked
from tests.support.rounds import METRICS, make_masked_spec

MEMBERS = tuple(ParticipantId(f"silo-{letter}") for letter in "abcdef")
SPEC = make_masked_spec(members=MEMBERS)  # c = 1, t = 4
ABSENT, *ALIVE = MEMBERS[0], *MEMBERS[2:]  # the first never advertised, the second dealt and dropped
DROPPED = MEMBERS[1]
SURVIVORS = tuple(ALIVE)
Shares = tuple[tuple[int, bytes], ...]
LAYOUT = UpdateLayout.of_round(encoding=Encoding.U64, parameters=1, tensors=1, statistics=StatisticsLayout(METRICS))


def attempt_with(wrong_dealers: Sequence[ParticipantId] = ()) -> MaskedAttempt:
    return make_masked(
        SPEC,
        layout=LAYOUT,
        sizes=[1],
        updates={name: SiloUpdate(deltas=np.ones(1, "<f4")) for name in SURVIVORS},
        dropped=[DROPPED],
        wrong_dealers=wrong_dealers,
    )


HONEST = attempt_with()
HOLDER = 4
WORD = HONEST.opening.revealed[MEMBERS[HOLDER - 1]]


def check(word: UnmaskShares, holder: int = HOLDER) -> None:
    check_revealed(word, masking=HONEST.opening.masking, survivors=SURVIVORS, holder=holder, members=MEMBERS)


def test_an_honest_word_is_taken_from_its_holder_alone() -> None:
    assert [dealer for dealer, _ in WORD.self_shares] == [3, 4, 5, 6]
    assert [dealer for dealer, _ in WORD.mask_shares] == [2]
    check(WORD)
    with pytest.raises(WireError, match="those of member 4, expected member 5"):
        check(WORD, holder=5)
    for stranger in (0, 1, 2, 7):
        with pytest.raises(WireError, match=f"member {stranger} is no survivor"):
            check(WORD, holder=stranger)


def flipped(share: bytes) -> bytes:
    return share[:-1] + bytes([share[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda own, masks: (own[1:], masks), "the self share of dealer 3 is missing"),
        (lambda own, masks: (own, ()), "the mask share of dealer 2 is missing"),
        (lambda own, masks: (own[::-1], masks), "once for each dealer, ascending"),
        (lambda own, masks: (own + own[-1:], masks), "once for each dealer, ascending"),
        (lambda own, masks: ((masks[0], *own), masks), "a self share of dealer 2 must not be revealed"),
        (lambda own, masks: (own, (*masks, own[0])), "a mask share of dealer 3 must not be revealed"),
        (lambda own, masks: (((1, own[0][1]), *own), masks), "a self share of dealer 1 must not be revealed"),
        (lambda own, masks: (((3, flipped(own[0][1])), *own[1:]), masks), "the self share of dealer 3 at holder 4"),
        (lambda own, masks: (own, ((2, flipped(masks[0][1])),)), "the mask share of dealer 2 at holder 4"),
        (lambda own, masks: (((3, own[1][1]), (4, own[0][1]), *own[2:]), masks), "the self share of dealer 3 at"),
        (lambda own, masks: (own, ((2, b"\xff" * SHARE_BYTES),)), "dealer 2: the share of holder 4 is not below"),
        (
            lambda own, masks: (own, ((2, PRIME.to_bytes(SHARE_BYTES, "big")),)),
            "dealer 2: the share of holder 4 is not below",
        ),
    ],
)
def test_any_other_word_is_refused(change: Callable[[Shares, Shares], tuple[Shares, Shares]], says: str) -> None:
    own, masks = change(WORD.self_shares, WORD.mask_shares)
    with pytest.raises(WireError, match=says):
        check(replace(WORD, self_shares=own, mask_shares=masks))


def opened(opening: Opening) -> list[int] | Blame:
    """Both sections' first cells of the sum, without the masks that were found."""
    terms = remaining_masks(opening, survivors=SURVIVORS, members=MEMBERS, threshold=SPEC.threshold)
    if isinstance(terms, Blame):
        return terms
    totals = []
    for section, start in ((0, 0), (1, LAYOUT.parameter_bytes)):
        words = np.zeros(1, "<u8")
        for content in HONEST.sections.values():
            words += np.frombuffer(content, "<u8", 1, start)
        Masks(terms).remove(words, section=section, first_byte=0)
        totals += words.tolist()
    return totals


EXPECTED = [sum(int(words[section][0]) for words in HONEST.words.values()) for section in (0, 1)]


def test_any_threshold_of_words_opens_the_same_total() -> None:
    assert SPEC.threshold == len(SURVIVORS)
    assert opened(HONEST.opening) == EXPECTED
    terms = remaining_masks(HONEST.opening, survivors=SURVIVORS, members=MEMBERS, threshold=SPEC.threshold)
    assert not isinstance(terms, Blame)
    assert len(terms) == len(SURVIVORS) * 2
    assert all("<secret>" in repr(term) for term in terms)


def test_a_word_that_is_not_good_does_not_count() -> None:
    name = MEMBERS[HOLDER - 1]
    revealed = HONEST.opening.revealed
    for word in (
        replace(WORD, self_shares=((3, flipped(WORD.self_shares[0][1])), *WORD.self_shares[1:])),
        replace(WORD, survivors=Digest.of(b"another list")),
        replace(WORD, index=5),
    ):
        with pytest.raises(WireError, match="needs the shares of 4 survivors, 3 of them gave good ones"):
            opened(replace(HONEST.opening, revealed={**revealed, name: word}))
    with pytest.raises(WireError, match="3 of them"):
        opened(replace(HONEST.opening, revealed={who: word for who, word in revealed.items() if who != name}))


@pytest.mark.parametrize(
    ("dealer", "says"),
    [(MEMBERS[4], "dealer 5 combine to a self seed"), (DROPPED, "dealer 2 combine to a mask seed")],
)
def test_a_dealer_whose_secret_is_wrong_is_named(dealer: ParticipantId, says: str) -> None:
    found = opened(attempt_with([dealer]).opening)
    assert isinstance(found, Blame)
    assert found.dealer == dealer
    assert says in found.reason


def test_without_drops_only_self_masks_remain_and_a_bad_word_of_many_does_no_harm() -> None:
    attempt = make_masked(
        SPEC,
        layout=LAYOUT,
        sizes=[1],
        updates={name: SiloUpdate(deltas=np.ones(1, "<f4")) for name in MEMBERS},
    )
    terms = remaining_masks(attempt.opening, survivors=MEMBERS, members=MEMBERS, threshold=SPEC.threshold)
    assert not isinstance(terms, Blame)
    assert [sign for _, sign in terms] == [1] * len(MEMBERS)
    liar = replace(attempt.opening.revealed[MEMBERS[1]], self_shares=())
    shown = replace(attempt.opening, revealed={**attempt.opening.revealed, MEMBERS[1]: liar})
    assert remaining_masks(shown, survivors=MEMBERS, members=MEMBERS, threshold=SPEC.threshold) == terms
