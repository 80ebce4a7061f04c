"""What an operator can ask of a running coordinator, in values.

`Operations` is the client of the OperationsService: it encodes, asks, decodes and puts together what comes in pieces.
Files are read and written a chunk at a time, whatever the size of the model; a model that arrives is seen under its
name only when all of it is on disk and has the digest that was asked for.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol

from shared.control import ControlChange
from shared.errors import ConfigError, UnknownError, WireError
from shared.ids import Digest, JobId, RoundNumber
from shared.update import CHUNK_BYTES
from shared.wire import operations as wire
from shared.wire import steering
from shared.wire.operations import JobDetail, JobStatus, ModelStatus, RoundStatus
from shared.wire.steering import Steered
from shared.wire.transfer import encode_data

ABBREVIATION_MIN_CHARS = 4

Progress = Callable[[int], None]
"""Told how many more bytes are done."""


class Calls(Protocol):
    """How requests travel; `coordinator.client.rpc.OperationsChannel` is one."""

    def ask(self, method: str, request: bytes) -> bytes: ...

    def follow(self, method: str, request: bytes) -> Generator[bytes, None, None]: ...

    def send(self, method: str, frames: Iterator[bytes]) -> bytes: ...


def _silently(_count: int) -> None:
    pass


class Operations:
    """A coordinator, as its operators see it. Every verb may raise a leaf of FederationError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def submit_job(self, job: JobId, spec: bytes) -> JobStatus:
        """Queue a job. Safe to repeat with the same id and bytes."""
        request = wire.encode_submit_job(wire.SubmitJob(job, spec))
        return wire.decode_submit_job_response(self._calls.ask("SubmitJob", request))

    def jobs(self) -> Sequence[JobStatus]:
        """All jobs, in the order of submission."""
        return wire.decode_list_jobs_response(self._calls.ask("ListJobs", wire.encode_list_jobs()))

    def job(self, job: JobId) -> JobDetail:
        return wire.decode_get_job_response(self._calls.ask("GetJob", wire.encode_get_job(job)))

    def watch_job(self, job: JobId) -> Generator[JobDetail, None, None]:
        """The job as it is, then again after each change, until it ends; each time with all of its finished rounds."""
        rounds: dict[RoundNumber, RoundStatus] = {}
        with closing(self._calls.follow("WatchJob", wire.encode_watch_job(job))) as answers:
            for answer in answers:
                detail = wire.decode_watch_job_response(answer)
                rounds |= {finished.key.number: finished for finished in detail.rounds}
                yield replace(detail, rounds=tuple(rounds[number] for number in sorted(rounds)))

    def abort_job(self, job: JobId, reason: str) -> JobStatus:
        request = wire.encode_abort_job(wire.AbortJob(job, reason))
        return wire.decode_abort_job_response(self._calls.ask("AbortJob", request))

    def pause_job(self, job: JobId, reason: str) -> Steered:
        """Have no further round planned; an open one goes to its end."""
        request = steering.encode_pause_job(steering.PauseJob(job, reason))
        return steering.decode_pause_job_response(self._calls.ask("PauseJob", request))

    def resume_job(self, job: JobId) -> Steered:
        request = steering.encode_resume_job(job)
        return steering.decode_resume_job_response(self._calls.ask("ResumeJob", request))

    def control_job(self, job: JobId, change: ControlChange) -> Steered:
        """Have other rules for the rounds that are planned from now on."""
        request = steering.encode_control_job(steering.ControlJob(job, change))
        return steering.decode_control_job_response(self._calls.ask("ControlJob", request))

    # --- models -------------------------------------------------------------------------------------------------------

    def put_model(self, file: BinaryIO, model: wire.PutModelOpen, *, progress: Progress = _silently) -> bool:
        """Send an initial model; whether it was new to the coordinator."""
        trouble: list[OSError] = []

        def frames() -> Iterator[bytes]:
            yield wire.encode_put_model_open(model)
            try:
                while chunk := file.read(CHUNK_BYTES):
                    yield encode_data(chunk)
                    progress(len(chunk))
            except OSError as error:  # gRPC would swallow it
                trouble.append(error)

        answer = self._calls.send("PutModel", frames())
        if trouble:
            raise ConfigError(f"{file.name} cannot be read ({trouble[0].strerror})")
        return wire.decode_put_model_response(answer)

    def models(self) -> Sequence[ModelStatus]:
        """All versions, oldest first."""
        return wire.decode_list_models_response(self._calls.ask("ListModels", wire.encode_list_models()))

    def find_model(self, text: str) -> ModelStatus:
        """The version with this digest, which may be cut short as long as only one begins so. Raises UnknownError."""
        if len(text) < ABBREVIATION_MIN_CHARS or not set(text) <= set("0123456789abcdef"):
            raise UnknownError(
                f"expected a model's digest, or at least its first {ABBREVIATION_MIN_CHARS} digits, got {text[:80]!r}"
            )
        found = [model for model in self.models() if str(model.model).startswith(text)]
        if not found:
            raise UnknownError(f"the coordinator has no model {text}: `consilo model list` shows what it has")
        if len(found) > 1:
            raise UnknownError(f"{len(found)} models begin with {text}: give more digits")
        return found[0]

    def promote_model(self, model: Digest, *, promoted: bool) -> bool:
        """Keep a version whatever the retention says, or no more; whether that changed anything."""
        request = wire.encode_promote_model(wire.PromoteModel(model, promoted))
        return wire.decode_promote_model_response(self._calls.ask("PromoteModel", request))

    def export_model(self, model: Digest, out: Path, *, progress: Progress = _silently) -> int:
        """Write a version to `out`, in place of what was there; how many bytes it has."""
        request = wire.encode_export_model(wire.ExportModel(model, 0))
        running, size = hashlib.sha256(), 0
        with _replacing(out) as staged, closing(self._calls.follow("ExportModel", request)) as frames:
            for frame in frames:
                chunk = wire.decode_export_frame(frame)
                running.update(chunk)
                size += len(chunk)
                staged.write(chunk)
                progress(len(chunk))
            came = Digest(running.digest())
            if came != model:
                raise WireError(f"expected the bytes of model {model}, {size} bytes with digest {came} came")
        return size

    # --- audit --------------------------------------------------------------------------------------------------------

    def audit_lines(self, start: int = 0) -> Iterator[bytes]:
        """The log's lines with their line feeds, from entry `start` on."""
        for answer in self._calls.follow("ReadAudit", wire.encode_read_audit(start)):
            yield from io.BytesIO(wire.decode_read_audit_response(answer))


def digest_of(file: BinaryIO, *, progress: Progress = _silently) -> wire.PutModelOpen:
    """What `put_model` announces: digest and size of a file, which is left at its beginning."""
    running, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK_BYTES):
        running.update(chunk)
        size += len(chunk)
        progress(len(chunk))
    file.seek(0)
    return wire.PutModelOpen(Digest(running.digest()), size)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when all went well, and is gone when not. Raises ConfigError."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        staged = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fchmod(descriptor, 0o644)  # mkstemp's files are for their owner only
                os.fsync(descriptor)
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from None
