"""Every derivation of secure aggregation, in one place, so that it can be reviewed in one sitting.

Three kinds of value are made here. *Digests* chain the messages of an attempt: h0 (the attempt's header, elsewhere:
`attempt_digest`) -> t1 (who advertised which keys) -> t2 (who dealt which shares) -> t3 (who is in the sum). Each
contains the one before it, so whoever signs t3 signs the whole history. *Commitments* fix a secret before it is needed.
*Keys* come from HKDF-SHA256 with a digest of the chain as salt: participants who were shown different histories hold
different keys, and their masks do not cancel.

Notation: `H` is `shared.hashing.tagged_hash`, `tag(s)` and `LP(x)` are defined beside it, u8/u32/u64 are big-endian,
`||` joins. An index is the 1-based position of a member in the sorted members of the job. Secure aggregation design
2.3, 2.4 and 2.11.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from enum import IntEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from shared.hashing import length_prefixed, tag, tagged_hash
from shared.ids import Digest

KEY_BYTES = 32  # of every secret, key and root of suite 1


class ShareKind(IntEnum):
    """What a share is a share of. For one dealer, a holder ever reveals one of the two kinds."""

    SELF = 1
    MASK = 2


# --- the chain of digests ---------------------------------------------------------------------------------------------


def roster_digest(h0: Digest, adverts: Iterable[tuple[int, bytes]]) -> Digest:
    """`t1 = H("t1", h0, u32 i || SHA256(payload_i), ..)` over the signed AdvertiseKeys payloads, ascending by index."""
    return tagged_hash("t1", h0.raw, *_listed(adverts))


def delivery_digest(t1: Digest, shares: Iterable[tuple[int, bytes]]) -> Digest:
    """`t2 = H("t2", t1, u32 i || SHA256(payload_i), ..)` over the signed ShareKeys payloads, ascending by index."""
    return tagged_hash("t2", t1.raw, *_listed(shares))


def survivors_digest(t2: Digest, commits: Iterable[tuple[int, bytes]]) -> Digest:
    """`t3 = H("t3", t2, u32 i || SHA256(payload_i), ..)` over the signed UploadCommit payloads, ascending by index."""
    return tagged_hash("t3", t2.raw, *_listed(commits))


def core_digest(
    *,
    job: str,
    number: int,
    purpose: str,
    jobspec: Digest,
    consortium: Digest | None,
    model: Digest,
    previous_result: Digest,
    members: Sequence[str],
    max_colluding: int,
    parameters: int,
    statistics: int,
) -> Digest:
    """What all attempts of a round have in common: a silo that took part in one refuses another core for ever.

    `H("core", job, jobspec, consortium, u64 number, model, LP(member_1) || .., u64 max_colluding, u64 parameters,
    u64 statistics, dp, purpose, previous_result)`. `dp` is an empty part until there is such a thing; so is the
    consortium's digest in the plain mode (None). `members` as given: sorted. `parameters` and `statistics` are numbers
    of cells; the encoding is left out because a round may change it once, to u64.
    """
    return tagged_hash(
        "core",
        job.encode(),
        jobspec.raw,
        b"" if consortium is None else consortium.raw,
        _u64(number),
        model.raw,
        b"".join(length_prefixed(member.encode()) for member in members),
        _u64(max_colluding),
        _u64(parameters),
        _u64(statistics),
        b"",
        purpose.encode(),
        previous_result.raw,
    )


# --- commitments ------------------------------------------------------------------------------------------------------


def self_seed_commitment(t1: Digest, index: int, seed: bytes) -> Digest:
    """`com_b = H("com-b", t1, u32 index, seed)`: a revealed self seed must be the one that was shared."""
    return tagged_hash("com-b", t1.raw, _u32(index), seed)


def share_commitment(t1: Digest, dealer: int, holder: int, kind: ShareKind, share: bytes) -> Digest:
    """`com_share = H("com-share", t1, u32 dealer, u32 holder, u8 kind, share)`: tells a lying holder from a lying
    dealer. A share is a uniform element of a field of 521 bits, so its hash hides it.
    """
    return tagged_hash("com-share", t1.raw, _u32(dealer), _u32(holder), _u8(kind), share)


def share_leaf(holder: int, ciphertext: bytes, self_commitment: Digest, mask_commitment: Digest) -> bytes:
    """One leaf of the tree whose root is `cts_hash`: `u32 holder || LP(ciphertext) || com_share_b || com_share_s`."""
    return _u32(holder) + length_prefixed(ciphertext) + self_commitment.raw + mask_commitment.raw


# --- sealing shares ---------------------------------------------------------------------------------------------------


def share_key(agreed: bytes, t1: Digest, dealer: int, holder: int) -> bytes:
    """The AES-256-GCM key of one ciphertext: `HKDF(agreed, salt=t1, info=tag("share-enc") || u32 dealer || u32
    holder)`. Directional, used once.
    """
    return _hkdf(agreed, t1, tag("share-enc") + _u32(dealer) + _u32(holder))


def share_context(t1: Digest, dealer: int, holder: int) -> bytes:
    """The associated data of that ciphertext: `tag("share") || t1 || u32 dealer || u32 holder`."""
    return tag("share") + t1.raw + _u32(dealer) + _u32(holder)


# --- masks ------------------------------------------------------------------------------------------------------------


def mask_private(mask_seed: bytes, h0: Digest) -> bytes:
    """The X25519 private key of the pairwise masks: `HKDF(mask_seed, salt=h0, info=tag("mask-key"))`. The seed is what
    is shared, so that a later suite can derive other keys from it without another message.
    """
    return _hkdf(mask_seed, h0, tag("mask-key"))


def pair_root(agreed: bytes, t2: Digest, one: int, other: int) -> bytes:
    """What two participants make their common mask from: `HKDF(agreed, salt=t2, info=tag("pair-mask") || u32 min ||
    u32 max)`. The same on both sides, in either order of the indexes.
    """
    return _hkdf(agreed, t2, tag("pair-mask") + _u32(min(one, other)) + _u32(max(one, other)))


def self_root(self_seed: bytes, t2: Digest, index: int) -> bytes:
    """What a participant makes its own mask from: `HKDF(self_seed, salt=t2, info=tag("self-mask") || u32 index)`."""
    return _hkdf(self_seed, t2, tag("self-mask") + _u32(index))


def stream_key(root: bytes, section: int) -> bytes:
    """The AES-256-CTR key of a mask in one section: `HKDF-Expand(root, tag("stream") || u8 section)`."""
    return HKDFExpand(SHA256(), KEY_BYTES, tag("stream") + _u8(section)).derive(root)


def encoding_key(encoding_seed: bytes, h0: Digest, section: int) -> bytes:
    """The AES-256-CTR key of all randomness of the encoding (stochastic rounding in section 0, range cells in section
    1): `HKDF(encoding_seed, salt=h0, info=tag("encode") || u8 section)`. With it the encoded update is a function of
    the spooled one, so that a repeated chunk has the same bytes and no mask is used for two of them.
    """
    return _hkdf(encoding_seed, h0, tag("encode") + _u8(section))


def _listed(payloads: Iterable[tuple[int, bytes]]) -> list[bytes]:
    by_index = sorted(payloads)
    if len({index for index, _ in by_index}) < len(by_index):
        raise RuntimeError("a digest is over one payload for each index: refuse repeated indexes before")
    return [_u32(index) + hashlib.sha256(payload).digest() for index, payload in by_index]


def _hkdf(secret: bytes, salt: Digest, info: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt.raw, info).derive(secret)


def _u8(value: int) -> bytes:
    return value.to_bytes(1, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")
