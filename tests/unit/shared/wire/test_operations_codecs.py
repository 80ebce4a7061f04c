from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.control import AS_SUBMITTED, ControlChange, JobControl, Pause
from shared.errors import WireError
from shared.ids import Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.job import JOBSPEC_MAX_BYTES
from shared.pb.v1 import operations_pb2 as pb
from shared.protocol.phases import Phase
from shared.reasons import JobState, Purpose
from shared.update import CHUNK_BYTES
from shared.wire import operations as wire
from shared.wire import steering
from shared.wire.fields import DURATION_MAX_S
from shared.wire.transfer import encode_data

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
jobs = labels.map(JobId)
digests = st.binary(min_size=32, max_size=32).map(Digest)
keys = st.builds(RoundKey, jobs, st.integers(1, 2**31 - 1).map(RoundNumber))
durations = st.none() | st.floats(0, DURATION_MAX_S, exclude_min=True)
quorums = st.none() | st.integers(0, 2**32 - 1)
controls = st.just(AS_SUBMITTED) | st.builds(JobControl, st.integers(1, 2**32 - 1), durations, quorums)
statuses = st.builds(
    wire.JobStatus,
    job=jobs,
    spec=st.binary(max_size=100),
    state=st.sampled_from(JobState),
    reason=texts,
    submitted_by=texts,
    submitted_at=texts,
    control=controls,
    pause=st.none() | st.builds(Pause, texts, texts, texts),
)
steered = st.builds(steering.Steered, statuses, st.booleans())
rounds = st.builds(
    wire.RoundStatus,
    key=keys,
    purpose=st.sampled_from(Purpose),
    outcome=texts.map(lambda text: text[:32]),
    summary=st.binary(max_size=100),
)
members = st.builds(
    wire.LiveMember,
    participant=labels.map(ParticipantId),
    phase=st.sampled_from(Phase),
    connected=st.booleans(),
    percent=st.none() | st.integers(0, 100),
)
lives = st.builds(
    wire.LiveRound,
    key=keys,
    purpose=st.sampled_from(Purpose),
    phase=texts.map(lambda text: text[:32]),
    members=st.lists(members, max_size=4).map(tuple),
    control_revision=st.integers(0, 2**32 - 1),
)
details = st.builds(
    wire.JobDetail, job=statuses, rounds=st.lists(rounds, max_size=4).map(tuple), live=st.none() | lives
)
sizes = st.integers(1, wire.MODEL_MAX_BYTES)
offsets = st.integers(0, 2**64 - 1)

Codec = tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]

CODECS: dict[str, Codec] = {
    "submit": (
        st.builds(wire.SubmitJob, jobs, st.binary(max_size=100)),
        wire.encode_submit_job,
        wire.decode_submit_job,
    ),
    "submitted": (statuses, wire.encode_submit_job_response, wire.decode_submit_job_response),
    "list": (st.none(), lambda _: wire.encode_list_jobs(), wire.decode_list_jobs),
    "listed": (
        st.lists(statuses, max_size=3).map(tuple),
        wire.encode_list_jobs_response,
        wire.decode_list_jobs_response,
    ),
    "get": (jobs, wire.encode_get_job, wire.decode_get_job),
    "got": (details, wire.encode_get_job_response, wire.decode_get_job_response),
    "watch": (jobs, wire.encode_watch_job, wire.decode_watch_job),
    "watched": (details, wire.encode_watch_job_response, wire.decode_watch_job_response),
    "abort": (st.builds(wire.AbortJob, jobs, texts), wire.encode_abort_job, wire.decode_abort_job),
    "aborted": (statuses, wire.encode_abort_job_response, wire.decode_abort_job_response),
    "pause": (st.builds(steering.PauseJob, jobs, texts), steering.encode_pause_job, steering.decode_pause_job),
    "paused": (steered, steering.encode_pause_job_response, steering.decode_pause_job_response),
    "resume": (jobs, steering.encode_resume_job, steering.decode_resume_job),
    "resumed": (steered, steering.encode_resume_job_response, steering.decode_resume_job_response),
    "control": (
        st.builds(steering.ControlJob, jobs, st.builds(ControlChange, st.booleans(), durations, quorums)),
        steering.encode_control_job,
        steering.decode_control_job,
    ),
    "controlled": (steered, steering.encode_control_job_response, steering.decode_control_job_response),
    "put": (
        st.builds(wire.PutModelOpen, digests, sizes),
        wire.encode_put_model_open,
        wire.decode_put_model_frame,
    ),
    "put chunk": (st.binary(max_size=300).map(memoryview), encode_data, wire.decode_put_model_frame),
    "stored": (
        st.booleans(),
        lambda stored: wire.encode_put_model_response(stored=stored),
        wire.decode_put_model_response,
    ),
    "list models": (st.none(), lambda _: wire.encode_list_models(), wire.decode_list_models),
    "models": (
        st.lists(
            st.builds(wire.ModelStatus, digests, st.binary(max_size=60), st.booleans(), st.booleans()), max_size=3
        ).map(tuple),
        wire.encode_list_models_response,
        wire.decode_list_models_response,
    ),
    "promote": (
        st.builds(wire.PromoteModel, digests, st.booleans()),
        wire.encode_promote_model,
        wire.decode_promote_model,
    ),
    "promoted": (
        st.booleans(),
        lambda changed: wire.encode_promote_model_response(changed=changed),
        wire.decode_promote_model_response,
    ),
    "export": (
        st.builds(wire.ExportModel, digests, offsets),
        wire.encode_export_model,
        wire.decode_export_model,
    ),
    "exported": (st.binary(max_size=300).map(memoryview), encode_data, wire.decode_export_frame),
    "audit": (st.integers(0, wire.AUDIT_START_MAX), wire.encode_read_audit, wire.decode_read_audit),
}


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
def test_what_is_encoded_is_decoded(name: str, data: st.DataObject) -> None:
    values, encode, decode = CODECS[name]
    value = data.draw(values)
    assert decode(encode(value)) == value


