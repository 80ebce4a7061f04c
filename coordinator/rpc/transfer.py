"""The transfer service: models down, updates up, in chunks that no handler holds longer than it must.

Theory of operation. The conductor says whether (`may_fetch`, `may_upload`); bytes then go between the wire and the disk
on transfer threads, so that neither the event loop nor the conductor waits for a disk. A chunk of a model is read and
framed once for all participants that fetch it at about the same time (`Frames`); one chunk is read ahead. A chunk of an
update is a view of the received frame and goes straight into its spool. What bounds memory: the window of each stream
(server), `Frames`, and the number of transfers that one participant may have open.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Protocol

import structlog

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.intake import Intake, UploadId
from coordinator.jobs import UploadGrant
from coordinator.rpc.authorization import Call, TooMuch
from coordinator.rpc.bulk import Bulk, next_frame
from coordinator.rpc.server import Handlers, Incoming
from coordinator.storage.interface import Blobs
from shared.errors import ConflictError, UnreachableError, WireError
from shared.ids import Digest, ParticipantId
from shared.protocol.messages import Envelope
from shared.update import CHUNK_BYTES
from shared.wire.sealed import decode_upload_commit
from shared.wire.transfer import (
    UploadFrame,
    UploadOpen,
    UploadStatus,
    decode_commit_request,
    decode_fetch_model,
    decode_upload_frame,
    decode_upload_status_request,
    encode_commit_response,
    encode_data,
    encode_upload_response,
    encode_upload_status,
)

TRANSFERS_MAX = (
    4  # open at once for one participant: a broken one that it has not noticed yet, and its successor, twice
)
FRAMES_KEPT = 16  # 16 MiB: participants that are further apart than this read the disk for themselves
STALLED_S = 120.0  # an upload without a chunk for so long is given up; it goes on from what is durable

_log = structlog.get_logger(__name__)


class TransferCounter(Protocol):
    """Counts bulk bytes."""

    def received(self, kind: str, count: int) -> None: ...

    def sent(self, kind: str, count: int) -> None: ...


class Frames:
    """Models as frames: each is read once, kept for a little while, and shared."""

    def __init__(self, *, blobs: Blobs, threads: Executor) -> None:
        self._blobs = blobs
        self._threads = threads
        self._kept: OrderedDict[tuple[Digest, int], asyncio.Future[bytes]] = OrderedDict()

    async def size_of(self, model: Digest) -> int:
        """Raises UnknownError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._size_of, model)

    async def read(self, model: Digest, size: int, offset: int) -> AsyncIterator[bytes]:
        """The frames from `offset` to the end, one read ahead of the one that is being sent."""
        if offset > size:
            raise ConflictError(f"model {model} has {size} bytes: it cannot be read from byte {offset}")
        starts = range(offset, size, CHUNK_BYTES)
        ahead = self._start(model, size, offset) if starts else None
        for start in starts:
            assert ahead is not None  # noqa: S101 - there is a chunk, so it was started
            current = ahead
            following = start + CHUNK_BYTES
            if following < size:
                ahead = self._start(model, size, following)
            # Shielded: the read belongs to everybody who waits for it, and one of them may leave.
            yield await asyncio.shield(current)

    def _start(self, model: Digest, size: int, offset: int) -> asyncio.Future[bytes]:
        key = (model, offset)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        loop = asyncio.get_running_loop()
        length = min(CHUNK_BYTES, size - offset)
        future = loop.run_in_executor(self._threads, self._frame, model, offset, length)
        self._kept[key] = future
        future.add_done_callback(lambda done: self._forget_failed(key, done))
        while len(self._kept) > FRAMES_KEPT:
            self._kept.popitem(last=False)
        return future

    def _forget_failed(self, key: tuple[Digest, int], done: asyncio.Future[bytes]) -> None:
        if (done.cancelled() or done.exception() is not None) and self._kept.get(key) is done:
            del self._kept[key]

    def _size_of(self, model: Digest) -> int:
        reader = self._blobs.model(model)
        size = reader.size
        reader.close()
        return size

    def _frame(self, model: Digest, offset: int, length: int) -> bytes:
        """The file is opened for each chunk (20 microseconds in a millisecond): no handle outlives a broken call."""
        reader = self._blobs.model(model)
        try:
            return encode_data(reader.read_at(offset, length))
        finally:
            reader.close()


