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
    ENCODING_U32: _ClassVar[Encoding]
    ENCODING_U16: _ClassVar[Encoding]
    ENCODING_U64: _ClassVar[Encoding]

class AbortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABORT_REASON_UNSPECIFIED: _ClassVar[AbortReason]
    ABORT_REASON_BELOW_QUORUM: _ClassVar[AbortReason]
    ABORT_REASON_BELOW_FLOOR: _ClassVar[AbortReason]
    ABORT_REASON_OPERATOR: _ClassVar[AbortReason]
    ABORT_REASON_FOLD_FAILED: _ClassVar[AbortReason]
    ABORT_REASON_UNOPENABLE: _ClassVar[AbortReason]
    ABORT_REASON_TOTAL_REFUSED: _ClassVar[AbortReason]
    ABORT_REASON_RESTORED: _ClassVar[AbortReason]
    ABORT_REASON_DAMAGED: _ClassVar[AbortReason]

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
    DROP_REASON_OUT_OF_RANGE: _ClassVar[DropReason]
    DROP_REASON_EXCHANGE_LATE: _ClassVar[DropReason]
    DROP_REASON_ATTEMPT_LEFT: _ClassVar[DropReason]
    DROP_REASON_NOT_ASKED: _ClassVar[DropReason]

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
    CONSENT_RULE_JOURNAL_DOUBTFUL: _ClassVar[ConsentRule]
    CONSENT_RULE_NOT_IN_CONSORTIUM: _ClassVar[ConsentRule]
    CONSENT_RULE_TWO_PARTY: _ClassVar[ConsentRule]
    CONSENT_RULE_NO_COLLUSION: _ClassVar[ConsentRule]
    CONSENT_RULE_COLLUSION_TOO_LOW: _ClassVar[ConsentRule]
    CONSENT_RULE_SURVIVORS_TOO_FEW: _ClassVar[ConsentRule]
    CONSENT_RULE_JOB_STOPPED: _ClassVar[ConsentRule]
    CONSENT_RULE_JOB_NOT_APPROVED: _ClassVar[ConsentRule]
    CONSENT_RULE_CONTROL_OUT_OF_BOUNDS: _ClassVar[ConsentRule]

class AnswerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_KIND_UNSPECIFIED: _ClassVar[AnswerKind]
    ANSWER_KIND_ADVERTISE_KEYS: _ClassVar[AnswerKind]
    ANSWER_KIND_SHARE_KEYS: _ClassVar[AnswerKind]
    ANSWER_KIND_CONSISTENCY_SIGNATURE: _ClassVar[AnswerKind]
    ANSWER_KIND_UNMASK_SHARES: _ClassVar[AnswerKind]
    ANSWER_KIND_ATTEMPT_ABORT: _ClassVar[AnswerKind]

class CheckpointKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECKPOINT_KIND_UNSPECIFIED: _ClassVar[CheckpointKind]
    CHECKPOINT_KIND_CHAIN: _ClassVar[CheckpointKind]

class AttemptAbortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTEMPT_ABORT_REASON_UNSPECIFIED: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_GONE: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_EQUIVOCATION: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_BAD_ATTEMPT: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_BAD_ROSTER: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_BAD_SHARES: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_BAD_SURVIVORS: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_REPEATED_TOTAL: _ClassVar[AttemptAbortReason]
    ATTEMPT_ABORT_REASON_RESEND_DIFFERS: _ClassVar[AttemptAbortReason]

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
ENCODING_U32: Encoding
ENCODING_U16: Encoding
ENCODING_U64: Encoding
ABORT_REASON_UNSPECIFIED: AbortReason
ABORT_REASON_BELOW_QUORUM: AbortReason
ABORT_REASON_BELOW_FLOOR: AbortReason
ABORT_REASON_OPERATOR: AbortReason
ABORT_REASON_FOLD_FAILED: AbortReason
ABORT_REASON_UNOPENABLE: AbortReason
ABORT_REASON_TOTAL_REFUSED: AbortReason
ABORT_REASON_RESTORED: AbortReason
ABORT_REASON_DAMAGED: AbortReason
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
DROP_REASON_OUT_OF_RANGE: DropReason
DROP_REASON_EXCHANGE_LATE: DropReason
DROP_REASON_ATTEMPT_LEFT: DropReason
DROP_REASON_NOT_ASKED: DropReason
CONSENT_RULE_UNSPECIFIED: ConsentRule
CONSENT_RULE_JOB_NOT_ALLOWED: ConsentRule
CONSENT_RULE_TASK_NOT_INSTALLED: ConsentRule
CONSENT_RULE_COHORT_TOO_SMALL: ConsentRule
CONSENT_RULE_NOT_A_MEMBER: ConsentRule
CONSENT_RULE_MASKING_REQUIRED: ConsentRule
CONSENT_RULE_JOBSPEC_CHANGED: ConsentRule
CONSENT_RULE_ROUND_REPLAYED: ConsentRule
CONSENT_RULE_TRAINING_TOO_LONG: ConsentRule
CONSENT_RULE_JOURNAL_DOUBTFUL: ConsentRule
CONSENT_RULE_NOT_IN_CONSORTIUM: ConsentRule
CONSENT_RULE_TWO_PARTY: ConsentRule
CONSENT_RULE_NO_COLLUSION: ConsentRule
CONSENT_RULE_COLLUSION_TOO_LOW: ConsentRule
CONSENT_RULE_SURVIVORS_TOO_FEW: ConsentRule
CONSENT_RULE_JOB_STOPPED: ConsentRule
CONSENT_RULE_JOB_NOT_APPROVED: ConsentRule
CONSENT_RULE_CONTROL_OUT_OF_BOUNDS: ConsentRule
ANSWER_KIND_UNSPECIFIED: AnswerKind
ANSWER_KIND_ADVERTISE_KEYS: AnswerKind
ANSWER_KIND_SHARE_KEYS: AnswerKind
ANSWER_KIND_CONSISTENCY_SIGNATURE: AnswerKind
ANSWER_KIND_UNMASK_SHARES: AnswerKind
ANSWER_KIND_ATTEMPT_ABORT: AnswerKind
CHECKPOINT_KIND_UNSPECIFIED: CheckpointKind
CHECKPOINT_KIND_CHAIN: CheckpointKind
ATTEMPT_ABORT_REASON_UNSPECIFIED: AttemptAbortReason
ATTEMPT_ABORT_REASON_GONE: AttemptAbortReason
ATTEMPT_ABORT_REASON_EQUIVOCATION: AttemptAbortReason
ATTEMPT_ABORT_REASON_BAD_ATTEMPT: AttemptAbortReason
ATTEMPT_ABORT_REASON_BAD_ROSTER: AttemptAbortReason
ATTEMPT_ABORT_REASON_BAD_SHARES: AttemptAbortReason
ATTEMPT_ABORT_REASON_BAD_SURVIVORS: AttemptAbortReason
ATTEMPT_ABORT_REASON_REPEATED_TOTAL: AttemptAbortReason
ATTEMPT_ABORT_REASON_RESEND_DIFFERS: AttemptAbortReason
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
    __slots__ = ("hello", "heartbeat", "consent", "decline", "progress", "ready", "withdraw", "attempt_answer")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ANSWER_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    consent: Consent
    decline: Decline
    progress: Progress
    ready: Ready
    withdraw: Withdraw
    attempt_answer: AttemptAnswer
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., consent: _Optional[_Union[Consent, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ..., attempt_answer: _Optional[_Union[AttemptAnswer, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("welcome", "refused", "heartbeat", "round_plan", "attempt_start", "survivor_list", "round_result", "round_aborted", "key_roster", "share_delivery", "consistency_bundle")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ROUND_PLAN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_START_FIELD_NUMBER: _ClassVar[int]
    SURVIVOR_LIST_FIELD_NUMBER: _ClassVar[int]
    ROUND_RESULT_FIELD_NUMBER: _ClassVar[int]
    ROUND_ABORTED_FIELD_NUMBER: _ClassVar[int]
    KEY_ROSTER_FIELD_NUMBER: _ClassVar[int]
    SHARE_DELIVERY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    welcome: SignedEnvelope
    refused: Refused
    heartbeat: Heartbeat
    round_plan: SignedEnvelope
    attempt_start: SignedEnvelope
    survivor_list: SurvivorList
    round_result: SignedEnvelope
    round_aborted: SignedEnvelope
    key_roster: KeyRoster
    share_delivery: ShareDelivery
    consistency_bundle: ConsistencyBundle
    def __init__(self, welcome: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., round_plan: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., attempt_start: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., survivor_list: _Optional[_Union[SurvivorList, _Mapping]] = ..., round_result: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., round_aborted: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., key_roster: _Optional[_Union[KeyRoster, _Mapping]] = ..., share_delivery: _Optional[_Union[ShareDelivery, _Mapping]] = ..., consistency_bundle: _Optional[_Union[ConsistencyBundle, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("versions", "capabilities", "tasks", "nonce", "signing_certificate", "software", "open_rounds", "heads")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    OPEN_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    nonce: bytes
    signing_certificate: bytes
    software: str
    open_rounds: _containers.RepeatedCompositeFieldContainer[RoundKey]
    heads: _containers.RepeatedCompositeFieldContainer[SignedEnvelope]
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., capabilities: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[str]] = ..., nonce: _Optional[bytes] = ..., signing_certificate: _Optional[bytes] = ..., software: _Optional[str] = ..., open_rounds: _Optional[_Iterable[_Union[RoundKey, _Mapping]]] = ..., heads: _Optional[_Iterable[_Union[SignedEnvelope, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("key", "purpose", "jobspec", "model_digest", "model_bytes", "previous_result", "deadline_s", "control")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    JOBSPEC_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_RESULT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    purpose: Purpose
    jobspec: bytes
    model_digest: bytes
    model_bytes: int
    previous_result: bytes
    deadline_s: float
    control: JobControl
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., jobspec: _Optional[bytes] = ..., model_digest: _Optional[bytes] = ..., model_bytes: _Optional[int] = ..., previous_result: _Optional[bytes] = ..., deadline_s: _Optional[float] = ..., control: _Optional[_Union[JobControl, _Mapping]] = ...) -> None: ...

class JobControl(_message.Message):
    __slots__ = ("revision", "deadline_s", "quorum")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    revision: int
    deadline_s: float
    quorum: int
    def __init__(self, revision: _Optional[int] = ..., deadline_s: _Optional[float] = ..., quorum: _Optional[int] = ...) -> None: ...

class AttemptStart(_message.Message):
    __slots__ = ("version", "suite", "key", "purpose", "attempt", "plan_digest", "jobspec_digest", "consortium_digest", "model_digest", "previous_result_digest", "members", "max_colluding", "layout_digest", "encoding", "upload_deadline_s", "exchange_deadline_s")
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
    EXCHANGE_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
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
    exchange_deadline_s: float
    def __init__(self, version: _Optional[int] = ..., suite: _Optional[int] = ..., key: _Optional[_Union[RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., attempt: _Optional[int] = ..., plan_digest: _Optional[bytes] = ..., jobspec_digest: _Optional[bytes] = ..., consortium_digest: _Optional[bytes] = ..., model_digest: _Optional[bytes] = ..., previous_result_digest: _Optional[bytes] = ..., members: _Optional[_Iterable[str]] = ..., max_colluding: _Optional[int] = ..., layout_digest: _Optional[bytes] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., upload_deadline_s: _Optional[float] = ..., exchange_deadline_s: _Optional[float] = ...) -> None: ...

class AttemptAnswer(_message.Message):
    __slots__ = ("key", "attempt", "kind", "envelope", "shares")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    attempt: int
    kind: AnswerKind
    envelope: SignedEnvelope
    shares: _containers.RepeatedCompositeFieldContainer[SealedShare]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., kind: _Optional[_Union[AnswerKind, str]] = ..., envelope: _Optional[_Union[SignedEnvelope, _Mapping]] = ..., shares: _Optional[_Iterable[_Union[SealedShare, _Mapping]]] = ...) -> None: ...

class AdvertiseKeys(_message.Message):
    __slots__ = ("attempt_digest", "index", "mask_key", "share_key", "nonce", "checkpoint")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MASK_KEY_FIELD_NUMBER: _ClassVar[int]
    SHARE_KEY_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    index: int
    mask_key: bytes
    share_key: bytes
    nonce: bytes
    checkpoint: Checkpoint
    def __init__(self, attempt_digest: _Optional[bytes] = ..., index: _Optional[int] = ..., mask_key: _Optional[bytes] = ..., share_key: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("kind", "size", "root")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    kind: CheckpointKind
    size: int
    root: bytes
    def __init__(self, kind: _Optional[_Union[CheckpointKind, str]] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class KeyRoster(_message.Message):
    __slots__ = ("key", "attempt", "adverts")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ADVERTS_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    attempt: int
    adverts: _containers.RepeatedCompositeFieldContainer[SignedEnvelope]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., adverts: _Optional[_Iterable[_Union[SignedEnvelope, _Mapping]]] = ...) -> None: ...

class ShareKeys(_message.Message):
    __slots__ = ("attempt_digest", "roster_digest", "index", "self_commitment", "shares_root")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROSTER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SELF_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SHARES_ROOT_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    roster_digest: bytes
    index: int
    self_commitment: bytes
    shares_root: bytes
    def __init__(self, attempt_digest: _Optional[bytes] = ..., roster_digest: _Optional[bytes] = ..., index: _Optional[int] = ..., self_commitment: _Optional[bytes] = ..., shares_root: _Optional[bytes] = ...) -> None: ...

class SealedShare(_message.Message):
    __slots__ = ("holder", "ciphertext", "self_commitment", "mask_commitment")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    SELF_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    MASK_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    holder: int
    ciphertext: bytes
    self_commitment: bytes
    mask_commitment: bytes
    def __init__(self, holder: _Optional[int] = ..., ciphertext: _Optional[bytes] = ..., self_commitment: _Optional[bytes] = ..., mask_commitment: _Optional[bytes] = ...) -> None: ...

class ShareDelivery(_message.Message):
    __slots__ = ("key", "attempt", "dealers", "shares")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DEALERS_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    attempt: int
    dealers: _containers.RepeatedCompositeFieldContainer[SignedEnvelope]
    shares: _containers.RepeatedCompositeFieldContainer[DeliveredShare]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., dealers: _Optional[_Iterable[_Union[SignedEnvelope, _Mapping]]] = ..., shares: _Optional[_Iterable[_Union[DeliveredShare, _Mapping]]] = ...) -> None: ...

class DeliveredShare(_message.Message):
    __slots__ = ("dealer", "share", "path")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    dealer: int
    share: SealedShare
    path: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, dealer: _Optional[int] = ..., share: _Optional[_Union[SealedShare, _Mapping]] = ..., path: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ConsistencySignature(_message.Message):
    __slots__ = ("attempt_digest", "survivors_digest", "index")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    survivors_digest: bytes
    index: int
    def __init__(self, attempt_digest: _Optional[bytes] = ..., survivors_digest: _Optional[bytes] = ..., index: _Optional[int] = ...) -> None: ...

class ConsistencyBundle(_message.Message):
    __slots__ = ("key", "attempt", "signatures")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    attempt: int
    signatures: _containers.RepeatedCompositeFieldContainer[SignedEnvelope]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., signatures: _Optional[_Iterable[_Union[SignedEnvelope, _Mapping]]] = ...) -> None: ...

class UnmaskShares(_message.Message):
    __slots__ = ("attempt_digest", "survivors_digest", "index", "self_shares", "mask_shares")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SELF_SHARES_FIELD_NUMBER: _ClassVar[int]
    MASK_SHARES_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    survivors_digest: bytes
    index: int
    self_shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    mask_shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    def __init__(self, attempt_digest: _Optional[bytes] = ..., survivors_digest: _Optional[bytes] = ..., index: _Optional[int] = ..., self_shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ..., mask_shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ...) -> None: ...

class RevealedShare(_message.Message):
    __slots__ = ("dealer", "share")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    dealer: int
    share: bytes
    def __init__(self, dealer: _Optional[int] = ..., share: _Optional[bytes] = ...) -> None: ...

class AttemptAbort(_message.Message):
    __slots__ = ("attempt_digest", "index", "reason")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    index: int
    reason: AttemptAbortReason
    def __init__(self, attempt_digest: _Optional[bytes] = ..., index: _Optional[int] = ..., reason: _Optional[_Union[AttemptAbortReason, str]] = ...) -> None: ...

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
    __slots__ = ("attempt_digest", "index", "header", "update_digest", "chunks", "transcript_digest")
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    attempt_digest: bytes
    index: int
    header: bytes
    update_digest: bytes
    chunks: int
    transcript_digest: bytes
    def __init__(self, attempt_digest: _Optional[bytes] = ..., index: _Optional[int] = ..., header: _Optional[bytes] = ..., update_digest: _Optional[bytes] = ..., chunks: _Optional[int] = ..., transcript_digest: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("key", "purpose", "attempt_digest", "survivors", "weight_total", "aggregate_digest", "next_model_digest", "transcript_digest", "top_cells")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEXT_MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOP_CELLS_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    purpose: Purpose
    attempt_digest: bytes
    survivors: _containers.RepeatedScalarFieldContainer[int]
    weight_total: float
    aggregate_digest: bytes
    next_model_digest: bytes
    transcript_digest: bytes
    top_cells: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., attempt_digest: _Optional[bytes] = ..., survivors: _Optional[_Iterable[int]] = ..., weight_total: _Optional[float] = ..., aggregate_digest: _Optional[bytes] = ..., next_model_digest: _Optional[bytes] = ..., transcript_digest: _Optional[bytes] = ..., top_cells: _Optional[_Iterable[int]] = ...) -> None: ...

class RoundAborted(_message.Message):
    __slots__ = ("key", "plan_digest", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    plan_digest: bytes
    reason: AbortReason
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., reason: _Optional[_Union[AbortReason, str]] = ...) -> None: ...
