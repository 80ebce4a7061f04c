"""From what survivors revealed to the masks that a sum still has on it.

In the sum over the survivors (U3) the masks between two of them cancel. What is left is each survivor's self mask, and
for each participant that dealt and then dropped (U2 without U3) its common mask with each survivor. A survivor reveals,
of every dealer, one share of one kind: of the self seed when the dealer survived, of the mask seed when it dropped.
Both kinds of one dealer would open that dealer's update, so a word with anything else in it is refused whole.

`check_revealed` is asked twice: by the machine before it takes a survivor's word, and here again before anything is
combined, since a journal is read back and a wrong share would turn the model into noise. Who is to blame is clear from
the dealers' signed commitments: a share that does not match is the revealer's doing; shares that match and combine to
another secret than the one advertised are the dealer's. PROTOCOL.md section 7.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coordinator.round.phases import Dealt, Masking, Opening
from shared.errors import WireError
from shared.ids import Digest, ParticipantId
from shared.protocol.messages import UnmaskShares
from shared.secagg import sealing
from shared.secagg.masking import Term
from shared.secagg.reconstruct import reconstruct_pair_roots, reconstruct_self_root
from shared.secagg.sealing import SealedShare
from shared.secagg.transcript import ShareKind


@dataclass(frozen=True, slots=True)
class Blame:
    """The total cannot be opened, and this dealer is why: its commitments hold, its secret is wrong."""

    dealer: ParticipantId
    reason: str


def check_revealed(
    word: UnmaskShares,
    *,
    masking: Masking,
    survivors: Collection[ParticipantId],
    holder: int,
    members: Sequence[ParticipantId],
) -> None:
    """Whether what member `holder`, a survivor, revealed is what opens this total: one self share of each survivor, one
    mask share of each other dealer, nothing else, each matching the dealer's commitment to it.

    Raises WireError that names the dealer (by position, as all messages do) and the kind.
    """
    if not 1 <= holder <= len(members) or members[holder - 1] not in survivors:
        raise WireError(f"member {holder} is no survivor of this attempt: its shares open nothing")
    if word.index != holder:
        raise WireError(f"the shares are those of member {word.index}, expected member {holder}")
    position = {member: index for index, member in enumerate(members, 1)}
    sealed = {position[dealer]: _sealed_for(holder, dealt) for dealer, dealt in masking.dealt.items()}
    surviving = {position[survivor] for survivor in survivors}
    for kind, shares, expected in (
        (ShareKind.SELF, word.self_shares, surviving),
        (ShareKind.MASK, word.mask_shares, sealed.keys() - surviving),
    ):
        _check_dealers(kind, [dealer for dealer, _ in shares], expected)
        for dealer, share in shares:
            _check_share(share, masking.roster.digest, dealer, kind, sealed[dealer])


def remaining_masks(
    opening: Opening, *, survivors: Collection[ParticipantId], members: Sequence[ParticipantId], threshold: int
) -> tuple[Term, ...] | Blame:
    """Every mask that the sum of the survivors' updates has on it, with its sign there: `Masks(terms).remove(..)`
    opens the sum. Keep them no longer than that takes.

    Raises WireError when too few of the revealed words are good.
    """
    combining = _Combining(
        masking=opening.masking,
        words=tuple(_good_words(opening, survivors, members)),
        survivors=survivors,
        position={member: index for index, member in enumerate(members, 1)},
        threshold=threshold,
    )
    if len(combining.words) < threshold:
        raise WireError(
            f"the total needs the shares of {threshold} survivors, {len(combining.words)} of them gave good ones"
        )
    terms: list[Term] = []
    for dealer in sorted(opening.masking.dealt):
        try:
            terms += [combining.self_mask(dealer)] if dealer in survivors else combining.pair_masks(dealer)
        except WireError as error:
            return Blame(dealer, str(error))
    return tuple(terms)


def _good_words(
    opening: Opening, survivors: Collection[ParticipantId], members: Sequence[ParticipantId]
) -> Iterator[UnmaskShares]:
    for participant, word in sorted(opening.revealed.items()):
        holder = members.index(participant) + 1
        try:
            check_revealed(word, masking=opening.masking, survivors=survivors, holder=holder, members=members)
        except WireError:
            continue
        if word.survivors == opening.survivors:
            yield word


@dataclass(frozen=True, slots=True, kw_only=True)
class _Combining:
    """What the roots of all dealers are made from."""

    masking: Masking
    words: Sequence[UnmaskShares]
    survivors: Collection[ParticipantId]
    position: Mapping[ParticipantId, int]
    threshold: int

    def self_mask(self, dealer: ParticipantId) -> Term:
        index = self.position[dealer]
        root = reconstruct_self_root(
            shares={word.index: share for word in self.words for of, share in word.self_shares if of == index},
            threshold=self.threshold,
            t1=self.masking.roster.digest,
            t2=self.masking.digest,
            index=index,
            commitment=self.masking.dealt[dealer].word.value.self_commitment,
        )
        return root, 1

    def pair_masks(self, dealer: ParticipantId) -> list[Term]:
        index, adverts = self.position[dealer], self.masking.roster.adverts
        own = adverts[dealer].value
        masks = reconstruct_pair_roots(
            shares={word.index: share for word in self.words for of, share in word.mask_shares if of == index},
            threshold=self.threshold,
            h0=own.attempt,
            t2=self.masking.digest,
            dropped=index,
            mask_public=own.mask_key,
            survivors={self.position[survivor]: adverts[survivor].value.mask_key for survivor in self.survivors},
        )
        return list(masks.values())


def _sealed_for(holder: int, dealt: Dealt) -> SealedShare:
    """What a dealer committed itself to have given this holder: it has one for each on the roster, ascending."""
    found = bisect_left(dealt.shares, holder, key=lambda share: share.holder)
    if found == len(dealt.shares) or dealt.shares[found].holder != holder:
        raise RuntimeError(f"dealer {dealt.word.value.index} has no share for holder {holder}, who is on the roster")
    return dealt.shares[found]


def _check_share(share: bytes, t1: Digest, dealer: int, kind: ShareKind, sealed: SealedShare) -> None:
    try:
        sealing.check_revealed(share=share, t1=t1, dealer=dealer, holder=sealed.holder, kind=kind, sealed=sealed)
    except WireError as error:
        raise WireError(f"dealer {dealer}: {error}") from None


def _check_dealers(kind: ShareKind, given: Sequence[int], expected: Collection[int]) -> None:
    if list(given) == sorted(expected):
        return
    missing, beyond = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    said = kind.name.lower()
    if beyond:
        raise WireError(f"a {said} share of dealer {beyond[0]} must not be revealed for this total")
    if missing:
        raise WireError(f"the {said} share of dealer {missing[0]} is missing")
    raise WireError(f"{said} shares are listed once for each dealer, ascending; got dealers {list(given)}")
