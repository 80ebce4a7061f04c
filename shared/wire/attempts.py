"""Payloads of the sealed messages of masking: what a participant signs about one attempt (PROTOCOL.md section 5.11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.message import Message

from shared.errors import WireError
from shared.job import MEMBERS_MAX
from shared.pb.v1 import session_pb2 as pb
from shared.protocol.messages import (
    NONCE_BYTES,
    AdvertiseKeys,
    AttemptAbort,
    Checkpoint,
    CheckpointKind,
    ConsistencySignature,
    ShareKeys,
    UnmaskShares,
)
from shared.reasons import AttemptAbortReason
from shared.secagg.keys import PUBLIC_KEY_BYTES
from shared.secagg.sharing import SHARE_BYTES
from shared.wire.fields import checked, digest, exactly, few, from_wire, need, parse, to_wire


def encode_advertise_keys(value: AdvertiseKeys) -> bytes:
    checkpoint = value.checkpoint
    return pb.AdvertiseKeys(
        attempt_digest=value.attempt.raw,
        index=value.index,
        mask_key=value.mask_key,
        share_key=value.share_key,
        nonce=value.nonce,
        checkpoint=None
        if checkpoint is None
        else pb.Checkpoint(
            kind=pb.CheckpointKind.Name(int(checkpoint.kind)), size=checkpoint.size, root=checkpoint.root.raw
        ),
    ).SerializeToString(deterministic=True)


def decode_advertise_keys(payload: bytes) -> AdvertiseKeys:
    message = parse(pb.AdvertiseKeys, payload)
    return AdvertiseKeys(
        attempt=digest(message, "attempt_digest"),
        index=position(message),
        mask_key=exactly(message, "mask_key", PUBLIC_KEY_BYTES),
        share_key=exactly(message, "share_key", PUBLIC_KEY_BYTES),
        nonce=exactly(message, "nonce", NONCE_BYTES),
        checkpoint=_checkpoint(message.checkpoint) if message.HasField("checkpoint") else None,
    )


def _checkpoint(message: pb.Checkpoint) -> Checkpoint:
    need(message, "kind", "size")
    return Checkpoint(checked(message, "kind", CheckpointKind), message.size, digest(message, "root"))


def encode_share_keys(value: ShareKeys) -> bytes:
    return pb.ShareKeys(
        attempt_digest=value.attempt.raw,
        roster_digest=value.roster.raw,
        index=value.index,
        self_commitment=value.self_commitment.raw,
        shares_root=value.shares_root.raw,
    ).SerializeToString(deterministic=True)


def decode_share_keys(payload: bytes) -> ShareKeys:
    message = parse(pb.ShareKeys, payload)
    return ShareKeys(
        attempt=digest(message, "attempt_digest"),
        roster=digest(message, "roster_digest"),
        index=position(message),
        self_commitment=digest(message, "self_commitment"),
        shares_root=digest(message, "shares_root"),
    )


def encode_consistency_signature(value: ConsistencySignature) -> bytes:
    return pb.ConsistencySignature(
        attempt_digest=value.attempt.raw, survivors_digest=value.survivors.raw, index=value.index
    ).SerializeToString(deterministic=True)


def decode_consistency_signature(payload: bytes) -> ConsistencySignature:
    message = parse(pb.ConsistencySignature, payload)
    return ConsistencySignature(
        digest(message, "attempt_digest"), digest(message, "survivors_digest"), position(message)
    )


def encode_unmask_shares(value: UnmaskShares) -> bytes:
    return pb.UnmaskShares(
        attempt_digest=value.attempt.raw,
        survivors_digest=value.survivors.raw,
        index=value.index,
        self_shares=_pb_revealed(value.self_shares),
        mask_shares=_pb_revealed(value.mask_shares),
    ).SerializeToString(deterministic=True)


def _pb_revealed(shares: Iterable[tuple[int, bytes]]) -> list[pb.RevealedShare]:
    return [pb.RevealedShare(dealer=dealer, share=share) for dealer, share in shares]


def decode_unmask_shares(payload: bytes) -> UnmaskShares:
    message = parse(pb.UnmaskShares, payload)
    self_shares, mask_shares = (_revealed(few(message, name, MEMBERS_MAX)) for name in ("self_shares", "mask_shares"))
    if {dealer for dealer, _ in self_shares} & {dealer for dealer, _ in mask_shares}:
        raise WireError("UnmaskShares opens one kind of share of a member, never both")
    return UnmaskShares(
        attempt=digest(message, "attempt_digest"),
        survivors=digest(message, "survivors_digest"),
        index=position(message),
        self_shares=self_shares,
        mask_shares=mask_shares,
    )


def _revealed(shares: Sequence[pb.RevealedShare]) -> tuple[tuple[int, bytes], ...]:
    values = tuple((position(share, "dealer"), exactly(share, "share", SHARE_BYTES)) for share in shares)
    dealers = [dealer for dealer, _ in values]
    if dealers != sorted(set(dealers)):
        raise WireError("the shares of UnmaskShares are distinct and in ascending order of their dealers")
    return values


def encode_attempt_abort(value: AttemptAbort) -> bytes:
    return pb.AttemptAbort(
        attempt_digest=value.attempt.raw, index=value.index, reason=to_wire(value.reason)
    ).SerializeToString(deterministic=True)


def decode_attempt_abort(payload: bytes) -> AttemptAbort:
    message = parse(pb.AttemptAbort, payload)
    return AttemptAbort(
        digest(message, "attempt_digest"), position(message), from_wire(message, "reason", AttemptAbortReason)
    )


def position(message: Message, name: str = "index") -> int:
    """A required 1-based position among the job's members."""
    need(message, name)
    value = int(getattr(message, name))
    if not 1 <= value <= MEMBERS_MAX:
        raise WireError(f"{type(message).__name__}.{name} is a position from 1 to {MEMBERS_MAX}, got {value}")
    return value
