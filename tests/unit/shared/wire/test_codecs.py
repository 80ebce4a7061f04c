"""What holds for every message: it comes back, any bytes are a value or a WireError, and what is required is missed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import WireError
from shared.identity import SigningKey
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.job import parse_jobspec
from shared.pb.v1 import operations_pb2, session_pb2, transfer_pb2
from shared.protocol.messages import SIGNER_COORDINATOR, Envelope, RoundAborted, Sealed, Welcome
from shared.reasons import AbortReason
from shared.secret import Secret
from shared.wire import operations, session
from shared.wire.sealed import open_sealed, peek_welcome, reopen, seal
from shared.wire.session import ShutEnvelope, decode_coordinator_message, encode_coordinator_message, open_broadcast
from tests.support.wire_values import CODECS, sealed_values

KEY = SigningKey.from_seed(Secret(bytes(range(32))))

# Fields that may be absent; all others with presence must be missed by name.
MAY_BE_ABSENT = {
    "LiveMember.percent",
    "GetJobResponse.live",
    "WatchJobResponse.live",
    "AdvertiseKeys.checkpoint",  # before the first verified result
    "RoundPlan.control", "Job.control", "JobControl.deadline_s", "JobControl.quorum",  # as submitted
    "ControlJobRequest.deadline_s", "ControlJobRequest.quorum",  # as they are
    "Job.pause",
}  # fmt: skip


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
def test_what_is_encoded_is_decoded(name: str, data: st.DataObject) -> None:
    value = data.draw(CODECS[name].values)
    assert CODECS[name].decode(CODECS[name].encode(value)) == value


DECODERS: dict[str, Callable[[bytes], Any]] = {
    **{name: codec.decode for name, codec in CODECS.items()},
    "job specification": parse_jobspec,
    "list jobs": operations.decode_list_jobs,
    "list models": operations.decode_list_models,
    "export chunk": operations.decode_export_frame,
    "audit lines": operations.decode_read_audit_response,
}


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=b"\x0a")
@example(data=b"\x0a\x80\x80\x80\x80\x00")
@example(data=b"\x0a" * 1000)
@example(data=b"[" * 5000)
def test_any_bytes_are_a_value_or_a_wire_error(name: str, data: bytes) -> None:
    with contextlib.suppress(WireError):
        DECODERS[name](data)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=50)
@given(data=st.data())
def test_damaged_bytes_are_a_value_or_a_wire_error(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    frame = bytearray(codec.encode(data.draw(codec.values)))
    for _ in range(data.draw(st.integers(0, 3))):
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.integers(0, len(frame)))
    with contextlib.suppress(WireError):
        codec.decode(bytes(frame[:end]))
    with contextlib.suppress(WireError):
        codec.decode(bytes(frame) + data.draw(st.binary(max_size=20)))


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=30)
@given(data=st.data())
def test_every_required_field_is_missed_by_name(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    whole = codec.message()
    whole.ParseFromString(codec.encode(data.draw(codec.values)))
    for path in paths_with_presence(whole):
        damaged = codec.message()
        damaged.CopyFrom(whole)
        parent = follow(damaged, path[:-1])
        full_name = f"{type(parent).__name__}.{path[-1]}"
        parent.ClearField(str(path[-1]))
        if full_name not in MAY_BE_ABSENT:
            complaint = "without|neither" if in_oneof(parent, str(path[-1])) else f"^{full_name} is missing$"
            with pytest.raises(WireError, match=complaint):
                codec.decode(damaged.SerializeToString())


Path = tuple[str | int, ...]


def paths_with_presence(message: Message, path: Path = ()) -> Iterator[Path]:
    """The fields that are set in a message and below, and whose absence can be seen: names, and positions in lists."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            yield from paths_with_presence(value, (*path, field.name))
        if field.has_presence:
            yield (*path, field.name)
        elif field.message_type is not None:
            for position, element in enumerate(value):
                yield from paths_with_presence(element, (*path, field.name, position))


def follow(message: Any, path: Path) -> Message:
    for step in path:
        message = message[step] if isinstance(step, int) else getattr(message, step)
    found: Message = message
    return found


def in_oneof(message: Message, name: str) -> bool:
    """Whether the .proto has a oneof there; `optional` makes one as well, whose name begins with an underscore."""
    oneof = message.DESCRIPTOR.fields_by_name[name].containing_oneof
    return oneof is not None and not oneof.name.startswith("_")


@given(value=sealed_values, index=st.integers(0, 1000))
def test_what_is_sealed_is_opened(value: Any, index: int) -> None:
    made = seal(value, signer=KEY, index=index)
    assert made.value == value
    assert open_sealed(type(value), made.envelope, verifier=KEY.verifying_key, index=index) == made
    assert reopen(type(value), made.envelope) == made
    if isinstance(value, Welcome):
        assert peek_welcome(made.envelope) == value


@given(value=sealed_values.filter(lambda value: type(value) in session._ENVELOPE_FIELDS))
def test_broadcasts_travel_shut(value: Any) -> None:
    made: Any = seal(value, signer=KEY, index=SIGNER_COORDINATOR)
    shut = decode_coordinator_message(encode_coordinator_message(made))
    assert shut == ShutEnvelope(type(value), made.envelope)
    assert isinstance(shut, ShutEnvelope)
    if not isinstance(value, Welcome):
        assert open_broadcast(shut, verifier=KEY.verifying_key) == made


def test_every_message_of_the_protocol_is_tested() -> None:
    """A message added to a .proto has to appear in CODECS, by itself or inside another."""
    declared = {
        name
        for file in (session_pb2, transfer_pb2, operations_pb2)
        for name, message in file.DESCRIPTOR.message_types_by_name.items()
        if message.fields
    }
    elsewhere = {
        "UploadUpdateResponse",  # read by nobody: the participant asks UploadStatus
        "ExportModelResponse", "ReadAuditResponse",  # test_operations_codecs.py
    }  # fmt: skip
    reached: set[str] = set()

    def reach(descriptor: Any) -> None:
        if descriptor.name not in reached:
            reached.add(descriptor.name)
            for field in descriptor.fields:
                if field.message_type is not None:
                    reach(field.message_type)

    for codec in CODECS.values():
        reach(codec.message.DESCRIPTOR)
    assert declared - reached - elsewhere == set()


def test_an_envelope_keeps_the_bytes_that_were_signed() -> None:
    """Protobuf has more than one encoding for a value; the signature is over the one that came."""
    codec = CODECS["round aborted"]
    written = codec.encode(
        RoundAborted(RoundKey(JobId("heart"), RoundNumber(1)), Digest(bytes(32)), AbortReason.OPERATOR)
    )
    payload = written[11:] + written[:11]  # the key, which stands first, last
    value = codec.decode(payload)
    assert codec.encode(value) == written != payload
    envelope = Envelope(payload, KEY.sign("round-aborted", payload), SIGNER_COORDINATOR)
    opened = open_sealed(type(value), envelope, verifier=KEY.verifying_key, index=SIGNER_COORDINATOR)
    assert opened == Sealed(value, envelope)
    assert opened.payload == payload
