"""What a message may hold: each limit is met by the value at it and broken by the one above."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import IdentityError, WireError
from shared.identity import SigningKey
from shared.ids import COUNTER_MAX
from shared.job import JOBSPEC_MAX_BYTES, MEMBERS_MAX
from shared.pb.v1 import session_pb2 as pb
from shared.protocol.messages import (
    Envelope,
    RoundAborted,
    Welcome,
)
from shared.secret import Secret
from shared.update import CHUNK_BYTES, RANGE_EXPONENT_MAX, RANGE_NONE, TENSORS_MAX, Encoding, UpdateHeader
from shared.wire.fields import CONTROL_MAX_BYTES, DURATION_MAX_S, TEXT_MAX_CHARS
from shared.wire.sealed import (
    CERTIFICATE_MAX_BYTES,
    CHUNKS_MAX,
    HEADER_MAX_BYTES,
    decode_attempt_start,
    decode_envelope,
    decode_round_plan,
    decode_round_result,
    decode_update_header,
    decode_upload_commit,
    decode_welcome,
    open_sealed,
)
from shared.wire.session import (
    CAPABILITIES_MAX,
    HEAD_MAX_BYTES,
    HEADS_MAX,
    OPEN_ROUNDS_MAX,
    TASKS_MAX,
    VERSIONS_MAX,
    ShutEnvelope,
    decode_coordinator_message,
    decode_participant_message,
    open_broadcast,
)
from shared.wire.transfer import (
    FRAME_MAX_BYTES,
    decode_commit_response,
    decode_fetch_frame,
    decode_upload_frame,
    encode_data,
)
from tests.support.wire_fields import DIGEST, ENVELOPE, KEY, Write, collection, writer

SIGNING = SigningKey.from_seed(Secret(bytes(range(32))))
HELLO: dict[str, Any] = {"nonce": bytes(32), "signing_certificate": b"", "software": ""}
WELCOME: dict[str, Any] = {
    "version": 1,
    "session_id": "",
    "nonce": bytes(32),
    "signing_certificate": b"",
    "software": "",
    "participant_id": "hospital-a",
    "heartbeat_s": 1.0,
    "silence_s": 1.0,
}
PLAN: dict[str, Any] = {
    "key": KEY,
    "purpose": "PURPOSE_TRAIN",
    "jobspec": b"",
    "model_digest": DIGEST,
    "model_bytes": 0,
    "previous_result": b"",
    "deadline_s": 1.0,
}
START: dict[str, Any] = {
    "version": 1,
    "suite": 1,
    "key": KEY,
    "purpose": "PURPOSE_TRAIN",
    "attempt": 1,
    "plan_digest": DIGEST,
    "jobspec_digest": DIGEST,
    "consortium_digest": b"",
    "model_digest": DIGEST,
    "previous_result_digest": DIGEST,
    "members": ["hospital-a"],
    "max_colluding": 0,
    "layout_digest": DIGEST,
    "encoding": "ENCODING_PLAIN",
    "upload_deadline_s": 1.0,
    "exchange_deadline_s": 1.0,
}
COMMIT: dict[str, Any] = {
    "attempt_digest": DIGEST,
    "index": 1,
    "header": b"",
    "update_digest": DIGEST,
    "chunks": 1,
    "transcript_digest": DIGEST,
}
RESULT: dict[str, Any] = {
    "key": KEY,
    "purpose": "PURPOSE_TRAIN",
    "attempt_digest": DIGEST,
    "survivors": [1],
    "weight_total": 1.0,
    "aggregate_digest": DIGEST,
    "next_model_digest": DIGEST,
    "transcript_digest": DIGEST,
}
HEADER: dict[str, Any] = {"encoding": "ENCODING_PLAIN", "weight": 1.0, "contributors": 1}


def hello(**changed: Any) -> bytes:
    return pb.SessionRequest(hello=pb.Hello(**HELLO | changed)).SerializeToString()


def progress(**changed: Any) -> bytes:
    fields: dict[str, Any] = {"key": KEY, "plan_digest": DIGEST, "percent": 0} | changed
    message = pb.Progress(**fields)
    return pb.SessionRequest(progress=message).SerializeToString()


def decline(**changed: Any) -> bytes:
    fields: dict[str, Any] = {"key": KEY, "plan_digest": DIGEST, "rule": 1} | changed
    message = pb.Decline(**fields)
    return pb.SessionRequest(decline=message).SerializeToString()


def refused(**changed: Any) -> bytes:
    fields: dict[str, Any] = {"reason": 1, "detail": ""} | changed
    message = pb.Refused(**fields)
    return pb.SessionResponse(refused=message).SerializeToString()


survivor_list = collection("survivor_list", pb.SurvivorList, "commits")

# Who reads, who writes, and for each field: values at the limit, values above it.
LIMITS: dict[str, tuple[Callable[[bytes], Any], Write, list[Any], list[Any]]] = {
    "Hello.versions": (decode_participant_message, hello, [[1] * VERSIONS_MAX], [[1] * (VERSIONS_MAX + 1)]),
    "Hello.capabilities": (
        decode_participant_message,
        hello,
        [["x"] * CAPABILITIES_MAX],
        [["x"] * (CAPABILITIES_MAX + 1)],
    ),
    "Hello.tasks": (
        decode_participant_message,
        hello,
        [["x"] * TASKS_MAX, ["x" * 63]],
        [["x"] * (TASKS_MAX + 1), ["x" * 64], [""], ["A"], ["-a"], ["a/b"], ["ä"]],
    ),
    "Hello.nonce": (decode_participant_message, hello, [bytes(32)], [b"", bytes(31), bytes(33)]),
    "Hello.signing_certificate": (
        decode_participant_message,
        hello,
        [bytes(CERTIFICATE_MAX_BYTES)],
        [bytes(CERTIFICATE_MAX_BYTES + 1)],
    ),
    "Hello.software": (
        decode_participant_message,
        hello,
        ["ä" * TEXT_MAX_CHARS],
        ["x" * (TEXT_MAX_CHARS + 1)],
    ),
    "Hello.open_rounds": (
        decode_participant_message,
        hello,
        [[KEY] * OPEN_ROUNDS_MAX],
        [[KEY] * (OPEN_ROUNDS_MAX + 1), [{"job_id": "heart"}], [{"round": 1}]],
    ),
    "Hello.heads": (
        decode_participant_message,
        hello,
        [[], [ENVELOPE] * HEADS_MAX, [ENVELOPE | {"payload": bytes(HEAD_MAX_BYTES)}]],
        [
            [ENVELOPE] * (HEADS_MAX + 1),
            [ENVELOPE | {"payload": bytes(HEAD_MAX_BYTES + 1)}],
            [ENVELOPE | {"signature": bytes(63)}],
        ],
    ),
    "Progress.percent": (decode_participant_message, progress, [0, 100], [101]),
    "Progress.key": (
        decode_participant_message,
        progress,
        [{"job_id": "x" * 63, "round": COUNTER_MAX}],
        [{"job_id": "", "round": 1}, {"job_id": "heart", "round": 0}, {"job_id": "heart", "round": COUNTER_MAX + 1}],
    ),
    "Progress.plan_digest": (decode_participant_message, progress, [bytes(32)], [b"", bytes(31), bytes(33)]),
    "Decline.rule": (decode_participant_message, decline, [1, 17], [0, 18, -1]),
    "Refused.reason": (decode_coordinator_message, refused, [1, 8], [0, 9, -1]),
    "Refused.detail": (decode_coordinator_message, refused, ["x" * TEXT_MAX_CHARS], ["x" * (TEXT_MAX_CHARS + 1)]),
    "SurvivorList.commits": (
        decode_coordinator_message,
        survivor_list,
        [[], [ENVELOPE] * MEMBERS_MAX],
        [[ENVELOPE] * (MEMBERS_MAX + 1), [{}]],
    ),
    "SurvivorList.attempt": (decode_coordinator_message, survivor_list, [COUNTER_MAX], [0, COUNTER_MAX + 1]),
    "SignedEnvelope.signature": (
        decode_envelope,
        writer(pb.SignedEnvelope, ENVELOPE),
        [bytes(64)],
        [b"", bytes(63), bytes(65)],
    ),
    "SignedEnvelope.signer": (
        decode_envelope,
        writer(pb.SignedEnvelope, ENVELOPE),
        [0, MEMBERS_MAX],
        [MEMBERS_MAX + 1],
    ),
    "SignedEnvelope.payload": (
        decode_envelope,
        writer(pb.SignedEnvelope, ENVELOPE),
        [bytes(CONTROL_MAX_BYTES - 100)],
        [bytes(CONTROL_MAX_BYTES)],
    ),
    "Welcome.nonce": (decode_welcome, writer(pb.Welcome, WELCOME), [bytes(32)], [b"", bytes(31), bytes(33)]),
    "Welcome.signing_certificate": (
        decode_welcome,
        writer(pb.Welcome, WELCOME),
        [bytes(CERTIFICATE_MAX_BYTES)],
        [bytes(CERTIFICATE_MAX_BYTES + 1)],
    ),
    "Welcome.heartbeat_s": (
        decode_welcome,
        writer(pb.Welcome, WELCOME),
        [5e-324, DURATION_MAX_S],
        [0.0, -1.0, math.nan, math.inf, -math.inf, DURATION_MAX_S + 1],
    ),
    "Welcome.participant_id": (decode_welcome, writer(pb.Welcome, WELCOME), ["a"], ["", "a\n", "../a", "a" * 64]),
    "RoundPlan.jobspec": (
        decode_round_plan,
        writer(pb.RoundPlan, PLAN),
        [bytes(JOBSPEC_MAX_BYTES)],
        [bytes(JOBSPEC_MAX_BYTES + 1)],
    ),
    "RoundPlan.purpose": (decode_round_plan, writer(pb.RoundPlan, PLAN), [1, 2], [0, 3, 2**31 - 1]),
    "RoundPlan.deadline_s": (decode_round_plan, writer(pb.RoundPlan, PLAN), [1.0], [0.0, math.nan, math.inf]),
    "RoundPlan.control": (
        decode_round_plan,
        writer(pb.RoundPlan, PLAN),
        [pb.JobControl(revision=1), pb.JobControl(revision=2**32 - 1, deadline_s=DURATION_MAX_S, quorum=0)],
        [
            pb.JobControl(),
            pb.JobControl(revision=0, quorum=2),
            pb.JobControl(revision=1, deadline_s=0.0),
            pb.JobControl(revision=1, deadline_s=math.nan),
            pb.JobControl(revision=1, deadline_s=DURATION_MAX_S + 1),
        ],
    ),
    "AttemptStart.members": (
        decode_attempt_start,
        writer(pb.AttemptStart, START),
        [["a"] * MEMBERS_MAX],
        [["a"] * (MEMBERS_MAX + 1), ["A"]],
    ),
    "AttemptStart.encoding": (decode_attempt_start, writer(pb.AttemptStart, START), [1, 4], [0, 5, -1]),
    "AttemptStart.consortium_digest": (
        decode_attempt_start,
        writer(pb.AttemptStart, START),
        [b"", bytes(32)],
        [bytes(1), bytes(31), bytes(33)],
    ),
    "AttemptStart.exchange_deadline_s": (
        decode_attempt_start,
        writer(pb.AttemptStart, START),
        [5e-324, DURATION_MAX_S],
        [0.0, -1.0, math.nan, math.inf, DURATION_MAX_S + 1],
    ),
    "AttemptStart.attempt": (decode_attempt_start, writer(pb.AttemptStart, START), [1], [0, COUNTER_MAX + 1]),
    "UploadCommit.index": (
        decode_upload_commit,
        writer(pb.UploadCommit, COMMIT),
        [1, MEMBERS_MAX],
        [0, MEMBERS_MAX + 1],
    ),
    "UploadCommit.header": (
        decode_upload_commit,
        writer(pb.UploadCommit, COMMIT),
        [bytes(HEADER_MAX_BYTES)],
        [bytes(HEADER_MAX_BYTES + 1)],
    ),
    "UploadCommit.chunks": (decode_upload_commit, writer(pb.UploadCommit, COMMIT), [0, CHUNKS_MAX], [CHUNKS_MAX + 1]),
    "RoundResult.survivors": (
        decode_round_result,
        writer(pb.RoundResult, RESULT),
        [[], [1, 3], [MEMBERS_MAX], range(1, MEMBERS_MAX + 1)],
        [[0], [2, 1], [1, 1], [MEMBERS_MAX + 1]],
    ),
    "UploadCommit.transcript_digest": (
        decode_upload_commit,
        writer(pb.UploadCommit, COMMIT),
        [bytes(32)],
        [b"", bytes(31), bytes(33)],
    ),
    "RoundResult.transcript_digest": (
        decode_round_result,
        writer(pb.RoundResult, RESULT),
        [bytes(32)],
        [b"", bytes(31), bytes(33)],
    ),
    "RoundResult.top_cells": (
        decode_round_result,
        writer(pb.RoundResult, RESULT),
        [[], [RANGE_NONE, RANGE_EXPONENT_MAX], [0] * TENSORS_MAX],
        [[RANGE_NONE - 1], [RANGE_EXPONENT_MAX + 1], [0] * (TENSORS_MAX + 1), [2**31 - 1], [-(2**31)]],
    ),
    "RoundResult.weight_total": (
        decode_round_result,
        writer(pb.RoundResult, RESULT),
        [0.0, 1e300],
        [math.nan, math.inf, -math.inf],
    ),
    "UpdateHeader.weight": (
        decode_update_header,
        writer(pb.UpdateHeader, HEADER),
        [5e-324, 2.0**40],
        [0.0, -1.0, math.nan, math.inf, 2.0**40 + 1],
    ),
    "UpdateHeader.contributors": (decode_update_header, writer(pb.UpdateHeader, HEADER), [1], [0, 2]),
    "UpdateHeader.encoding": (decode_update_header, writer(pb.UpdateHeader, HEADER), [1], [0, 5, -1]),
}


@pytest.mark.parametrize("field", LIMITS)
def test_a_field_is_taken_up_to_its_limit(field: str) -> None:
    decode, write, taken, _ = LIMITS[field]
    for value in taken:
        decode(write(**{field.partition(".")[2]: value}))


@pytest.mark.parametrize("field", LIMITS)
def test_a_field_beyond_its_limit_is_refused(field: str) -> None:
    decode, write, _, refused_values = LIMITS[field]
    for value in refused_values:
        with pytest.raises(WireError):
            decode(write(**{field.partition(".")[2]: value}))


@pytest.mark.parametrize("decode", [decode_participant_message, decode_coordinator_message])
def test_a_frame_says_something_that_this_version_knows(decode: Callable[[bytes], Any]) -> None:
    for nothing in (b"", b"\xfa\x01\x00"):  # no field, and a message numbered 31 from another version
        with pytest.raises(WireError, match="without a message that this version knows"):
            decode(nothing)


def test_unknown_fields_beside_known_ones_are_passed_over() -> None:
    assert decode_commit_response(b"\x0a\x20" + DIGEST + b"\xfa\x01\x01x") is not None


@pytest.mark.parametrize("decode", [decode_upload_frame, decode_fetch_frame])
def test_a_chunk_has_at_most_its_size(decode: Callable[[bytes], Any]) -> None:
    assert len(decode(encode_data(bytes(CHUNK_BYTES)))) == CHUNK_BYTES
    with pytest.raises(WireError, match=f"at most {FRAME_MAX_BYTES} bytes"):
        decode(encode_data(bytes(FRAME_MAX_BYTES)))


# --- what fields say together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [Encoding.U32, Encoding.U16, Encoding.U64])
def test_the_header_of_a_masked_update_has_no_weight(encoding: Encoding) -> None:
    """It would tell how many examples a silo has, in clear beside a masked update."""
    write = writer(pb.UpdateHeader, {"encoding": f"ENCODING_{encoding.name}", "contributors": 1})
    assert decode_update_header(write()) == UpdateHeader(encoding, None, 1)
    for weight in (0.0, 1.0):
        with pytest.raises(WireError, match="that of a masked one has none"):
            decode_update_header(write(weight=weight))


def test_the_header_of_a_plain_update_has_its_weight() -> None:
    with pytest.raises(WireError, match=r"^UpdateHeader\.weight is missing$"):
        decode_update_header(pb.UpdateHeader(encoding="ENCODING_PLAIN", contributors=1).SerializeToString())


# --- signatures -------------------------------------------------------------------------------------------------------

ABORTED = pb.RoundAborted(key=KEY, plan_digest=DIGEST, reason="ABORT_REASON_OPERATOR").SerializeToString()


def test_another_signer_than_expected_is_refused() -> None:
    envelope = Envelope(ABORTED, SIGNING.sign("round-aborted", ABORTED), 3)
    with pytest.raises(IdentityError, match="signed by position 0 was expected, got 3"):
        open_sealed(RoundAborted, envelope, verifier=SIGNING.verifying_key, index=0)


def test_the_signature_is_checked_before_the_payload_is_read() -> None:
    envelope = Envelope(b"no message at all", bytes(64), 0)
    with pytest.raises(IdentityError):
        open_sealed(RoundAborted, envelope, verifier=SIGNING.verifying_key, index=0)


def test_a_signature_for_another_type_of_message_is_refused() -> None:
    envelope = Envelope(ABORTED, SIGNING.sign("round-result", ABORTED), 0)
    with pytest.raises(IdentityError):
        open_sealed(RoundAborted, envelope, verifier=SIGNING.verifying_key, index=0)


def test_a_second_welcome_is_refused() -> None:
    with pytest.raises(WireError, match="this one is open"):
        open_broadcast(ShutEnvelope(Welcome, Envelope(b"", bytes(64), 0)), verifier=SIGNING.verifying_key)
