"""The session service: how a session opens, what is heard on it, and every way in which it ends.

Theory of operation. The participant says Hello within `hello_s`; the answer is a Welcome, signed over its nonce, or
Refused with a reason. From then on both sides send a heartbeat every `heartbeat_s`, and a peer that is silent for
`silence_s` is gone. Each session has three tasks: `_hear` hands what comes to the conductor, one message after the
other, which is also what slows a sender down; `_beat` sends heartbeats; `Link.deliver` writes. The first of these to
end, or a word from outside (superseded, revoked, draining, too slow), ends the session. `watch_allowlist` runs once.

A message that breaks the rules changes nothing, is counted and logged against the identity of the connection, and the
session goes on: a slow network produces some. A session in which `BAD_MESSAGES_MAX` of them came is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import structlog

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.registry import Enrolled
from coordinator.rpc.authorization import Call, RefusalCounter
from coordinator.rpc.server import Handlers, Stream
from coordinator.rpc.sessions import FAREWELL_S, Link, SessionCounter, Sessions
from shared.clock import Clock
from shared.entropy import Entropy
from shared.errors import IdentityError, LateError, PeerError, WireError
from shared.identity import SigningKey, VerifyingKey, same_digest, verify_signing_certificate
from shared.protocol.messages import (
    CAPABILITIES,
    CAPABILITY_PLAIN,
    PROTOCOL_VERSIONS,
    Heartbeat,
    Hello,
    Refused,
    Welcome,
)
from shared.reasons import RefusalReason
from shared.wire.sealed import seal
from shared.wire.session import decode_participant_message, encode_coordinator_message

BAD_MESSAGES_MAX = 100  # a peer that breaks the rules this often in one session is broken, or trying
SESSION_ID_BYTES = 8

_HEARTBEAT = encode_coordinator_message(Heartbeat())
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTimes:
    """How long to wait for what. With the defaults a dead peer is noticed in under 15 seconds."""

    hello_s: float = 10.0
    heartbeat_s: float = 4.0
    silence_s: float = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Who opens sessions here, and with what."""

    signing_key: SigningKey
    signing_certificate: bytes
    """DER."""
    authorities: Callable[[], bytes]
    """The consortium's authorities (PEM) as they are now."""
    software: str
    clock: Clock
    entropy: Entropy


