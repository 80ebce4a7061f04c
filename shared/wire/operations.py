"""What operators ask and are told: requests and responses of the OperationsService as bytes, and their values.

Both ends hand bytes to gRPC. A job's specification, a round's summary and a model's description travel as the canonical
JSON that they are stored as; what is in them is for `shared.job` and the reader to check. Bulk frames (an initial model
up, a version down) are those of `shared.wire.transfer`: field 1 alone, read without a copy. PROTOCOL.md section 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shared.control import AS_SUBMITTED, JobControl, Pause
from shared.errors import WireError
from shared.ids import Digest, JobId, ParticipantId, RoundKey, parse_job_id, parse_participant_id
from shared.job import JOBSPEC_MAX_BYTES, MEMBERS_MAX
from shared.pb.v1 import operations_pb2 as pb
from shared.protocol.phases import Phase
from shared.reasons import JobState, Purpose
from shared.wire.control import job_control, job_pause, pb_control, pb_pause
from shared.wire.fields import checked, digest, few, from_wire, need, parse, pb_key, round_key, text, to_wire
from shared.wire.transfer import FRAME_MAX_BYTES, data_view

# A job may have many rounds and a coordinator many models; a listing is one message.
LISTING_MAX_BYTES = 64 * 1024 * 1024
SUMMARY_MAX_BYTES = 1024 * 1024  # 1,000 members with their reasons have 60 KiB
REASON_MAX_CHARS = 1024
WAITS_FOR_MAX_CHARS = 128 * 1024  # far above what it names of 1,000 members
PHASE_MAX_CHARS = 32
PERCENT_MAX = 100
AUDIT_LINES_MAX_BYTES = 4 * 1024 * 1024
MODEL_MAX_BYTES = 1 << 40  # 1 TiB: far above any model of today, and a size that every file call takes
AUDIT_START_MAX = (1 << 63) - 1  # entries are counted in the database's integers


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job as submitted, and where it is in its life."""

    job: JobId
    spec: bytes
    """The canonical JSON of its JobSpec, as submitted."""
    state: JobState
    reason: str
    """Why it is in that state, or what it waits for; empty when the state says it all."""
    submitted_by: str
    submitted_at: str
    control: JobControl = AS_SUBMITTED
    """Of the next round that is planned."""
    pause: Pause | None = None
    """Of a job that is pausing or paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStatus:
    """A finished round."""

    key: RoundKey
    purpose: Purpose
    outcome: str
    """`committed`, or the value of an AbortReason."""
    summary: bytes
    """Canonical JSON: survivors, members out with their reasons, totals, durations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveMember:
    """One member in the open round."""

    participant: ParticipantId
    phase: Phase
    connected: bool
    percent: int | None
    """How far its training is, for a member that tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRound:
    """The open round of a running job."""

    key: RoundKey
    purpose: Purpose
    phase: str
    members: tuple[LiveMember, ...]
    control_revision: int = 0
    """Of the control that the round was planned with; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail:
    """A job with its rounds.

    In the first message of a watch, and from GetJob, `rounds` are all finished rounds in order; in later messages of a
    watch, those that finished since the message before.
    """

    job: JobStatus
    rounds: tuple[RoundStatus, ...]
    live: LiveRound | None


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """A job under the id that the submitter chose."""

    job: JobId
    spec: bytes


@dataclass(frozen=True, slots=True)
class AbortJob:
    """The end of a job, and why."""

    job: JobId
    reason: str


@dataclass(frozen=True, slots=True)
class PutModelOpen:
    """The first frame of an initial model: the SHA-256 of its bytes, and how many there are."""

    model: Digest
    model_bytes: int


