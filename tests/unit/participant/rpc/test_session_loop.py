"""The participant's session against coordinators that are honest, wrong, hostile or dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from participant.rpc.counting import CONTROL
from participant.rpc.opening import Credentials as SessionCredentials
from participant.rpc.opening import Guest
from participant.rpc.session import QUEUE_LIMIT, SessionLoop
from shared.clock import SystemClock
from shared.consortium import Consortium as PinnedConsortium
from shared.consortium import make_manifest
from shared.entropy import SystemEntropy
from shared.errors import FederationError, IdentityError, PeerError, RefusedError, UnreachableError, WireError
from shared.identity import Identity, Role, SigningKey, VerifyingKey
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber, parse_task_name
from shared.protocol.messages import (
    Consent,
    ConsistencyBundle,
    DeliveredShare,
    Envelope,
    Exchange,
    Heartbeat,
    KeyRoster,
    ParticipantMessage,
    Refused,
    RoundAborted,
    RoundBroadcast,
    RoundReply,
    ShareDelivery,
    SurvivorList,
)
from shared.reasons import AbortReason, RefusalReason
from shared.secagg.sealing import SealedShare
from shared.secret import Secret
from shared.wire.sealed import seal
from shared.wire.session import encode_coordinator_message
from tests.support.counted import Counted
from tests.support.credentials import Consortium
from tests.support.fake_coordinator import Handler, Stream, fake_coordinator

KEY = RoundKey(JobId("heart-1"), RoundNumber(1))
PLAN = Digest.of(b"plan")
HEAD = Envelope(b"a result", bytes(64), 0)
LIMIT_S = 60.0


@dataclass
class Heard:
    """What the loop feeds, and when."""

    open_rounds: tuple[RoundKey, ...] = (KEY,)
    heads: tuple[Envelope, ...] = (HEAD,)
    messages: list[RoundBroadcast] = field(default_factory=list)
    refused_errors: list[PeerError] = field(default_factory=list)
    said_messages: list[ParticipantMessage] = field(default_factory=list)
    states: list[bool] = field(default_factory=list)
    failures: list[FederationError] = field(default_factory=list)
    say: Callable[[RoundReply], None] | None = None
    counter: Counted = field(default_factory=Counted)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, say: Callable[[RoundReply], None]) -> None:
        self.say = say
        self.opened.set()

    def disconnected(self) -> None:
        self.say = None

    def received(self, message: RoundBroadcast, verifier: VerifyingKey) -> None:
        self.messages.append(message)
        self.arrived.set()

    def session(self, *, open_now: bool) -> None:
        self.states.append(open_now)

    def session_failed(self, error: FederationError) -> None:
        self.failures.append(error)

    def said(self, message: ParticipantMessage) -> None:
        self.said_messages.append(message)

    def refused(self, error: PeerError) -> None:
        self.refused_errors.append(error)
        self.arrived.set()


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("pki"))


def loop_for(
    consortium: Consortium,
    heard: Heard,
    address: str,
    pinned: PinnedConsortium | None = None,
    *,
    others: tuple[str, ...] = (),
) -> SessionLoop:
    mine = consortium.participant("hospital-a")
    return SessionLoop(
        addresses=[address, *others],
        guest=Guest(
            credentials=SessionCredentials(
                identity=Identity(consortium.authority.consortium, Role.PARTICIPANT, "hospital-a"),
                tls=mine.tls,
                signing_certificate=lambda: mine.signing_certificate_der,
            ),
            consortium=pinned,
            tasks=(parse_task_name("heart"),),
            software="test",
            clock=SystemClock(),
            entropy=SystemEntropy(),
        ),
        rounds=heard,
        observer=heard,
        counter=heard.counter,
    )


async def one_session(
    consortium: Consortium, handler: Handler, heard: Heard | None = None, *, pinned: PinnedConsortium | None = None
) -> FederationError:
    """Run one session to its end, which is always an error that says why."""
    async with fake_coordinator(consortium.coordinator(), handler) as address:
        loop = loop_for(consortium, heard or Heard(), address, pinned)
        try:
            await asyncio.wait_for(loop._session(address), LIMIT_S)
        except FederationError as error:
            return error
    raise AssertionError("a session ended without an error")


def test_hello_says_who_this_is_and_what_it_holds(consortium: Consortium) -> None:
    seen: list[Stream] = []

    async def handler(stream: Stream) -> None:
        seen.append(stream)

    asyncio.run(one_session(consortium, handler))
    hello = seen[0].hello
    assert hello.versions == (1,)
    assert hello.tasks == ("heart",)
    assert hello.open_rounds == (KEY,)
    assert hello.heads == (HEAD,)
    assert hello.signing_certificate == consortium.participant("hospital-a").signing_certificate_der


def test_words_go_both_ways_and_heartbeats_keep_it_open(consortium: Consortium) -> None:
    heard = Heard()
    aborted = RoundAborted(KEY, PLAN, AbortReason.OPERATOR)
    said: list[object] = []

    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome())
        sealed = seal(aborted, signer=stream.credentials.signing_key, index=0)
        await stream.send(encode_coordinator_message(sealed))
        await heard.arrived.wait()
        assert heard.say is not None
        heard.say(Consent(KEY, PLAN))
        while not {Heartbeat(), Consent(KEY, PLAN)} <= set(said):
            said.append(await stream.read())

    error = asyncio.run(one_session(consortium, handler, heard))
    assert isinstance(error, UnreachableError)
    assert heard.failures == []  # it did open
    assert heard.counter.sent_by_kind.keys() == heard.counter.received_by_kind.keys() == {CONTROL}
    assert heard.messages[0].value == aborted  # type: ignore[union-attr]
    assert Consent(KEY, PLAN) in heard.said_messages
    assert heard.states == [True, False]
    assert heard.say is None


def test_how_a_session_stands_is_seen_while_it_is_open_and_after(consortium: Consortium) -> None:
    async def scenario() -> None:
        heard, enough = Heard(), asyncio.Event()

        async def handler(stream: Stream) -> None:
            await stream.send(stream.welcome())
            await enough.wait()

        async with fake_coordinator(consortium.coordinator(), handler) as address:
            loop = loop_for(consortium, heard, address)

            def seen() -> tuple[bool, int, bool]:
                standing = loop.standing
                return standing.open_since is not None, standing.tries, bool(standing.failure)

            assert seen() == (False, 0, False)
            running = asyncio.create_task(loop.run())
            await asyncio.wait_for(heard.opened.wait(), LIMIT_S)
            assert seen() == (True, 0, False)
            assert loop.standing.coordinator != ""
            enough.set()
            while seen() == (True, 0, False):  # noqa: ASYNC110 - the loop tells nobody, and the test has a limit
                await asyncio.sleep(0.002)
            assert not seen()[0]
            running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


ATTEMPT = AttemptKey(KEY, AttemptNumber(1))
ENVELOPE = Envelope(b"a participant's own word", bytes(64), 1)
SHARE = SealedShare(1, bytes(160), Digest.of(b"self"), Digest.of(b"mask"))
EXCHANGES: list[Exchange] = [
    KeyRoster(ATTEMPT, (ENVELOPE,)),
    ShareDelivery(ATTEMPT, (ENVELOPE,), (DeliveredShare(1, SHARE, (bytes(32),)),)),
    SurvivorList(ATTEMPT, (ENVELOPE,)),
    ConsistencyBundle(ATTEMPT, (ENVELOPE,)),
]


def test_the_exchanges_of_masking_come_in_without_an_envelope_of_the_coordinator(consortium: Consortium) -> None:
    heard = Heard()

    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome())
        for message in EXCHANGES:
            heard.arrived.clear()
            await stream.send(encode_coordinator_message(message))
            await heard.arrived.wait()

    asyncio.run(one_session(consortium, handler, heard))
    assert heard.refused_errors == []
    assert heard.messages == EXCHANGES


def pinned_with(consortium: Consortium, coordinator: VerifyingKey) -> PinnedConsortium:
    """A manifest of this consortium that has that key for its coordinator."""
    name = consortium.authority.consortium
    officer = SigningKey.from_seed(Secret(bytes(32)))
    members = {Identity(name, Role.COORDINATOR, "coordinator"): coordinator}
    return PinnedConsortium.parse(
        make_manifest(consortium=name, members=members, officers=[officer]), source="the manifest"
    )


def test_only_the_coordinator_of_the_pinned_manifest_is_believed(consortium: Consortium) -> None:
    async def welcoming(stream: Stream) -> None:
        await stream.send(stream.welcome())

    def ended(key: VerifyingKey) -> FederationError:
        return asyncio.run(one_session(consortium, welcoming, pinned=pinned_with(consortium, key)))

    assert isinstance(ended(consortium.coordinator().signing_key.verifying_key), UnreachableError)
    stranger = SigningKey.from_seed(Secret(bytes([1]) * 32)).verifying_key
    error = ended(stranger)
    assert isinstance(error, IdentityError)
    assert "as in the consortium's manifest" in str(error)


async def other_nonce(stream: Stream) -> None:
    await stream.send(stream.welcome(nonce=bytes(32)))


async def for_somebody_else(stream: Stream) -> None:
    await stream.send(stream.welcome(participant="hospital-b"))


async def other_version(stream: Stream) -> None:
    await stream.send(stream.welcome(version=9))


async def busy_loop(stream: Stream) -> None:
    await stream.send(stream.welcome(heartbeat_s=1e-9))


async def never_silent(stream: Stream) -> None:
    await stream.send(stream.welcome(silence_s=10_000.0))


async def not_a_welcome(stream: Stream) -> None:
    await stream.send(encode_coordinator_message(Heartbeat()))


async def not_a_message(stream: Stream) -> None:
    await stream.send(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("handler", "error", "message"),
    [
        (other_nonce, IdentityError, "replaying"),
        (for_somebody_else, IdentityError, "another Hello"),
        (other_version, WireError, "protocol version 9"),
        (busy_loop, WireError, "heartbeats every"),
        (never_silent, WireError, "10000 s of silence"),
        (not_a_welcome, WireError, "something else"),
        (not_a_message, WireError, "not a SessionResponse"),
    ],
)
def test_a_wrong_opening_opens_nothing(
    consortium: Consortium, handler: Handler, error: type[FederationError], message: str
) -> None:
    heard = Heard()
    raised = asyncio.run(one_session(consortium, handler, heard))
    assert isinstance(raised, error)
    assert message in str(raised)
    assert heard.states == []


def test_a_welcome_must_be_signed_by_a_coordinator_of_this_consortium(consortium: Consortium, tmp_path: Path) -> None:
    impostor = consortium.participant("hospital-b")
    foreigner = Consortium(tmp_path).coordinator()

    def signed_by(signer: object) -> Handler:
        async def handler(stream: Stream) -> None:
            await stream.send(stream.welcome(signer=signer))  # type: ignore[arg-type]

        return handler

    for signer in (impostor, foreigner):
        raised = asyncio.run(one_session(consortium, signed_by(signer)))
        assert isinstance(raised, IdentityError)


def test_a_forged_signature_opens_nothing(consortium: Consortium) -> None:
    async def handler(stream: Stream) -> None:
        frame = bytearray(stream.welcome())
        position = bytes(frame).index(b"fake")
        frame[position] ^= 1
        await stream.send(bytes(frame))

    assert isinstance(asyncio.run(one_session(consortium, handler)), IdentityError)


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_each_refusal_says_what_to_do_or_is_tried_again(consortium: Consortium, reason: RefusalReason) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send(encode_coordinator_message(Refused(reason, "because")))

    raised = asyncio.run(one_session(consortium, handler))
    passing = {RefusalReason.DRAINING, RefusalReason.SILENT, RefusalReason.PROTOCOL}
    assert isinstance(raised, UnreachableError if reason in passing else RefusedError)
    assert reason in str(raised)


def test_a_message_that_may_not_be_said_is_refused_and_the_session_goes_on(consortium: Consortium) -> None:
    heard = Heard()
    stranger = consortium.participant("hospital-b")

    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome())
        forged = seal(RoundAborted(KEY, PLAN, AbortReason.OPERATOR), signer=stranger.signing_key, index=0)
        for frame in (b"\xff", encode_coordinator_message(forged), stream.welcome()):
            heard.arrived.clear()
            await stream.send(frame)
            await heard.arrived.wait()
        assert isinstance(await stream.read(), Heartbeat)

    asyncio.run(one_session(consortium, handler, heard))
    assert [type(error) for error in heard.refused_errors] == [WireError, IdentityError, WireError]
    assert heard.messages == []


def test_silence_ends_the_session(consortium: Consortium) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome(silence_s=0.2))
        with suppress(AssertionError):
            while True:
                await stream.read()

    raised = asyncio.run(one_session(consortium, handler))
    assert isinstance(raised, UnreachableError)
    assert "connection is dead" in str(raised)


def test_a_coordinator_of_another_authority_is_not_talked_to(consortium: Consortium, tmp_path: Path) -> None:
    async def handler(_stream: Stream) -> None:
        raise AssertionError("a Hello was said to a stranger")

    async def scenario() -> FederationError:
        async with fake_coordinator(Consortium(tmp_path).coordinator(), handler) as address:
            return await ended(loop_for(consortium, Heard(), address)._session(address))

    raised = asyncio.run(scenario())
    assert isinstance(raised, UnreachableError)


def test_nobody_there_is_said_with_the_likely_cause(consortium: Consortium) -> None:
    async def scenario() -> FederationError:
        return await ended(loop_for(consortium, Heard(), "localhost:1")._session("localhost:1"))

    assert "is the coordinator running" in str(asyncio.run(scenario()))


async def ended(session: Awaitable[None]) -> FederationError:
    try:
        await asyncio.wait_for(session, LIMIT_S)
    except FederationError as error:
        return error
    raise AssertionError("a session ended without an error")


def test_a_coordinator_that_does_not_read_costs_the_session_and_nothing_else(consortium: Consortium) -> None:
    heard = Heard()

    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome(heartbeat_s=10.0))
        await heard.opened.wait()
        assert heard.say is not None
        for _ in range(2 * QUEUE_LIMIT):
            heard.say(Consent(KEY, PLAN))
        await asyncio.Event().wait()

    raised = asyncio.run(one_session(consortium, handler, heard))
    assert isinstance(raised, UnreachableError)
    assert "does not read" in str(raised)


def test_credentials_that_are_half_replaced_are_waited_for(consortium: Consortium, tmp_path: Path) -> None:
    """The loop goes on: the next dial reads the files again."""
    half = tmp_path / "tls.crt"
    half.write_bytes(b"-----BEGIN")
    waiting = asyncio.Event()

    class Waits(SystemEntropy):
        def take(self, count: int) -> bytes:
            waiting.set()  # the backoff draws its delay: the failed dial is behind us
            return super().take(count)

    async def scenario() -> None:
        loop = loop_for(consortium, Heard(), "localhost:1")
        mine = loop._guest.credentials
        broken = replace(mine, tls=replace(mine.tls, certificate=half))
        loop._guest = replace(loop._guest, credentials=broken, entropy=Waits())
        running = asyncio.create_task(loop.run())
        await asyncio.wait_for(waiting.wait(), LIMIT_S)
        await asyncio.sleep(0)
        assert not running.done()
        standing = loop.standing
        assert (standing.open_since, standing.tries) == (None, 1)
        assert standing.failed_at is not None
        assert str(half) in standing.failure
        running.cancel()

    asyncio.run(scenario())


def test_who_leaves_says_what_it_has_to_say_and_ends_the_stream(consortium: Consortium) -> None:
    heard = Heard()
    said: list[object] = []

    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome())
        with suppress(AssertionError):  # the end of what it says
            while True:
                said.append(await stream.read())

    async def scenario() -> None:
        async with fake_coordinator(consortium.coordinator(), handler) as address:
            loop = loop_for(consortium, heard, address)
            running = asyncio.create_task(loop.run())
            await asyncio.wait_for(heard.opened.wait(), LIMIT_S)
            assert heard.say is not None
            for _ in range(50):
                heard.say(Consent(KEY, PLAN))
            loop.leave()
            await asyncio.wait_for(running, LIMIT_S)

    asyncio.run(scenario())
    assert said.count(Consent(KEY, PLAN)) == 50
    assert heard.states == [True, False]


def test_who_leaves_between_two_sessions_waits_for_nothing(consortium: Consortium) -> None:
    async def scenario() -> None:
        loop = loop_for(consortium, Heard(), "localhost:1")
        loop.leave()
        await asyncio.wait_for(loop.run(), LIMIT_S)

    asyncio.run(scenario())


def test_a_session_that_does_not_open_is_counted_with_its_reason(consortium: Consortium) -> None:
    async def refuses(stream: Stream) -> None:
        await stream.send(encode_coordinator_message(Refused(RefusalReason.NOT_ALLOWED, "who are you?")))

    heard = Heard()
    error = asyncio.run(one_session(consortium, refuses, heard))
    assert isinstance(error, RefusedError)
    assert heard.failures == [error]
    assert heard.states == []
