"""From revealed shares to the masks that are to be taken off a sum: the coordinator's side of the unmasking.

Shares that do not match the dealer's commitments are left out before (`sealing.check_revealed`). What then combines to
something else than the dealer advertised is the dealer's doing, and the error names it.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.errors import WireError
from shared.ids import Digest
from shared.secagg.keys import agree, public_of
from shared.secagg.masking import Term, pair_sign
from shared.secagg.sharing import combine
from shared.secagg.transcript import mask_private, pair_root, self_root, self_seed_commitment
from shared.secret import Secret


def reconstruct_self_root(
    *, shares: Mapping[int, bytes], threshold: int, t1: Digest, t2: Digest, index: int, commitment: Digest
) -> Secret:
    """The root of survivor `index`'s self mask, from the self shares of it by holder; `commitment` is its signed
    `com_b`. It stands in that survivor's upload with sign +1. Raises WireError that names the dealer.
    """
    seed = _combined(shares, threshold, index)
    if self_seed_commitment(t1, index, seed) != commitment:
        raise WireError(f"the shares of dealer {index} combine to a self seed that it did not commit to")
    return Secret(self_root(seed, t2, index))


def reconstruct_pair_roots(
    *,
    shares: Mapping[int, bytes],
    threshold: int,
    h0: Digest,
    t2: Digest,
    dropped: int,
    mask_public: bytes,
    survivors: Mapping[int, bytes],
) -> Mapping[int, Term]:
    """For each survivor (index -> mask public key): the root of its common mask with `dropped`, and the sign with which
    that mask stands in the survivor's upload. `Masks(terms).remove(..)` takes them off.

    `shares` are mask shares of `dropped` by holder, `mask_public` its advertised key. Raises WireError that names the
    dealer.
    """
    private = mask_private(_combined(shares, threshold, dropped), h0)
    if public_of(private) != mask_public:
        raise WireError(f"the shares of dealer {dropped} combine to a mask seed that is not of its advertised key")
    return {
        survivor: (Secret(pair_root(agree(private, public), t2, survivor, dropped)), pair_sign(survivor, dropped))
        for survivor, public in sorted(survivors.items())
    }


def _combined(shares: Mapping[int, bytes], threshold: int, dealer: int) -> bytes:
    try:
        return combine(shares, threshold=threshold)
    except WireError as error:
        raise WireError(f"dealer {dealer}: {error}") from error
