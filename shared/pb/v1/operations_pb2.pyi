from shared.pb.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitJobRequest(_message.Message):
    __slots__ = ("job_id", "jobspec")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOBSPEC_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    jobspec: bytes
    def __init__(self, job_id: _Optional[str] = ..., jobspec: _Optional[bytes] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job", "rounds", "live")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    job: Job
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    live: LiveRound
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ..., live: _Optional[_Union[LiveRound, _Mapping]] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("job", "rounds", "live")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    job: Job
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    live: LiveRound
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ..., live: _Optional[_Union[LiveRound, _Mapping]] = ...) -> None: ...

class AbortJobRequest(_message.Message):
    __slots__ = ("job_id", "reason")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    reason: str
    def __init__(self, job_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AbortJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("job_id", "reason")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    reason: str
    def __init__(self, job_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseJobResponse(_message.Message):
    __slots__ = ("job", "changed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    job: Job
    changed: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ResumeJobResponse(_message.Message):
    __slots__ = ("job", "changed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    job: Job
    changed: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class ControlJobRequest(_message.Message):
    __slots__ = ("job_id", "reset", "deadline_s", "quorum")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    reset: bool
    deadline_s: float
    quorum: int
    def __init__(self, job_id: _Optional[str] = ..., reset: _Optional[bool] = ..., deadline_s: _Optional[float] = ..., quorum: _Optional[int] = ...) -> None: ...

class ControlJobResponse(_message.Message):
    __slots__ = ("job", "changed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    job: Job
    changed: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "jobspec", "state", "reason", "submitted_by", "submitted_at", "control", "pause")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOBSPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    jobspec: bytes
    state: str
    reason: str
    submitted_by: str
    submitted_at: str
    control: _session_pb2.JobControl
    pause: Pause
    def __init__(self, job_id: _Optional[str] = ..., jobspec: _Optional[bytes] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., submitted_by: _Optional[str] = ..., submitted_at: _Optional[str] = ..., control: _Optional[_Union[_session_pb2.JobControl, _Mapping]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("by", "at", "reason")
    BY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    by: str
    at: str
    reason: str
    def __init__(self, by: _Optional[str] = ..., at: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("key", "purpose", "outcome", "summary")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    key: _session_pb2.RoundKey
    purpose: _session_pb2.Purpose
    outcome: str
    summary: bytes
    def __init__(self, key: _Optional[_Union[_session_pb2.RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[_session_pb2.Purpose, str]] = ..., outcome: _Optional[str] = ..., summary: _Optional[bytes] = ...) -> None: ...

class LiveRound(_message.Message):
    __slots__ = ("key", "purpose", "phase", "members", "control_revision")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_REVISION_FIELD_NUMBER: _ClassVar[int]
    key: _session_pb2.RoundKey
    purpose: _session_pb2.Purpose
    phase: str
    members: _containers.RepeatedCompositeFieldContainer[LiveMember]
    control_revision: int
    def __init__(self, key: _Optional[_Union[_session_pb2.RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[_session_pb2.Purpose, str]] = ..., phase: _Optional[str] = ..., members: _Optional[_Iterable[_Union[LiveMember, _Mapping]]] = ..., control_revision: _Optional[int] = ...) -> None: ...

class LiveMember(_message.Message):
    __slots__ = ("participant_id", "phase", "connected", "percent")
    PARTICIPANT_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    participant_id: str
    phase: str
    connected: bool
    percent: int
    def __init__(self, participant_id: _Optional[str] = ..., phase: _Optional[str] = ..., connected: _Optional[bool] = ..., percent: _Optional[int] = ...) -> None: ...

class PutModelRequest(_message.Message):
    __slots__ = ("data", "open")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    open: PutModelOpen
    def __init__(self, data: _Optional[bytes] = ..., open: _Optional[_Union[PutModelOpen, _Mapping]] = ...) -> None: ...

class PutModelOpen(_message.Message):
    __slots__ = ("model_digest", "model_bytes")
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    model_digest: bytes
    model_bytes: int
    def __init__(self, model_digest: _Optional[bytes] = ..., model_bytes: _Optional[int] = ...) -> None: ...

class PutModelResponse(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    def __init__(self, stored: _Optional[bool] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("model_digest", "manifest", "promoted", "pruned")
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    model_digest: bytes
    manifest: bytes
    promoted: bool
    pruned: bool
    def __init__(self, model_digest: _Optional[bytes] = ..., manifest: _Optional[bytes] = ..., promoted: _Optional[bool] = ..., pruned: _Optional[bool] = ...) -> None: ...

class PromoteModelRequest(_message.Message):
    __slots__ = ("model_digest", "promoted")
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    model_digest: bytes
    promoted: bool
    def __init__(self, model_digest: _Optional[bytes] = ..., promoted: _Optional[bool] = ...) -> None: ...

class PromoteModelResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: _Optional[bool] = ...) -> None: ...

class ExportModelRequest(_message.Message):
    __slots__ = ("model_digest", "offset")
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    model_digest: bytes
    offset: int
    def __init__(self, model_digest: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class ExportModelResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ReadAuditRequest(_message.Message):
    __slots__ = ("start",)
    START_FIELD_NUMBER: _ClassVar[int]
    start: int
    def __init__(self, start: _Optional[int] = ...) -> None: ...

class ReadAuditResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: bytes
    def __init__(self, lines: _Optional[bytes] = ...) -> None: ...
