"""What operators ask of a job that goes on, as bytes: pause, resume, and other rules for the rounds to come.

Each answer is the job as it is then, and whether anything changed: asking again for what is so already changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from shared.control import ControlChange
from shared.ids import JobId
from shared.pb.v1 import operations_pb2 as pb
from shared.wire.fields import duration_s, need, parse, text
from shared.wire.operations import REASON_MAX_CHARS, JobStatus, job_status, named_job, pb_job

R = TypeVar("R", pb.PauseJobResponse, pb.ResumeJobResponse, pb.ControlJobResponse)


@dataclass(frozen=True, slots=True)
class PauseJob:
    """Which job is to be paused, and why."""

    job: JobId
    reason: str


@dataclass(frozen=True, slots=True)
class ControlJob:
    """Which job, and what is to be changed of it."""

    job: JobId
    change: ControlChange


@dataclass(frozen=True, slots=True)
class Steered:
    """The job as it is then, and whether anything changed."""

    job: JobStatus
    changed: bool


def encode_pause_job(value: PauseJob) -> bytes:
    return pb.PauseJobRequest(job_id=value.job, reason=value.reason).SerializeToString()


def decode_pause_job(data: bytes) -> PauseJob:
    message = parse(pb.PauseJobRequest, data)
    return PauseJob(named_job(message), text(message, "reason", limit=REASON_MAX_CHARS))


def encode_pause_job_response(value: Steered) -> bytes:
    return pb.PauseJobResponse(job=pb_job(value.job), changed=value.changed).SerializeToString()


def decode_pause_job_response(data: bytes) -> Steered:
    return _steered(pb.PauseJobResponse, data)


def encode_resume_job(job: JobId) -> bytes:
    return pb.ResumeJobRequest(job_id=job).SerializeToString()


def decode_resume_job(data: bytes) -> JobId:
    return named_job(parse(pb.ResumeJobRequest, data))


def encode_resume_job_response(value: Steered) -> bytes:
    return pb.ResumeJobResponse(job=pb_job(value.job), changed=value.changed).SerializeToString()


def decode_resume_job_response(data: bytes) -> Steered:
    return _steered(pb.ResumeJobResponse, data)


def encode_control_job(value: ControlJob) -> bytes:
    change = value.change
    return pb.ControlJobRequest(
        job_id=value.job, reset=change.reset, deadline_s=change.deadline_s, quorum=change.quorum
    ).SerializeToString()


def decode_control_job(data: bytes) -> ControlJob:
    message = parse(pb.ControlJobRequest, data)
    need(message, "reset")
    change = ControlChange(
        reset=message.reset,
        deadline_s=duration_s(message, "deadline_s") if message.HasField("deadline_s") else None,
        quorum=message.quorum if message.HasField("quorum") else None,
    )
    return ControlJob(named_job(message), change)


def encode_control_job_response(value: Steered) -> bytes:
    return pb.ControlJobResponse(job=pb_job(value.job), changed=value.changed).SerializeToString()


def decode_control_job_response(data: bytes) -> Steered:
    return _steered(pb.ControlJobResponse, data)


def _steered(response: type[R], data: bytes) -> Steered:
    message = parse(response, data)
    need(message, "job", "changed")
    return Steered(job_status(message.job), message.changed)
