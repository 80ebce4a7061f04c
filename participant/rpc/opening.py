"""How a session opens from here: a Hello with a fresh nonce, and a Welcome that is believed only after every check.

The Welcome is signed by a certificate of the CA with the coordinator's role, whose key is the one in the consortium's
manifest where one is pinned: TLS proves the host, this proves the identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import grpc.aio

from participant.rpc.counting import CONTROL, ByteCounter
from shared.clock import Clock
from shared.consortium import Consortium
from shared.entropy import Entropy
from shared.errors import FederationError, IdentityError, RefusedError, UnreachableError, WireError
from shared.identity import Identity, Role, VerifyingKey, verify_signing_certificate
from shared.ids import RoundKey, TaskName
from shared.protocol.messages import CAPABILITIES, NONCE_BYTES, PROTOCOL_VERSIONS, Envelope, Hello, Refused, Welcome
from shared.reasons import RefusalReason
from shared.tls import TlsPaths
from shared.wire.sealed import open_sealed, peek_welcome
from shared.wire.session import (
    OPEN_ROUNDS_MAX,
    ShutEnvelope,
    decode_coordinator_message,
    encode_participant_message,
)

HEARTBEAT_LEAST_S = 0.05  # more often is a busy loop
SILENCE_MOST_S = 300.0  # longer, and a dead connection is found by nobody

_STUBBORN = {
    RefusalReason.NO_COMMON_VERSION: "update Consilo on one of the two sides",
    RefusalReason.MISSING_CAPABILITY: "update Consilo on one of the two sides",
    RefusalReason.SIGNING_IDENTITY: "the signing certificate is not the one on the coordinator's allow-list",
    RefusalReason.NOT_ALLOWED: "ask the coordinator's operator to put this participant on the allow-list",
    RefusalReason.SUPERSEDED: "another daemon runs with this participant's identity: stop one of them",
}

SessionStream: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a session is opened with. The TLS files are read again for each; the signing certificate is the one that
    the daemon started with.
    """

    identity: Identity
    tls: TlsPaths
    signing_certificate: Callable[[], bytes]
    """DER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Who opens sessions from here, and with what."""

    credentials: Credentials
    consortium: Consortium | None
    """The manifest that this silo pinned, if any; then only a coordinator in it is believed."""
    tasks: tuple[TaskName, ...]
    software: str
    clock: Clock
    entropy: Entropy


@dataclass(frozen=True, slots=True)
class Opened:
    """A Welcome that passed every check."""

    welcome: Welcome
    verifier: VerifyingKey


async def open_session(
    stream: SessionStream,
    guest: Guest,
    counter: ByteCounter,
    *,
    open_rounds: tuple[RoundKey, ...],
    heads: tuple[Envelope, ...],
) -> Opened:
    """Say Hello and check the answer. Raises PeerError, UnreachableError, or AioRpcError where gRPC ended it."""
    nonce = guest.entropy.take(NONCE_BYTES)
    hello = Hello(
        versions=PROTOCOL_VERSIONS,
        capabilities=CAPABILITIES,
        tasks=guest.tasks,
        nonce=nonce,
        signing_certificate=guest.credentials.signing_certificate(),
        software=guest.software,
        open_rounds=open_rounds[:OPEN_ROUNDS_MAX],
        heads=heads,
    )
    await sent(stream, encode_participant_message(hello), counter)
    answer = decode_coordinator_message(await next_frame(stream, counter))
    if isinstance(answer, Refused):
        raise refusal(answer)
    if not isinstance(answer, ShutEnvelope) or answer.kind is not Welcome:
        raise WireError("the coordinator answers a Hello with a Welcome; this is something else")
    return _verified(answer, guest, nonce, now=guest.clock.now())


def _verified(answer: ShutEnvelope, guest: Guest, nonce: bytes, *, now: datetime) -> Opened:
    """PROTOCOL.md section 4: certificate, role, consortium, signature, nonce, addressee, version."""
    mine = guest.credentials.identity
    certificate = verify_signing_certificate(
        peek_welcome(answer.envelope).signing_certificate, ca_pem=_read(guest.credentials.tls.ca), now=now
    )
    theirs = certificate.identity
    if theirs.role is not Role.COORDINATOR or theirs.consortium != mine.consortium:
        raise IdentityError(f"the Welcome is signed by {theirs}, expected a coordinator of {mine.consortium}")
    if guest.consortium is not None:
        guest.consortium.require(theirs, certificate.verifying_key)
    welcome = open_sealed(Welcome, answer.envelope, verifier=certificate.verifying_key, index=0).value
    if welcome.nonce != nonce or welcome.participant != mine.name:
        raise IdentityError("the Welcome answers another Hello than this one: is something replaying messages?")
    if not (HEARTBEAT_LEAST_S <= welcome.heartbeat_s < welcome.silence_s <= SILENCE_MOST_S):
        raise WireError(
            f"heartbeats every {welcome.heartbeat_s:g} s and {welcome.silence_s:g} s of silence: expected at least "
            f"{HEARTBEAT_LEAST_S:g} s, at most {SILENCE_MOST_S:g} s, and the first below the second"
        )
    if welcome.version not in PROTOCOL_VERSIONS:
        raise WireError(f"the coordinator chose protocol version {welcome.version}, offered: {PROTOCOL_VERSIONS}")
    return Opened(welcome, certificate.verifying_key)


# --- frames -----------------------------------------------------------------------------------------------------------


async def next_frame(stream: SessionStream, counter: ByteCounter) -> bytes:
    """The coordinator's next frame. Raises what ended the stream: AioRpcError where gRPC did."""
    frame = await stream.read()
    if isinstance(frame, bytes):
        counter.received(CONTROL, len(frame))
        return frame
    code, detail = await stream.code(), await stream.details()
    if code is grpc.StatusCode.OK:
        raise UnreachableError("the coordinator ended the session")
    raise grpc.aio.AioRpcError(code, await stream.initial_metadata(), await stream.trailing_metadata(), details=detail)


async def sent(stream: SessionStream, frame: bytes, counter: ByteCounter) -> bool:
    """Whether the frame went out; not when the call is over already, of which the reader says why."""
    try:
        await stream.write(frame)
    except asyncio.InvalidStateError:
        return False
    counter.sent(CONTROL, len(frame))
    return True


def refusal(refused: Refused) -> FederationError:
    """What a Refused means here: RefusedError where only a person can help."""
    advice = _STUBBORN.get(refused.reason)
    if advice is None:
        return UnreachableError(f"the coordinator ended the session: {refused.reason} ({refused.detail})")
    return RefusedError(f"{refused.reason}: {refused.detail}; {advice}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreachableError(f"{path} cannot be read: {error.strerror}") from error
