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
from typing import Any, Protocol, TypeAlias

import structlog

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.older_copy import own_heads
from coordinator.registry import Enrolled
from coordinator.rpc.authorization import Call, RefusalCounter
from coordinator.rpc.opening import Host, Opening, SessionRefused, SessionTimes, open_session, welcome
from coordinator.rpc.server import Handlers, Stream
from coordinator.rpc.sessions import FAREWELL_S, Link, SessionCounter, Sessions
from shared.errors import IdentityError, LateError, PeerError
from shared.protocol.messages import (
    Heartbeat,
    Hello,
    Refused,
)
from shared.reasons import RefusalReason
from shared.wire.session import decode_participant_message, encode_coordinator_message

BAD_MESSAGES_MAX = 100  # a peer that breaks the rules this often in one session is broken, or trying
SESSION_ID_BYTES = 8

_HEARTBEAT = encode_coordinator_message(Heartbeat())
_log = structlog.get_logger(__name__)


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
            opening = await open_session(call, stream, host=self._host, times=self._times)
            if self._sessions.draining:
                raise SessionRefused(RefusalReason.DRAINING, "the coordinator is shutting down; it will be back")
        except SessionRefused as refusal:
            self._count_end(call, refusal.refused)
            await stream.write(encode_coordinator_message(refusal.refused))
            return
        link = Link(call=call, session=self._host.entropy.take(SESSION_ID_BYTES).hex())
        link.push(welcome(opening, link, host=self._host, times=self._times))
        self._sessions.enter(link)
        _log.info("session_opened", session=link.session, software=opening.hello.software[:80])
        try:
            await self._show_heads(call, opening)
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

    async def _show_heads(self, call: Call, opening: Opening) -> None:
        """What the participant verified, as this coordinator signed it: is all of it on record?"""
        shown = opening.hello.heads
        heads = own_heads(shown, verifier=self._host.signing_key.verifying_key)
        others = len(shown) - len(heads)
        if others:
            self._counters.heads_refused(others)
            _log.info("heads_of_others", count=others, meaning="another coordinator or key signed them")
        for _ in range(await self._thread.call(self._conductor.heads_shown, call.participant, heads)):
            self._counters.result_lost()

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
            try:
                self.look_for_revoked()
            except Exception:  # noqa: BLE001 - a bug in one look must not end the watch; the line has its traceback
                _log.exception("internal_error", doing="watch_allowlist")

    def look_for_revoked(self) -> None:
        """End the sessions of whoever is no longer let in, and take those who were removed out of their rounds."""
        for participant in self._sessions.end_revoked():
            _log.warning("participant_revoked", participant=participant)
            self._thread.post(self._conductor.revoked, participant)

    def _count_end(self, call: Call, refused: Refused) -> None:
        self._counters.session_ended(refused.reason)
        _log.warning("session_refused", method=call.method, why=refused.reason, detail=refused.detail)
