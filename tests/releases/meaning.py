"""What a frame means to today's code: its value, the signed words in it, and both as JSON that can be kept.

`CODECS` has a row for each direction of each method. JSON leaves out what has its default: a field that a later version
adds to a value, with a default for those who do not send it, changes nothing that an earlier one recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from shared.ids import Digest, JobId
from shared.pb.v1 import transfer_pb2
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    ConsistencyBundle,
    ConsistencySignature,
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
from shared.wire import operations as ops
from shared.wire import steering, transfer
from shared.wire.sealed import decode_envelope, decode_round_plan, reopen
from shared.wire.session import (
    ShutEnvelope,
    decode_coordinator_message,
    decode_participant_message,
    encode_coordinator_message,
    encode_participant_message,
)

SESSION = "/consilo.v1.SessionService/Session"
UPLOAD = "/consilo.v1.TransferService/UploadUpdate"
COMMIT = "/consilo.v1.TransferService/UploadCommit"
FETCH = "/consilo.v1.TransferService/FetchModel"
PUT = "/consilo.v1.OperationsService/PutModel"
EXPORT = "/consilo.v1.OperationsService/ExportModel"

SHOWN_BYTES_MAX = 8  # of longer ones the length and the beginning of the SHA-256: the frame itself has all of them

ANSWERS: dict[AnswerKind, type] = {
    AnswerKind.ADVERTISE_KEYS: AdvertiseKeys,
    AnswerKind.SHARE_KEYS: ShareKeys,
    AnswerKind.CONSISTENCY_SIGNATURE: ConsistencySignature,
    AnswerKind.UNMASK_SHARES: UnmaskShares,
    AnswerKind.ATTEMPT_ABORT: AttemptAbort,
}


@dataclass(frozen=True, slots=True)
class Codec:
    """How one direction of a method is read and written."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _encode_incoming(message: Any) -> bytes:
    if isinstance(message, ShutEnvelope):
        said: Any = reopen(message.kind, message.envelope)
        return encode_coordinator_message(said)
    return encode_coordinator_message(message)


def _encode_upload_frame(frame: Any) -> bytes:
    return transfer.encode_upload_open(frame) if isinstance(frame, transfer.UploadOpen) else transfer.encode_data(frame)


def _encode_put_frame(frame: Any) -> bytes:
    return ops.encode_put_model_open(frame) if isinstance(frame, ops.PutModelOpen) else transfer.encode_data(frame)


def _decode_received(data: bytes) -> int:
    """The participant reads no such answer: it asks UploadStatus."""
    return transfer_pb2.UploadUpdateResponse.FromString(data).received_bytes


def _encode_audit(lines: bytes) -> bytes:
    return ops.encode_read_audit_response(lines.removesuffix(b"\n").split(b"\n"))


def _both(method: str, asked: Codec, answered: Codec) -> dict[tuple[str, bool], Codec]:
    return {(method, False): asked, (method, True): answered}


_OPERATIONS = "/consilo.v1.OperationsService/"
_TRANSFER = "/consilo.v1.TransferService/"

CODECS: dict[tuple[str, bool], Codec] = {
    **_both(
        SESSION,
        Codec(decode_participant_message, encode_participant_message),
        Codec(decode_coordinator_message, _encode_incoming),
    ),
    **_both(
        FETCH,
        Codec(transfer.decode_fetch_model, transfer.encode_fetch_model),
        Codec(transfer.decode_fetch_frame, transfer.encode_data),
    ),
    **_both(
        UPLOAD,
        Codec(transfer.decode_upload_frame, _encode_upload_frame),
        Codec(_decode_received, transfer.encode_upload_response),
    ),
    **_both(
        _TRANSFER + "UploadStatus",
        Codec(transfer.decode_upload_status_request, transfer.encode_upload_status_request),
        Codec(transfer.decode_upload_status, transfer.encode_upload_status),
    ),
    **_both(
        COMMIT,
        Codec(transfer.decode_commit_request, transfer.encode_commit_request),
        Codec(transfer.decode_commit_response, transfer.encode_commit_response),
    ),
    **_both(
        _OPERATIONS + "SubmitJob",
        Codec(ops.decode_submit_job, ops.encode_submit_job),
        Codec(ops.decode_submit_job_response, ops.encode_submit_job_response),
    ),
    **_both(
        _OPERATIONS + "ListJobs",
        Codec(ops.decode_list_jobs, lambda _: ops.encode_list_jobs()),
        Codec(ops.decode_list_jobs_response, ops.encode_list_jobs_response),
    ),
    **_both(
        _OPERATIONS + "GetJob",
        Codec(ops.decode_get_job, ops.encode_get_job),
        Codec(ops.decode_get_job_response, ops.encode_get_job_response),
    ),
    **_both(
        _OPERATIONS + "WatchJob",
        Codec(ops.decode_watch_job, ops.encode_watch_job),
        Codec(ops.decode_watch_job_response, ops.encode_watch_job_response),
    ),
    **_both(
        _OPERATIONS + "AbortJob",
        Codec(ops.decode_abort_job, ops.encode_abort_job),
        Codec(ops.decode_abort_job_response, ops.encode_abort_job_response),
    ),
    **_both(
        _OPERATIONS + "PauseJob",
        Codec(steering.decode_pause_job, steering.encode_pause_job),
        Codec(steering.decode_pause_job_response, steering.encode_pause_job_response),
    ),
    **_both(
        _OPERATIONS + "ResumeJob",
        Codec(steering.decode_resume_job, steering.encode_resume_job),
        Codec(steering.decode_resume_job_response, steering.encode_resume_job_response),
    ),
    **_both(
        _OPERATIONS + "ControlJob",
        Codec(steering.decode_control_job, steering.encode_control_job),
        Codec(steering.decode_control_job_response, steering.encode_control_job_response),
    ),
    **_both(
        PUT,
        Codec(ops.decode_put_model_frame, _encode_put_frame),
        Codec(ops.decode_put_model_response, lambda stored: ops.encode_put_model_response(stored=stored)),
    ),
    **_both(
        _OPERATIONS + "ListModels",
        Codec(ops.decode_list_models, lambda _: ops.encode_list_models()),
        Codec(ops.decode_list_models_response, ops.encode_list_models_response),
    ),
    **_both(
        _OPERATIONS + "PromoteModel",
        Codec(ops.decode_promote_model, ops.encode_promote_model),
        Codec(ops.decode_promote_model_response, lambda changed: ops.encode_promote_model_response(changed=changed)),
    ),
    **_both(
        EXPORT,
        Codec(ops.decode_export_model, ops.encode_export_model),
        Codec(ops.decode_export_frame, transfer.encode_data),
    ),
    **_both(
        _OPERATIONS + "ReadAudit",
        Codec(ops.decode_read_audit, ops.encode_read_audit),
        Codec(ops.decode_read_audit_response, _encode_audit),
    ),
}