class SessionRefused(Exception):  # noqa: N818 - an answer of the protocol, caught where the stream is
    """Why no session opens."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.refused = Refused(reason, detail)


@dataclass(frozen=True, slots=True)
class _Opening:
    hello: Hello
    version: int
    key: VerifyingKey


_Ended: TypeAlias = Refused | None
"""Why a session ended; None when the participant ended it."""


class SessionCounters(SessionCounter, RefusalCounter, Protocol):
    """What this service counts."""


class SessionService:
    """Handles Session."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        conductor: Conductor,
        thread: ConductorThread,
        host: Host,
        counters: SessionCounters,
        times: SessionTimes,
    ) -> None:
        self._sessions = sessions
        self._conductor = conductor
        self._thread = thread
        self._host = host
        self._counters = counters
        self._times = times

    @property
    def handlers(self) -> Handlers:
        return {"Session": self.session}

    async def session(self, call: Call, stream: Stream) -> None:
        """One session, from the first message to the last."""
        try:
            opening = await self._open(call, stream)
        except SessionRefused as refusal:
            self._count_end(call, refusal.refused)
            await stream.write(encode_coordinator_message(refusal.refused))
            return
        link = Link(call=call, session=self._host.entropy.take(SESSION_ID_BYTES).hex())
        link.push(self._welcome(opening, link))
        self._sessions.enter(link)
        _log.info("session_opened", session=link.session, software=opening.hello.software[:80])
        try:
            await self._thread.call(
                self._conductor.session_opened,
                call.participant,
                Enrolled(link.session, frozenset(opening.hello.tasks)),
                opening.key,
                opening.hello.open_rounds,
            )
            ended = await self._run(link, stream)
            _log.info("session_ended", session=link.session, why=ended.reason if ended else "closed")
        finally:
            self._sessions.leave(link)
            if not self._sessions.draining:
                # While draining nobody is dropped from a round for it: the next process asks everyone anew.
                self._thread.post(self._conductor.session_closed, call.participant, link.session)

    # --- opening ------------------------------------------------------------------------------------------------------

    async def _open(self, call: Call, stream: Stream) -> _Opening:
        hello = await self._hello(stream)
        if self._sessions.draining:
            raise SessionRefused(RefusalReason.DRAINING, "the coordinator is shutting down; it will be back")
        common = set(hello.versions) & set(PROTOCOL_VERSIONS)
        if not common:
            raise SessionRefused(
                RefusalReason.NO_COMMON_VERSION,
                f"the coordinator speaks protocol versions {_listed(PROTOCOL_VERSIONS)}, the participant "
                f"{_listed(hello.versions)}: bring the older of the two up to date",
            )
        if CAPABILITY_PLAIN not in hello.capabilities:
            raise SessionRefused(RefusalReason.MISSING_CAPABILITY, f"expected the capability {CAPABILITY_PLAIN}")
        return _Opening(hello, max(common), self._signing_key_of(call, hello))

    async def _hello(self, stream: Stream) -> Hello:
        try:
            async with asyncio.timeout(self._times.hello_s):
                first = await stream.read()
        except TimeoutError:
            raise SessionRefused(
                RefusalReason.SILENT, f"expected a Hello within {self._times.hello_s:g} s, got nothing"
            ) from None
        if first is None:
            raise SessionRefused(RefusalReason.PROTOCOL, "expected a Hello, got the end of the stream")
        try:
            message = decode_participant_message(first)
        except WireError as error:
            raise SessionRefused(RefusalReason.PROTOCOL, str(error)) from None
        if not isinstance(message, Hello):
            raise SessionRefused(
                RefusalReason.PROTOCOL, f"expected a Hello as the first message, got {type(message).__name__}"
            )
        return message

    def _signing_key_of(self, call: Call, hello: Hello) -> VerifyingKey:
        try:
            certificate = verify_signing_certificate(
                hello.signing_certificate, ca_pem=self._host.authorities(), now=self._host.clock.now()
            )
        except IdentityError as error:
            raise SessionRefused(RefusalReason.SIGNING_IDENTITY, str(error)) from None
        if certificate.identity != call.identity:
            raise SessionRefused(
                RefusalReason.SIGNING_IDENTITY,
                f"expected the signing certificate of {call.identity.uri}, as in the TLS certificate, "
                f"got one of {certificate.identity.uri}",
            )
        if not same_digest(certificate.fingerprint, call.entry.signing_fingerprint):
            raise SessionRefused(
                RefusalReason.SIGNING_IDENTITY,
                f"the signing certificate (SHA-256 {certificate.fingerprint}) is not the one on the coordinator's "
                "allow-list: an old certificate, or the allow-list was not updated",
            )
        return certificate.verifying_key

    def _welcome(self, opening: _Opening, link: Link) -> bytes:
        welcome = Welcome(
            version=opening.version,
            session=link.session,
            nonce=opening.hello.nonce,
            software=self._host.software,
            participant=link.participant,
            capabilities=CAPABILITIES,
            heartbeat_s=self._times.heartbeat_s,
            silence_s=self._times.silence_s,
            signing_certificate=self._host.signing_certificate,
        )
        return encode_coordinator_message(seal(welcome, signer=self._host.signing_key, index=0))

    # --- open ---------------------------------------------------------------------------------------------------------

    async def _run(self, link: Link, stream: Stream) -> _Ended:
        hearing = asyncio.create_task(self._hear(link, stream))
        beating = asyncio.create_task(self._beat(link))
        writing = asyncio.create_task(link.deliver(stream.write))
        tasks: tuple[asyncio.Task[_Ended], ...] = (hearing, beating, writing)
        try:
            watched: list[asyncio.Future[Any]] = [link.ended, *tasks]
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            # A word from outside goes first; an error of a task (storage, a lost peer) is the caller's to handle.
            ended = link.ended.result() if link.ended.done() else next(task for task in tasks if task.done()).result()
            hearing.cancel()
            beating.cancel()
            if ended is not None:
                self._count_end(link.call, ended)
            link.close(ended)
            await asyncio.wait([writing], timeout=FAREWELL_S)
            return ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, link: Link, stream: Stream) -> _Ended:
        bad = 0
        while True:
            try:
                async with asyncio.timeout(self._times.silence_s):
                    data = await stream.read()
            except TimeoutError:
                return Refused(RefusalReason.SILENT, f"nothing was heard for {self._times.silence_s:g} s")
            if data is None:
                return None
            try:
                link.call.recheck()
            except IdentityError as error:
                self.look_for_revoked()
                return Refused(RefusalReason.NOT_ALLOWED, str(error))
            try:
                refused = await self._take(link, data)
            except PeerError as error:
                self._counters.refused(link.call.method, type(error).__name__)
                if isinstance(error, LateError):
                    _log.info("message_late", reason=str(error))
                    continue
                bad += 1
                _log.warning("message_refused", error=type(error).__name__, reason=str(error), in_session=bad)
                if bad >= BAD_MESSAGES_MAX:
                    return Refused(RefusalReason.PROTOCOL, f"{bad} messages of this session broke the rules")
            else:
                if refused is not None:
                    return refused

    async def _take(self, link: Link, data: bytes) -> _Ended:
        message = decode_participant_message(data)
        match message:
            case Hello():
                return Refused(RefusalReason.PROTOCOL, "a second Hello: a session is opened once")
            case Heartbeat():
                return None
            case _:
                await self._thread.call(self._conductor.received, link.participant, link.session, message)
                return None

    async def _beat(self, link: Link) -> _Ended:
        while True:
            await asyncio.sleep(self._times.heartbeat_s)
            if link.idle:
                link.push(_HEARTBEAT)

    async def watch_allowlist(self) -> None:
        """Runs beside the server: whoever is taken off the allow-list is cut, also when silent or away."""
        while True:
            await asyncio.sleep(self._times.heartbeat_s)
            self.look_for_revoked()

    def look_for_revoked(self) -> None:
        """End the sessions of whoever is no longer let in, and take those who were removed out of their rounds."""
        for participant in self._sessions.end_revoked():
            _log.warning("participant_revoked", participant=participant)
            self._thread.post(self._conductor.revoked, participant)

    def _count_end(self, call: Call, refused: Refused) -> None:
        self._counters.session_ended(refused.reason)
        _log.warning("session_refused", method=call.method, why=refused.reason, detail=refused.detail)


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