PutModelFrame: TypeAlias = PutModelOpen | memoryview


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model version and its description in canonical JSON."""

    model: Digest
    description: bytes
    promoted: bool = False
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class PromoteModel:
    """Whether a version is to be kept whatever the retention says."""

    model: Digest
    promoted: bool


@dataclass(frozen=True, slots=True)
class ExportModel:
    """Which version, and from which byte on."""

    model: Digest
    offset: int


# --- jobs -------------------------------------------------------------------------------------------------------------


def encode_submit_job(value: SubmitJob) -> bytes:
    return pb.SubmitJobRequest(job_id=value.job, jobspec=value.spec).SerializeToString()


def decode_submit_job(data: bytes) -> SubmitJob:
    message = parse(pb.SubmitJobRequest, data)
    return SubmitJob(named_job(message), _jobspec(message))


def encode_submit_job_response(value: JobStatus) -> bytes:
    return pb.SubmitJobResponse(job=pb_job(value)).SerializeToString()


def decode_submit_job_response(data: bytes) -> JobStatus:
    message = parse(pb.SubmitJobResponse, data)
    need(message, "job")
    return job_status(message.job)


def encode_list_jobs() -> bytes:
    return pb.ListJobsRequest().SerializeToString()


def decode_list_jobs(data: bytes) -> None:
    """The request says nothing; bytes that are no message are refused all the same."""
    parse(pb.ListJobsRequest, data)


def encode_list_jobs_response(values: Iterable[JobStatus]) -> bytes:
    return pb.ListJobsResponse(jobs=map(pb_job, values)).SerializeToString()


def decode_list_jobs_response(data: bytes) -> tuple[JobStatus, ...]:
    return tuple(map(job_status, parse(pb.ListJobsResponse, data, limit=LISTING_MAX_BYTES).jobs))


def encode_get_job(job: JobId) -> bytes:
    return pb.GetJobRequest(job_id=job).SerializeToString()


def decode_get_job(data: bytes) -> JobId:
    return named_job(parse(pb.GetJobRequest, data))


def encode_get_job_response(value: JobDetail) -> bytes:
    live = None if value.live is None else _pb_live(value.live)
    return pb.GetJobResponse(job=pb_job(value.job), rounds=map(_pb_round, value.rounds), live=live).SerializeToString()


def decode_get_job_response(data: bytes) -> JobDetail:
    return _detail(parse(pb.GetJobResponse, data, limit=LISTING_MAX_BYTES))


def encode_watch_job(job: JobId) -> bytes:
    return pb.WatchJobRequest(job_id=job).SerializeToString()


def decode_watch_job(data: bytes) -> JobId:
    return named_job(parse(pb.WatchJobRequest, data))


def encode_watch_job_response(value: JobDetail) -> bytes:
    live = None if value.live is None else _pb_live(value.live)
    return pb.WatchJobResponse(
        job=pb_job(value.job), rounds=map(_pb_round, value.rounds), live=live
    ).SerializeToString()


def decode_watch_job_response(data: bytes) -> JobDetail:
    return _detail(parse(pb.WatchJobResponse, data, limit=LISTING_MAX_BYTES))


def encode_abort_job(value: AbortJob) -> bytes:
    return pb.AbortJobRequest(job_id=value.job, reason=value.reason).SerializeToString()


def decode_abort_job(data: bytes) -> AbortJob:
    message = parse(pb.AbortJobRequest, data)
    return AbortJob(named_job(message), text(message, "reason", limit=REASON_MAX_CHARS))


def encode_abort_job_response(value: JobStatus) -> bytes:
    return pb.AbortJobResponse(job=pb_job(value)).SerializeToString()


def decode_abort_job_response(data: bytes) -> JobStatus:
    message = parse(pb.AbortJobResponse, data)
    need(message, "job")
    return job_status(message.job)


# --- models -----------------------------------------------------------------------------------------------------------


def encode_put_model_open(value: PutModelOpen) -> bytes:
    opening = pb.PutModelOpen(model_digest=value.model.raw, model_bytes=value.model_bytes)
    return pb.PutModelRequest(open=opening).SerializeToString()


def decode_put_model_frame(frame: bytes) -> PutModelFrame:
    """An opening or a chunk (its sender writes it with `transfer.encode_data`). Raises WireError."""
    view = data_view(frame)
    if view is not None:
        return view
    message = parse(pb.PutModelRequest, frame, limit=FRAME_MAX_BYTES)
    match message.WhichOneof("frame"):
        case "data":
            return memoryview(message.data)
        case "open":
            need(message.open, "model_bytes")
            if not message.open.model_bytes:
                raise WireError("PutModelOpen.model_bytes is at least 1, got 0")
            if message.open.model_bytes > MODEL_MAX_BYTES:
                raise WireError(
                    f"PutModelOpen.model_bytes is at most {MODEL_MAX_BYTES}, got {message.open.model_bytes}"
                )
            return PutModelOpen(digest(message.open, "model_digest"), message.open.model_bytes)
        case _:
            raise WireError("a frame of PutModel is an opening or a chunk; this is neither")


def encode_put_model_response(*, stored: bool) -> bytes:
    return pb.PutModelResponse(stored=stored).SerializeToString()


def decode_put_model_response(data: bytes) -> bool:
    """Whether the bytes were taken; False when the coordinator had this model already."""
    message = parse(pb.PutModelResponse, data)
    need(message, "stored")
    return message.stored


def encode_list_models() -> bytes:
    return pb.ListModelsRequest().SerializeToString()


def decode_list_models(data: bytes) -> None:
    """The request says nothing; bytes that are no message are refused all the same."""
    parse(pb.ListModelsRequest, data)


def encode_list_models_response(values: Iterable[ModelStatus]) -> bytes:
    models = (
        pb.Model(model_digest=value.model.raw, manifest=value.description, promoted=value.promoted, pruned=value.pruned)
        for value in values
    )
    return pb.ListModelsResponse(models=models).SerializeToString()


def decode_list_models_response(data: bytes) -> tuple[ModelStatus, ...]:
    listing = parse(pb.ListModelsResponse, data, limit=LISTING_MAX_BYTES)
    return tuple(_model(message) for message in listing.models)


def encode_promote_model(value: PromoteModel) -> bytes:
    return pb.PromoteModelRequest(model_digest=value.model.raw, promoted=value.promoted).SerializeToString()


def decode_promote_model(data: bytes) -> PromoteModel:
    message = parse(pb.PromoteModelRequest, data)
    need(message, "promoted")
    return PromoteModel(digest(message, "model_digest"), message.promoted)


def encode_promote_model_response(*, changed: bool) -> bytes:
    return pb.PromoteModelResponse(changed=changed).SerializeToString()


def decode_promote_model_response(data: bytes) -> bool:
    """Whether anything changed; False when it was so already."""
    message = parse(pb.PromoteModelResponse, data)
    need(message, "changed")
    return message.changed


def encode_export_model(value: ExportModel) -> bytes:
    return pb.ExportModelRequest(model_digest=value.model.raw, offset=value.offset).SerializeToString()


def decode_export_model(data: bytes) -> ExportModel:
    message = parse(pb.ExportModelRequest, data)
    need(message, "offset")
    return ExportModel(digest(message, "model_digest"), message.offset)


def decode_export_frame(frame: bytes) -> memoryview:
    """A chunk of a version (its sender writes it with `transfer.encode_data`). Raises WireError."""
    view = data_view(frame)
    if view is not None:
        return view
    message = parse(pb.ExportModelResponse, frame, limit=FRAME_MAX_BYTES)
    need(message, "data")
    return memoryview(message.data)


# --- audit ------------------------------------------------------------------------------------------------------------


def encode_read_audit(start: int) -> bytes:
    """From entry `start` on; the first is 0."""
    return pb.ReadAuditRequest(start=start).SerializeToString()


def decode_read_audit(data: bytes) -> int:
    message = parse(pb.ReadAuditRequest, data)
    need(message, "start")
    if message.start > AUDIT_START_MAX:
        raise WireError(f"ReadAuditRequest.start is at most {AUDIT_START_MAX}, got {message.start}")
    return message.start


def encode_read_audit_response(lines: Sequence[bytes]) -> bytes:
    """Lines without their line feeds, as `AuditEntry.line` has them; at least one, at most AUDIT_LINES_MAX_BYTES."""
    return pb.ReadAuditResponse(lines=b"".join(line + b"\n" for line in lines)).SerializeToString()


def decode_read_audit_response(data: bytes) -> bytes:
    """Whole lines with their line feeds."""
    message = parse(pb.ReadAuditResponse, data, limit=AUDIT_LINES_MAX_BYTES + 16)
    need(message, "lines")
    if not message.lines.endswith(b"\n"):
        raise WireError("ReadAuditResponse.lines are whole lines, each with its line feed")
    return message.lines


# --- parts ------------------------------------------------------------------------------------------------------------

_NamesJob: TypeAlias = (
    pb.SubmitJobRequest | pb.GetJobRequest | pb.WatchJobRequest | pb.AbortJobRequest | pb.Job
    | pb.PauseJobRequest | pb.ResumeJobRequest | pb.ControlJobRequest
)  # fmt: skip


def named_job(message: _NamesJob) -> JobId:
    need(message, "job_id")
    return checked(message, "job_id", parse_job_id)


def _jobspec(message: pb.SubmitJobRequest | pb.Job) -> bytes:
    need(message, "jobspec")
    if len(message.jobspec) > JOBSPEC_MAX_BYTES:
        raise WireError(f"a job specification has at most {JOBSPEC_MAX_BYTES} bytes, got {len(message.jobspec)}")
    return message.jobspec


def pb_job(value: JobStatus) -> pb.Job:
    return pb.Job(
        job_id=value.job,
        jobspec=value.spec,
        state=value.state,
        reason=value.reason,
        submitted_by=value.submitted_by,
        submitted_at=value.submitted_at,
        control=pb_control(value.control),
        pause=pb_pause(value.pause),
    )


def job_status(message: pb.Job) -> JobStatus:
    need(message, "state")
    return JobStatus(
        job=named_job(message),
        spec=_jobspec(message),
        state=checked(message, "state", JobState),
        reason=text(message, "reason", limit=WAITS_FOR_MAX_CHARS),
        submitted_by=text(message, "submitted_by"),
        submitted_at=text(message, "submitted_at"),
        control=job_control(message),
        pause=job_pause(message),
    )


def _pb_round(value: RoundStatus) -> pb.Round:
    return pb.Round(key=pb_key(value.key), purpose=to_wire(value.purpose), outcome=value.outcome, summary=value.summary)


def _round(message: pb.Round) -> RoundStatus:
    need(message, "summary")
    if len(message.summary) > SUMMARY_MAX_BYTES:
        raise WireError(f"a round's summary has at most {SUMMARY_MAX_BYTES} bytes, got {len(message.summary)}")
    return RoundStatus(
        key=round_key(message),
        purpose=from_wire(message, "purpose", Purpose),
        outcome=text(message, "outcome", limit=PHASE_MAX_CHARS),
        summary=message.summary,
    )


def _pb_live(value: LiveRound) -> pb.LiveRound:
    members = (
        pb.LiveMember(
            participant_id=member.participant, phase=member.phase, connected=member.connected, percent=member.percent
        )
        for member in value.members
    )
    return pb.LiveRound(
        key=pb_key(value.key),
        purpose=to_wire(value.purpose),
        phase=value.phase,
        members=members,
        control_revision=value.control_revision,
    )


def _live(message: pb.LiveRound) -> LiveRound:
    need(message, "control_revision")
    return LiveRound(
        key=round_key(message),
        purpose=from_wire(message, "purpose", Purpose),
        phase=text(message, "phase", limit=PHASE_MAX_CHARS),
        members=tuple(map(_live_member, few(message, "members", MEMBERS_MAX))),
        control_revision=message.control_revision,
    )


def _live_member(message: pb.LiveMember) -> LiveMember:
    need(message, "participant_id", "phase", "connected")
    percent = message.percent if message.HasField("percent") else None
    if percent is not None and percent > PERCENT_MAX:
        raise WireError(f"LiveMember.percent is at most {PERCENT_MAX}, got {percent}")
    return LiveMember(
        participant=checked(message, "participant_id", parse_participant_id),
        phase=checked(message, "phase", Phase),
        connected=message.connected,
        percent=percent,
    )


def _detail(message: pb.GetJobResponse | pb.WatchJobResponse) -> JobDetail:
    need(message, "job")
    return JobDetail(
        job=job_status(message.job),
        rounds=tuple(map(_round, message.rounds)),
        live=_live(message.live) if message.HasField("live") else None,
    )


def _model(message: pb.Model) -> ModelStatus:
    need(message, "manifest", "promoted", "pruned")
    return ModelStatus(digest(message, "model_digest"), message.manifest, message.promoted, message.pruned)
