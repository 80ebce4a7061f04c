from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_UNSPECIFIED: _ClassVar[Purpose]
    PURPOSE_TRAIN: _ClassVar[Purpose]
    PURPOSE_EVALUATE: _ClassVar[Purpose]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_PLAIN: _ClassVar[Encoding]

class AbortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABORT_REASON_UNSPECIFIED: _ClassVar[AbortReason]
    ABORT_REASON_BELOW_QUORUM: _ClassVar[AbortReason]
    ABORT_REASON_BELOW_FLOOR: _ClassVar[AbortReason]
    ABORT_REASON_OPERATOR: _ClassVar[AbortReason]
    ABORT_REASON_FOLD_FAILED: _ClassVar[AbortReason]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_DECLINED: _ClassVar[DropReason]
    DROP_REASON_TASK_UNAVAILABLE: _ClassVar[DropReason]
    DROP_REASON_TASK_CRASHED: _ClassVar[DropReason]
    DROP_REASON_TASK_DEADLINE: _ClassVar[DropReason]
    DROP_REASON_TASK_INVALID: _ClassVar[DropReason]
    DROP_REASON_NON_FINITE: _ClassVar[DropReason]
    DROP_REASON_MANIFEST_MISMATCH: _ClassVar[DropReason]
    DROP_REASON_MODEL_UNAVAILABLE: _ClassVar[DropReason]
    DROP_REASON_DISK: _ClassVar[DropReason]
    DROP_REASON_LOST: _ClassVar[DropReason]
    DROP_REASON_ABSENT: _ClassVar[DropReason]
    DROP_REASON_DISCONNECTED: _ClassVar[DropReason]
    DROP_REASON_NOT_READY: _ClassVar[DropReason]
    DROP_REASON_UPLOAD_LATE: _ClassVar[DropReason]
    DROP_REASON_REVOKED: _ClassVar[DropReason]

class ConsentRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSENT_RULE_UNSPECIFIED: _ClassVar[ConsentRule]
    CONSENT_RULE_JOB_NOT_ALLOWED: _ClassVar[ConsentRule]
    CONSENT_RULE_TASK_NOT_INSTALLED: _ClassVar[ConsentRule]
    CONSENT_RULE_COHORT_TOO_SMALL: _ClassVar[ConsentRule]
    CONSENT_RULE_NOT_A_MEMBER: _ClassVar[ConsentRule]
    CONSENT_RULE_MASKING_REQUIRED: _ClassVar[ConsentRule]
    CONSENT_RULE_JOBSPEC_CHANGED: _ClassVar[ConsentRule]
    CONSENT_RULE_ROUND_REPLAYED: _ClassVar[ConsentRule]
    CONSENT_RULE_TRAINING_TOO_LONG: _ClassVar[ConsentRule]

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_REASON_UNSPECIFIED: _ClassVar[RefusalReason]
    REFUSAL_REASON_NO_COMMON_VERSION: _ClassVar[RefusalReason]
    REFUSAL_REASON_MISSING_CAPABILITY: _ClassVar[RefusalReason]
    REFUSAL_REASON_SIGNING_IDENTITY: _ClassVar[RefusalReason]
    REFUSAL_REASON_SUPERSEDED: _ClassVar[RefusalReason]
    REFUSAL_REASON_NOT_ALLOWED: _ClassVar[RefusalReason]
    REFUSAL_REASON_DRAINING: _ClassVar[RefusalReason]
    REFUSAL_REASON_SILENT: _ClassVar[RefusalReason]
    REFUSAL_REASON_PROTOCOL: _ClassVar[RefusalReason]
