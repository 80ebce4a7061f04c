from shared.pb.v1 import session_pb2 as _session_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FetchModelRequest(_message.Message):
    __slots__ = ("model_digest", "offset")
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    model_digest: bytes
    offset: int
    def __init__(self, model_digest: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchModelResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class UploadUpdateRequest(_message.Message):
    __slots__ = ("data", "open")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    open: UploadOpen
    def __init__(self, data: _Optional[bytes] = ..., open: _Optional[_Union[UploadOpen, _Mapping]] = ...) -> None: ...

class UploadOpen(_message.Message):
    __slots__ = ("key", "attempt", "offset")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    key: _session_pb2.RoundKey
    attempt: int
    offset: int
    def __init__(self, key: _Optional[_Union[_session_pb2.RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class UploadUpdateResponse(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class UploadStatusRequest(_message.Message):
    __slots__ = ("key", "attempt")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    key: _session_pb2.RoundKey
    attempt: int
    def __init__(self, key: _Optional[_Union[_session_pb2.RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ...) -> None: ...

class UploadStatusResponse(_message.Message):
    __slots__ = ("durable_bytes", "committed")
    DURABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    durable_bytes: int
    committed: bool
    def __init__(self, durable_bytes: _Optional[int] = ..., committed: _Optional[bool] = ...) -> None: ...

class UploadCommitRequest(_message.Message):
    __slots__ = ("key", "attempt", "commit")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    key: _session_pb2.RoundKey
    attempt: int
    commit: _session_pb2.SignedEnvelope
    def __init__(self, key: _Optional[_Union[_session_pb2.RoundKey, _Mapping]] = ..., attempt: _Optional[int] = ..., commit: _Optional[_Union[_session_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class UploadCommitResponse(_message.Message):
    __slots__ = ("update_digest",)
    UPDATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    update_digest: bytes
    def __init__(self, update_digest: _Optional[bytes] = ...) -> None: ...
