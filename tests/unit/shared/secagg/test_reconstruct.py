from __future__ import annotations

from typing import Any

import pytest

from shared.errors import WireError
from shared.ids import Digest
from shared.secagg.masking import participant_terms
from shared.secagg.reconstruct import reconstruct_pair_roots, reconstruct_self_root
from tests.support.secagg import MaskedAttempt


@pytest.fixture(scope="module")
def attempt() -> MaskedAttempt:
    return MaskedAttempt(members=5, threshold=3, advertised={1, 2, 3, 5}, shared={1, 2, 3, 5})


def self_root(attempt: MaskedAttempt, **changed: Any) -> object:
    shares = {holder: attempt.opened_by(holder)[2].self_share.reveal() for holder in (1, 3, 5)}
    arguments: dict[str, Any] = {
        "shares": shares,
        "threshold": 3,
        "t1": attempt.t1,
        "t2": attempt.t2,
        "index": 2,
        "commitment": attempt.commitments[2],
    }
    return reconstruct_self_root(**(arguments | changed))


def pair_roots(attempt: MaskedAttempt, **changed: Any) -> dict[int, object]:
    arguments: dict[str, Any] = {
        "shares": {holder: attempt.opened_by(holder)[2].mask_share.reveal() for holder in (1, 3, 5)},
        "threshold": 3,
        "h0": attempt.h0,
        "t2": attempt.t2,
        "dropped": 2,
        "mask_public": attempt.mask_publics[2],
        "survivors": {index: attempt.mask_publics[index] for index in (1, 3, 5)},
    }
    return dict(reconstruct_pair_roots(**(arguments | changed)))


def test_roots_are_those_of_the_participants(attempt: MaskedAttempt) -> None:
    own = {
        index: participant_terms(
            secrets=attempt.secrets[index], index=index, h0=attempt.h0, t2=attempt.t2, mask_publics=attempt.mask_publics
        )
        for index in (1, 2, 3, 5)
    }
    assert self_root(attempt) == own[2][0][0]
    assert pair_roots(attempt) == {1: own[1][1], 3: own[3][2], 5: own[5][2]}, "the root and the sign in their uploads"
    assert [sign for _, sign in (own[1][1], own[3][2], own[5][2])] == [1, -1, -1]


def test_a_self_seed_that_was_not_committed_to(attempt: MaskedAttempt) -> None:
    mixed = {holder: attempt.opened_by(holder)[3].self_share.reveal() for holder in (1, 3, 5)}
    for changed in ({"shares": mixed}, {"commitment": attempt.commitments[1]}, {"t1": Digest.of(b"x")}):
        with pytest.raises(WireError, match="dealer 2 combine to a self seed that it did not commit to"):
            self_root(attempt, **changed)


def test_a_mask_seed_of_another_key(attempt: MaskedAttempt) -> None:
    mixed = {holder: attempt.opened_by(holder)[3].mask_share.reveal() for holder in (1, 3, 5)}
    for changed in ({"shares": mixed}, {"mask_public": attempt.mask_publics[1]}, {"h0": Digest.of(b"x")}):
        with pytest.raises(WireError, match="dealer 2 combine to a mask seed that is not of its advertised key"):
            pair_roots(attempt, **changed)


def test_shares_that_do_not_combine(attempt: MaskedAttempt) -> None:
    for opening in (self_root, pair_roots):
        for shares, said in (
            ({1: bytes(66), 3: bytes(66)}, "dealer 2: a secret needs 3 shares, got 2"),
            ({1: b"\xff" * 66, 3: bytes(66), 5: bytes(66)}, "dealer 2: the share of holder 1 is not below"),
            ({1: b"\x00" + b"\xff" * 65, 3: bytes(66), 5: bytes(66)}, r"dealer 2: a shared secret is below 2\^256"),
        ):
            with pytest.raises(WireError, match=said):
                opening(attempt, shares=shares)


def test_a_share_in_the_wrong_place(attempt: MaskedAttempt) -> None:
    """A share of one holder given as another's: an element of the field, so that only the result shows it."""
    shares = {holder: attempt.opened_by(holder)[2].self_share.reveal() for holder in (1, 3, 5)}
    with pytest.raises(WireError, match="dealer 2"):
        self_root(attempt, shares={1: shares[3], 3: shares[1], 5: shares[5]})
