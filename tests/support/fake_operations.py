"""An OperationsService over mutual TLS whose answers the test decides; it speaks the wire as the coordinator does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import grpc

from shared.control import Pause
from shared.errors import ConflictError, FederationError, UnknownError, WireError
from shared.ids import Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.job import JobSpec, MaskingSpec, RoundPolicy, canonical_json, parse_jobspec
from shared.protocol.phases import Phase
from shared.reasons import JobState, Purpose
from shared.tls import TlsPaths, server_credentials
from shared.update import CHUNK_BYTES
from shared.wire import operations as wire
from shared.wire import steering
from shared.wire.status import ERROR_METADATA_KEY, status_of
from shared.wire.transfer import encode_data

T = TypeVar("T")

MEMBERS = (ParticipantId("hospital-a"), ParticipantId("hospital-b"), ParticipantId("hospital-c"))
OPERATOR = "spiffe://hearts.example/operator/operator"
MASKED = MaskingSpec(max_colluding=1)


@dataclass
class FakeOperations:
    """What the coordinator knows; a test fills it in and looks at it afterwards."""

    jobs: dict[JobId, wire.JobDetail] = field(default_factory=dict)
    watched: dict[JobId, list[wire.JobDetail]] = field(default_factory=dict)
    """What a watch says, message by message."""
    files: dict[Digest, bytes] = field(default_factory=dict)
    models: list[wire.ModelStatus] = field(default_factory=list)
    audit: list[bytes] = field(default_factory=list)

    def submit_job(self, request: bytes) -> bytes:
        wanted = wire.decode_submit_job(request)
        known = self.jobs.get(wanted.job)
        if known is not None and known.job.spec != wanted.spec:
            raise ConflictError(f"job {wanted.job} exists with another specification: choose another id")
        self.jobs.setdefault(wanted.job, wire.JobDetail(job=status(wanted.job, spec=wanted.spec), rounds=(), live=None))
        return wire.encode_submit_job_response(self.jobs[wanted.job].job)

    def list_jobs(self, request: bytes) -> bytes:
        wire.decode_list_jobs(request)
        return wire.encode_list_jobs_response([detail.job for detail in self.jobs.values()])

    def get_job(self, request: bytes) -> bytes:
        return wire.encode_get_job_response(self._job(wire.decode_get_job(request)))

    def watch_job(self, request: bytes) -> Iterator[bytes]:
        job = wire.decode_watch_job(request)
        self._job(job)
        yield from map(wire.encode_watch_job_response, self.watched.get(job, []))

    def abort_job(self, request: bytes) -> bytes:
        wanted = wire.decode_abort_job(request)
        aborted = replace(self._job(wanted.job).job, state=JobState.ABORTED, reason=f"operator: {wanted.reason}")
        return wire.encode_abort_job_response(aborted)

    def pause_job(self, request: bytes) -> bytes:
        wanted = steering.decode_pause_job(request)
        pause = Pause(OPERATOR, "2026-01-02T04:00:00+00:00", wanted.reason)
        return steering.encode_pause_job_response(self._steer(wanted.job, state=JobState.PAUSED, pause=pause))

    def resume_job(self, request: bytes) -> bytes:
        job = steering.decode_resume_job(request)
        return steering.encode_resume_job_response(self._steer(job, state=JobState.QUEUED, pause=None))

    def control_job(self, request: bytes) -> bytes:
        wanted = steering.decode_control_job(request)
        job = self._job(wanted.job).job
        control = job.control.changed(wanted.change)
        if complaint := control.complaint(parse_jobspec(job.spec)):
            raise WireError(complaint)
        return steering.encode_control_job_response(self._steer(wanted.job, control=control))

    def _steer(self, job: JobId, **changes: Any) -> steering.Steered:
        before = self._job(job)
        after = replace(before, job=replace(before.job, **changes))
        self.jobs[job] = after
        return steering.Steered(after.job, after != before)

    def put_model(self, frames: Iterable[bytes]) -> bytes:
        opening, *chunks = map(wire.decode_put_model_frame, frames)
        assert isinstance(opening, wire.PutModelOpen)
        data = b"".join(chunk for chunk in chunks if isinstance(chunk, memoryview))
        assert (Digest.of(data), len(data)) == (opening.model, opening.model_bytes)
        fresh = opening.model not in self.files
        self.files[opening.model] = data
        return wire.encode_put_model_response(stored=fresh)

    def list_models(self, request: bytes) -> bytes:
        wire.decode_list_models(request)
        return wire.encode_list_models_response(self.models)

    def promote_model(self, request: bytes) -> bytes:
        wanted = wire.decode_promote_model(request)
        (place,) = [place for place, model in enumerate(self.models) if model.model == wanted.model]
        if self.models[place].pruned:
            raise ConflictError(f"model {wanted.model} was pruned: its file is no more here")
        changed = self.models[place].promoted is not wanted.promoted
        self.models[place] = replace(self.models[place], promoted=wanted.promoted)
        return wire.encode_promote_model_response(changed=changed)

    def export_model(self, request: bytes) -> Iterator[bytes]:
        wanted = wire.decode_export_model(request)
        data = self.files[wanted.model][wanted.offset :]
        for start in range(0, len(data), CHUNK_BYTES):
            yield encode_data(data[start : start + CHUNK_BYTES])

    def read_audit(self, request: bytes) -> Iterator[bytes]:
        for line in self.audit[wire.decode_read_audit(request) :]:
            yield wire.encode_read_audit_response([line])

    def _job(self, job: JobId) -> wire.JobDetail:
        if job not in self.jobs:
            raise UnknownError(f"there is no job {job}")
        return self.jobs[job]


class Listening:
    """`fake` behind a port of loopback, for as long as the context lasts."""

    def __init__(self, fake: FakeOperations, tls: TlsPaths) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((_handlers(fake),))
        self.port = self._server.add_secure_port("127.0.0.1:0", server_credentials(tls))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def _handlers(fake: FakeOperations) -> grpc.GenericRpcHandler:
    one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        "consilo.v1.OperationsService",
        {
            "SubmitJob": one(_answering(fake.submit_job)),
            "ListJobs": one(_answering(fake.list_jobs)),
            "GetJob": one(_answering(fake.get_job)),
            "WatchJob": many(_streaming(fake.watch_job)),
            "AbortJob": one(_answering(fake.abort_job)),
            "PauseJob": one(_answering(fake.pause_job)),
            "ResumeJob": one(_answering(fake.resume_job)),
            "ControlJob": one(_answering(fake.control_job)),
            "PutModel": grpc.stream_unary_rpc_method_handler(_answering(fake.put_model)),
            "ListModels": one(_answering(fake.list_models)),
            "PromoteModel": one(_answering(fake.promote_model)),
            "ExportModel": many(_streaming(fake.export_model)),
            "ReadAudit": many(_streaming(fake.read_audit)),
        },
    )


def _answering(method: Callable[[Any], bytes]) -> Callable[[Any, grpc.ServicerContext], bytes]:
    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        try:
            return method(request)
        except FederationError as error:
            _refuse(context, error)
            raise AssertionError from error

    return answer


def _streaming(method: Callable[[bytes], Iterator[bytes]]) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
    def answer(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            yield from method(request)
        except FederationError as error:
            _refuse(context, error)

    return answer


def _refuse(context: grpc.ServicerContext, error: FederationError) -> None:
    context.set_trailing_metadata(((ERROR_METADATA_KEY, type(error).__name__),))
    context.abort(grpc.StatusCode[status_of(error)], str(error))


# --- things to know ---------------------------------------------------------------------------------------------------


def a_spec(*, rounds: int = 2, masking: MaskingSpec = MASKED) -> JobSpec:
    return JobSpec(
        name="heart",
        task="heart",  # type: ignore[arg-type] # parsed by the model
        members=MEMBERS,
        rounds=rounds,
        seed=1,
        initial=hashlib.sha256(b"initial").hexdigest(),
        metrics=("loss",),
        round=RoundPolicy(quorum=3, min_survivors=3),
        masking=masking,
    )


def status(
    job: JobId, *, spec: bytes | None = None, state: JobState = JobState.QUEUED, reason: str = ""
) -> wire.JobStatus:
    return wire.JobStatus(
        job=job,
        spec=a_spec().to_bytes() if spec is None else spec,
        state=state,
        reason=reason,
        submitted_by=OPERATOR,
        submitted_at="2026-01-02T03:04:05+00:00",
    )


def committed(job: JobId, number: int, *, dropped: dict[str, str] | None = None) -> wire.RoundStatus:
    summary = {
        "survivors": [member for member in MEMBERS if member not in (dropped or {})],
        "dropped": dropped or {},
        "encoding": "u32",
        "weight_total": 30.0,
        "metrics": {"train.loss": 0.5 / number, "evaluate.loss": 0.75 / number},
        "model": "0" * 64,
        "next_model": f"{number:064x}",
        "phases_s": {"recruiting": 0.5},
        "duration_s": 0.625,
    }
    key = RoundKey(job, RoundNumber(number))
    return wire.RoundStatus(key=key, purpose=Purpose.TRAIN, outcome="committed", summary=canonical_json(summary))


def live(job: JobId, number: int, *, phase: str = "recruiting") -> wire.LiveRound:
    members = (
        wire.LiveMember(participant=MEMBERS[0], phase=Phase.TRAINING, connected=True, percent=40),
        wire.LiveMember(participant=MEMBERS[1], phase=Phase.READY, connected=True, percent=None),
        wire.LiveMember(participant=MEMBERS[2], phase=Phase.PLANNED, connected=False, percent=None),
    )
    key = RoundKey(job, RoundNumber(number))
    return wire.LiveRound(key=key, purpose=Purpose.TRAIN, phase=phase, members=members)
