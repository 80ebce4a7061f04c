from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.entropy import SeededEntropy
from shared.errors import WireError
from shared.ids import Digest
from shared.secagg.keys import AttemptSecrets, public_of
from shared.secagg.sealing import (
    CIPHERTEXT_BYTES,
    NONCE_BYTES,
    SealedShare,
    check_revealed,
    deal,
    open_share,
    share_path,
    share_paths,
    shares_root,
)
from shared.secagg.sharing import combine
from shared.secagg.transcript import ShareKind
from shared.secret import Secret
from tests.support.secagg import MaskedAttempt

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "secagg.json").read_text("utf-8"))["dealing"]


def test_frozen_vectors() -> None:
    privates = {int(index): bytes.fromhex(text) for index, text in VECTORS["share_privates"].items()}
    secrets = AttemptSecrets(
        self_seed=Secret(bytes.fromhex(VECTORS["self_seed"])),
        mask_seed=Secret(bytes.fromhex(VECTORS["mask_seed"])),
        share_private=Secret(privates[2]),
        encoding_seed=Secret(bytes(32)),
    )
    sealed = deal(
        secrets=secrets,
        index=2,
        t1=Digest.of(b"t1"),
        threshold=3,
        members=5,
        holders={index: public_of(private) for index, private in privates.items()},
        draw=SeededEntropy(b"dealing").take,
    )
    shown = [[s.holder, s.ciphertext.hex(), str(s.self_commitment), str(s.mask_commitment)] for s in sealed]
    assert shown == VECTORS["sealed"]
    assert str(shares_root(sealed)) == VECTORS["root"]


@pytest.fixture(scope="module")
def attempt() -> MaskedAttempt:
    """Of five members 1, 2, 4 and 5 advertise and deal, threshold 3."""
    return MaskedAttempt(members=5, threshold=3, advertised={1, 2, 4, 5}, shared={1, 2, 4, 5})


def test_what_is_dealt_opens_and_combines(attempt: MaskedAttempt) -> None:
    held = {holder: attempt.opened_by(holder) for holder in (1, 4, 5)}
    for dealer, secrets in attempt.secrets.items():
        self_shares = {holder: shares[dealer].self_share.reveal() for holder, shares in held.items()}
        mask_shares = {holder: shares[dealer].mask_share.reveal() for holder, shares in held.items()}
        assert combine(self_shares, threshold=3) == secrets.self_seed.reveal()
        assert combine(mask_shares, threshold=3) == secrets.mask_seed.reveal()


def test_every_dealing_has_one_form(attempt: MaskedAttempt) -> None:
    for dealt in attempt.dealt.values():
        assert [share.holder for share in dealt] == [1, 2, 4, 5], "the dealer is a holder too"
        assert {len(share.ciphertext) for share in dealt} == {CIPHERTEXT_BYTES}
        assert share_paths(dealt)[4] == share_path(dealt, 4)
        assert shares_root(dealt[::-1]) == shares_root(dealt)
    nonces = [share.ciphertext[:NONCE_BYTES] for dealt in attempt.dealt.values() for share in dealt]
    assert len(set(nonces)) == len(nonces)


def opening(attempt: MaskedAttempt, *, index: int = 4, dealer: int = 2, **changed: Any) -> None:
    """Holder `index` opens the share of `dealer`, with some of it changed. The tree follows a changed leaf: what is
    under test is then the check behind the path.
    """
    dealt = attempt.dealt[dealer]
    sealed: SealedShare = changed.get("sealed", dealt[2])
    tree = [sealed if share.holder == sealed.holder else share for share in dealt]
    arguments: dict[str, Any] = {
        "secrets": attempt.secrets[index],
        "index": index,
        "dealer": dealer,
        "dealer_public": attempt.share_publics[dealer],
        "t1": attempt.t1,
        "sealed": sealed,
        "root": shares_root(tree),
        "position": 2,
        "count": 4,
        "path": share_path(tree, sealed.holder),
    }
    open_share(**(arguments | changed))


def changed_leaf(change: Callable[[SealedShare], SealedShare]) -> Callable[[MaskedAttempt], dict[str, Any]]:
    return lambda attempt: {"sealed": change(attempt.dealt[2][2])}


def flipped(data: bytes, place: int) -> bytes:
    altered = bytearray(data)
    altered[place] ^= 1
    return bytes(altered)