PURPOSE_UNSPECIFIED: Purpose
PURPOSE_TRAIN: Purpose
PURPOSE_EVALUATE: Purpose
ENCODING_UNSPECIFIED: Encoding
ENCODING_PLAIN: Encoding
ABORT_REASON_UNSPECIFIED: AbortReason
ABORT_REASON_BELOW_QUORUM: AbortReason
ABORT_REASON_BELOW_FLOOR: AbortReason
ABORT_REASON_OPERATOR: AbortReason
ABORT_REASON_FOLD_FAILED: AbortReason
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_DECLINED: DropReason
DROP_REASON_TASK_UNAVAILABLE: DropReason
DROP_REASON_TASK_CRASHED: DropReason
DROP_REASON_TASK_DEADLINE: DropReason
DROP_REASON_TASK_INVALID: DropReason
DROP_REASON_NON_FINITE: DropReason
DROP_REASON_MANIFEST_MISMATCH: DropReason
DROP_REASON_MODEL_UNAVAILABLE: DropReason
DROP_REASON_DISK: DropReason
DROP_REASON_LOST: DropReason
DROP_REASON_ABSENT: DropReason
DROP_REASON_DISCONNECTED: DropReason
DROP_REASON_NOT_READY: DropReason
DROP_REASON_UPLOAD_LATE: DropReason
DROP_REASON_REVOKED: DropReason
CONSENT_RULE_UNSPECIFIED: ConsentRule
CONSENT_RULE_JOB_NOT_ALLOWED: ConsentRule
CONSENT_RULE_TASK_NOT_INSTALLED: ConsentRule
CONSENT_RULE_COHORT_TOO_SMALL: ConsentRule
CONSENT_RULE_NOT_A_MEMBER: ConsentRule
CONSENT_RULE_MASKING_REQUIRED: ConsentRule
CONSENT_RULE_JOBSPEC_CHANGED: ConsentRule
CONSENT_RULE_ROUND_REPLAYED: ConsentRule
CONSENT_RULE_TRAINING_TOO_LONG: ConsentRule
REFUSAL_REASON_UNSPECIFIED: RefusalReason
REFUSAL_REASON_NO_COMMON_VERSION: RefusalReason
REFUSAL_REASON_MISSING_CAPABILITY: RefusalReason
REFUSAL_REASON_SIGNING_IDENTITY: RefusalReason
REFUSAL_REASON_SUPERSEDED: RefusalReason
REFUSAL_REASON_NOT_ALLOWED: RefusalReason
REFUSAL_REASON_DRAINING: RefusalReason
REFUSAL_REASON_SILENT: RefusalReason
REFUSAL_REASON_PROTOCOL: RefusalReason

