"""The session with the coordinator: dialled from here, kept open, and opened again whenever it ends.

Theory of operation. `run` dials one coordinator address after the other. On each stream it says Hello and expects a
Welcome, signed over its fresh nonce by a certificate of the CA with the coordinator's role, whose key is the one in the
consortium's manifest where one is pinned: TLS proves the host, this proves the identity. Then three tasks share the
stream: a reader, a writer that drains the outgoing queue, and a heartbeat. Silence for longer than the coordinator
announced ends the session on this side too. Between sessions it waits with backoff and jitter; a refusal that will not
heal by itself is waited out for longer, and logged with what to do about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import grpc.aio
import structlog

from participant.backoff import Backoff
from participant.rpc.channel import dial, error_of
from shared.clock import Clock
from shared.consortium import Consortium
from shared.entropy import Entropy
from shared.errors import (
    ConfigError,
    FederationError,
    IdentityError,
    PeerError,
    RefusedError,
    StorageError,
    UnreachableError,
    WireError,
)
from shared.identity import Identity, Role, VerifyingKey, verify_signing_certificate
from shared.ids import RoundKey, TaskName
from shared.protocol.messages import (
    CAPABILITIES,
    NONCE_BYTES,
    PROTOCOL_VERSIONS,
    Heartbeat,
    Hello,
    ParticipantMessage,
    Refused,
    RoundBroadcast,
    RoundReply,
    Welcome,
)
from shared.reasons import RefusalReason
from shared.tls import TlsPaths
from shared.wire.sealed import open_sealed, peek_welcome
from shared.wire.session import (
    OPEN_ROUNDS_MAX,
    ShutEnvelope,
    decode_coordinator_message,
    encode_participant_message,
    open_broadcast,
)

log = structlog.get_logger()

_METHOD = "/consilo.v1.SessionService/Session"
OPENING_LIMIT_S = 15.0  # for connection, handshake and Welcome
HEALTHY_S = 30.0  # a session that lasted this long was fine: the next backoff starts small
STUBBORN_DELAY_S = 30.0  # after a refusal that only a person can heal
HEARTBEAT_LEAST_S = 0.05  # more often is a busy loop
SILENCE_MOST_S = 300.0  # longer, and a dead connection is found by nobody
QUEUE_LIMIT = 1000  # messages; a session that cannot send for so long is ended

_IDENTITY_ADVICE = "one side does not know the other: compare certificates and the allow-list with its operator"
_STUBBORN = {
    RefusalReason.NO_COMMON_VERSION: "update Consilo on one of the two sides",
    RefusalReason.MISSING_CAPABILITY: "update Consilo on one of the two sides",
    RefusalReason.SIGNING_IDENTITY: "the signing certificate is not the one on the coordinator's allow-list",
    RefusalReason.NOT_ALLOWED: "ask the coordinator's operator to put this participant on the allow-list",
    RefusalReason.SUPERSEDED: "another daemon runs with this participant's identity: stop one of them",
}


class Rounds(Protocol):
    """What the session feeds: `participant.round.driver.Driver`."""

    @property
    def open_rounds(self) -> tuple[RoundKey, ...]: ...

    def connected(self, say: Callable[[RoundReply], None]) -> None: ...

    def disconnected(self) -> None: ...

    def received(self, message: RoundBroadcast, verifier: VerifyingKey) -> None: ...


class Observer(Protocol):
    """Told about the session, for metrics."""

    def session(self, *, open_now: bool) -> None: ...

    def said(self, message: ParticipantMessage) -> None:
        """Said to the coordinator, or about to be."""
        ...

    def refused(self, error: PeerError) -> None:
        """The coordinator said something that it may not say."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a session is opened with. The TLS files are read again for each; the signing certificate is the one that
    the daemon started with.
    """

    identity: Identity
    tls: TlsPaths
    signing_certificate: Callable[[], bytes]
    """DER."""


@dataclass(frozen=True, slots=True)
class _Opened:
    welcome: Welcome
    verifier: VerifyingKey


class SessionLoop:
    """Keeps one session open for as long as the daemon lives."""

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        credentials: Credentials,
        consortium: Consortium | None,
        tasks: Sequence[TaskName],
        software: str,
        rounds: Rounds,
        observer: Observer,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """`consortium`: the manifest that this silo pinned, if any; then only a coordinator in it is believed."""
        self._addresses = addresses
        self._credentials = credentials
        self._consortium = consortium
        self._tasks = tuple(tasks)
        self._software = software
        self._rounds = rounds
        self._observer = observer
        self._clock = clock
        self._entropy = entropy
        self.address = addresses[0]
        """Where the last session was, or is."""

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(entropy=self._entropy)
        turn = 0
        while True:
            self.address = self._addresses[turn % len(self._addresses)]
            began = self._clock.monotonic()
            delay_s = 0.0
            try:
                await self._session(self.address)
            except RefusedError as error:
                delay_s = STUBBORN_DELAY_S
                log.warning("session_refused", address=self.address, detail=str(error))
            except IdentityError as error:
                delay_s = STUBBORN_DELAY_S
                log.warning("session_refused", address=self.address, detail=f"{error}; {_IDENTITY_ADVICE}")
            except (UnreachableError, PeerError) as error:
                log.warning("session_ended", address=self.address, detail=str(error))
            except (ConfigError, StorageError) as error:
                # A certificate that is half replaced, a journal on a full disk: both heal, and nothing was lost. What
                # the coordinator said meanwhile it says again on the next session.
                log.error("session_waits", address=self.address, detail=str(error))  # noqa: TRY400 - no bug to trace
            if self._clock.monotonic() - began > HEALTHY_S:
                backoff.reset()
            delay_s = max(delay_s, backoff.next_delay_s())
            turn += 1
            await asyncio.sleep(delay_s)

    async def _session(self, address: str) -> None:
        """One session from dial to end; always ends in an error that says why."""
        async with dial(address, self._credentials.tls) as channel:
            stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(_METHOD)()
            try:
                opened = await asyncio.wait_for(self._open(stream), OPENING_LIMIT_S)
                await self._live(stream, opened)
            except grpc.aio.AioRpcError as failure:
                raise error_of(failure, address=address) from None
            except TimeoutError:
                raise UnreachableError(f"{address} did not answer within {OPENING_LIMIT_S:g} s") from None
            finally:
                stream.cancel()

    async def _open(self, stream: grpc.aio.StreamStreamCall[bytes, bytes]) -> _Opened:
        nonce = self._entropy.take(NONCE_BYTES)
        hello = Hello(
            versions=PROTOCOL_VERSIONS,
            capabilities=CAPABILITIES,
            tasks=self._tasks,
            nonce=nonce,
            signing_certificate=self._credentials.signing_certificate(),
            software=self._software,
            open_rounds=self._rounds.open_rounds[:OPEN_ROUNDS_MAX],
        )
        await _sent(stream, encode_participant_message(hello))
        answer = decode_coordinator_message(await _next_frame(stream))
        if isinstance(answer, Refused):
            raise _refusal(answer)
        if not isinstance(answer, ShutEnvelope) or answer.kind is not Welcome:
            raise WireError("the coordinator answers a Hello with a Welcome; this is something else")
        return self._verified(answer, nonce, now=self._clock.now())

    def _verified(self, answer: ShutEnvelope, nonce: bytes, *, now: datetime) -> _Opened:
        """PROTOCOL.md section 4: certificate, role, consortium, signature, nonce, addressee, version."""
        mine = self._credentials.identity
        certificate = verify_signing_certificate(
            peek_welcome(answer.envelope).signing_certificate, ca_pem=_read(self._credentials.tls.ca), now=now
        )
        theirs = certificate.identity
        if theirs.role is not Role.COORDINATOR or theirs.consortium != mine.consortium:
            raise IdentityError(f"the Welcome is signed by {theirs}, expected a coordinator of {mine.consortium}")
        if self._consortium is not None:
            self._consortium.require(theirs, certificate.verifying_key)
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
        return _Opened(welcome, certificate.verifying_key)

    async def _live(self, stream: grpc.aio.StreamStreamCall[bytes, bytes], opened: _Opened) -> None:
        outgoing: asyncio.Queue[ParticipantMessage] = asyncio.Queue(QUEUE_LIMIT)
        full = asyncio.Event()

        def say(message: ParticipantMessage) -> None:
            """Never fails: who says something must not suffer from a coordinator that does not read."""
            if outgoing.full():
                full.set()
            else:
                outgoing.put_nowait(message)
                self._observer.said(message)

        log.info("session_open", address=self.address, session=opened.welcome.session, software=opened.welcome.software)
        self._observer.session(open_now=True)
        self._rounds.connected(say)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_write(stream, outgoing))
                group.create_task(_beat(say, opened.welcome.heartbeat_s))
                group.create_task(_end_when(full))
                group.create_task(self._read(stream, opened))
        except ExceptionGroup as ended:
            # Not `except*`: before Python 3.11.4 what is raised inside one comes out wrapped in a group again.
            raise ended.exceptions[0] from None
        finally:
            self._rounds.disconnected()
            self._observer.session(open_now=False)

    async def _read(self, stream: grpc.aio.StreamStreamCall[bytes, bytes], opened: _Opened) -> None:
        silence_s = opened.welcome.silence_s
        while True:
            try:
                frame = await asyncio.wait_for(_next_frame(stream), silence_s)
            except TimeoutError:
                raise UnreachableError(f"nothing heard for {silence_s:g} s: the connection is dead") from None
            try:
                self._take(frame, opened.verifier)
            except RefusedError:
                raise
            except PeerError as error:
                self._observer.refused(error)
                log.warning("message_refused", error=type(error).__name__, detail=str(error))

    def _take(self, frame: bytes, verifier: VerifyingKey) -> None:
        message = decode_coordinator_message(frame)
        if isinstance(message, Refused):
            raise _refusal(message)
        if isinstance(message, Heartbeat):
            return
        if isinstance(message, ShutEnvelope):
            self._rounds.received(open_broadcast(message, verifier=verifier), verifier)
        else:
            self._rounds.received(message, verifier)


async def _write(stream: grpc.aio.StreamStreamCall[bytes, bytes], outgoing: asyncio.Queue[ParticipantMessage]) -> None:
    while await _sent(stream, encode_participant_message(await outgoing.get())):
        pass


async def _sent(stream: grpc.aio.StreamStreamCall[bytes, bytes], frame: bytes) -> bool:
    """Whether the frame went out; not when the call is over already, of which the reader says why."""
    try:
        await stream.write(frame)
    except asyncio.InvalidStateError:
        return False
    return True


async def _beat(say: Callable[[ParticipantMessage], None], heartbeat_s: float) -> None:
    while True:
        await asyncio.sleep(heartbeat_s)
        say(Heartbeat())


async def _end_when(full: asyncio.Event) -> None:
    await full.wait()
    raise UnreachableError(f"{QUEUE_LIMIT} messages wait: the coordinator does not read")


async def _next_frame(stream: grpc.aio.StreamStreamCall[bytes, bytes]) -> bytes:
    frame = await stream.read()
    if isinstance(frame, bytes):
        return frame
    code, detail = await stream.code(), await stream.details()
    if code is grpc.StatusCode.OK:
        raise UnreachableError("the coordinator ended the session")
    raise error_of(
        grpc.aio.AioRpcError(code, await stream.initial_metadata(), await stream.trailing_metadata(), details=detail),
        address="the coordinator",
    )


def _refusal(refused: Refused) -> FederationError:
    advice = _STUBBORN.get(refused.reason)
    if advice is None:
        return UnreachableError(f"the coordinator ended the session: {refused.reason} ({refused.detail})")
    return RefusedError(f"{refused.reason}: {refused.detail}; {advice}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreachableError(f"{path} cannot be read: {error.strerror}") from error
