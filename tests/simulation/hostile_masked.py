"""Words about a masked attempt that break the rules: under every kind of answer, at the moment at which it is said.

Whoever says them is a member with its own signing key and with the secrets that it holds; what it does not have, it
makes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from coordinator.round.answers import ANSWERS
from coordinator.round.phases import (
    Advertising,
    AttemptState,
    Confirming,
    Folding,
    Gracing,
    Recruiting,
    RoundState,
    Sharing,
    Unmasking,
    Uploading,
)
from participant.round.phases import Confirmed
from shared.ids import AttemptNumber, Digest, ParticipantId
from shared.protocol.messages import (
    NONCE_BYTES,
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    ConsistencySignature,
    RoundReply,
    ShareKeys,
    UnmaskShares,
)
from shared.protocol.phases import TABLE, Role
from shared.reasons import AttemptAbortReason
from shared.secagg.sealing import SealedShare
from shared.secagg.sharing import SHARE_BYTES
from shared.wire.sealed import seal
from tests.simulation.silo import Silo
from tests.support.rounds import key_of

Word = tuple[str, RoundReply]

_KINDS: Mapping[type, AnswerKind] = {
    AdvertiseKeys: AnswerKind.ADVERTISE_KEYS,
    ShareKeys: AnswerKind.SHARE_KEYS,
    ConsistencySignature: AnswerKind.CONSISTENCY_SIGNATURE,
    UnmaskShares: AnswerKind.UNMASK_SHARES,
    AttemptAbort: AnswerKind.ATTEMPT_ABORT,
}
_NOBODY = Digest.of(b"nobody said this")


def hostile_answers(state: RoundState, silo: Silo) -> Iterator[Word]:
    """Every answer of this silo that must be refused now."""
    if isinstance(state, Recruiting | Gracing) or not isinstance(state, AttemptState):
        return
    speaker = _Speaker(state, silo)
    words = speaker.made_up()
    for value in words:
        yield from speaker.anybody_can_see(value)
        phase = state.conversations[silo.name].phase
        if (Role.PARTICIPANT, phase, ANSWERS[_KINDS[type(value)]]) not in TABLE:
            yield f"{type(value).__name__} in phase {phase}", speaker.answer(value)
    match state:
        case Advertising():
            yield from speaker.about_keys(state)
        case Sharing():
            yield from speaker.about_shares(state)
        case Uploading():
            yield from speaker.after_the_shares(state)
        case Confirming() | Unmasking() | Folding():
            yield from speaker.about_survivors(state)


class _Speaker:
    """One member in an attempt."""

    def __init__(self, state: AttemptState, silo: Silo) -> None:
        self.state, self.silo, self.name = state, silo, silo.name
        self.index = state.frame.index_of(silo.name)

    def made_up(self) -> tuple[Any, ...]:
        """One word of each kind, of this attempt, with nothing true in it."""
        h0, index = self.state.h0, self.index
        keys = Digest.of(b"mask key" + self.name.encode()), Digest.of(b"share key" + self.name.encode())
        return (
            AdvertiseKeys(h0, index, _canonical(keys[0]), _canonical(keys[1]), bytes(NONCE_BYTES), None),
            ShareKeys(h0, _NOBODY, index, _NOBODY, _NOBODY),
            ConsistencySignature(h0, _NOBODY, index),
            UnmaskShares(h0, _NOBODY, index, ((index, bytes(SHARE_BYTES)),), ()),
            AttemptAbort(h0, index, AttemptAbortReason.GONE),
        )

    def answer(
        self, value: Any, *, shares: tuple[SealedShare, ...] = (), signer: ParticipantId | None = None, later: int = 0
    ) -> AttemptAnswer:
        key = self.state.key
        named = replace(key, attempt=AttemptNumber(key.attempt + later))
        envelope = seal(value, signer=key_of(signer or self.name), index=value.index).envelope
        return AttemptAnswer(named, _KINDS[type(value)], envelope, shares)

    def anybody_can_see(self, value: Any) -> Iterator[Word]:
        """Wrong at any time."""
        kind, members = type(value).__name__, self.state.frame.spec.members
        other = next(islice(cycle(members), self.index, None))
        there = self.state.frame.index_of(other)
        yield f"{kind} for an attempt that never was", self.answer(value, later=1)
        yield f"{kind} of another announcement", self.answer(replace(value, attempt=_NOBODY))
        yield f"{kind} signed by somebody else", self.answer(value, signer=other)
        yield f"{kind} in somebody else's place", self.answer(replace(value, index=there))
        yield f"{kind} of somebody else", self.answer(replace(value, index=there), signer=other)

    def about_keys(self, state: Advertising) -> Iterator[Word]:
        known = state.adverts.get(self.name)
        if known is not None:
            yield "other keys", self.answer(replace(known.value, nonce=bytes(NONCE_BYTES)))
        for member, advert in state.adverts.items():
            if member != self.name:
                copied = replace(advert.value, index=self.index)
                yield "somebody else's keys", self.answer(copied)
        if known is None:
            made_up = self.made_up()[0]
            yield "a key of low order", self.answer(replace(made_up, mask_key=bytes(32)))
            yield "one key twice", self.answer(replace(made_up, share_key=made_up.mask_key))
        yield "shares before the roster", self.answer(self.made_up()[1])

    def about_shares(self, state: Sharing) -> Iterator[Word]:
        advert, known = state.roster.adverts.get(self.name), state.dealt.get(self.name)
        if advert is not None:
            yield "other keys after the roster", self.answer(replace(advert.value, nonce=bytes(NONCE_BYTES)))
        if known is not None:
            other = replace(known.word.value, self_commitment=_NOBODY)
            yield "other shares", self.answer(other, shares=known.shares)
        yield "shares for another roster", self.answer(self.made_up()[1])
        for dealt in (state.dealt.get(self.name), *state.dealt.values()):
            if known is None and dealt is not None:
                taken = replace(dealt.word.value, index=self.index)
                swapped = (*dealt.shares[1:], dealt.shares[0])
                yield "shares in another order", self.answer(taken, shares=swapped)
                yield (
                    "shares under a root of others",
                    self.answer(replace(taken, shares_root=_NOBODY), shares=dealt.shares),
                )
                moved = tuple(
                    replace(share, ciphertext=dealt.shares[-1 - place].ciphertext)
                    for place, share in enumerate(dealt.shares)
                )
                if moved != dealt.shares:
                    yield "shares swapped among holders", self.answer(taken, shares=moved)

    def after_the_shares(self, state: Uploading) -> Iterator[Word]:
        if state.masking is None:
            return
        advert, dealt = state.masking.roster.adverts.get(self.name), state.masking.dealt.get(self.name)
        if advert is not None:
            yield "other keys after the shares", self.answer(replace(advert.value, nonce=bytes(NONCE_BYTES)))
        if dealt is not None:
            other = replace(dealt.word.value, self_commitment=_NOBODY)
            yield "other shares after the delivery", self.answer(other, shares=dealt.shares)
        yield "a word about survivors that are not fixed", self.answer(self.made_up()[2])

    def about_survivors(self, state: Confirming | Unmasking | Folding) -> Iterator[Word]:
        yield "a word about other survivors", self.answer(self.made_up()[2])
        yield "shares for other survivors", self.answer(self.made_up()[3])
        if isinstance(state, Confirming):
            yield "shares before the bundle", self.answer(replace(self.made_up()[3], survivors=state.digest))
        if isinstance(state, Unmasking):
            yield from self._about_opening(state)

    def _about_opening(self, state: Unmasking) -> Iterator[Word]:
        honest = self._honest_opening(state)
        if honest is None:
            return
        some = honest.self_shares[0]
        yield "both kinds of share", self.answer(replace(honest, mask_shares=(*honest.mask_shares, some)))
        only_masks = replace(honest, self_shares=(), mask_shares=(*honest.self_shares, *honest.mask_shares))
        yield "the other kind of share", self.answer(only_masks)
        yield "one share too few", self.answer(replace(honest, self_shares=honest.self_shares[1:]))
        of, share = some
        wrong = (of, bytes([share[0] ^ 0, *share[1:-1], share[-1] ^ 1]))
        yield "a share that was not dealt", self.answer(replace(honest, self_shares=(wrong, *honest.self_shares[1:])))
        if len(honest.self_shares) > 1:
            (first, one), (second, two), *others = honest.self_shares
            swapped = ((first, two), (second, one), *others)
            yield "shares of two dealers swapped", self.answer(replace(honest, self_shares=swapped))

    def _honest_opening(self, state: Unmasking) -> UnmaskShares | None:
        """What this silo would say, or said."""
        said = state.revealed.get(self.name)
        if said is not None:
            return said
        for mine in self.silo.states:
            if isinstance(mine, Confirmed) and mine.t3 == state.digest:
                held = mine.dealt.held
                return UnmaskShares(
                    state.h0,
                    mine.t3,
                    self.index,
                    tuple((of, held[of].self_share.reveal()) for of in sorted(held) if of in mine.survivors),
                    tuple((of, held[of].mask_share.reveal()) for of in sorted(held) if of not in mine.survivors),
                )
        return None


def _canonical(digest: Digest) -> bytes:
    """An X25519 public key like any other: the top bit is clear."""
    return bytes([*digest.raw[:-1], digest.raw[-1] & 0x7F])
