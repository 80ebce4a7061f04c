"""Dealing shares and opening them: what a ShareKeys message brings to each holder, and what a holder checks.

A dealer splits its two seeds, seals for every holder that advertised keys the pair of its shares, and commits to each
share. It signs the root of the tree over all of that, so that every holder is shown the dealing that all others are
shown. The coordinator sees commitments and ciphertexts, and passes on to each holder its own, with its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared import merkle
from shared.errors import WireError
from shared.ids import Digest
from shared.secagg.keys import AttemptSecrets, Draw, agree
from shared.secagg.sharing import SHARE_BYTES, check_share, split
from shared.secagg.transcript import ShareKind, share_commitment, share_context, share_key, share_leaf
from shared.secret import Secret

NONCE_BYTES = 12
TAG_BYTES = 16
CIPHERTEXT_BYTES = NONCE_BYTES + 2 * SHARE_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True)
class SealedShare:
    """What one dealer has for one holder. The holder's index; the rest as in `deal`."""

    holder: int
    ciphertext: bytes
    """`nonce12 || AES-256-GCM(self_share || mask_share)`, CIPHERTEXT_BYTES."""
    self_commitment: Digest
    mask_commitment: Digest

    @property
    def leaf(self) -> bytes:
        """Its leaf in the dealer's tree."""
        return share_leaf(self.holder, self.ciphertext, self.self_commitment, self.mask_commitment)


@dataclass(frozen=True, slots=True)
class OpenedShare:
    """What a holder holds of one dealer, SHARE_BYTES each. Of the two it ever reveals one."""

    self_share: Secret
    mask_share: Secret


def deal(
    *,
    secrets: AttemptSecrets,
    index: int,
    t1: Digest,
    threshold: int,
    members: int,
    holders: Mapping[int, bytes],
    draw: Draw,
) -> tuple[SealedShare, ...]:
    """Share both seeds of the dealer `index` among `holders` (index -> share public key), ascending by holder.

    The dealer is a holder like the others, so that every dealing has the same form. A holder's share is the value of
    the polynomial at its index, whoever else is there. Raises WireError for a public key that must not be used.
    """
    if index not in holders or not all(1 <= holder <= members for holder in holders):
        raise RuntimeError(f"the dealer {index} is one of the holders, and all of them are members 1..{members}")
    self_shares = split(secrets.self_seed.reveal(), threshold=threshold, holders=members, draw=draw)
    mask_shares = split(secrets.mask_seed.reveal(), threshold=threshold, holders=members, draw=draw)
    private = secrets.share_private.reveal()
    sealed = []
    for holder, public in sorted(holders.items()):
        self_share, mask_share = self_shares[holder - 1], mask_shares[holder - 1]
        key, nonce = share_key(agree(private, public), t1, index, holder), draw(NONCE_BYTES)
        box = AESGCM(key).encrypt(nonce, self_share + mask_share, share_context(t1, index, holder))
        sealed.append(
            SealedShare(
                holder,
                nonce + box,
                share_commitment(t1, index, holder, ShareKind.SELF, self_share),
                share_commitment(t1, index, holder, ShareKind.MASK, mask_share),
            )
        )
    return tuple(sealed)


def shares_root(sealed: Sequence[SealedShare]) -> Digest:
    """`cts_hash`: the root over the leaves of one dealer, ascending by holder."""
    return merkle.root([share.leaf for share in _sorted(sealed)])


def share_path(sealed: Sequence[SealedShare], holder: int) -> tuple[bytes, ...]:
    """The path of one holder's leaf. Of all holders at once: `share_paths`."""
    return share_paths(sealed)[holder]


def share_paths(sealed: Sequence[SealedShare]) -> Mapping[int, tuple[bytes, ...]]:
    """The path of each holder's leaf, by holder; the tree is hashed once."""
    in_order = _sorted(sealed)
    found = merkle.paths([share.leaf for share in in_order])
    return {share.holder: path for share, path in zip(in_order, found, strict=True)}


def open_share(
    *,
    secrets: AttemptSecrets,
    index: int,
    dealer: int,
    dealer_public: bytes,
    t1: Digest,
    sealed: SealedShare,
    root: Digest,
    position: int,
    count: int,
    path: Sequence[bytes],
) -> OpenedShare:
    """The shares that `dealer` has for this holder, after every check that a holder can make.

    `root`, from the dealer's signed ShareKeys, is over `count` leaves; `position` (from 0) is this holder's among the
    ascending indexes of the roster. Raises WireError that names the dealer and the check.
    """
    if sealed.holder != index:
        raise WireError(f"the share of dealer {dealer} is for holder {sealed.holder}, expected {index}")
    if not merkle.verify_path(sealed.leaf, position, count, path, root):
        raise WireError(f"the share of dealer {dealer} is not in what the dealer signed: its Merkle path does not fit")
    if len(sealed.ciphertext) != CIPHERTEXT_BYTES:
        raise WireError(
            f"the sealed share of dealer {dealer}: expected {CIPHERTEXT_BYTES} bytes, got {len(sealed.ciphertext)}"
        )
    key = share_key(agree(secrets.share_private.reveal(), dealer_public), t1, dealer, index)
    nonce, box = sealed.ciphertext[:NONCE_BYTES], sealed.ciphertext[NONCE_BYTES:]
    try:
        pair = AESGCM(key).decrypt(nonce, box, share_context(t1, dealer, index))
    except InvalidTag as error:
        raise WireError(f"the share of dealer {dealer} does not decrypt: sealed for others, or altered") from error
    self_share, mask_share = pair[:SHARE_BYTES], pair[SHARE_BYTES:]
    check_revealed(share=self_share, t1=t1, dealer=dealer, holder=index, kind=ShareKind.SELF, sealed=sealed)
    check_revealed(share=mask_share, t1=t1, dealer=dealer, holder=index, kind=ShareKind.MASK, sealed=sealed)
    return OpenedShare(Secret(self_share), Secret(mask_share))


def check_revealed(*, share: bytes, t1: Digest, dealer: int, holder: int, kind: ShareKind, sealed: SealedShare) -> None:
    """Hold a share against the dealer's commitment: at the holder when it arrives, at the coordinator when the holder
    reveals it. Raises WireError that names the dealer and the kind.
    """
    check_share(share, holder)
    committed = sealed.self_commitment if kind is ShareKind.SELF else sealed.mask_commitment
    if share_commitment(t1, dealer, holder, kind, share) != committed:
        raise WireError(
            f"the {kind.name.lower()} share of dealer {dealer} at holder {holder} does not match its commitment"
        )


def _sorted(sealed: Sequence[SealedShare]) -> list[SealedShare]:
    in_order = sorted(sealed, key=lambda share: share.holder)
    if len({share.holder for share in in_order}) < len(in_order):
        raise RuntimeError("a dealer has one sealed share for each holder")
    return in_order
