"""A masked attempt without machines: members who advertise, deal, mask and reveal, in a few calls."""

from __future__ import annotations

from collections.abc import Mapping

from shared.entropy import SeededEntropy
from shared.ids import Digest
from shared.secagg.keys import AttemptSecrets
from shared.secagg.masking import Masks, participant_terms
from shared.secagg.reconstruct import reconstruct_pair_roots, reconstruct_self_root
from shared.secagg.sealing import OpenedShare, SealedShare, deal, open_share, share_paths, shares_root
from shared.secagg.transcript import delivery_digest, roster_digest, self_seed_commitment


class MaskedAttempt:
    """Everybody's side of one attempt. `advertised` are U1 and `shared` U2, as 1-based indexes among `members`."""

    def __init__(
        self, *, members: int, threshold: int, advertised: set[int], shared: set[int], seed: bytes = b"attempt"
    ) -> None:
        self.threshold = threshold
        self.shared = shared
        self.h0 = Digest.of(seed)
        self.draw = SeededEntropy(seed).take
        self.secrets = {index: AttemptSecrets.draw(self.draw) for index in sorted(advertised)}
        self.mask_publics = {index: one.mask_public(self.h0) for index, one in self.secrets.items()}
        self.share_publics = {index: one.share_public() for index, one in self.secrets.items()}
        self.t1 = roster_digest(
            self.h0, [(index, self.mask_publics[index] + self.share_publics[index]) for index in advertised]
        )
        self.dealt: dict[int, tuple[SealedShare, ...]] = {
            index: deal(
                secrets=self.secrets[index],
                index=index,
                t1=self.t1,
                threshold=threshold,
                members=members,
                holders=self.share_publics,
                draw=self.draw,
            )
            for index in sorted(shared)
        }
        self.commitments = {
            index: self_seed_commitment(self.t1, index, self.secrets[index].self_seed.reveal()) for index in shared
        }
        self.t2 = delivery_digest(self.t1, [(index, shares_root(self.dealt[index]).raw) for index in shared])

    def opened_by(self, holder: int) -> dict[int, OpenedShare]:
        """What `holder` holds of each dealer."""
        roster = sorted(self.secrets)
        position = roster.index(holder)
        return {
            dealer: open_share(
                secrets=self.secrets[holder],
                index=holder,
                dealer=dealer,
                dealer_public=self.share_publics[dealer],
                t1=self.t1,
                sealed=dealt[position],
                root=shares_root(dealt),
                position=position,
                count=len(roster),
                path=share_paths(dealt)[holder],
            )
            for dealer, dealt in self.dealt.items()
        }

    def masks_of(self, index: int) -> Masks:
        """What participant `index` puts on its upload."""
        return Masks(
            participant_terms(
                secrets=self.secrets[index],
                index=index,
                h0=self.h0,
                t2=self.t2,
                mask_publics={other: self.mask_publics[other] for other in self.shared},
            )
        )

    def masks_of_sum(self, survivors: set[int], revealing: set[int]) -> Masks:
        """What the coordinator takes off the sum, from the shares that `revealing` send it."""
        held = {holder: self.opened_by(holder) for holder in revealing}
        survivor_publics: Mapping[int, bytes] = {index: self.mask_publics[index] for index in survivors}
        terms = [
            (
                reconstruct_self_root(
                    shares={holder: shares[index].self_share.reveal() for holder, shares in held.items()},
                    threshold=self.threshold,
                    t1=self.t1,
                    t2=self.t2,
                    index=index,
                    commitment=self.commitments[index],
                ),
                1,
            )
            for index in sorted(survivors)
        ]
        for dropped in sorted(self.shared - survivors):
            terms += reconstruct_pair_roots(
                shares={holder: shares[dropped].mask_share.reveal() for holder, shares in held.items()},
                threshold=self.threshold,
                h0=self.h0,
                t2=self.t2,
                dropped=dropped,
                mask_public=self.mask_publics[dropped],
                survivors=survivor_publics,
            ).values()
        return Masks(terms)
