"""The session with the coordinator: dialled from here, kept open, and opened again whenever it ends.

Theory of operation. `run` dials one coordinator address after the other and opens a session (`participant.rpc.opening`
says what is checked). Then three tasks share the stream: a reader, a writer that drains the outgoing queue, and a
heartbeat. Silence for longer than the coordinator announced ends the session on this side too. Between sessions it
waits with backoff and jitter; a refusal that will not heal by itself is waited out for longer, and logged with what to
do about it.

`leave` ends it well: what was said goes out, this side of the stream is ended, and no other session is opened. The
coordinator knows then and there that this participant is away, and need not wait for a silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import grpc.aio
import structlog

from participant.backoff import Backoff
from participant.rpc.channel import dial, error_of, way_to
from participant.rpc.counting import UNCOUNTED, ByteCounter
from participant.rpc.opening import Guest, Opened, SessionStream, next_frame, open_session, refusal, sent
from shared.errors import (
    ConfigError,
    FederationError,
    IdentityError,
    PeerError,
    RefusedError,
    StorageError,
    UnreachableError,
)
from shared.identity import VerifyingKey
from shared.ids import RoundKey
from shared.protocol.messages import (
    Envelope,
    Heartbeat,
    ParticipantMessage,
    Refused,
    RoundBroadcast,
    RoundReply,
    Welcome,
)
from shared.wire.session import ShutEnvelope, decode_coordinator_message, encode_participant_message, open_broadcast

log = structlog.get_logger()

_METHOD = "/consilo.v1.SessionService/Session"
OPENING_LIMIT_S = 15.0  # for connection, handshake and Welcome
HEALTHY_S = 30.0  # a session that lasted this long was fine: the next backoff starts small
STUBBORN_DELAY_S = 30.0  # after a refusal that only a person can heal
_GREETINGS = 4  # of the doctor; the daemon comes again by itself
_STATUS_LOST = "Internal error from Core"  # how gRPC says that it has no status of the peer's
_FAREWELL_S = 2.0  # for the coordinator's end of a session that was only opened to see whether it opens
QUEUE_LIMIT = 1000  # messages; a session that cannot send for so long is ended

_IDENTITY_ADVICE = "one side does not know the other: compare certificates and the allow-list with its operator"


class Rounds(Protocol):
    """What the session feeds: `participant.round.driver.Driver`."""

    @property
    def open_rounds(self) -> tuple[RoundKey, ...]: ...

    @property
    def heads(self) -> tuple[Envelope, ...]:
        """The last verified results, at most as many and as large as a Hello carries. Raises StorageError."""
        ...

    def connected(self, say: Callable[[RoundReply], None]) -> None: ...

    def disconnected(self) -> None: ...

    def received(self, message: RoundBroadcast, verifier: VerifyingKey) -> None: ...


class Observer(Protocol):
    """Told about the session, for metrics."""

    def session(self, *, open_now: bool) -> None: ...

    def session_failed(self, error: FederationError) -> None:
        """A session did not open, for this reason."""
        ...

    def said(self, message: ParticipantMessage) -> None:
        """Said to the coordinator, or about to be."""
        ...

    def refused(self, error: PeerError) -> None:
        """The coordinator said something that it may not say."""
        ...


@dataclass(slots=True)
class Standing:
    """How the session stands, for the silo's own eyes."""

    open_since: datetime | None = None
    """None without one."""
    coordinator: str = ""
    """The software of the last one that welcomed us, as it says."""
    failed_at: datetime | None = None
    failure: str = ""
    """Why the last session ended, or the last attempt at one failed."""
    tries: int = 0
    """Attempts since a session was open."""


