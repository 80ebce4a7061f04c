"""A masked attempt of a whole federation, made from each member's plain numbers with `shared.secagg` alone.

What comes out is what a coordinator has when its fold begins: the survivors' masked sections, and everything that opens
their sum. Beside it lie the integers from before the masks, for oracles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from coordinator.round.phases import Contribution, Dealt, Masking, Opening, Roster
from coordinator.storage.interface import Blobs
from shared.entropy import SeededEntropy
from shared.ids import AttemptKey, Digest, ParticipantId
from shared.job import JobSpec
from shared.protocol.messages import NONCE_BYTES, AdvertiseKeys, Sealed, ShareKeys, UnmaskShares, UploadCommit
from shared.secagg.fixed_point import (
    WEIGHT_SCALE_BITS,
    Encoder,
    encode_metric,
    largest_products,
    quantise_weight,
    range_cell,
    range_exponents,
)
from shared.secagg.keys import AttemptSecrets
from shared.secagg.masking import Masks, participant_terms
from shared.secagg.ranges import fill_cells, range_words
from shared.secagg.ring import STATISTICS_WORD, Words, to_words
from shared.secagg.sealing import OpenedShare, deal, open_share, share_paths, shares_root
from shared.secagg.transcript import delivery_digest, roster_digest, self_seed_commitment, survivors_digest
from shared.update import Encoding, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import encode_update_header, seal
from tests.support.rounds import key_of

Float32s = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SiloUpdate:
    """What one silo trained and measured: deltas in the order of section 0, weights in examples, a mean per metric."""

    deltas: Float32s
    weight: float = 1.0
    means: Sequence[float] = ()
    evaluate_weight: float = 0.0
    evaluate_means: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class MaskedAttempt:
    """Everything at the coordinator, and what nobody has: the words without masks."""

    layout: UpdateLayout
    scale_exponents: tuple[int, ...]
    sections: Mapping[ParticipantId, bytes]
    """Of each survivor, as in its spool."""
    contributions: Mapping[ParticipantId, Contribution]
    opening: Opening
    words: Mapping[ParticipantId, tuple[Words, Words]]
    """Of each survivor, both sections before the masks."""

    def spool(self, blobs: Blobs, key: AttemptKey) -> None:
        """Lay the sections where a fold finds them."""
        for participant, content in self.sections.items():
            spool = blobs.spool(key, participant)
            spool.append(memoryview(content))
            spool.sync()
            spool.close()


def make_masked(
    spec: JobSpec,
    *,
    layout: UpdateLayout,
    sizes: Sequence[int],
    updates: Mapping[ParticipantId, SiloUpdate],
    dropped: Collection[ParticipantId] = (),
    revealing: Collection[ParticipantId] | None = None,
    wrong_dealers: Collection[ParticipantId] = (),
    top_cells: Sequence[int] | None = None,
    h0: Digest | None = None,
    seed: bytes = b"",
) -> MaskedAttempt:
    """`updates` are of the survivors, `dropped` dealt their shares and sent nothing; `sizes` are the cells of the
    aggregated tensors, none in an evaluate round. `revealing` survivors gave their shares: all, unless told. A wrong
    dealer shares other seeds than its masks are made of, though it stands by each share.
    """
    attempt = _Attempt(spec, h0 or Digest.of(b"attempt" + seed), seed, [*updates, *dropped])
    masking = attempt.masking(wrong_dealers)
    ranges = range_exponents(encoding=layout.encoding, top_cells=top_cells, tensors=len(sizes)) if sizes else ()
    words = {name: attempt.encode(name, update, layout, sizes, ranges) for name, update in updates.items()}
    sections = {name: attempt.mask(name, masking, *both) for name, both in words.items()}
    contributions = {name: attempt.commit(name, masking, layout, content) for name, content in sections.items()}
    commits = [(kept.commit.signer, kept.commit.payload) for kept in contributions.values()]
    t3 = survivors_digest(masking.digest, commits)
    shown = updates if revealing is None else revealing
    revealed = {name: attempt.reveal(name, masking, updates, t3) for name in shown}
    encoder = attempt.encoder(next(iter(updates)), 1, layout.encoding, sizes, ranges)
    return MaskedAttempt(
        layout=layout,
        scale_exponents=encoder.scale_exponents,
        sections=sections,
        contributions=contributions,
        opening=Opening(masking, t3, revealed),
        words=words,
    )


class _Attempt:
    """The members of U2 with their secrets."""

    def __init__(self, spec: JobSpec, h0: Digest, seed: bytes, present: Sequence[ParticipantId]) -> None:
        self.spec, self.h0 = spec, h0
        self.present = sorted(present)
        self.index = {member: index for index, member in enumerate(spec.members, 1)}
        self.draw = SeededEntropy(b"masked" + seed).take
        self.secrets = {member: AttemptSecrets.draw(self.draw) for member in self.present}

    def masking(self, wrong_dealers: Collection[ParticipantId]) -> Masking:
        adverts = {member: self._advert(member) for member in self.present}
        t1 = roster_digest(self.h0, ((self.index[member], said.payload) for member, said in adverts.items()))
        dealt = {member: self._deal(member, t1, member in wrong_dealers) for member in self.present}
        t2 = delivery_digest(t1, ((self.index[member], given.word.payload) for member, given in dealt.items()))
        return Masking(Roster(t1, adverts), t2, dealt)

    def _advert(self, member: ParticipantId) -> Sealed[AdvertiseKeys]:
        secrets, index = self.secrets[member], self.index[member]
        value = AdvertiseKeys(
            attempt=self.h0,
            index=index,
            mask_key=secrets.mask_public(self.h0),
            share_key=secrets.share_public(),
            nonce=self.draw(NONCE_BYTES),
            checkpoint=None,
        )
        return seal(value, signer=key_of(member), index=index)

    def _deal(self, member: ParticipantId, t1: Digest, wrong: bool) -> Dealt:  # noqa: FBT001 - one caller, just above
        index, own = self.index[member], self.secrets[member]
        other = AttemptSecrets.draw(self.draw)
        dealing = AttemptSecrets(other.self_seed, other.mask_seed, own.share_private, own.encoding_seed)
        shares = deal(
            secrets=dealing if wrong else own,
            index=index,
            t1=t1,
            threshold=self.spec.threshold,
            members=len(self.spec.members),
            holders={self.index[holder]: self.secrets[holder].share_public() for holder in self.present},
            draw=self.draw,
        )
        value = ShareKeys(
            attempt=self.h0,
            roster=t1,
            index=index,
            self_commitment=self_seed_commitment(t1, index, own.self_seed.reveal()),
            shares_root=shares_root(shares),
        )
        return Dealt(seal(value, signer=key_of(member), index=index), shares)

    def encoder(
        self,
        member: ParticipantId,
        weight_q: int,
        encoding: Encoding,
        sizes: Sequence[int],
        ranges: Sequence[int],
    ) -> Encoder:
        return Encoder(
            encoding=encoding,
            members=len(self.spec.members),
            weight_q=weight_q,
            sizes=sizes,
            range_exponents=ranges,
            encoding_seed=self.secrets[member].encoding_seed,
            h0=self.h0,
        )

    def encode(
        self,
        member: ParticipantId,
        update: SiloUpdate,
        layout: UpdateLayout,
        sizes: Sequence[int],
        ranges: Sequence[int],
    ) -> tuple[Words, Words]:
        train_q = self._weight_q(update.weight) if sizes else 0
        evaluate_q = self._weight_q(update.evaluate_weight) if update.evaluate_weight else 0
        bound = self.spec.masking.metric_bound
        cells = [
            train_q,
            *(encode_metric(mean, train_q, bound) for mean in _padded(update.means, self.spec)),
            evaluate_q,
            *(encode_metric(mean, evaluate_q, bound) for mean in _padded(update.evaluate_means, self.spec)),
        ]
        words: Words = np.empty(0, np.uint64)
        filled = np.empty(0, STATISTICS_WORD)
        if sizes:
            words = self.encoder(member, train_q, layout.encoding, sizes, ranges).encode(update.deltas, first_cell=0)
            own = [range_cell(largest) for largest in largest_products(update.deltas, train_q, sizes)]
            filled = fill_cells(own, range_words(self.secrets[member].encoding_seed, self.h0, len(sizes)))
        return words, np.concatenate([to_words(cells), filled])

    def _weight_q(self, weight: float) -> int:
        rules = self.spec.masking
        return 1 << WEIGHT_SCALE_BITS if rules.weights == "equal" else quantise_weight(weight, rules.max_weight)

    def mask(self, member: ParticipantId, masking: Masking, parameters: Words, statistics: Words) -> bytes:
        masks = Masks(
            participant_terms(
                secrets=self.secrets[member],
                index=self.index[member],
                h0=self.h0,
                t2=masking.digest,
                mask_publics={self.index[other]: self.secrets[other].mask_public(self.h0) for other in self.present},
            )
        )
        sections = parameters.copy(), statistics.copy()
        for section, words in enumerate(sections):
            masks.apply(words, section=section, first_byte=0)
        return b"".join(words.tobytes() for words in sections)

    def commit(self, member: ParticipantId, masking: Masking, layout: UpdateLayout, content: bytes) -> Contribution:
        header = UpdateHeader(layout.encoding, None, 1)
        digests = [Digest.of(content[start:end]) for start, end in layout.chunk_ranges()]
        update = update_digest(encode_update_header(header), digests)
        index = self.index[member]
        value = UploadCommit(self.h0, masking.digest, index, encode_update_header(header), update, layout.chunks)
        return Contribution(seal(value, signer=key_of(member), index=index).envelope, header, update)

    def reveal(
        self, holder: ParticipantId, masking: Masking, survivors: Collection[ParticipantId], t3: Digest
    ) -> UnmaskShares:
        opened = {dealer: self._open(holder, dealer, masking) for dealer in self.present}
        return UnmaskShares(
            attempt=self.h0,
            survivors=t3,
            index=self.index[holder],
            self_shares=tuple(
                (self.index[dealer], opened[dealer].self_share.reveal())
                for dealer in self.present
                if dealer in survivors
            ),
            mask_shares=tuple(
                (self.index[dealer], opened[dealer].mask_share.reveal())
                for dealer in self.present
                if dealer not in survivors
            ),
        )

    def _open(self, holder: ParticipantId, dealer: ParticipantId, masking: Masking) -> OpenedShare:
        dealt, position = masking.dealt[dealer], self.present.index(holder)
        return open_share(
            secrets=self.secrets[holder],
            index=self.index[holder],
            dealer=self.index[dealer],
            dealer_public=self.secrets[dealer].share_public(),
            t1=masking.roster.digest,
            sealed=dealt.shares[position],
            root=dealt.word.value.shares_root,
            position=position,
            count=len(self.present),
            path=share_paths(dealt.shares)[self.index[holder]],
        )


def _padded(means: Sequence[float], spec: JobSpec) -> Sequence[float]:
    return [*means, *([0.0] * (len(spec.metrics) - len(means)))]


def tensors_of(values: Float32s, sizes: Sequence[int]) -> list[Float32s]:
    """Section 0, cut into its tensors."""
    return [values[start:end] for start, end in pairwise((0, *accumulate(sizes)))]