class TransferService:
    """Handles FetchModel, UploadUpdate, UploadStatus and UploadCommit."""

    def __init__(
        self,
        *,
        conductor: Conductor,
        thread: ConductorThread,
        intake: Intake,
        frames: Frames,
        threads: Executor,
        counter: TransferCounter,
        stalled_s: float = STALLED_S,
    ) -> None:
        self._conductor = conductor
        self._thread = thread
        self._intake = intake
        self._frames = frames
        self._bulk = Bulk(threads)
        self._counter = counter
        self._stalled_s = stalled_s
        self._open: Counter[ParticipantId] = Counter()
        self._committing: set[UploadId] = set()

    @property
    def handlers(self) -> Handlers:
        return {
            "FetchModel": self.fetch_model,
            "UploadUpdate": self.upload_update,
            "UploadStatus": self.upload_status,
            "UploadCommit": self.upload_commit,
        }

    async def fetch_model(self, call: Call, request: bytes) -> AsyncIterator[bytes]:
        wanted = decode_fetch_model(request)
        with self._one_of_few(call.participant):
            await self._thread.call(self._conductor.may_fetch, call.participant, wanted.model)
            size = await self._frames.size_of(wanted.model)
            async for frame in self._frames.read(wanted.model, size, wanted.offset):
                call.recheck()
                yield frame
                self._counter.sent("model", len(frame))

    async def upload_update(self, call: Call, frames: Incoming) -> bytes:
        with self._one_of_few(call.participant):
            opening = await self._next(frames)
            if not isinstance(opening, UploadOpen):
                raise WireError("the first frame of an upload says which update it is; this stream began otherwise")
            grant = await self._thread.call(self._conductor.may_upload, call.participant, opening.key)
            receiving = await self._bulk.run(self._intake.open, grant.upload, grant.layout, opening.offset)
            while (frame := await self._next(frames)) is not None:
                call.recheck()
                if isinstance(frame, UploadOpen):
                    raise WireError("an upload is opened once; after that its frames are chunks")
                await self._bulk.run(receiving.append, frame)
                self._counter.received("update", len(frame))
            # Durable before it is answered: a commit that follows must find all of it, also after a restart in between.
            return encode_upload_response(await self._bulk.run(receiving.sync))

    async def upload_status(self, call: Call, request: bytes) -> bytes:
        key = decode_upload_status_request(request)
        grant = await self._thread.call(self._conductor.may_upload, call.participant, key)
        if grant.committed:
            return encode_upload_status(UploadStatus(grant.layout.total_bytes, committed=True))
        durable = await self._bulk.run(self._intake.durable_bytes, grant.upload, grant.layout)
        return encode_upload_status(UploadStatus(durable, committed=False))

    async def upload_commit(self, call: Call, request: bytes) -> bytes:
        wanted = decode_commit_request(request)
        grant = await self._thread.call(self._conductor.may_upload, call.participant, wanted.key)
        with self._alone(grant.upload):
            update = await self._prove(grant, wanted.commit)
            acknowledged = await self._thread.call(
                self._conductor.offer_upload, call.participant, wanted.key, wanted.commit, update
            )
            await self._bulk.run(self._intake.rest, grant.upload)  # one open file for each update would use them up
        return encode_commit_response(acknowledged)

    async def _prove(self, grant: UploadGrant, commit: Envelope) -> Digest:
        """The digest of what is on disk. Raises UnreachableError for what has to be sent again."""
        # Read before its signature is checked, because the header's bytes are part of the digest; the conductor opens
        # the envelope with the participant's key before anything counts.
        said = decode_upload_commit(commit.payload)
        update = await self._bulk.run(self._intake.prove, grant.upload, grant.layout, said.header)
        if (
            update != said.update
            and not grant.committed
            and await self._bulk.run(self._intake.start_over, grant.upload, grant.layout)
        ):
            _log.warning("update_damaged", attempt=str(grant.upload.key), then="it is sent again from the beginning")
            raise UnreachableError("what a former process kept of this update is damaged: send it again")
        return update

    async def _next(self, frames: Incoming) -> UploadFrame | None:
        # Not LateError, which is final: what came is kept, and the same update may go on.
        frame = await next_frame(
            frames, stalled_s=self._stalled_s, error=UnreachableError, advice="ask the upload's status and go on"
        )
        return None if frame is None else decode_upload_frame(frame)

    @contextmanager
    def _one_of_few(self, participant: ParticipantId) -> Iterator[None]:
        if self._open[participant] >= TRANSFERS_MAX:
            raise TooMuch(f"{TRANSFERS_MAX} transfers are open already: end one of them first")
        self._open[participant] += 1
        try:
            yield
        finally:
            self._open[participant] -= 1

    @contextmanager
    def _alone(self, upload: UploadId) -> Iterator[None]:
        """One commitment to an upload at a time: what one of them proved, another must not take away."""
        if upload in self._committing:
            raise UnreachableError("another commitment to this update is being looked at: try again")
        self._committing.add(upload)
        try:
            yield
        finally:
            self._committing.discard(upload)
