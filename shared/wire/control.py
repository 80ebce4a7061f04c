"""How a job's control and its pause stand in messages: in a RoundPlan, and in what operators are told of a job."""

from __future__ import annotations

from shared.control import AS_SUBMITTED, JobControl, Pause
from shared.errors import WireError
from shared.pb.v1 import operations_pb2, session_pb2
from shared.wire.fields import duration_s, need, text


def pb_control(value: JobControl) -> session_pb2.JobControl | None:
    """None for a job that is run as it was submitted: then the field is absent."""
    if not value.revision:
        return None
    return session_pb2.JobControl(revision=value.revision, deadline_s=value.deadline_s, quorum=value.quorum)


def job_control(message: session_pb2.RoundPlan | operations_pb2.Job) -> JobControl:
    """The field `control`. What it allows depends on the job: `JobControl.complaint` says that."""
    if not message.HasField("control"):
        return AS_SUBMITTED
    control = message.control
    need(control, "revision")
    if not control.revision:
        raise WireError("JobControl.revision is at least 1, got 0")
    return JobControl(
        revision=control.revision,
        deadline_s=duration_s(control, "deadline_s") if control.HasField("deadline_s") else None,
        quorum=control.quorum if control.HasField("quorum") else None,
    )


def pb_pause(value: Pause | None) -> operations_pb2.Pause | None:
    return None if value is None else operations_pb2.Pause(by=value.by, at=value.at, reason=value.reason)


def job_pause(message: operations_pb2.Job) -> Pause | None:
    """The field `pause`."""
    if not message.HasField("pause"):
        return None
    pause = message.pause
    return Pause(by=text(pause, "by"), at=text(pause, "at"), reason=text(pause, "reason"))