def decode(method: str, frame: bytes, *, from_coordinator: bool) -> Any:
    return CODECS[method, from_coordinator].decode(frame)


def meaning(value: Any) -> dict[str, Any]:
    """A frame's value as JSON, with what the signed words in it say."""
    signed = [rendered(reopen(kind, envelope).value) for kind, envelope in signed_words(value)]
    return {"said": rendered(value), **({"signed": signed} if signed else {})}


def rendered(value: Any) -> Any:
    """JSON of a value. What has its default is left out, and what is long is shortened to what tells it from others."""
    match value:
        case Enum():
            return value.value
        case Digest():
            return str(value)
        case bytes() | memoryview():
            data = bytes(value)
            return data.hex() if len(data) <= SHOWN_BYTES_MAX else f"{len(data)} bytes, {str(Digest.of(data))[:16]}"
        case tuple():
            return [rendered(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            fields = {
                field.name: rendered(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if not _has_default(field, getattr(value, field.name))
            }
            return {"is": _name_of(value), **fields}


def _name_of(value: Any) -> str:
    kind = f" of {value.kind.__name__}" if isinstance(value, ShutEnvelope) else ""
    return type(value).__name__ + kind


def _has_default(field: dataclasses.Field[Any], value: Any) -> bool:
    """Also of the kind of a shut envelope, which stands in its name."""
    return isinstance(value, type) or (field.default is not dataclasses.MISSING and value == field.default)


def signed_words(value: Any) -> Iterator[tuple[type, Envelope]]:
    """Every envelope in a frame's value, with what is in it."""
    match value:
        case ShutEnvelope(kind, envelope):
            yield kind, envelope
            if kind is RoundPlan and (previous := decode_round_plan(envelope.payload).previous_result):
                yield RoundResult, decode_envelope(previous)
        case AttemptAnswer(kind=kind, envelope=envelope):
            yield ANSWERS[kind], envelope
        case KeyRoster(adverts=envelopes):
            yield from ((AdvertiseKeys, envelope) for envelope in envelopes)
        case ShareDelivery(dealers=envelopes):
            yield from ((ShareKeys, envelope) for envelope in envelopes)
        case SurvivorList(commits=envelopes):
            yield from ((UploadCommit, envelope) for envelope in envelopes)
        case ConsistencyBundle(signatures=envelopes):
            yield from ((ConsistencySignature, envelope) for envelope in envelopes)
        case transfer.CommitRequest(commit=envelope):
            yield UploadCommit, envelope
        case Hello(heads=envelopes):
            yield from ((RoundResult, envelope) for envelope in envelopes)
        case _:
            pass  # nothing in it is signed; `envelopes_in` finds what was forgotten here


def envelopes_in(value: Any) -> int:
    """How many there are, whatever the value: to find those that `signed_words` forgot."""
    if isinstance(value, Envelope):
        return 1
    if isinstance(value, tuple):
        return sum(map(envelopes_in, value))
    if dataclasses.is_dataclass(value):
        return sum(envelopes_in(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0


def job_of(value: Any) -> JobId:
    """Whose members the signers in it are counted among."""
    match value:
        case AttemptAnswer(attempt=key):
            return key.round.job
        case KeyRoster(key=key) | ShareDelivery(key=key) | SurvivorList(key=key) | ConsistencyBundle(key=key):
            return key.round.job
        case transfer.CommitRequest(key=key):
            return key.round.job
        case _:
            raise AssertionError(f"who signs a {type(value).__name__}?")
