"""Frames of masking: answers with the sealed shares beside them, and the coordinator's collections of signed parts.

A collection is not signed: each part is, by its author, and what the parts say together is hashed by everybody alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import WireError
from shared.job import MEMBERS_MAX
from shared.pb.v1 import session_pb2 as pb
from shared.protocol.messages import (
    AnswerKind,
    AttemptAnswer,
    ConsistencyBundle,
    DeliveredShare,
    Envelope,
    KeyRoster,
    ShareDelivery,
    SurvivorList,
)
from shared.secagg.sealing import CIPHERTEXT_BYTES, SealedShare
from shared.wire.attempts import position
from shared.wire.fields import attempt_key, checked, digest, exactly, few, need, parse, pb_key
from shared.wire.sealed import envelope_of, pb_envelope

PATH_MAX = 16  # steps in a tree of at most 2^16 leaves; MEMBERS_MAX needs 10
HASH_BYTES = 32


def pb_answer(answer: AttemptAnswer) -> pb.AttemptAnswer:
    return pb.AttemptAnswer(
        key=pb_key(answer.attempt.round),
        attempt=answer.attempt.attempt,
        kind=pb.AnswerKind.Name(int(answer.kind)),
        envelope=pb_envelope(answer.envelope),
        shares=[_pb_sealed(share) for share in answer.shares],
    )


def answer_of(message: pb.AttemptAnswer) -> AttemptAnswer:
    """Raises WireError."""
    need(message, "kind", "envelope")
    kind = checked(message, "kind", AnswerKind)
    shares = few(message, "shares", MEMBERS_MAX)
    if shares and kind is not AnswerKind.SHARE_KEYS:
        raise WireError("sealed shares come beside SHARE_KEYS and no other answer")
    return AttemptAnswer(attempt_key(message), kind, envelope_of(message.envelope), tuple(map(_sealed, shares)))


def encode_sealed_shares(shares: Sequence[SealedShare]) -> bytes:
    """What one dealer dealt, as the coordinator's journal keeps it."""
    return pb.AttemptAnswer(shares=map(_pb_sealed, shares)).SerializeToString(deterministic=True)


def decode_sealed_shares(data: bytes) -> tuple[SealedShare, ...]:
    """Raises WireError."""
    return tuple(map(_sealed, few(parse(pb.AttemptAnswer, data), "shares", MEMBERS_MAX)))


def pb_roster(roster: KeyRoster) -> pb.KeyRoster:
    return pb.KeyRoster(
        key=pb_key(roster.key.round), attempt=roster.key.attempt, adverts=list(map(pb_envelope, roster.adverts))
    )


def roster_of(message: pb.KeyRoster) -> KeyRoster:
    """Raises WireError."""
    return KeyRoster(attempt_key(message), _envelopes(few(message, "adverts", MEMBERS_MAX)))


def pb_delivery(delivery: ShareDelivery) -> pb.ShareDelivery:
    shares = [
        pb.DeliveredShare(dealer=delivered.dealer, share=_pb_sealed(delivered.share), path=delivered.path)
        for delivered in delivery.shares
    ]
    return pb.ShareDelivery(
        key=pb_key(delivery.key.round),
        attempt=delivery.key.attempt,
        dealers=list(map(pb_envelope, delivery.dealers)),
        shares=shares,
    )


def delivery_of(message: pb.ShareDelivery) -> ShareDelivery:
    """Raises WireError."""
    return ShareDelivery(
        attempt_key(message),
        _envelopes(few(message, "dealers", MEMBERS_MAX)),
        tuple(map(_delivered, few(message, "shares", MEMBERS_MAX))),
    )


def pb_survivors(listed: SurvivorList) -> pb.SurvivorList:
    return pb.SurvivorList(
        key=pb_key(listed.key.round), attempt=listed.key.attempt, commits=list(map(pb_envelope, listed.commits))
    )


def survivors_of(message: pb.SurvivorList) -> SurvivorList:
    """Raises WireError."""
    return SurvivorList(attempt_key(message), _envelopes(few(message, "commits", MEMBERS_MAX)))


def pb_bundle(bundle: ConsistencyBundle) -> pb.ConsistencyBundle:
    return pb.ConsistencyBundle(
        key=pb_key(bundle.key.round), attempt=bundle.key.attempt, signatures=list(map(pb_envelope, bundle.signatures))
    )


def bundle_of(message: pb.ConsistencyBundle) -> ConsistencyBundle:
    """Raises WireError."""
    return ConsistencyBundle(attempt_key(message), _envelopes(few(message, "signatures", MEMBERS_MAX)))


def _envelopes(messages: Sequence[pb.SignedEnvelope]) -> tuple[Envelope, ...]:
    return tuple(map(envelope_of, messages))


def _pb_sealed(share: SealedShare) -> pb.SealedShare:
    return pb.SealedShare(
        holder=share.holder,
        ciphertext=share.ciphertext,
        self_commitment=share.self_commitment.raw,
        mask_commitment=share.mask_commitment.raw,
    )


def _sealed(message: pb.SealedShare) -> SealedShare:
    return SealedShare(
        holder=position(message, "holder"),
        ciphertext=exactly(message, "ciphertext", CIPHERTEXT_BYTES),
        self_commitment=digest(message, "self_commitment"),
        mask_commitment=digest(message, "mask_commitment"),
    )


def _delivered(message: pb.DeliveredShare) -> DeliveredShare:
    need(message, "share")
    path = tuple(few(message, "path", PATH_MAX))
    if any(len(step) != HASH_BYTES for step in path):
        raise WireError(f"a step of an audit path has {HASH_BYTES} bytes")
    return DeliveredShare(position(message, "dealer"), _sealed(message.share), path)
