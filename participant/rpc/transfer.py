"""Bulk data of this participant: models down, updates up, both going on where they stopped.

One channel of its own, so that data never delays the session. Every call ends in a value or in a leaf of our error
tree: UnreachableError means try again later, anything else is about this transfer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio

from participant.protect import Chunk, UpdateChunks
from participant.rpc.channel import dial, error_of
from participant.rpc.counting import CONTROL, MODEL, UNCOUNTED, UPDATE, ByteCounter
from shared.errors import ConflictError, ModelError, StorageError, UnreachableError
from shared.ids import AttemptKey, Digest
from shared.protocol.messages import Envelope
from shared.tensors import FileReader, file_digest
from shared.tls import TlsPaths
from shared.update import UpdateLayout, update_digest
from shared.wire.transfer import (
    CommitRequest,
    FetchModel,
    UploadOpen,
    UploadStatus,
    decode_commit_response,
    decode_fetch_frame,
    decode_upload_status,
    encode_commit_request,
    encode_data,
    encode_fetch_model,
    encode_upload_open,
    encode_upload_status_request,
)

_SERVICE = "/consilo.v1.TransferService/"
_BROKEN = {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}
CONTROL_TIMEOUT_S = 30.0  # for the small calls; the coordinator syncs a disk before it answers

MakeCommit = Callable[[Digest], Envelope]
"""Signs a commitment to an update of this digest."""


class Transfers:
    """The calls of the transfer service."""

    def __init__(self, *, channel: grpc.aio.Channel, address: str, counter: ByteCounter = UNCOUNTED) -> None:
        self._address = address
        self._counter = counter
        self._fetch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_SERVICE + "FetchModel")
        self._upload: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_SERVICE + "UploadUpdate")
        self._status: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_SERVICE + "UploadStatus")
        self._commit: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_SERVICE + "UploadCommit")

    async def fetch_model(self, model: Digest, size: int, partial: Path) -> None:
        """Bring the whole model into `partial`, verified. What came before a failure is kept and not sent again.

        Raises UnreachableError, UnknownError, StorageError, or ModelError when the bytes that came in this call are not
        the announced model; when some were kept from before it, all of them are dropped: UnreachableError.
        """
        held = await asyncio.to_thread(_size_of, partial)
        if held < size:
            await self._append(model, held, size, partial)
        digest, total = await asyncio.to_thread(_digest_of, partial)
        if digest != model or total != size:
            await asyncio.to_thread(_remove, partial)
            if held:  # what a loss of power does to bytes that were never synced is not the coordinator's doing
                raise UnreachableError(f"what was kept of model {model} is damaged: it is fetched again")
            raise ModelError(f"the coordinator sent another model than the announced {model}: got {digest}")

    async def _append(self, model: Digest, held: int, size: int, partial: Path) -> None:
        try:
            with await asyncio.to_thread(partial.open, "ab") as file:
                request = encode_fetch_model(FetchModel(model, held))
                self._counter.sent(CONTROL, len(request))
                async for frame in self._fetch(request):
                    self._counter.received(MODEL, len(frame))
                    chunk = decode_fetch_frame(frame)
                    held += len(chunk)
                    if held > size:
                        raise ModelError(f"the coordinator sent more than the {size} bytes of model {model}")
                    await asyncio.to_thread(file.write, chunk)
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, address=self._address) from None
        except OSError as error:
            raise StorageError(f"{partial} cannot be written: {error.strerror}") from error

    async def upload(
        self, *, key: AttemptKey, chunks: UpdateChunks, layout: UpdateLayout, header: bytes, commit: MakeCommit
    ) -> Envelope:
        """Send what the coordinator does not have yet, then commit. Returns the commitment when the update is durable
        there.
        """
        try:
            status = await self._ask_status(key)
            if status.committed:
                digests = await asyncio.to_thread(_all_digests, chunks)
            else:
                digests = await self._send(key, status.durable_bytes, chunks)
            if len(digests) != layout.chunks:
                raise StorageError(f"the spool has {len(digests)} chunks, the layout {layout.chunks}")
            update = update_digest(header, digests)
            envelope = commit(update)
            if status.committed:
                return envelope
            request = encode_commit_request(CommitRequest(key, envelope))
            answer = decode_commit_response(await self._ask(self._commit, request))
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, address=self._address) from None
        if answer != update:
            raise ConflictError(f"the coordinator acknowledged update {answer}, this one is {update}")
        return envelope

    async def _ask_status(self, key: AttemptKey) -> UploadStatus:
        request = encode_upload_status_request(key)
        return decode_upload_status(await self._ask(self._status, request))

    async def _ask(self, call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], request: bytes) -> bytes:
        self._counter.sent(CONTROL, len(request))
        answer: bytes = await call(request, timeout=CONTROL_TIMEOUT_S)
        self._counter.received(CONTROL, len(answer))
        return answer

    async def _send(self, key: AttemptKey, offset: int, chunks: UpdateChunks) -> list[Digest]:
        """One pass over the update: every chunk is made and hashed, those from `offset` on are sent."""
        frames = _Frames(chunks)
        position = 0
        while position < offset:
            length = await asyncio.to_thread(frames.skip)
            if length is None:
                raise ConflictError(f"the coordinator has {offset} bytes of an update that has {position}")
            position += length
        if position != offset:
            raise ConflictError(f"the coordinator stopped at byte {offset}, which is inside a chunk")
        failures: list[Exception] = []

        async def sending() -> AsyncIterator[bytes]:
            opening = encode_upload_open(UploadOpen(key, offset))
            self._counter.sent(UPDATE, len(opening))
            yield opening
            try:
                # One after the other: gRPC sends from a thread of its own meanwhile, and masking ahead of it as well
                # was measured to gain nothing.
                while (frame := await asyncio.to_thread(frames.next)) is not None:
                    self._counter.sent(UPDATE, len(frame))
                    yield frame
            except Exception as error:
                failures.append(error)
                raise

        try:
            self._counter.received(CONTROL, len(await self._upload(sending())))
        except asyncio.CancelledError:
            if failures:  # the call cancels itself when its frames end in an error, and says no more of it
                raise failures[0] from None
            raise
        return frames.digests


class _Frames:
    """One pass over an update. Each method works for as long as a chunk takes: it is for a thread."""

    def __init__(self, chunks: UpdateChunks) -> None:
        self._source = iter(chunks)
        self.digests: list[Digest] = []

    def skip(self) -> int | None:
        """The length of the next chunk, which is there already; None at the end."""
        chunk = self._take()
        return None if chunk is None else len(chunk.data)

    def next(self) -> bytes | None:
        """The frame of the next chunk; None at the end."""
        chunk = self._take()
        return None if chunk is None else encode_data(chunk.data)

    def _take(self) -> Chunk | None:
        chunk = next(self._source, None)
        if chunk is not None:
            self.digests.append(chunk.digest)
        return chunk


class BulkChannels:
    """One channel to each coordinator address, apart from the session's."""

    def __init__(self, *, tls: TlsPaths, counter: ByteCounter = UNCOUNTED) -> None:
        self._tls = tls
        self._counter = counter
        self._channels: dict[str, grpc.aio.Channel] = {}

    def transfers(self, address: str) -> Transfers:
        """The calls on a channel that works. One that failed is replaced, with the certificates as they are now."""
        channel = self._channels.get(address)
        if channel is None or channel.get_state() in _BROKEN:
            channel = dial(address, self._tls)
            self._channels[address] = channel
        return Transfers(channel=channel, address=address, counter=self._counter)

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


def _all_digests(chunks: UpdateChunks) -> list[Digest]:
    return [chunk.digest for chunk in chunks]


def _size_of(path: Path) -> int:
    """Raises StorageError."""
    try:
        return path.stat().st_size if path.exists() else 0
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def _remove(path: Path) -> None:
    """Raises StorageError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}") from error


def _digest_of(path: Path) -> tuple[Digest, int]:
    with FileReader(path) as reader:
        return file_digest(reader), reader.size
