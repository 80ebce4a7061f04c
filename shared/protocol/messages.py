"""Everything that either side may say, as frozen values. `shared.wire` turns them into bytes and back.

Two things travel: plain messages of the session, and *sealed* ones, whose exact bytes are signed, hashed and kept. A
sealed message is held as `Sealed[T]`, the value beside the bytes that it was read from: hashes and signatures are over
those bytes, never over a value written again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeAlias, TypeVar

from shared.control import AS_SUBMITTED, JobControl
from shared.hashing import tagged_hash
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey, TaskName
from shared.reasons import AbortReason, AttemptAbortReason, ConsentRule, DropReason, Purpose, RefusalReason
from shared.secagg.sealing import SealedShare
from shared.update import Encoding

PROTOCOL_VERSIONS = (1,)  # what this code speaks; a session uses the highest that both sides have
CAPABILITY_PLAIN = "encoding-plain"  # updates in the plain encoding
CAPABILITY_MASKED = "encoding-masked"  # secure aggregation, suite 1
CAPABILITIES = (CAPABILITY_PLAIN, CAPABILITY_MASKED)
SUITE_1 = 1  # X25519, Ed25519, HKDF-SHA256, AES-256-GCM, AES-256-CTR, SHA-256
SIGNER_COORDINATOR = 0
NONCE_BYTES = 32

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Signed bytes, not yet opened. They do not print: some of them hold opened shares."""

    payload: bytes = field(repr=False)
    signature: bytes
    signer: int
    """0 for the coordinator, else the 1-based position among the job's members."""


@dataclass(frozen=True, slots=True)
class Sealed(Generic[T_co]):
    """A message whose signature was verified (or just made), with the exact bytes that it covers."""

    value: T_co
    envelope: Envelope

    @property
    def payload(self) -> bytes:
        return self.envelope.payload


# --- said by the participant ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a session: what this participant speaks, offers and still holds."""

    versions: tuple[int, ...]
    capabilities: tuple[str, ...]
    tasks: tuple[TaskName, ...]
    nonce: bytes
    signing_certificate: bytes
    software: str
    open_rounds: tuple[RoundKey, ...]
    heads: tuple[Envelope, ...] = ()
    """The last result that it verified in each job, newest first: the coordinator's own signed words, which it either
    has on record or has lost.
    """


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent by both sides at a fixed interval, so that a dead peer is noticed and a firewall keeps the flow."""


@dataclass(frozen=True, slots=True)
class Consent:
    """The silo agrees to this plan, and starts on it."""

    key: RoundKey
    plan: Digest


@dataclass(frozen=True, slots=True)
class Decline:
    """The silo does not agree, by this rule of its policy."""

    key: RoundKey
    plan: Digest
    rule: ConsentRule


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training is, when the silo's policy lets that be said."""

    key: RoundKey
    plan: Digest
    percent: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The update is on the silo's disk and can be sent."""

    key: RoundKey
    plan: Digest
    fits: bool


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The participant is out of this round, and why."""

    key: RoundKey
    plan: Digest
    reason: DropReason


class CheckpointKind(IntEnum):
    """What a checkpoint counts. The number is the wire's."""

    CHAIN = 1  # size: the last round whose result was verified; root: the digest of that result


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a participant has verified what the coordinator did. Two of one size have one root."""

    kind: CheckpointKind
    size: int
    root: Digest


@dataclass(frozen=True, slots=True)
class AdvertiseKeys:
    """The public keys of one participant, fresh for this attempt. Sealed."""

    attempt: Digest
    index: int
    mask_key: bytes
    share_key: bytes
    nonce: bytes
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class ShareKeys:
    """What a participant dealt: commitments, and the root over the sealed shares that travel beside it. Sealed."""

    attempt: Digest
    roster: Digest
    index: int
    self_commitment: Digest
    shares_root: Digest


@dataclass(frozen=True, slots=True)
class UploadCommit:
    """A participant's signed word for its update: which attempt, which bytes. Sealed."""

    attempt: Digest
    transcript: Digest
    """The delivery digest t2, under which the update is masked; in the plain mode h0 again."""
    index: int
    header: bytes
    update: Digest
    chunks: int


@dataclass(frozen=True, slots=True)
class ConsistencySignature:
    """The word of a participant that it was shown these survivors and no others. Sealed; one for each attempt."""

    attempt: Digest
    survivors: Digest
    index: int


@dataclass(frozen=True, slots=True)
class UnmaskShares:
    """What opens the total: shares of the self seeds of survivors, and of the mask seeds of who dropped. Sealed."""

    attempt: Digest
    survivors: Digest
    index: int
    self_shares: tuple[tuple[int, bytes], ...] = field(repr=False)
    mask_shares: tuple[tuple[int, bytes], ...] = field(repr=False)
    """(position, share), ascending; no position is in both."""


@dataclass(frozen=True, slots=True)
class AttemptAbort:
    """The participant left this attempt, and why. Sealed."""

    attempt: Digest
    index: int
    reason: AttemptAbortReason


