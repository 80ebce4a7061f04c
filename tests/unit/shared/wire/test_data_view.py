"""The short way to a chunk says what protobuf says, or leaves the frame to protobuf."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.pb.v1 import transfer_pb2 as pb
from shared.update import CHUNK_BYTES
from shared.wire.transfer import FRAME_MAX_BYTES, data_view, encode_data

# Frames near the one shape that is read without protobuf: the tag, a length in one to six bytes, and some bytes.
near_frames = st.builds(
    lambda tag, length, padding, body, rest: tag + _varint(length(len(body)), padding) + body + rest,
    st.sampled_from([b"\x0a", b"\x0a", b"\x0a", b"\x12", b"\x08", b"\x8a\x00", b""]),
    st.sampled_from([lambda n: n, lambda n: n, lambda n: n + 1, lambda n: max(0, n - 1), lambda n: n + (1 << 21)]),
    st.integers(0, 4),
    st.binary(max_size=200),
    st.sampled_from([b"", b"", b"\x0a\x01x", b"\x10\x01", b"\xff"]),
)


def _varint(value: int, padding: int) -> bytes:
    """A protobuf varint, with `padding` bytes more than it needs: protobuf reads these as well."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


@settings(max_examples=1000)
@given(frame=near_frames | st.binary(max_size=50))
@example(frame=b"")
@example(frame=b"\x0a")
@example(frame=b"\x0a\x00")
@example(frame=b"\x0a\x80\x00")
@example(frame=b"\x0a\xff\xff\xff\xff\x0f")
@example(frame=b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")
def test_a_view_is_what_protobuf_reads(frame: bytes) -> None:
    view = data_view(frame)
    if view is None:
        return
    for message in (pb.FetchModelResponse(), pb.UploadUpdateRequest()):
        message.ParseFromString(frame)
        assert message.HasField("data")
        assert message.data == bytes(view)


@settings(max_examples=1000)
@given(frame=near_frames)
def test_a_frame_of_one_chunk_as_protobuf_writes_it_is_never_left_to_protobuf(frame: bytes) -> None:
    message = pb.FetchModelResponse()
    try:
        message.ParseFromString(frame)
    except DecodeError:
        return
    if message.SerializeToString() == frame and message.HasField("data"):
        # What protobuf writes again to the same bytes is the shape itself, unless unknown fields follow.
        alone = pb.FetchModelResponse(data=message.data).SerializeToString()
        assert (data_view(frame) is not None) == (alone == frame)


@given(chunk=st.binary(max_size=300))
@example(chunk=b"")
@example(chunk=bytes(127))
@example(chunk=bytes(128))
@example(chunk=bytes(16383))
@example(chunk=bytes(16384))
@example(chunk=bytes(CHUNK_BYTES))
def test_a_chunk_is_written_as_protobuf_writes_it(chunk: bytes) -> None:
    frame = encode_data(memoryview(chunk))
    assert frame == pb.UploadUpdateRequest(data=chunk).SerializeToString()
    view = data_view(frame)
    assert view is not None
    assert bytes(view) == chunk


def test_a_frame_that_is_too_long_is_not_read_the_short_way() -> None:
    assert data_view(encode_data(bytes(FRAME_MAX_BYTES))) is None