class SessionLoop:
    """Keeps one session open for as long as the daemon lives."""

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        guest: Guest,
        rounds: Rounds,
        observer: Observer,
        counter: ByteCounter = UNCOUNTED,
    ) -> None:
        self._addresses = addresses
        self._guest = guest
        self._rounds = rounds
        self._observer = observer
        self._counter = counter
        self._leaving = asyncio.Event()
        self.address = addresses[0]
        """Where the last session was, or is."""
        self.trouble = "no session with the coordinator is open yet"
        """Why no session is open; empty while one is. Other threads read it."""
        self.standing = Standing()

    def leave(self) -> None:
        """End the session well; `run` returns then."""
        self._leaving.set()

    async def run(self) -> None:
        """Until cancelled, or left."""
        backoff = Backoff(entropy=self._guest.entropy)
        turn = 0
        while not self._leaving.is_set():
            self.address = self._addresses[turn % len(self._addresses)]
            began = self._guest.clock.monotonic()
            delay_s = 0.0
            try:
                await self._session(self.address)
            except RefusedError as error:
                delay_s = STUBBORN_DELAY_S
                self._failed(error)
                self.trouble = str(error)
                log.warning("session_refused", address=self.address, detail=str(error))
            except IdentityError as error:
                delay_s = STUBBORN_DELAY_S
                self._failed(error)
                log.warning("session_refused", address=self.address, detail=f"{error}; {_IDENTITY_ADVICE}")
                self.trouble = str(error)
            except (UnreachableError, PeerError) as error:
                self.trouble = str(error)
                if self._leaving.is_set():
                    log.info("session_left", address=self.address)
                    return
                self._failed(error)
                log.warning("session_ended", address=self.address, detail=str(error))
            except (ConfigError, StorageError) as error:
                self._failed(error)
                # A certificate that is half replaced, a journal on a full disk: both heal, and nothing was lost. What
                # the coordinator said meanwhile it says again on the next session.
                self.trouble = str(error)
                log.error("session_waits", address=self.address, detail=str(error))  # noqa: TRY400 - no bug to trace
            if self._guest.clock.monotonic() - began > HEALTHY_S:
                backoff.reset()
            delay_s = max(delay_s, backoff.next_delay_s())
            turn += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), delay_s)

    def _failed(self, error: FederationError) -> None:
        standing = self.standing
        standing.failed_at, standing.failure, standing.tries = self._guest.clock.now(), str(error), standing.tries + 1

    async def _session(self, address: str) -> None:
        """One session from dial to end; always ends in an error that says why."""
        opened = False
        try:
            rounds = self._rounds
            opening = session_at(
                address, self._guest, self._counter, open_rounds=rounds.open_rounds, heads=rounds.heads
            )
            async with opening as session:
                opened = True
                await self._live(*session)
        except FederationError as error:
            if not opened:
                self._observer.session_failed(error)
            raise

    async def _live(self, stream: SessionStream, opened: Opened) -> None:
        outgoing: asyncio.Queue[ParticipantMessage] = asyncio.Queue(QUEUE_LIMIT)
        full = asyncio.Event()

        def say(message: ParticipantMessage) -> None:
            """Never fails: who says something must not suffer from a coordinator that does not read."""
            if outgoing.full():
                full.set()
            else:
                outgoing.put_nowait(message)
                self._observer.said(message)

        self.trouble = ""
        log.info("session_open", address=self.address, session=opened.welcome.session, software=opened.welcome.software)
        self._observer.session(open_now=True)
        standing = self.standing
        standing.open_since, standing.coordinator, standing.tries = self._guest.clock.now(), opened.welcome.software, 0
        self._rounds.connected(say)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_write(stream, outgoing, self._counter))
                group.create_task(_beat(say, opened.welcome.heartbeat_s))
                group.create_task(_end_when(full))
                group.create_task(self._read(stream, opened))
                group.create_task(self._end_well(stream, outgoing))
        except ExceptionGroup as ended:
            # Not `except*`: before Python 3.11.4 what is raised inside one comes out wrapped in a group again.
            raise ended.exceptions[0] from None
        finally:
            standing.open_since = None
            self.trouble = "the session with the coordinator ended"
            self._rounds.disconnected()
            self._observer.session(open_now=False)

    async def _end_well(self, stream: SessionStream, outgoing: asyncio.Queue[ParticipantMessage]) -> None:
        """The coordinator ends its side then, which the reader hears."""
        await self._leaving.wait()
        await outgoing.join()
        with suppress(asyncio.InvalidStateError):
            await stream.done_writing()

    async def _read(self, stream: SessionStream, opened: Opened) -> None:
        silence_s = opened.welcome.silence_s
        while True:
            try:
                frame = await asyncio.wait_for(next_frame(stream, self._counter), silence_s)
            except TimeoutError:
                raise UnreachableError(f"nothing heard for {silence_s:g} s: the connection is dead") from None
            try:
                self._take(frame, opened.verifier)
            except RefusedError:
                raise
            except PeerError as error:
                self._observer.refused(error)
                log.warning("message_refused", peer=self.address, error=type(error).__name__, detail=str(error))

    def _take(self, frame: bytes, verifier: VerifyingKey) -> None:
        message = decode_coordinator_message(frame)
        if isinstance(message, Refused):
            raise refusal(message)
        if isinstance(message, Heartbeat):
            return
        if isinstance(message, ShutEnvelope):
            self._rounds.received(open_broadcast(message, verifier=verifier), verifier)
        else:
            self._rounds.received(message, verifier)


@asynccontextmanager
async def session_at(
    address: str,
    guest: Guest,
    counter: ByteCounter,
    *,
    open_rounds: tuple[RoundKey, ...],
    heads: tuple[Envelope, ...],
) -> AsyncIterator[tuple[SessionStream, Opened]]:
    """A session on a connection of its own, open. Raises ConfigError, PeerError or UnreachableError, then and later."""
    async with dial(address, guest.credentials.tls) as channel:
        stream: SessionStream = channel.stream_stream(_METHOD)()
        try:
            opening = open_session(stream, guest, counter, open_rounds=open_rounds, heads=heads)
            yield stream, await asyncio.wait_for(opening, OPENING_LIMIT_S)
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, address=address) from None
        except TimeoutError:
            raise UnreachableError(f"{way_to(address)} did not answer within {OPENING_LIMIT_S:g} s") from None
        finally:
            stream.cancel()


async def greet(address: str, guest: Guest) -> Welcome:
    """Open a session, and end it well. Nothing is shown of what this silo knows. Raises as `session_at`.

    Asked again where gRPC lost the coordinator's word: a call that is refused at once may fail in the write, before the
    status that came is taken.
    """
    for _ in range(_GREETINGS - 1):
        try:
            return await _greet_once(address, guest)
        except UnreachableError as error:
            if _STATUS_LOST not in str(error):
                raise
    return await _greet_once(address, guest)


async def _greet_once(address: str, guest: Guest) -> Welcome:
    async with session_at(address, guest, UNCOUNTED, open_rounds=(), heads=()) as (stream, opened):
        await stream.done_writing()
        with suppress(UnreachableError, RefusedError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                while True:
                    await next_frame(stream, UNCOUNTED)
        return opened.welcome


async def _write(stream: SessionStream, outgoing: asyncio.Queue[ParticipantMessage], counter: ByteCounter) -> None:
    while await sent(stream, encode_participant_message(await outgoing.get()), counter):
        outgoing.task_done()


async def _beat(say: Callable[[ParticipantMessage], None], heartbeat_s: float) -> None:
    while True:
        await asyncio.sleep(heartbeat_s)
        say(Heartbeat())


async def _end_when(full: asyncio.Event) -> None:
    await full.wait()
    raise UnreachableError(f"{QUEUE_LIMIT} messages wait: the coordinator does not read")
