"""Bulk frames: bytes that are written once and read without protobuf where that is safe (PROTOCOL.md section 6).

Measured on two cores, serialising each chunk once and taking a view of the received field is what makes gRPC from
Python as fast as a TLS socket. Both directions share the frame `data = 1`; a frame is *exactly* the tag 0x0a, a varint
length and that many bytes, or it goes through protobuf and its errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from shared.errors import WireError
from shared.ids import AttemptKey, Digest
from shared.pb.v1 import transfer_pb2 as pb
from shared.protocol.messages import Envelope
from shared.update import CHUNK_BYTES
from shared.wire.fields import attempt_key, digest, need, parse, pb_key
from shared.wire.sealed import envelope_of, pb_envelope

FRAME_MAX_BYTES = CHUNK_BYTES + 16
_DATA_TAG = 0x0A  # field 1, length-delimited: the same in FetchModelResponse and UploadUpdateRequest
_VARINT_MAX_BYTES = 4  # CHUNK_BYTES needs 3


def encode_data(data: bytes | memoryview) -> bytes:
    """A frame with one chunk: one copy."""
    length = len(data)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"".join((bytes((_DATA_TAG,)), varint, data))


def data_view(frame: bytes) -> memoryview | None:
    """The chunk inside a frame, without a copy; None when the frame is not exactly one data field."""
    if len(frame) < 2 or frame[0] != _DATA_TAG or len(frame) > FRAME_MAX_BYTES:
        return None
    length = 0
    for position in range(1, min(len(frame), 1 + _VARINT_MAX_BYTES)):
        byte = frame[position]
        length |= (byte & 0x7F) << (7 * (position - 1))
        if byte < 0x80:
            start = position + 1
            return memoryview(frame)[start:] if length == len(frame) - start else None
    return None


@dataclass(frozen=True, slots=True)
class UploadOpen:
    """The first frame of an upload: which update, and from which byte on."""

    key: AttemptKey
    offset: int


UploadFrame: TypeAlias = UploadOpen | memoryview


def encode_upload_open(value: UploadOpen) -> bytes:
    opening = pb.UploadOpen(key=pb_key(value.key.round), attempt=value.key.attempt, offset=value.offset)
    return pb.UploadUpdateRequest(open=opening).SerializeToString()


def decode_upload_frame(frame: bytes) -> UploadFrame:
    """A chunk or an opening. Raises WireError."""
    view = data_view(frame)
    if view is not None:
        return view
    if len(frame) > FRAME_MAX_BYTES:
        raise WireError(f"a frame has at most {FRAME_MAX_BYTES} bytes, got {len(frame)}")
    message = parse(pb.UploadUpdateRequest, frame)
    match message.WhichOneof("frame"):
        case "data":
            return memoryview(message.data)
        case "open":
            need(message.open, "offset")
            return UploadOpen(attempt_key(message.open), message.open.offset)
        case _:
            raise WireError("an upload frame is a chunk or an opening; this is neither")


def decode_fetch_frame(frame: bytes) -> memoryview:
    """A chunk of a model. Raises WireError."""
    view = data_view(frame)
    if view is not None:
        return view
    if len(frame) > FRAME_MAX_BYTES:
        raise WireError(f"a frame has at most {FRAME_MAX_BYTES} bytes, got {len(frame)}")
    message = parse(pb.FetchModelResponse, frame)
    need(message, "data")
    return memoryview(message.data)


@dataclass(frozen=True, slots=True)
class FetchModel:
    """Which model, and from which byte on."""

    model: Digest
    offset: int


def encode_fetch_model(value: FetchModel) -> bytes:
    return pb.FetchModelRequest(model_digest=value.model.raw, offset=value.offset).SerializeToString()


def decode_fetch_model(data: bytes) -> FetchModel:
    message = parse(pb.FetchModelRequest, data)
    need(message, "offset")
    return FetchModel(digest(message, "model_digest"), message.offset)


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """How much of an update is durable at the coordinator, and whether it is committed."""

    durable_bytes: int
    committed: bool


def encode_upload_status_request(key: AttemptKey) -> bytes:
    return pb.UploadStatusRequest(key=pb_key(key.round), attempt=key.attempt).SerializeToString()


def decode_upload_status_request(data: bytes) -> AttemptKey:
    return attempt_key(parse(pb.UploadStatusRequest, data))


def encode_upload_status(value: UploadStatus) -> bytes:
    return pb.UploadStatusResponse(durable_bytes=value.durable_bytes, committed=value.committed).SerializeToString()


def decode_upload_status(data: bytes) -> UploadStatus:
    message = parse(pb.UploadStatusResponse, data)
    need(message, "durable_bytes", "committed")
    return UploadStatus(message.durable_bytes, message.committed)


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """A sealed UploadCommit on its way."""

    key: AttemptKey
    commit: Envelope


def encode_commit_request(value: CommitRequest) -> bytes:
    return pb.UploadCommitRequest(
        key=pb_key(value.key.round), attempt=value.key.attempt, commit=pb_envelope(value.commit)
    ).SerializeToString()


def decode_commit_request(data: bytes) -> CommitRequest:
    message = parse(pb.UploadCommitRequest, data)
    need(message, "commit")
    return CommitRequest(attempt_key(message), envelope_of(message.commit))


def encode_commit_response(update: Digest) -> bytes:
    return pb.UploadCommitResponse(update_digest=update.raw).SerializeToString()


def decode_commit_response(data: bytes) -> Digest:
    return digest(parse(pb.UploadCommitResponse, data), "update_digest")


def encode_upload_response(received_bytes: int) -> bytes:
    return pb.UploadUpdateResponse(received_bytes=received_bytes).SerializeToString()