class AnswerKind(IntEnum):
    """Which sealed message of an attempt an `AttemptAnswer` carries. The number is the wire's."""

    ADVERTISE_KEYS = 1
    SHARE_KEYS = 2
    CONSISTENCY_SIGNATURE = 3
    UNMASK_SHARES = 4
    ATTEMPT_ABORT = 5


@dataclass(frozen=True, slots=True)
class AttemptAnswer:
    """A sealed word of one participant about one attempt, still shut: the receiver knows whose key opens it."""

    attempt: AttemptKey
    kind: AnswerKind
    envelope: Envelope
    shares: tuple[SealedShare, ...] = ()
    """Beside SHARE_KEYS only: one for each on the roster, in their order."""

    @property
    def key(self) -> RoundKey:
        return self.attempt.round


RoundReply: TypeAlias = Consent | Decline | Progress | Ready | Withdraw | AttemptAnswer
ParticipantMessage: TypeAlias = Hello | Heartbeat | RoundReply


# --- said by the coordinator ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answers a Hello; signed over the participant's nonce, so that it cannot be an old one. Sealed."""

    version: int
    session: str
    nonce: bytes
    software: str
    participant: ParticipantId
    capabilities: tuple[str, ...]
    heartbeat_s: float
    silence_s: float
    signing_certificate: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """No session, or no longer; the stream ends after it."""

    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The invitation to a round. Sealed."""

    key: RoundKey
    purpose: Purpose
    jobspec: bytes
    model: Digest
    model_bytes: int
    previous_result: bytes
    deadline_s: float
    control: JobControl = AS_SUBMITTED


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """Everything that an attempt fixes. Sealed; `H("header", payload)` is h0, which every later message names."""

    version: int
    suite: int
    key: AttemptKey
    purpose: Purpose
    plan: Digest
    jobspec: Digest
    consortium: bytes
    """Digest of the consortium manifest, 32 bytes; empty in the plain mode."""
    model: Digest
    previous_result: Digest
    members: tuple[ParticipantId, ...]
    max_colluding: int
    """0 in the plain mode, where it has no meaning."""
    layout: Digest
    encoding: Encoding
    exchange_deadline_s: float
    upload_deadline_s: float


@dataclass(frozen=True, slots=True)
class KeyRoster:
    """Who takes part in the masking (U1): their own signed keys."""

    key: AttemptKey
    adverts: tuple[Envelope, ...]


@dataclass(frozen=True, slots=True)
class DeliveredShare:
    """One dealer's sealed share for the receiver, with its place under that dealer's signed root."""

    dealer: int
    share: SealedShare
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ShareDelivery:
    """Who dealt (U2), by their own signed word, and what they dealt to the receiver."""

    key: AttemptKey
    dealers: tuple[Envelope, ...]
    shares: tuple[DeliveredShare, ...]


@dataclass(frozen=True, slots=True)
class SurvivorList:
    """Whose updates are in the total (U3): proven by their own signed commitments."""

    key: AttemptKey
    commits: tuple[Envelope, ...]


@dataclass(frozen=True, slots=True)
class ConsistencyBundle:
    """Enough survivors say that they were shown the same list: now shares may be opened."""

    key: AttemptKey
    signatures: tuple[Envelope, ...]


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The round is committed. Sealed."""

    key: RoundKey
    purpose: Purpose
    attempt: Digest
    transcript: Digest
    """The survivors digest t3; in the plain mode h0 again."""
    survivors: tuple[int, ...]
    """1-based positions among the job's members, ascending."""
    weight_total: float
    top_cells: tuple[int, ...]
    """For each aggregated tensor the exponent of the largest |weight * delta| (range tracking); empty in the plain mode
    and for a round of purpose `evaluate`.
    """
    aggregate: Digest
    next_model: Digest
    """For a round of purpose `evaluate`, the model that was evaluated."""


@dataclass(frozen=True, slots=True)
class RoundAborted:
    """The round ended without a result; the model is what it was. Sealed."""

    key: RoundKey
    plan: Digest
    reason: AbortReason


SealedMessage: TypeAlias = Sealed[RoundPlan] | Sealed[AttemptStart] | Sealed[RoundResult] | Sealed[RoundAborted]
Exchange: TypeAlias = KeyRoster | ShareDelivery | SurvivorList | ConsistencyBundle
RoundBroadcast: TypeAlias = SealedMessage | Exchange
CoordinatorMessage: TypeAlias = Sealed[Welcome] | Refused | Heartbeat | RoundBroadcast


# --- names of messages by their hash ----------------------------------------------------------------------------------


def plan_digest(plan: Sealed[RoundPlan]) -> Digest:
    """By which replies and attempts name the plan that they follow."""
    return tagged_hash("plan", plan.payload)


def attempt_digest(start: Sealed[AttemptStart]) -> Digest:
    """h0."""
    return tagged_hash("header", start.payload)


def result_digest(envelope_bytes: bytes) -> Digest:
    """`prev_result`: over the serialised envelope as carried in a RoundPlan, which is empty before the first result."""
    return tagged_hash("result", envelope_bytes)
