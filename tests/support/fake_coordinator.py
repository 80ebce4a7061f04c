"""A coordinator that says whatever a test tells it to, over real mutual TLS: each refusal of the participant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc
import grpc.aio

from shared.ids import Digest, parse_participant_id
from shared.protocol.messages import CAPABILITIES, Envelope, Hello, Sealed, Welcome
from shared.tls import server_credentials
from shared.wire.sealed import seal
from shared.wire.session import decode_participant_message, encode_coordinator_message
from shared.wire.transfer import (
    UploadOpen,
    UploadStatus,
    data_view,
    decode_commit_request,
    decode_fetch_model,
    decode_upload_frame,
    encode_commit_response,
    encode_data,
    encode_upload_response,
    encode_upload_status,
)
from tests.support.credentials import Credentials

Handler = Callable[["Stream"], Awaitable[None]]


@dataclass(slots=True)
class Stream:
    """One session as the fake sees it."""

    context: grpc.aio.ServicerContext[bytes, bytes]
    credentials: Credentials
    hello: Hello = field(init=False)

    async def read(self) -> object:
        frame = await self.context.read()
        assert isinstance(frame, bytes), "the participant ended the session"
        return decode_participant_message(frame)

    async def send(self, frame: bytes) -> None:
        await self.context.write(frame)

    def welcome(self, *, signer: Credentials | None = None, **changes: object) -> bytes:
        """A Welcome that answers this session's Hello as it should, with changes."""
        signer = signer or self.credentials
        honest = Welcome(
            version=1,
            session="0123456789abcdef",
            nonce=self.hello.nonce,
            software="fake",
            participant=parse_participant_id("hospital-a"),
            capabilities=CAPABILITIES,
            heartbeat_s=0.05,
            silence_s=30.0,
            signing_certificate=signer.signing_certificate_der,
        )
        said: Welcome = replace(honest, **changes)  # type: ignore[arg-type] # tests name the fields
        sealed: Sealed[Welcome] = seal(said, signer=signer.signing_key, index=0)
        return encode_coordinator_message(sealed)


@asynccontextmanager
async def fake_coordinator(credentials: Credentials, handler: Handler) -> AsyncIterator[str]:
    """Serve sessions with `handler`, which starts after the Hello. Gives the address."""

    async def session(_requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        stream = Stream(context, credentials)
        hello = await stream.read()
        assert isinstance(hello, Hello)
        stream.hello = hello
        await handler(stream)

    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(session)
    service = grpc.method_handlers_generic_handler("consilo.v1.SessionService", {"Session": method})
    server.add_generic_rpc_handlers((service,))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(credentials.tls))
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await asyncio.shield(server.stop(None))


@dataclass(slots=True)
class FakeTransferService:
    """The transfer service of a coordinator that has `held` bytes of an update, and takes whatever comes."""

    held: int = 0
    committed: bool = False
    acknowledged: Digest | None = None
    """What it says that it took; None: what was committed to, as it was told."""
    offsets: list[int] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    commits: list[Envelope] = field(default_factory=list)
    told: Digest | None = None
    model: bytes = b""
    """What it sends of whatever model it is asked for."""

    async def fetch(self, request: bytes, _context: object) -> AsyncIterator[bytes]:
        self.offsets.append(decode_fetch_model(request).offset)
        yield encode_data(memoryview(self.model)[self.offsets[-1] :])

    async def status(self, _request: bytes, _context: object) -> bytes:
        return encode_upload_status(UploadStatus(self.held, self.committed))

    async def upload(self, frames: AsyncIterator[bytes], _context: object) -> bytes:
        async for frame in frames:
            chunk = data_view(frame)
            if chunk is None:
                opened = decode_upload_frame(frame)
                assert isinstance(opened, UploadOpen)
                self.offsets.append(opened.offset)
            else:
                self.received.append(bytes(chunk))
        return encode_upload_response(self.held + sum(map(len, self.received)))

    async def commit(self, request: bytes, _context: object) -> bytes:
        self.commits.append(decode_commit_request(request).commit)
        said = self.acknowledged or self.told
        assert said is not None
        return encode_commit_response(said)


@asynccontextmanager
async def fake_transfers(service: FakeTransferService) -> AsyncIterator[grpc.aio.Channel]:
    """Serve it without TLS, which is not what is looked at. Gives a channel to it."""
    server = grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "FetchModel": grpc.unary_stream_rpc_method_handler(service.fetch),
        "UploadStatus": grpc.unary_unary_rpc_method_handler(service.status),
        "UploadUpdate": grpc.stream_unary_rpc_method_handler(service.upload),
        "UploadCommit": grpc.unary_unary_rpc_method_handler(service.commit),
    }
    handlers = grpc.method_handlers_generic_handler("consilo.v1.TransferService", methods)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)
