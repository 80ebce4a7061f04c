"""A participant made of nothing but the wire's codecs: it says exactly what a test tells it to say."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import numpy as np
from grpc import aio

from shared.identity import VerifyingKey
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey, TaskName
from shared.job import parse_jobspec
from shared.protocol.messages import (
    CAPABILITIES,
    PROTOCOL_VERSIONS,
    AttemptStart,
    Consent,
    Envelope,
    Heartbeat,
    Hello,
    ParticipantMessage,
    Ready,
    Refused,
    RoundPlan,
    RoundResult,
    Sealed,
    SurvivorList,
    UploadCommit,
    Welcome,
    attempt_digest,
    plan_digest,
)
from shared.tls import channel_credentials
from shared.update import Encoding, StatisticsLayout, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import encode_update_header, open_sealed, seal
from shared.wire.session import (
    IncomingMessage,
    ShutEnvelope,
    decode_coordinator_message,
    encode_participant_message,
)
from shared.wire.transfer import (
    CommitRequest,
    FetchModel,
    UploadOpen,
    UploadStatus,
    decode_commit_response,
    decode_fetch_frame,
    decode_upload_status,
    encode_commit_request,
    encode_data,
    encode_fetch_model,
    encode_upload_open,
    encode_upload_status_request,
)
from tests.support.credentials import Credentials

SESSION = "/consilo.v1.SessionService/Session"
TRANSFER = "/consilo.v1.TransferService/"

V = TypeVar("V", Welcome, RoundPlan, AttemptStart, RoundResult)


class Talk:
    """One Session stream."""

    def __init__(self, stream: aio.StreamStreamCall[bytes, bytes], coordinator: VerifyingKey) -> None:
        self.stream = stream
        self._coordinator = coordinator

    async def say(self, message: ParticipantMessage | bytes) -> None:
        await self.stream.write(message if isinstance(message, bytes) else encode_participant_message(message))

    async def hear(self) -> IncomingMessage | None:
        """The next message, heartbeats included; None at the end."""
        frame: object = await self.stream.read()
        return decode_coordinator_message(frame) if isinstance(frame, bytes) else None

    async def next(self) -> IncomingMessage | None:
        """The next message that is no heartbeat."""
        while isinstance(message := await self.hear(), Heartbeat):
            pass
        return message

    async def expect(self, kind: type[V]) -> Sealed[V]:
        """The next message, which is a sealed one of this kind."""
        message = await self.next()
        assert isinstance(message, ShutEnvelope), message
        assert message.kind is kind, message.kind
        return open_sealed(kind, message.envelope, verifier=self._coordinator, index=0)

    async def refused(self) -> Refused:
        """The next message, which is a refusal and the last one."""
        message = await self.next()
        assert isinstance(message, Refused), message
        assert await self.hear() is None
        assert await self.stream.code() is grpc.StatusCode.OK
        return message


@dataclass(slots=True)
class Attempt:
    """What a participant knows when it may upload."""

    start: Sealed[AttemptStart]
    layout: UpdateLayout
    index: int
    content: bytes
    header: bytes = field(default_factory=lambda: encode_update_header(UpdateHeader(Encoding.PLAIN, 10.0, 1)))

    @property
    def key(self) -> AttemptKey:
        return self.start.value.key

    def chunks(self, from_byte: int = 0) -> list[bytes]:
        return [self.content[start:end] for start, end in self.layout.chunk_ranges() if start >= from_byte]


class FakeParticipant:
    """One identity on one connection."""

    def __init__(self, name: str, credentials: Credentials, channel: aio.Channel, coordinator: VerifyingKey) -> None:
        self.name = ParticipantId(name)
        self._credentials = credentials
        self._channel = channel
        self._coordinator = coordinator

    def hello(self, **changes: Any) -> Hello:
        said: dict[str, Any] = {
            "versions": PROTOCOL_VERSIONS,
            "capabilities": CAPABILITIES,
            "tasks": (TaskName("heart"),),
            "nonce": secrets.token_bytes(32),
            "signing_certificate": self._credentials.signing_certificate_der,
            "software": "fake",
            "open_rounds": (),
        }
        return Hello(**{**said, **changes})

    def talk(self) -> Talk:
        """A Session on which nothing was said yet."""
        session: aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(SESSION)
        return Talk(session(), self._coordinator)

    async def open(self, *, open_rounds: Sequence[RoundKey] = ()) -> tuple[Talk, Welcome]:
        """A session that was welcomed."""
        talk = self.talk()
        hello = self.hello(open_rounds=tuple(open_rounds))
        await talk.say(hello)
        welcome = (await talk.expect(Welcome)).value
        assert welcome.nonce == hello.nonce
        return talk, welcome

    async def train(self, talk: Talk) -> Attempt:
        """Consent to the plan that comes next, be Ready at once, and wait for the attempt."""
        plan = await talk.expect(RoundPlan)
        key, digest = plan.value.key, plan_digest(plan)
        await talk.say(Consent(key, digest))
        await talk.say(Ready(key, digest, fits=True))
        start = await talk.expect(AttemptStart)
        spec = parse_jobspec(plan.value.jobspec)
        content = b"".join([chunk async for chunk in self.fetch(plan.value.model)])
        parameters = (len(content) - 8 - int.from_bytes(content[:8], "little")) // 4
        statistics = StatisticsLayout(spec.metrics)
        layout = UpdateLayout(Encoding.PLAIN, parameters, statistics.cells)
        deltas = np.full(parameters, 0.5, "<f4").tobytes()
        cells = np.array([10.0, 5.0, 10.0, 4.0], "<f8").tobytes()
        return Attempt(start, layout, spec.members.index(self.name) + 1, deltas + cells)

    async def fetch(self, model: Digest, offset: int = 0) -> AsyncIterator[bytes]:
        call: aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(TRANSFER + "FetchModel")
        async for frame in call(encode_fetch_model(FetchModel(model, offset))):
            yield bytes(decode_fetch_frame(frame))

    def uploading(self, frames: Iterable[bytes] | None = None) -> aio.StreamUnaryCall[bytes, bytes]:
        """An UploadUpdate; without frames the test writes them itself."""
        call: aio.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(TRANSFER + "UploadUpdate")
        return call() if frames is None else call(iter(list(frames)))

    async def upload(self, attempt: Attempt, *, offset: int = 0) -> None:
        opening = encode_upload_open(UploadOpen(attempt.key, offset))
        await self.uploading([opening, *map(encode_data, attempt.chunks(offset))])

    async def status(self, key: AttemptKey) -> UploadStatus:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(TRANSFER + "UploadStatus")
        return decode_upload_status(await call(encode_upload_status_request(key)))

    def commitment(self, made: Attempt, **changes: Any) -> Envelope:
        """The signed word for an update, or one with something else in it."""
        digests = [Digest.of(chunk) for chunk in made.chunks()]
        said: dict[str, Any] = {
            "attempt": attempt_digest(made.start),
            "transcript": attempt_digest(made.start),
            "index": made.index,
            "header": made.header,
            "update": update_digest(made.header, digests),
            "chunks": len(digests),
        }
        commit = UploadCommit(**{**said, **changes})
        return seal(commit, signer=self._credentials.signing_key, index=made.index).envelope

    async def commit(self, attempt: Attempt, commit: Envelope | None = None) -> Digest:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(TRANSFER + "UploadCommit")
        request = CommitRequest(attempt.key, commit or self.commitment(attempt))
        return decode_commit_response(await call(encode_commit_request(request)))

    async def result(self, talk: Talk) -> RoundResult:
        """The survivor list, then the result."""
        assert isinstance(await talk.next(), SurvivorList)
        return (await talk.expect(RoundResult)).value


@asynccontextmanager
async def fake_participant(
    port: int, name: str, credentials: Credentials, coordinator: Credentials
) -> AsyncIterator[FakeParticipant]:
    """Dial; the connection ends with the block."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    key = coordinator.signing_key.verifying_key
    async with aio.secure_channel(
        f"localhost:{port}", channel_credentials(credentials.tls), options=options
    ) as channel:
        yield FakeParticipant(name, credentials, channel, key)
