"""A coordinator that says whatever a test tells it to, over real mutual TLS: each refusal of the participant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc
import grpc.aio

from shared.ids import parse_participant_id
from shared.protocol.messages import Hello, Sealed, Welcome
from shared.tls import server_credentials
from shared.wire.sealed import seal
from shared.wire.session import decode_participant_message, encode_coordinator_message
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
            capabilities=("encoding-plain",),
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
