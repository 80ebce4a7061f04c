"""Signed messages: values to payloads and back, and the envelopes around them.

Opening goes one way: verify the received bytes, then parse those bytes (PROTOCOL.md section 2). Nothing here writes a
value again to check a signature or a hash, because protobuf has more than one encoding for a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from shared.errors import IdentityError, WireError
from shared.ids import DIGEST_BYTES, parse_participant_id
from shared.job import JOBSPEC_MAX_BYTES, MEMBERS_MAX
from shared.pb.v1 import session_pb2 as pb
from shared.protocol.messages import (
    CAPABILITIES,
    NONCE_BYTES,
    AdvertiseKeys,
    AttemptAbort,
    AttemptStart,
    ConsistencySignature,
    Envelope,
    RoundAborted,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareKeys,
    UnmaskShares,
    UploadCommit,
    Welcome,
)
from shared.reasons import AbortReason, Purpose
from shared.update import RANGE_EXPONENT_MAX, RANGE_NONE, TENSORS_MAX, Encoding, UpdateHeader
from shared.wire.attempts import (
    decode_advertise_keys,
    decode_attempt_abort,
    decode_consistency_signature,
    decode_share_keys,
    decode_unmask_shares,
    encode_advertise_keys,
    encode_attempt_abort,
    encode_consistency_signature,
    encode_share_keys,
    encode_unmask_shares,
)
from shared.wire.control import job_control, pb_control
from shared.wire.fields import (
    attempt_key,
    checked,
    digest,
    duration_s,
    few,
    from_wire,
    need,
    parse,
    pb_key,
    round_key,
    text,
    to_wire,
)

SIGNATURE_BYTES = 64  # Ed25519, RFC 8032
CERTIFICATE_MAX_BYTES = 16 * 1024
HEADER_MAX_BYTES = 256
CHUNKS_MAX = 2**31 - 1

SealedValue = TypeVar(
    "SealedValue",
    Welcome,
    RoundPlan,
    AttemptStart,
    AdvertiseKeys,
    ShareKeys,
    UploadCommit,
    ConsistencySignature,
    UnmaskShares,
    AttemptAbort,
    RoundResult,
    RoundAborted,
)


class Signer(Protocol):
    """Makes signatures; `shared.identity.SigningKey` is one."""

    def sign(self, message_type: str, payload: bytes) -> bytes: ...


class Verifier(Protocol):
    """Checks signatures, raising IdentityError; `shared.identity.VerifyingKey` is one."""

    def verify(self, message_type: str, payload: bytes, signature: bytes) -> None: ...


# --- payloads ---------------------------------------------------------------------------------------------------------


def encode_welcome(value: Welcome) -> bytes:
    return pb.Welcome(
        version=value.version,
        session_id=value.session,
        nonce=value.nonce,
        software=value.software,
        participant_id=value.participant,
        capabilities=value.capabilities,
        heartbeat_s=value.heartbeat_s,
        silence_s=value.silence_s,
        signing_certificate=value.signing_certificate,
    ).SerializeToString(deterministic=True)


def decode_welcome(payload: bytes) -> Welcome:
    message = parse(pb.Welcome, payload)
    need(message, "version", "nonce", "participant_id", "signing_certificate")
    if len(message.nonce) != NONCE_BYTES or len(message.signing_certificate) > CERTIFICATE_MAX_BYTES:
        raise WireError(
            f"a Welcome has a nonce of {NONCE_BYTES} bytes and a certificate of {CERTIFICATE_MAX_BYTES} at most"
        )
    return Welcome(
        version=message.version,
        session=text(message, "session_id"),
        nonce=message.nonce,
        software=text(message, "software"),
        participant=checked(message, "participant_id", parse_participant_id),
        capabilities=tuple(few(message, "capabilities", 16 * len(CAPABILITIES))),
        heartbeat_s=duration_s(message, "heartbeat_s"),
        silence_s=duration_s(message, "silence_s"),
        signing_certificate=message.signing_certificate,
    )


def encode_round_plan(value: RoundPlan) -> bytes:
    return pb.RoundPlan(
        key=pb_key(value.key),
        purpose=to_wire(value.purpose),
        jobspec=value.jobspec,
        model_digest=value.model.raw,
        model_bytes=value.model_bytes,
        previous_result=value.previous_result,
        deadline_s=value.deadline_s,
        control=pb_control(value.control),
    ).SerializeToString(deterministic=True)


def decode_round_plan(payload: bytes) -> RoundPlan:
    message = parse(pb.RoundPlan, payload)
    need(message, "jobspec", "model_bytes", "previous_result")
    if len(message.jobspec) > JOBSPEC_MAX_BYTES:
        raise WireError(f"a job specification has at most {JOBSPEC_MAX_BYTES} bytes, got {len(message.jobspec)}")
    return RoundPlan(
        key=round_key(message),
        purpose=from_wire(message, "purpose", Purpose),
        jobspec=message.jobspec,
        model=digest(message, "model_digest"),
        model_bytes=message.model_bytes,
        previous_result=message.previous_result,
        deadline_s=duration_s(message, "deadline_s"),
        control=job_control(message),
    )


def encode_attempt_start(value: AttemptStart) -> bytes:
    return pb.AttemptStart(
        version=value.version,
        suite=value.suite,
        key=pb_key(value.key.round),
        purpose=to_wire(value.purpose),
        attempt=value.key.attempt,
        plan_digest=value.plan.raw,
        jobspec_digest=value.jobspec.raw,
        consortium_digest=value.consortium,
        model_digest=value.model.raw,
        previous_result_digest=value.previous_result.raw,
        members=value.members,
        max_colluding=value.max_colluding,
        layout_digest=value.layout.raw,
        encoding=pb.Encoding.Name(int(value.encoding)),
        upload_deadline_s=value.upload_deadline_s,
        exchange_deadline_s=value.exchange_deadline_s,
    ).SerializeToString(deterministic=True)


def decode_attempt_start(payload: bytes) -> AttemptStart:
    message = parse(pb.AttemptStart, payload)
    need(message, "version", "suite", "consortium_digest", "max_colluding")
    if len(message.consortium_digest) not in {0, DIGEST_BYTES}:
        raise WireError(f"AttemptStart.consortium_digest has {DIGEST_BYTES} bytes, or none in the plain mode")
    return AttemptStart(
        version=message.version,
        suite=message.suite,
        key=attempt_key(message),
        purpose=from_wire(message, "purpose", Purpose),
        plan=digest(message, "plan_digest"),
        jobspec=digest(message, "jobspec_digest"),
        consortium=message.consortium_digest,
        model=digest(message, "model_digest"),
        previous_result=digest(message, "previous_result_digest"),
        members=checked(
            message, "members", lambda _: tuple(map(parse_participant_id, few(message, "members", MEMBERS_MAX)))
        ),
        max_colluding=message.max_colluding,
        layout=digest(message, "layout_digest"),
        encoding=_encoding(message),
        exchange_deadline_s=duration_s(message, "exchange_deadline_s"),
        upload_deadline_s=duration_s(message, "upload_deadline_s"),
    )


def encode_upload_commit(value: UploadCommit) -> bytes:
    return pb.UploadCommit(
        attempt_digest=value.attempt.raw,
        transcript_digest=value.transcript.raw,
        index=value.index,
        header=value.header,
        update_digest=value.update.raw,
        chunks=value.chunks,
    ).SerializeToString(deterministic=True)


def decode_upload_commit(payload: bytes) -> UploadCommit:
    message = parse(pb.UploadCommit, payload)
    need(message, "index", "header", "chunks")
    if len(message.header) > HEADER_MAX_BYTES or message.chunks > CHUNKS_MAX or not 1 <= message.index <= MEMBERS_MAX:
        raise WireError(f"an UploadCommit is out of its limits (header {len(message.header)} B, index {message.index})")
    return UploadCommit(
        attempt=digest(message, "attempt_digest"),
        transcript=digest(message, "transcript_digest"),
        index=message.index,
        header=message.header,
        update=digest(message, "update_digest"),
        chunks=message.chunks,
    )


def encode_round_result(value: RoundResult) -> bytes:
    return pb.RoundResult(
        key=pb_key(value.key),
        purpose=to_wire(value.purpose),
        attempt_digest=value.attempt.raw,
        transcript_digest=value.transcript.raw,
        survivors=value.survivors,
        weight_total=value.weight_total,
        top_cells=value.top_cells,
        aggregate_digest=value.aggregate.raw,
        next_model_digest=value.next_model.raw,
    ).SerializeToString(deterministic=True)


def decode_round_result(payload: bytes) -> RoundResult:
    message = parse(pb.RoundResult, payload)
    need(message, "weight_total")
    survivors = tuple(few(message, "survivors", MEMBERS_MAX))
    if list(survivors) != sorted(set(survivors)) or not all(1 <= index <= MEMBERS_MAX for index in survivors):
        raise WireError("RoundResult.survivors are ascending positions from 1")
    if not math.isfinite(message.weight_total):
        raise WireError("RoundResult.weight_total is not finite")
    top_cells = tuple(few(message, "top_cells", TENSORS_MAX))
    if not all(RANGE_NONE <= cell <= RANGE_EXPONENT_MAX for cell in top_cells):
        raise WireError(f"RoundResult.top_cells are exponents from {RANGE_NONE} to {RANGE_EXPONENT_MAX}")
    return RoundResult(
        key=round_key(message),
        purpose=from_wire(message, "purpose", Purpose),
        attempt=digest(message, "attempt_digest"),
        transcript=digest(message, "transcript_digest"),
        survivors=survivors,
        weight_total=message.weight_total,
        top_cells=top_cells,
        aggregate=digest(message, "aggregate_digest"),
        next_model=digest(message, "next_model_digest"),
    )


def encode_round_aborted(value: RoundAborted) -> bytes:
    return pb.RoundAborted(
        key=pb_key(value.key), plan_digest=value.plan.raw, reason=to_wire(value.reason)
    ).SerializeToString(deterministic=True)


def decode_round_aborted(payload: bytes) -> RoundAborted:
    message = parse(pb.RoundAborted, payload)
    return RoundAborted(
        key=round_key(message),
        plan=digest(message, "plan_digest"),
        reason=from_wire(message, "reason", AbortReason),
    )


def encode_update_header(value: UpdateHeader) -> bytes:
    return pb.UpdateHeader(
        encoding=pb.Encoding.Name(int(value.encoding)), weight=value.weight, contributors=value.contributors
    ).SerializeToString(deterministic=True)


def decode_update_header(data: bytes) -> UpdateHeader:
    message = parse(pb.UpdateHeader, data)
    need(message, "contributors")
    encoding = _encoding(message)
    if not encoding.masked:
        need(message, "weight")
    weight = message.weight if message.HasField("weight") else None
    return UpdateHeader(encoding=encoding, weight=weight, contributors=message.contributors)


def _encoding(message: pb.AttemptStart | pb.UpdateHeader) -> Encoding:
    need(message, "encoding")
    return checked(message, "encoding", Encoding)


# --- envelopes --------------------------------------------------------------------------------------------------------

_CODECS: dict[type, tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    Welcome: ("welcome", encode_welcome, decode_welcome),
    RoundPlan: ("round-plan", encode_round_plan, decode_round_plan),
    AttemptStart: ("attempt-start", encode_attempt_start, decode_attempt_start),
    AdvertiseKeys: ("advertise-keys", encode_advertise_keys, decode_advertise_keys),
    ShareKeys: ("share-keys", encode_share_keys, decode_share_keys),
    UploadCommit: ("upload-commit", encode_upload_commit, decode_upload_commit),
    ConsistencySignature: ("consistency-signature", encode_consistency_signature, decode_consistency_signature),
    UnmaskShares: ("unmask-shares", encode_unmask_shares, decode_unmask_shares),
    AttemptAbort: ("attempt-abort", encode_attempt_abort, decode_attempt_abort),
    RoundResult: ("round-result", encode_round_result, decode_round_result),
    RoundAborted: ("round-aborted", encode_round_aborted, decode_round_aborted),
}


def seal(value: SealedValue, *, signer: Signer, index: int) -> Sealed[SealedValue]:
    """Encode and sign. `index` is the signer's position, 0 for the coordinator."""
    label, encode, _ = _CODECS[type(value)]
    payload = encode(value)
    return Sealed(value, Envelope(payload, signer.sign(label, payload), index))