REFUSED: dict[str, tuple[Callable[[MaskedAttempt], dict[str, Any]], str]] = {
    "of another holder": (lambda attempt: {"sealed": attempt.dealt[2][1]}, "is for holder 2, expected 4"),
    "another root": (lambda attempt: {"root": shares_root(attempt.dealt[1])}, "dealer 2.*Merkle path"),
    "another position": (lambda _: {"position": 1}, "dealer 2.*Merkle path"),
    "another count": (lambda _: {"count": 5}, "dealer 2.*Merkle path"),
    "another path": (lambda attempt: {"path": share_path(attempt.dealt[2], 1)}, "dealer 2.*Merkle path"),
    "no path": (lambda _: {"path": ()}, "dealer 2.*Merkle path"),
    "another attempt": (lambda _: {"t1": Digest.of(b"another")}, "dealer 2 does not decrypt"),
    "another dealer's key": (lambda attempt: {"dealer_public": attempt.share_publics[1]}, "dealer 2 does not decrypt"),
    "a key of low order": (lambda _: {"dealer_public": bytes(32)}, "low order"),
    "altered text": (changed_leaf(lambda s: replace(s, ciphertext=flipped(s.ciphertext, 40))), "does not decrypt"),
    "altered nonce": (changed_leaf(lambda s: replace(s, ciphertext=flipped(s.ciphertext, 0))), "does not decrypt"),
    "altered tag": (changed_leaf(lambda s: replace(s, ciphertext=flipped(s.ciphertext, -1))), "does not decrypt"),
    "cut text": (changed_leaf(lambda s: replace(s, ciphertext=s.ciphertext[:-1])), "dealer 2: expected 160 bytes"),
    "no text": (changed_leaf(lambda s: replace(s, ciphertext=b"")), "dealer 2: expected 160 bytes, got 0"),
    "another self share": (
        changed_leaf(lambda s: replace(s, self_commitment=s.mask_commitment)),
        "the self share of dealer 2 at holder 4 does not match its commitment",
    ),
    "another mask share": (
        changed_leaf(lambda s: replace(s, mask_commitment=s.self_commitment)),
        "the mask share of dealer 2 at holder 4 does not match its commitment",
    ),
}


def test_nothing_changed_opens(attempt: MaskedAttempt) -> None:
    opening(attempt)


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_open(attempt: MaskedAttempt, what: str) -> None:
    change, said = REFUSED[what]
    with pytest.raises(WireError, match=said):
        opening(attempt, **change(attempt))


def test_a_text_that_was_sealed_for_another_holder(attempt: MaskedAttempt) -> None:
    """Swapped by a coordinator that also controls the dealer's signature: the key of the direction does not open it."""
    swapped = replace(attempt.dealt[2][2], ciphertext=attempt.dealt[2][0].ciphertext)
    with pytest.raises(WireError, match="does not decrypt"):
        opening(attempt, sealed=swapped)


def test_the_other_direction_has_another_key(attempt: MaskedAttempt) -> None:
    reflected = replace(attempt.dealt[2][2], ciphertext=attempt.dealt[4][1].ciphertext)
    with pytest.raises(WireError, match="does not decrypt"):
        opening(attempt, sealed=reflected)


def test_a_revealed_share_is_held_against_the_commitment(attempt: MaskedAttempt) -> None:
    opened, sealed = attempt.opened_by(4)[2], attempt.dealt[2][2]
    right = {"t1": attempt.t1, "dealer": 2, "holder": 4, "sealed": sealed}
    check_revealed(share=opened.self_share.reveal(), kind=ShareKind.SELF, **right)  # type: ignore[arg-type] # a dict of some
    check_revealed(share=opened.mask_share.reveal(), kind=ShareKind.MASK, **right)  # type: ignore[arg-type]
    for share, kind, said in (
        (opened.self_share.reveal(), ShareKind.MASK, "the mask share of dealer 2 at holder 4"),
        (opened.mask_share.reveal(), ShareKind.SELF, "the self share of dealer 2 at holder 4"),
        (b"\xff" * 66, ShareKind.SELF, "holder 4 is not below"),
        (b"", ShareKind.SELF, "expected 66 bytes"),
    ):
        with pytest.raises(WireError, match=said):
            check_revealed(share=share, kind=kind, **right)  # type: ignore[arg-type]


def test_mistakes_of_the_caller(attempt: MaskedAttempt) -> None:
    dealing = {"secrets": attempt.secrets[1], "index": 1, "t1": attempt.t1, "threshold": 3, "draw": attempt.draw}
    for members, holders in ((5, {2: bytes(32)}), (3, attempt.share_publics), (5, {0: bytes(32), 1: bytes(32)})):
        with pytest.raises(RuntimeError, match="one of the holders"):
            deal(members=members, holders=holders, **dealing)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="one sealed share for each holder"):
        shares_root([attempt.dealt[1][0]] * 2)


def test_a_holder_with_a_key_of_low_order(attempt: MaskedAttempt) -> None:
    with pytest.raises(WireError, match="low order"):
        deal(
            secrets=attempt.secrets[1],
            index=1,
            t1=attempt.t1,
            threshold=3,
            members=5,
            holders={**attempt.share_publics, 3: bytes(32)},
            draw=attempt.draw,
        )


def test_opened_shares_do_not_show(attempt: MaskedAttempt) -> None:
    opened = attempt.opened_by(1)[2]
    assert repr(opened) == "OpenedShare(self_share=<secret>, mask_share=<secret>)"
