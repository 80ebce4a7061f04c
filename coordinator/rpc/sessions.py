"""The open sessions: at most one for each participant, each with a queue of bounded length.

Theory of operation. Everything here runs on the event loop, except `Sessions.send`, which the conductor's thread calls.
A `Link` is one session from Welcome to its end. Frames for it wait in its queue; one writer takes them out. A peer that
does not read fills its queue and is cut, because what is kept for the slowest must not grow; it comes back and is told
again what still matters. A broadcast is encoded once, and all queues hold the same bytes.

The newest session of an identity wins. That two exist is normal (the network broke and only one side noticed), so the
older one is ended and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import structlog

from coordinator.rpc.authorization import Call
from shared.errors import IdentityError
from shared.ids import ParticipantId
from shared.protocol.messages import Refused, RoundBroadcast
from shared.reasons import RefusalReason
from shared.wire.session import encode_coordinator_message

QUEUE_FRAMES = 256  # a participant is told a few things per round; so many at once mean that nobody reads
QUEUE_BYTES = 16 * 1024 * 1024  # plans carry their job's specification, up to 256 KiB each
FAREWELL_S = 1.0  # to say why, to one that may not be reading

_log = structlog.get_logger(__name__)


class SessionCounter(Protocol):
    """Told about sessions, for metrics."""

    def connected(self, participants: Collection[ParticipantId]) -> None:
        """These are here now."""
        ...

    def superseded(self, participant: ParticipantId) -> None:
        """Its session was replaced by a newer one of the same identity."""
        ...

    def session_ended(self, reason: str) -> None:
        """The coordinator ended a session: the value of a RefusalReason."""
        ...

    def heads_refused(self, count: int) -> None:
        """A participant showed results that another key than this coordinator's signed."""
        ...

    def result_lost(self) -> None:
        """A participant showed a result that this coordinator signed and has no more."""
        ...


class Link:
    """One open session."""

    def __init__(self, *, call: Call, session: str) -> None:
        self.call = call
        self.session = session
        self.ended: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()
        """Set by whoever ends this session from outside."""
        self._frames: deque[bytes] = deque()
        self._queued_bytes = 0
        self._more = asyncio.Event()
        self._closing = False

    @property
    def participant(self) -> ParticipantId:
        return self.call.participant

    def push(self, frame: bytes) -> None:
        """Queue a frame, or cut the session when too much waits already."""
        if self._closing:
            return
        if len(self._frames) >= QUEUE_FRAMES or self._queued_bytes + len(frame) > QUEUE_BYTES:
            self.end(Refused(RefusalReason.SILENT, "what was sent on this session is not being read"))
            return
        self._frames.append(frame)
        self._queued_bytes += len(frame)
        self._more.set()

    def end(self, refusal: Refused) -> None:
        """End this session for this reason; the first one counts."""
        if not self.ended.done():
            self.ended.set_result(refusal)

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent."""
        return not self._frames

    async def deliver(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is queued until `close`."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                self._queued_bytes -= len(frame)
                await write(frame)
            if self._closing:
                return
            self._more.clear()
            await self._more.wait()

    def close(self, farewell: Refused | None) -> None:
        """Send nothing more but this."""
        self._frames.clear()
        if farewell is not None:
            self._frames.append(encode_coordinator_message(farewell))
        self._closing = True
        self._more.set()


class Sessions:
    """All open sessions; the `Outbox` of the driver."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, counter: SessionCounter) -> None:
        self._loop = loop
        self._counter = counter
        self._newest: dict[ParticipantId, Link] = {}
        self._met: dict[ParticipantId, Call] = {}
        self._open: set[Link] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._last: tuple[RoundBroadcast, bytes] | None = None
        self.draining = False

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None:
        """From the conductor's thread: hand over a message, or drop it when there is no session."""
        if self._last is None or self._last[0] is not message:
            self._last = (message, encode_coordinator_message(message))
        self._loop.call_soon_threadsafe(self._push, participant, self._last[1])

    def enter(self, link: Link) -> None:
        """A session is open. An older one of the same identity ends."""
        older = self._newest.get(link.participant)
        if older is not None:
            self._counter.superseded(link.participant)
            older.end(Refused(RefusalReason.SUPERSEDED, "this identity opened a newer session"))
        self._newest[link.participant] = link
        self._met[link.participant] = link.call
        self._open.add(link)
        self._none_open.clear()
        self._counter.connected(self._newest.keys())

    def leave(self, link: Link) -> None:
        """A session is over."""
        self._open.discard(link)
        if self._newest.get(link.participant) is link:
            del self._newest[link.participant]
            self._counter.connected(self._newest.keys())
        if not self._open:
            self._none_open.set()

    def end_revoked(self) -> list[ParticipantId]:
        """End the sessions of those who are no longer let in; returns who was taken off the allow-list for good.

        Somebody whose certificate was merely replaced, or whom a broken allow-list keeps out for now, is not in the
        list: it may come back and go on. Whoever is taken off is named once, with a session or without.
        """
        removed = []
        for participant, call in list(self._met.items()):
            try:
                call.recheck()
            except IdentityError as error:
                link = self._newest.get(participant)
                if link is not None:
                    link.end(Refused(RefusalReason.NOT_ALLOWED, str(error)))
                if call.removed:
                    removed.append(participant)
                    del self._met[participant]
        return removed

    async def drain(self, *, wait_s: float) -> None:
        """Open no more sessions and end all that are."""
        self.draining = True
        for link in self._open:
            link.end(Refused(RefusalReason.DRAINING, "the coordinator is shutting down; it will be back"))
        try:
            async with asyncio.timeout(wait_s):
                await self._none_open.wait()
        except TimeoutError:
            _log.warning("sessions_cut", count=len(self._open))

    def _push(self, participant: ParticipantId, frame: bytes) -> None:
        link = self._newest.get(participant)
        if link is not None:
            link.push(frame)