@pytest.mark.parametrize("name", CODECS)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_wire_error(name: str, data: bytes) -> None:
    _, _, decode = CODECS[name]
    with contextlib.suppress(WireError):
        decode(data)


def test_audit_lines_come_back_with_their_line_feeds() -> None:
    assert wire.decode_read_audit_response(wire.encode_read_audit_response([b"one", b"two"])) == b"one\ntwo\n"


def test_a_full_chunk_fits_a_frame() -> None:
    chunk = bytes(CHUNK_BYTES)
    assert wire.decode_put_model_frame(encode_data(chunk)) == memoryview(chunk)
    assert wire.decode_export_frame(encode_data(chunk)) == chunk


JOB = pb.Job(job_id="a", jobspec=b"", state="queued", reason="", submitted_by="x", submitted_at="y")


def job_without(name: str) -> bytes:
    job = pb.Job()
    job.CopyFrom(JOB)
    job.ClearField(name)
    return pb.SubmitJobResponse(job=job).SerializeToString()


@pytest.mark.parametrize("name", ["job_id", "jobspec", "state", "reason", "submitted_by", "submitted_at"])
def test_an_absent_field_of_a_job_is_named(name: str) -> None:
    with pytest.raises(WireError, match=f"Job.{name} is missing"):
        wire.decode_submit_job_response(job_without(name))


REFUSED: dict[str, tuple[Callable[[bytes], Any], bytes, str]] = {
    "no job": (wire.decode_get_job_response, b"", "GetJobResponse.job is missing"),
    "a name that is none": (wire.decode_get_job, pb.GetJobRequest(job_id="A b").SerializeToString(), "a job id has"),
    "an unknown state": (
        wire.decode_submit_job_response,
        pb.SubmitJobResponse(
            job=pb.Job(job_id="a", jobspec=b"", state="resting", reason="", submitted_by="", submitted_at="")
        ).SerializeToString(),
        "Job.state",
    ),
    "a specification that is too long": (
        wire.decode_submit_job,
        pb.SubmitJobRequest(job_id="a", jobspec=bytes(JOBSPEC_MAX_BYTES + 1)).SerializeToString(),
        "at most 262144 bytes",
    ),
    "a reason that is too long": (
        wire.decode_abort_job,
        pb.AbortJobRequest(job_id="a", reason="x" * 1025).SerializeToString(),
        "at most 1024 characters",
    ),
    "an empty model": (
        wire.decode_put_model_frame,
        pb.PutModelRequest(open=pb.PutModelOpen(model_digest=bytes(32), model_bytes=0)).SerializeToString(),
        "at least 1, got 0",
    ),
    "a short digest": (
        wire.decode_export_model,
        pb.ExportModelRequest(model_digest=b"x", offset=0).SerializeToString(),
        "32 bytes",
    ),
    "neither chunk nor opening": (wire.decode_put_model_frame, b"", "neither"),
    "a chunk that is too long": (wire.decode_export_frame, encode_data(bytes(CHUNK_BYTES + 20)), "at most"),
    "half a line": (
        wire.decode_read_audit_response,
        pb.ReadAuditResponse(lines=b"half").SerializeToString(),
        "line feed",
    ),
    "a pause for a reason that is too long": (
        steering.decode_pause_job,
        pb.PauseJobRequest(job_id="a", reason="x" * 1025).SerializeToString(),
        "at most 1024",
    ),
    "a control that does not say whether it resets": (
        steering.decode_control_job,
        pb.ControlJobRequest(job_id="a", quorum=2).SerializeToString(),
        "ControlJobRequest.reset is missing",
    ),
    "a deadline of no time": (
        steering.decode_control_job,
        pb.ControlJobRequest(job_id="a", reset=False, deadline_s=0.0).SerializeToString(),
        "ControlJobRequest.deadline_s is a duration",
    ),
    "a pause by nobody": (
        wire.decode_submit_job_response,
        pb.SubmitJobResponse(
            job=pb.Job(
                job_id="a",
                jobspec=b"",
                state="paused",
                reason="",
                submitted_by="",
                submitted_at="",
                pause=pb.Pause(at="", reason=""),
            )
        ).SerializeToString(),
        "Pause.by is missing",
    ),
    "a percentage above 100": (
        wire.decode_get_job_response,
        pb.GetJobResponse(
            job=JOB,
            live=pb.LiveRound(
                key={"job_id": "a", "round": 1},
                purpose="PURPOSE_TRAIN",
                phase="recruiting",
                control_revision=0,
                members=[pb.LiveMember(participant_id="h", phase="training", connected=True, percent=101)],
            ),
        ).SerializeToString(),
        "at most 100",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_out_of_bounds_is_refused(name: str) -> None:
    decode, data, complaint = REFUSED[name]
    with pytest.raises(WireError, match=complaint):
        decode(data)