def open_sealed(kind: type[SealedValue], envelope: Envelope, *, verifier: Verifier, index: int) -> Sealed[SealedValue]:
    """Verify, then parse. Raises IdentityError for a wrong signer or signature, WireError for a wrong payload."""
    label, _, decode = _CODECS[kind]
    if envelope.signer != index:
        raise IdentityError(f"a {label} signed by position {index} was expected, got {envelope.signer}")
    verifier.verify(label, envelope.payload, envelope.signature)
    return Sealed(decode(envelope.payload), envelope)


def reopen(kind: type[SealedValue], envelope: Envelope) -> Sealed[SealedValue]:
    """Parse an envelope from our own durable storage, which was verified before it was stored."""
    return Sealed(_CODECS[kind][2](envelope.payload), envelope)


def peek_welcome(envelope: Envelope) -> Welcome:
    """Read a Welcome before its signature can be checked: it carries the certificate to check it with."""
    return decode_welcome(envelope.payload)


def encode_envelope(envelope: Envelope) -> bytes:
    return pb_envelope(envelope).SerializeToString(deterministic=True)


def decode_envelope(data: bytes) -> Envelope:
    return envelope_of(parse(pb.SignedEnvelope, data))


def pb_envelope(envelope: Envelope) -> pb.SignedEnvelope:
    return pb.SignedEnvelope(payload=envelope.payload, signature=envelope.signature, signer=envelope.signer)


def envelope_of(message: pb.SignedEnvelope) -> Envelope:
    need(message, "payload", "signature", "signer")
    if len(message.signature) != SIGNATURE_BYTES or message.signer > MEMBERS_MAX:
        raise WireError(f"an envelope has a signature of {SIGNATURE_BYTES} bytes and a signer up to {MEMBERS_MAX}")
    return Envelope(message.payload, message.signature, message.signer)