class SessionRequest(_message.Message):
    __slots__ = ("hello", "heartbeat", "consent", "decline", "progress", "ready", "withdraw")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    consent: Consent
    decline: Decline
    progress: Progress
    ready: Ready
    withdraw: Withdraw
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., consent: _Optional[_Union[Consent, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("welcome", "refused", "heartbeat", "round_plan", "attempt_start", "survivor_list", "round_result", "round_aborted")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ROUND_PLAN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_START_FIELD_NUMBER: _ClassVar[int]
    SURVIVOR_LIST_FIELD_NUMBER: _ClassVar[int]
    ROUND_RESULT_FIELD_NUMBER: _ClassVar[int]
    ROUND_ABORTED_FIELD_NUMBER: _ClassVar[int]
    welcome: SignedEnvelope
    refused: Refused
    heartbeat: Heartbeat
    round_plan: SignedEnvelope
    attempt_start: SignedEnvelope
    survivor_list: SurvivorList
    round_result: SignedEnvelope
    round_aborted: SignedEnvelope
    def __init__(self, welcome: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., round_plan: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., attempt_start: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., survivor_list: _Optional[_Union[SurvivorList, _Mapping]] = ..., round_result: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., round_aborted: _Optional[_Union[SignedEnvelope, _Mapping]] = ...) -> None: ...

class SignedEnvelope(_message.Message):
    __slots__ = ("payload", "signature", "signer")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    signature: bytes
    signer: int
    def __init__(self, payload: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., signer: _Optional[int] = ...) -> None: ...

class RoundKey(_message.Message):
    __slots__ = ("job_id", "round")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    round: int
    def __init__(self, job_id: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("versions", "capabilities", "tasks", "nonce", "signing_certificate", "software", "open_rounds")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    OPEN_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    nonce: bytes
    signing_certificate: bytes
    software: str
    open_rounds: _containers.RepeatedCompositeFieldContainer[RoundKey]
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., capabilities: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[str]] = ..., nonce: _Optional[bytes] = ..., signing_certificate: _Optional[bytes] = ..., software: _Optional[str] = ..., open_rounds: _Optional[_Iterable[_Union[RoundKey, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "session_id", "nonce", "signing_certificate", "software", "participant_id", "heartbeat_s", "silence_s", "capabilities")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    SILENCE_S_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    version: int
    session_id: str
    nonce: bytes
    signing_certificate: bytes
    software: str
    participant_id: str
    heartbeat_s: float
    silence_s: float
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., session_id: _Optional[str] = ..., nonce: _Optional[bytes] = ..., signing_certificate: _Optional[bytes] = ..., software: _Optional[str] = ..., participant_id: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., silence_s: _Optional[float] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: RefusalReason
    detail: str
    def __init__(self, reason: _Optional[_Union[RefusalReason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Consent(_message.Message):
    __slots__ = ("key", "plan_digest")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ...) -> None: ...

class Decline(_message.Message):
    __slots__ = ("key", "plan_digest", "rule")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    rule: ConsentRule
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., rule: _Optional[_Union[ConsentRule, str]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("key", "plan_digest", "percent")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    percent: int
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., percent: _Optional[int] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("key", "plan_digest", "fits")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    fits: bool
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., fits: _Optional[bool] = ...) -> None: ...

class Withdraw(_message.Message):
    __slots__ = ("key", "plan_digest", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    reason: DropReason
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., reason: _Optional[_Union[DropReason, str]] = ...) -> None: ...

class RoundPlan(_message.Message):
    __slots__ = ("key", "purpose", "jobspec", "model_digest", "model_bytes", "previous_result", "deadline_s")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    JOBSPEC_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_RESULT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    purpose: Purpose
    jobspec: bytes
    model_digest: bytes
    model_bytes: int
    previous_result: bytes
    deadline_s: float
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., jobspec: _Optional[bytes] = ..., model_digest: _Optional[bytes] = ..., model_bytes: _Optional[int] = ..., previous_result: _Optional[bytes] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class AttemptStart(_message.Message):
    __slots__ = ("version", "suite", "key", "purpose", "attempt", "plan_digest", "jobspec_digest", "consortium_digest", "model_digest", "previous_result_digest", "members", "max_colluding", "layout_digest", "encoding", "upload_deadline_s")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    JOBSPEC_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONSORTIUM_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_RESULT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MAX_COLLUDING_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    version: int
    suite: int
    key: RoundKey
    purpose: Purpose
    attempt: int
    plan_digest: bytes
    jobspec_digest: bytes
    consortium_digest: bytes
    model_digest: bytes
    previous_result_digest: bytes
    members: _containers.RepeatedScalarFieldContainer[str]
    max_colluding: int
    layout_digest: bytes
    encoding: Encoding
    upload_deadline_s: float
    def __init__(self, version: _Optional[int] = ..., suite: _Optional[int] = ..., key: _Optional[_Union[RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., attempt: _Optional[int] = ..., plan_digest: _Optional[bytes] = ..., jobspec_digest: _Optional[bytes] = ..., consortium_digest: _Optional[bytes] = ..., model_digest: _Optional[bytes] = ..., previous_result_digest: _Optional[bytes] = ..., members: _Optional[_Iterable[str]] = ..., max_colluding: _Optional[int] = ..., layout_digest: _Optional[bytes] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., upload_deadline_s: _Optional[float] = ...) -> None: ...

class UpdateHeader(_message.Message):
    __slots__ = ("encoding", "weight", "contributors")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    weight: float
    contributors: int
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., weight: _Optional[float] = ..., contributors: _Optional[int] = ...) -> None: ...

class UploadCommit(_message.Message):
    __slots__ = ("attempt_digest", "index", "header", "update_digest", "chunks")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    index: int
    header: bytes
    update_digest: bytes
    chunks: int
    def __init__(self, attempt_digest: _Optional[bytes] = ..., index: _Optional[int] = ..., header: _Optional[bytes] = ..., update_digest: _Optional[bytes] = ..., chunks: _Optional[int] = ...) -> None: ...

class SurvivorList(_message.Message):
    __slots__ = ("key", "attempt", "commits")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    attempt: int
    commits: _containers.RepeatedCompositeFieldContainer[SignedEnvelope]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., commits: _Optional[_Iterable[_Union[SignedEnvelope, _Mapping]]] = ...) -> None: ...

class RoundResult(_message.Message):
    __slots__ = ("key", "purpose", "attempt_digest", "survivors", "weight_total", "aggregate_digest", "next_model_digest")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEXT_MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    purpose: Purpose
    attempt_digest: bytes
    survivors: _containers.RepeatedScalarFieldContainer[int]
    weight_total: float
    aggregate_digest: bytes
    next_model_digest: bytes
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., attempt_digest: _Optional[bytes] = ..., survivors: _Optional[_Iterable[int]] = ..., weight_total: _Optional[float] = ..., aggregate_digest: _Optional[bytes] = ..., next_model_digest: _Optional[bytes] = ...) -> None: ...

class RoundAborted(_message.Message):
    __slots__ = ("key", "plan_digest", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    reason: AbortReason
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., reason: _Optional[_Union[AbortReason, str]] = ...) -> None: ...
