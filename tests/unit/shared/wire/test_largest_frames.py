"""The largest job fits into single messages of the session: nothing of masking is ever cut into parts."""

from __future__ import annotations

from typing import Any

from shared.identity import SigningKey
from shared.ids import COUNTER_MAX, AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber, TaskName
from shared.job import JOBSPEC_MAX_BYTES, MEMBERS_MAX
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAnswer,
    Checkpoint,
    CheckpointKind,
    ConsistencyBundle,
    ConsistencySignature,
    DeliveredShare,
    Envelope,
    Hello,
    KeyRoster,
    RoundPlan,
    RoundResult,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UnmaskShares,
    UploadCommit,
)
from shared.reasons import Purpose
from shared.secagg.keys import PUBLIC_KEY_BYTES
from shared.secagg.sealing import CIPHERTEXT_BYTES, SealedShare
from shared.secagg.sharing import SHARE_BYTES
from shared.secret import Secret
from shared.update import RANGE_NONE, TENSORS_MAX
from shared.wire.fields import CONTROL_MAX_BYTES, TEXT_MAX_CHARS
from shared.wire.sealed import (
    CERTIFICATE_MAX_BYTES,
    CHUNKS_MAX,
    HEADER_MAX_BYTES,
    encode_envelope,
    seal,
)
from shared.wire.session import (
    CAPABILITIES_MAX,
    HEADS_MAX,
    OPEN_ROUNDS_MAX,
    TASKS_MAX,
    VERSIONS_MAX,
    ShutEnvelope,
    decode_coordinator_message,
    decode_participant_message,
    encode_coordinator_message,
    encode_participant_message,
)

SIGNING = SigningKey.from_seed(Secret(bytes(range(32))))
EVERYBODY = range(1, MEMBERS_MAX + 1)
LARGEST_KEY = AttemptKey(RoundKey(JobId("x" * 63), RoundNumber(COUNTER_MAX)), AttemptNumber(COUNTER_MAX))
FULL = Digest(b"\xff" * 32)


def signed(value: Any, index: int) -> Envelope:
    return seal(value, signer=SIGNING, index=index).envelope


def sealed_share(holder: int) -> SealedShare:
    return SealedShare(holder, bytes(CIPHERTEXT_BYTES), FULL, FULL)


def largest_messages() -> dict[str, bytes]:
    """Each frame of masking as large as a job of MEMBERS_MAX members can make it."""
    checkpoint = Checkpoint(CheckpointKind.CHAIN, 2**64 - 1, FULL)
    key = b"\xff" * PUBLIC_KEY_BYTES
    adverts = [signed(AdvertiseKeys(FULL, index, key, key, FULL.raw, checkpoint), index) for index in EVERYBODY]
    dealers = [signed(ShareKeys(FULL, FULL, index, FULL, FULL), index) for index in EVERYBODY]
    header = bytes(HEADER_MAX_BYTES)
    commits = [signed(UploadCommit(FULL, FULL, index, header, FULL, CHUNKS_MAX), index) for index in EVERYBODY]
    signatures = [signed(ConsistencySignature(FULL, FULL, index), index) for index in EVERYBODY]
    leaves = (MEMBERS_MAX - 1).bit_length()
    shares = tuple(DeliveredShare(dealer, sealed_share(MEMBERS_MAX), (FULL.raw,) * leaves) for dealer in EVERYBODY)
    opened = tuple((dealer, bytes(SHARE_BYTES)) for dealer in EVERYBODY)
    opening = signed(UnmaskShares(FULL, FULL, MEMBERS_MAX, opened, ()), MEMBERS_MAX)
    dealt = tuple(map(sealed_share, EVERYBODY))
    return {
        "key roster": encode_coordinator_message(KeyRoster(LARGEST_KEY, tuple(adverts))),
        "share delivery": encode_coordinator_message(ShareDelivery(LARGEST_KEY, tuple(dealers), shares)),
        "survivor list": encode_coordinator_message(SurvivorList(LARGEST_KEY, tuple(commits))),
        "consistency bundle": encode_coordinator_message(ConsistencyBundle(LARGEST_KEY, tuple(signatures))),
        "share answer": encode_participant_message(
            AttemptAnswer(LARGEST_KEY, AnswerKind.SHARE_KEYS, dealers[-1], dealt)
        ),
        "opening answer": encode_participant_message(AttemptAnswer(LARGEST_KEY, AnswerKind.UNMASK_SHARES, opening)),
    }


def test_the_largest_frames_of_masking_fit_into_one_message() -> None:
    """At MEMBERS_MAX members, with every field at its longest: no roster needs to be cut into parts."""
    frames = largest_messages()
    for name, frame in frames.items():
        decode = decode_participant_message if name.endswith("answer") else decode_coordinator_message
        decode(frame)
    sizes = {name: len(frame) for name, frame in frames.items()}
    assert max(sizes.values()) < CONTROL_MAX_BYTES, sizes


LARGEST_RESULT = RoundResult(
    key=LARGEST_KEY.round,
    purpose=Purpose.TRAIN,
    attempt=FULL,
    transcript=FULL,
    survivors=tuple(EVERYBODY),
    weight_total=1e300,
    top_cells=(RANGE_NONE,) * TENSORS_MAX,
    aggregate=FULL,
    next_model=FULL,
)


def test_a_hello_carries_as_many_of_the_largest_results_as_heads() -> None:
    """With every other list of it at its longest too."""
    head = signed(LARGEST_RESULT, 0)
    hello = Hello(
        versions=(2**32 - 1,) * VERSIONS_MAX,
        capabilities=("x" * 63,) * CAPABILITIES_MAX,
        tasks=(TaskName("x" * 63),) * TASKS_MAX,
        nonce=FULL.raw,
        signing_certificate=bytes(CERTIFICATE_MAX_BYTES),
        software="x" * TEXT_MAX_CHARS,
        open_rounds=(LARGEST_KEY.round,) * OPEN_ROUNDS_MAX,
        heads=(head,) * HEADS_MAX,
    )
    frame = encode_participant_message(hello)
    assert decode_participant_message(frame) == hello
    assert len(frame) < CONTROL_MAX_BYTES


def test_a_plan_carries_the_largest_result_before_it() -> None:
    """The previous result travels whole: its ranges of TENSORS_MAX tensors, and MEMBERS_MAX survivors."""
    previous = encode_envelope(signed(LARGEST_RESULT, 0))
    plan = RoundPlan(LARGEST_KEY.round, Purpose.TRAIN, bytes(JOBSPEC_MAX_BYTES), FULL, 2**63, previous, 1.0)
    frame = encode_coordinator_message(seal(plan, signer=SIGNING, index=0))
    assert isinstance(decode_coordinator_message(frame), ShutEnvelope)
    assert len(frame) < CONTROL_MAX_BYTES
