"""The frames of a session: `encode_x` and `decode_x` between bytes and the values of `shared.protocol.messages`.

Frames are handed to gRPC as bytes, so that this is the only place that parses them and a frame is written once however
many participants receive it. A broadcast is decoded to an `Incoming*` value whose envelope is still shut: only the
session knows the key to open it with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from shared.errors import WireError
from shared.ids import parse_task_name
from shared.pb.v1 import session_pb2 as pb
from shared.protocol.messages import (
    NONCE_BYTES,
    SIGNER_COORDINATOR,
    AttemptAnswer,
    AttemptStart,
    Consent,
    ConsistencyBundle,
    CoordinatorMessage,
    Decline,
    Envelope,
    Exchange,
    Heartbeat,
    Hello,
    KeyRoster,
    ParticipantMessage,
    Progress,
    Ready,
    Refused,
    RoundAborted,
    RoundPlan,
    RoundResult,
    SealedMessage,
    ShareDelivery,
    SurvivorList,
    Welcome,
    Withdraw,
)
from shared.reasons import SAID_BY_PARTICIPANT, ConsentRule, DropReason, RefusalReason
from shared.wire.exchanges import (
    answer_of,
    bundle_of,
    delivery_of,
    pb_answer,
    pb_bundle,
    pb_delivery,
    pb_roster,
    pb_survivors,
    roster_of,
    survivors_of,
)
from shared.wire.fields import (
    checked,
    digest,
    few,
    from_wire,
    need,
    parse,
    pb_key,
    round_key,
    text,
    to_wire,
)
from shared.wire.sealed import CERTIFICATE_MAX_BYTES, Verifier, envelope_of, open_sealed, pb_envelope

VERSIONS_MAX = 16
CAPABILITIES_MAX = 64
TASKS_MAX = 1000
OPEN_ROUNDS_MAX = 1000
HEADS_MAX = 16
HEAD_MAX_BYTES = 128 * 1024
PERCENT_MAX = 100

_ENVELOPE_FIELDS: dict[type, str] = {
    Welcome: "welcome",
    RoundPlan: "round_plan",
    AttemptStart: "attempt_start",
    RoundResult: "round_result",
    RoundAborted: "round_aborted",
}
_SEALED_KINDS = {field: kind for kind, field in _ENVELOPE_FIELDS.items()}

SealedKind: TypeAlias = type[Welcome | RoundPlan | AttemptStart | RoundResult | RoundAborted]


@dataclass(frozen=True, slots=True)
class ShutEnvelope:
    """A signed broadcast as received: what it says it is, and the envelope to open."""

    kind: SealedKind
    envelope: Envelope


IncomingMessage: TypeAlias = ShutEnvelope | Refused | Heartbeat | Exchange


def encode_participant_message(message: ParticipantMessage) -> bytes:
    """A SessionRequest."""
    return _participant_frame(message).SerializeToString()


def _participant_frame(message: ParticipantMessage) -> pb.SessionRequest:
    match message:
        case Hello():
            return pb.SessionRequest(hello=_pb_hello(message))
        case Heartbeat():
            return pb.SessionRequest(heartbeat=pb.Heartbeat())
        case Consent(key, plan):
            return pb.SessionRequest(consent=pb.Consent(key=pb_key(key), plan_digest=plan.raw))
        case Decline(key, plan, rule):
            return pb.SessionRequest(decline=pb.Decline(key=pb_key(key), plan_digest=plan.raw, rule=to_wire(rule)))
        case Progress(key, plan, percent):
            return pb.SessionRequest(progress=pb.Progress(key=pb_key(key), plan_digest=plan.raw, percent=percent))
        case Ready(key, plan, fits):
            return pb.SessionRequest(ready=pb.Ready(key=pb_key(key), plan_digest=plan.raw, fits=fits))
        case Withdraw(key, plan, reason):
            return pb.SessionRequest(
                withdraw=pb.Withdraw(key=pb_key(key), plan_digest=plan.raw, reason=to_wire(reason))
            )
        case AttemptAnswer():
            return pb.SessionRequest(attempt_answer=pb_answer(message))
        case _:
            assert_never(message)


def _pb_hello(hello: Hello) -> pb.Hello:
    return pb.Hello(
        versions=hello.versions,
        capabilities=hello.capabilities,
        tasks=hello.tasks,
        nonce=hello.nonce,
        signing_certificate=hello.signing_certificate,
        software=hello.software,
        open_rounds=[pb_key(key) for key in hello.open_rounds],
        heads=[pb_envelope(head) for head in hello.heads],
    )


def decode_participant_message(data: bytes) -> ParticipantMessage:
    """Read a SessionRequest. Raises WireError."""
    frame = parse(pb.SessionRequest, data)
    match frame.WhichOneof("message"):
        case "hello":
            return _hello(frame.hello)
        case "heartbeat":
            return Heartbeat()
        case "consent":
            return Consent(round_key(frame.consent), digest(frame.consent, "plan_digest"))
        case "decline":
            rule = from_wire(frame.decline, "rule", ConsentRule)
            return Decline(round_key(frame.decline), digest(frame.decline, "plan_digest"), rule)
        case "progress":
            need(frame.progress, "percent")
            if frame.progress.percent > PERCENT_MAX:
                raise WireError(f"Progress.percent is at most {PERCENT_MAX}, got {frame.progress.percent}")
            plan = digest(frame.progress, "plan_digest")
            return Progress(round_key(frame.progress), plan, frame.progress.percent)
        case "ready":
            need(frame.ready, "fits")
            return Ready(round_key(frame.ready), digest(frame.ready, "plan_digest"), frame.ready.fits)
        case "withdraw":
            reason = from_wire(frame.withdraw, "reason", DropReason)
            if reason not in SAID_BY_PARTICIPANT:
                raise WireError(f"Withdraw.reason: {reason} is not for a participant to say")
            return Withdraw(round_key(frame.withdraw), digest(frame.withdraw, "plan_digest"), reason)
        case "attempt_answer":
            return answer_of(frame.attempt_answer)
        case _:
            raise WireError("a SessionRequest without a message that this version knows")


def _hello(message: pb.Hello) -> Hello:
    need(message, "nonce", "signing_certificate")
    if len(message.nonce) != NONCE_BYTES:
        raise WireError(f"Hello.nonce has {NONCE_BYTES} bytes, got {len(message.nonce)}")
    if len(message.signing_certificate) > CERTIFICATE_MAX_BYTES:
        raise WireError(f"Hello.signing_certificate has at most {CERTIFICATE_MAX_BYTES} bytes")
    few(message, "open_rounds", OPEN_ROUNDS_MAX)
    return Hello(
        versions=tuple(few(message, "versions", VERSIONS_MAX)),
        capabilities=tuple(few(message, "capabilities", CAPABILITIES_MAX)),
        tasks=checked(message, "tasks", lambda _: tuple(map(parse_task_name, few(message, "tasks", TASKS_MAX)))),
        nonce=message.nonce,
        signing_certificate=message.signing_certificate,
        software=text(message, "software"),
        open_rounds=tuple(round_key(pb.Consent(key=key)) for key in message.open_rounds),
        heads=tuple(map(_head, few(message, "heads", HEADS_MAX))),
    )


def _head(message: pb.SignedEnvelope) -> Envelope:
    if len(message.payload) > HEAD_MAX_BYTES:
        raise WireError(f"a head in Hello.heads has at most {HEAD_MAX_BYTES} bytes, got {len(message.payload)}")
    return envelope_of(message)


def encode_coordinator_message(message: CoordinatorMessage) -> bytes:
    """A SessionResponse."""
    return _coordinator_frame(message).SerializeToString()


def _coordinator_frame(message: CoordinatorMessage) -> pb.SessionResponse:
    match message:
        case Refused(reason, detail):
            return pb.SessionResponse(refused=pb.Refused(reason=to_wire(reason), detail=detail))
        case Heartbeat():
            return pb.SessionResponse(heartbeat=pb.Heartbeat())
        case KeyRoster():
            return pb.SessionResponse(key_roster=pb_roster(message))
        case ShareDelivery():
            return pb.SessionResponse(share_delivery=pb_delivery(message))
        case SurvivorList():
            return pb.SessionResponse(survivor_list=pb_survivors(message))
        case ConsistencyBundle():
            return pb.SessionResponse(consistency_bundle=pb_bundle(message))
        case _:
            frame = pb.SessionResponse()
            getattr(frame, _ENVELOPE_FIELDS[type(message.value)]).CopyFrom(pb_envelope(message.envelope))
            return frame


def decode_coordinator_message(data: bytes) -> IncomingMessage:
    """Read a SessionResponse; envelopes stay shut. Raises WireError."""
    frame = parse(pb.SessionResponse, data)
    match frame.WhichOneof("message"):
        case "refused":
            return Refused(from_wire(frame.refused, "reason", RefusalReason), text(frame.refused, "detail"))
        case "heartbeat":
            return Heartbeat()
        case "key_roster":
            return roster_of(frame.key_roster)
        case "share_delivery":
            return delivery_of(frame.share_delivery)
        case "survivor_list":
            return survivors_of(frame.survivor_list)
        case "consistency_bundle":
            return bundle_of(frame.consistency_bundle)
        case None:
            raise WireError("a SessionResponse without a message that this version knows")
        case field:
            return ShutEnvelope(_SEALED_KINDS[field], envelope_of(getattr(frame, field)))


def open_broadcast(shut: ShutEnvelope, *, verifier: Verifier) -> SealedMessage:
    """Open what the coordinator pushes during a session. Raises IdentityError, or WireError for a second Welcome."""
    envelope = shut.envelope
    if shut.kind is RoundPlan:
        return open_sealed(RoundPlan, envelope, verifier=verifier, index=SIGNER_COORDINATOR)
    if shut.kind is AttemptStart:
        return open_sealed(AttemptStart, envelope, verifier=verifier, index=SIGNER_COORDINATOR)
    if shut.kind is RoundResult:
        return open_sealed(RoundResult, envelope, verifier=verifier, index=SIGNER_COORDINATOR)
    if shut.kind is RoundAborted:
        return open_sealed(RoundAborted, envelope, verifier=verifier, index=SIGNER_COORDINATOR)
    raise WireError("a Welcome opens a session; this one is open")
