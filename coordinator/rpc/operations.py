"""The operations service: what operators and data scientists ask. Decode, one call inward, encode.

A watch is woken by the conductor's thread after each piece of work. It looks at the job again, at most every
`WATCH_LEAST_S` seconds, and says something only when what it would say is new.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import closing

from coordinator.checkpoints import accept_initial_model
from coordinator.conducting import ConductorThread
from coordinator.desk import Desk, SteeredView
from coordinator.retention import pruned
from coordinator.rpc.authorization import Call, TooMuch
from coordinator.rpc.bulk import Bulk, next_frame
from coordinator.rpc.server import Handlers, Incoming
from coordinator.rpc.transfer import Frames
from coordinator.storage.interface import Blobs, Staged, Store
from coordinator.telling import job_detail, job_status, model_status, record_status
from shared.errors import ConflictError, LateError, UnknownError, UnreachableError, WireError
from shared.ids import Digest
from shared.tensors import ModelIndex
from shared.wire.operations import (
    AUDIT_LINES_MAX_BYTES,
    PutModelFrame,
    PutModelOpen,
    decode_abort_job,
    decode_export_model,
    decode_get_job,
    decode_list_jobs,
    decode_list_models,
    decode_promote_model,
    decode_put_model_frame,
    decode_read_audit,
    decode_submit_job,
    decode_watch_job,
    encode_abort_job_response,
    encode_get_job_response,
    encode_list_jobs_response,
    encode_list_models_response,
    encode_promote_model_response,
    encode_put_model_response,
    encode_read_audit_response,
    encode_submit_job_response,
    encode_watch_job_response,
)
from shared.wire.steering import (
    Steered,
    decode_control_job,
    decode_pause_job,
    decode_resume_job,
    encode_control_job_response,
    encode_pause_job_response,
    encode_resume_job_response,
)

WATCH_LEAST_S = 0.2  # faster than people read, slower than messages come
STALLED_S = 120.0  # a model without a chunk for so long is given up
PUTS_MAX = 2  # at once: each is a staged file of its full size


class OperationsService:
    """Handles all methods of operators."""

    def __init__(
        self,
        *,
        desk: Desk,
        thread: ConductorThread,
        store: Store,
        blobs: Blobs,
        frames: Frames,
        threads: Executor,
    ) -> None:
        """`store` is only read, and on the conductor's thread."""
        self._desk = desk
        self._thread = thread
        self._store = store
        self._blobs = blobs
        self._frames = frames
        self._bulk = Bulk(threads)
        self._watches: set[asyncio.Event] = set()
        self._draining = False
        self._free_slots = [f"put-{slot}" for slot in range(PUTS_MAX)]
        self._loop = asyncio.get_running_loop()
        thread.listen(self._changed)

    @property
    def handlers(self) -> Handlers:
        return {
            "SubmitJob": self.submit_job,
            "ListJobs": self.list_jobs,
            "GetJob": self.get_job,
            "WatchJob": self.watch_job,
            "AbortJob": self.abort_job,
            "PauseJob": self.pause_job,
            "ResumeJob": self.resume_job,
            "ControlJob": self.control_job,
            "PutModel": self.put_model,
            "ListModels": self.list_models,
            "PromoteModel": self.promote_model,
            "ExportModel": self.export_model,
            "ReadAudit": self.read_audit,
        }

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def submit_job(self, call: Call, request: bytes) -> bytes:
        wanted = decode_submit_job(request)
        view = await self._thread.call(self._desk.submit_job, wanted.job, wanted.spec, call.identity)
        return encode_submit_job_response(job_status(view))

    async def list_jobs(self, _call: Call, request: bytes) -> bytes:
        decode_list_jobs(request)
        jobs = await self._thread.call(self._desk.jobs)
        return encode_list_jobs_response([record_status(record, record.reason or why) for record, why in jobs])

    async def get_job(self, _call: Call, request: bytes) -> bytes:
        view = await self._thread.call(self._desk.job_view, decode_get_job(request))
        return encode_get_job_response(job_detail(view, already_said=0))

    async def watch_job(self, call: Call, request: bytes) -> AsyncIterator[bytes]:
        job = decode_watch_job(request)
        woken = asyncio.Event()
        self._watches.add(woken)
        said, rounds_said = b"", 0
        try:
            while True:
                woken.clear()
                view = await self._thread.call(self._desk.job_view, job)
                detail = job_detail(view, already_said=rounds_said)
                message = encode_watch_job_response(detail)
                if message != said:
                    yield message
                    rounds_said += len(detail.rounds)
                    said = encode_watch_job_response(job_detail(view, already_said=rounds_said))
                if view.record.state.over:
                    return
                await asyncio.sleep(WATCH_LEAST_S)
                await woken.wait()
                if self._draining:
                    raise UnreachableError("the coordinator is ending: watch again when it is back")
                call.recheck()
        finally:
            self._watches.discard(woken)

    async def abort_job(self, call: Call, request: bytes) -> bytes:
        wanted = decode_abort_job(request)
        view = await self._thread.call(self._desk.abort_job, wanted.job, wanted.reason, call.identity)
        return encode_abort_job_response(job_status(view))

    async def pause_job(self, call: Call, request: bytes) -> bytes:
        wanted = decode_pause_job(request)
        made = await self._thread.call(self._desk.pause_job, wanted.job, wanted.reason, call.identity)
        return encode_pause_job_response(_steered(made))

    async def resume_job(self, call: Call, request: bytes) -> bytes:
        made = await self._thread.call(self._desk.resume_job, decode_resume_job(request), call.identity)
        return encode_resume_job_response(_steered(made))

    async def control_job(self, call: Call, request: bytes) -> bytes:
        wanted = decode_control_job(request)
        made = await self._thread.call(self._desk.control_job, wanted.job, wanted.change, call.identity)
        return encode_control_job_response(_steered(made))

    # --- models -------------------------------------------------------------------------------------------------------

    async def put_model(self, call: Call, frames: Incoming) -> bytes:
        opening = await self._next_frame(frames)
        if not isinstance(opening, PutModelOpen):
            raise WireError("the first frame of a model says which one it is; this stream began otherwise")
        if await self._thread.call(self._desk.has_model, opening.model):
            return encode_put_model_response(stored=False)
        if not self._free_slots:
            raise TooMuch(f"{PUTS_MAX} models are being taken in already: try again when they are done")
        slot = self._free_slots.pop()
        try:
            staged = await self._thread.call(self._blobs.stage, slot)
            try:
                await self._take_model(call, opening, frames, staged)
                index = await self._bulk.run(_accepted, staged)
                await self._thread.call(self._desk.add_model, staged, opening.model, index, call.identity)
            finally:
                self._thread.post(staged.discard)  # nothing happens when it was published
        finally:
            self._free_slots.append(slot)
        return encode_put_model_response(stored=True)

    async def _take_model(self, call: Call, opening: PutModelOpen, frames: Incoming, staged: Staged) -> None:
        await self._bulk.run(staged.allocate, opening.model_bytes)
        sha256, offset = hashlib.sha256(), 0
        while (frame := await self._next_frame(frames)) is not None:
            call.recheck()
            if isinstance(frame, PutModelOpen):
                raise WireError("a model is opened once; after that its frames are chunks")
            if not frame:
                raise WireError("a chunk of a model has at least one byte, got an empty frame")
            if offset + len(frame) > opening.model_bytes:
                raise WireError(f"the model has {opening.model_bytes} bytes, but more were sent")
            await self._bulk.run(_write, staged, offset, frame, sha256)
            offset += len(frame)
        if offset != opening.model_bytes:
            raise WireError(f"the model has {opening.model_bytes} bytes, but {offset} were sent")
        digest = Digest(sha256.digest())
        if digest != opening.model:
            raise ConflictError(f"the model's SHA-256 is {digest}, but {opening.model} was announced")

    async def list_models(self, _call: Call, request: bytes) -> bytes:
        decode_list_models(request)
        models = await self._thread.call(self._store.models)
        return encode_list_models_response(map(model_status, models))

    async def promote_model(self, call: Call, request: bytes) -> bytes:
        wanted = decode_promote_model(request)
        changed = await self._thread.call(
            self._desk.promote_model, wanted.model, call.identity, promoted=wanted.promoted
        )
        return encode_promote_model_response(changed=changed)

    async def export_model(self, call: Call, request: bytes) -> AsyncIterator[bytes]:
        wanted = decode_export_model(request)
        record = await self._thread.call(self._store.model, wanted.model)  # a file that no record names is no model
        if record.pruned:
            raise UnknownError(f"{pruned(wanted.model)}: `consilo model list` shows which versions are kept")
        size = await self._frames.size_of(wanted.model)
        async for frame in self._frames.read(wanted.model, size, wanted.offset):
            call.recheck()
            yield frame

    # --- audit --------------------------------------------------------------------------------------------------------

    async def read_audit(self, call: Call, request: bytes) -> AsyncIterator[bytes]:
        start = decode_read_audit(request)
        while page := await self._thread.call(self._store.audit_entries, start):
            call.recheck()
            lines: list[bytes] = []
            room = AUDIT_LINES_MAX_BYTES
            for entry in page:
                if lines and room < len(entry.line) + 1:
                    break
                lines.append(entry.line)
                room -= len(entry.line) + 1
            yield encode_read_audit_response(lines)
            start += len(lines)

    # --- parts --------------------------------------------------------------------------------------------------------

    async def _next_frame(self, frames: Incoming) -> PutModelFrame | None:
        frame = await next_frame(frames, stalled_s=STALLED_S, error=LateError, advice="send the model again")
        return None if frame is None else decode_put_model_frame(frame)

    def _changed(self) -> None:
        """On the conductor's thread."""
        if self._watches:
            self._loop.call_soon_threadsafe(self._wake)

    def drain(self) -> None:
        """Let every watch end. One that is cut in the middle leaves a traceback of gRPC's in the log."""
        self._draining = True
        self._wake()

    def _wake(self) -> None:
        for woken in self._watches:
            woken.set()


def _write(staged: Staged, offset: int, data: memoryview, sha256: hashlib._Hash) -> None:
    sha256.update(data)
    staged.write_at(offset, data)


def _steered(made: SteeredView) -> Steered:
    return Steered(job_status(made.view), made.changed)


def _accepted(staged: Staged) -> ModelIndex:
    """Read the whole model once, off the conductor's thread. Raises ModelError."""
    with closing(staged.reader()) as reader:
        return accept_initial_model(reader)
