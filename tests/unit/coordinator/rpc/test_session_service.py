"""How a session opens, what ends it, and that every end has its reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc import aio

from coordinator.rpc.authorization import Call
from coordinator.rpc.opening import SessionTimes
from coordinator.rpc.session import BAD_MESSAGES_MAX
from coordinator.rpc.sessions import Link
from shared.consortium import Consortium as Manifest
from shared.consortium import make_manifest
from shared.identity import AllowedEntry, AllowlistFile, Identity, Role, VerifyingKey
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.protocol.messages import (
    CAPABILITY_MASKED,
    CAPABILITY_PLAIN,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    Consent,
    ConsistencyBundle,
    Heartbeat,
    KeyRoster,
    ParticipantMessage,
    RoundPlan,
    RoundResult,
    ShareDelivery,
    SurvivorList,
    Welcome,
)
from shared.reasons import AttemptAbortReason, Purpose, RefusalReason
from shared.tls import Caller
from shared.wire.sealed import seal
from shared.wire.status import ERROR_METADATA_KEY
from tests.support.credentials import CONSORTIUM, Consortium
from tests.support.fake_participant import FakeParticipant, fake_participant
from tests.support.live_coordinator import OPERATOR, PATIENT, LiveCoordinator, live_coordinator
from tests.support.masked_silo import MaskedRound
from tests.support.rounds import key_of, make_masked_frame

NOWHERE = RoundKey(JobId("other"), RoundNumber(1))
HASTY = SessionTimes(hello_s=0.2, heartbeat_s=0.1, silence_s=0.4)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


@asynccontextmanager
async def _federation(
    consortium: Consortium, names: Sequence[str] = ("hospital-a",), times: SessionTimes = PATIENT
) -> AsyncIterator[tuple[LiveCoordinator, list[FakeParticipant]]]:
    members = [consortium.participant(name) for name in names]
    async with AsyncExitStack() as open_, live_coordinator(consortium, consortium.folder, times=times) as live:
        yield (
            live,
            [
                await open_.enter_async_context(fake_participant(live.port, name, member, consortium.coordinator()))
                for name, member in zip(names, members, strict=True)
            ],
        )


def _alone(consortium: Consortium, test: Callable[[LiveCoordinator, FakeParticipant], Awaitable[None]]) -> None:
    async def run() -> None:
        async with _federation(consortium) as (live, (participant,)):
            await test(live, participant)

    asyncio.run(run())


def test_a_welcome_answers_the_hello(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        _, welcome = await participant.open()
        assert welcome.participant == "hospital-a"
        assert (welcome.heartbeat_s, welcome.silence_s) == (4, 12)
        assert welcome.signing_certificate == consortium.coordinator().signing_certificate_der
        assert live.count("connected_participants") == 1
        assert live.count("participant_connected", participant="hospital-a") == 1

    _alone(consortium, test)


def test_heads_of_others_are_counted_and_a_lost_one_of_its_own_is_said(consortium: Consortium) -> None:
    key = consortium.coordinator().signing_key
    value = RoundResult(
        key=NOWHERE,
        purpose=Purpose.TRAIN,
        attempt=Digest.of(b"h0"),
        transcript=Digest.of(b"h0"),
        survivors=(1,),
        weight_total=1.0,
        top_cells=(),
        aggregate=Digest.of(b"aggregate"),
        next_model=Digest.of(b"model"),
    )
    own, foreign = seal(value, signer=key, index=0).envelope, seal(value, signer=key_of("x"), index=0).envelope

    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        for _ in range(2):
            talk = participant.talk()
            await talk.say(participant.hello(heads=(foreign, own)))
            await talk.expect(Welcome)  # nobody is kept out for what it shows
        assert live.count("heads_refused_total") == 2
        assert live.count("results_lost_total") == 1
        assert len(live.store.set_backs()) == 1

    _alone(consortium, test)


Change = Callable[[Consortium, FakeParticipant], ParticipantMessage | bytes]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (lambda _, p: p.hello(versions=(99,)), RefusalReason.NO_COMMON_VERSION),
        (lambda _, p: p.hello(versions=()), RefusalReason.NO_COMMON_VERSION),
        (lambda _, p: p.hello(capabilities=("other",)), RefusalReason.MISSING_CAPABILITY),
        (lambda _, p: p.hello(capabilities=(CAPABILITY_PLAIN,)), RefusalReason.MISSING_CAPABILITY),
        (lambda _, p: p.hello(capabilities=(CAPABILITY_MASKED,)), RefusalReason.MISSING_CAPABILITY),
        (lambda _, p: p.hello(signing_certificate=b"none"), RefusalReason.SIGNING_IDENTITY),
        (
            lambda c, p: p.hello(signing_certificate=c.participant("hospital-b").signing_certificate_der),
            RefusalReason.SIGNING_IDENTITY,
        ),
        (
            lambda c, p: p.hello(
                signing_certificate=Consortium(c.folder / "other").participant("hospital-a").signing_certificate_der
            ),
            RefusalReason.SIGNING_IDENTITY,
        ),
        (lambda *_: Heartbeat(), RefusalReason.PROTOCOL),
        (lambda *_: b"\xff\xff", RefusalReason.PROTOCOL),
        (lambda *_: b"", RefusalReason.PROTOCOL),
        (lambda _, p: p.hello(open_rounds=(NOWHERE, NOWHERE)), RefusalReason.PROTOCOL),
    ],
)
def test_what_opens_no_session(consortium: Consortium, first: Change, reason: RefusalReason) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        talk = participant.talk()
        await talk.say(first(consortium, participant))
        refused = await talk.refused()
        assert refused.reason is reason
        assert refused.detail
        assert live.count("sessions_refused_total", reason=reason) == 1
        assert live.count("connected_participants") == 0

    _alone(consortium, test)


@pytest.mark.parametrize("content", [b"half writ", None])
def test_authorities_that_cannot_be_used_are_our_own_trouble(consortium: Consortium, content: bytes | None) -> None:
    def unusable() -> bytes:
        if content is None:
            raise PermissionError("Permission denied")
        return content

    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        live.session._host = replace(live.session._host, authorities=unusable)
        with pytest.raises(aio.AioRpcError) as caught:
            await participant.open()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata() or ())[ERROR_METADATA_KEY] == "UnreachableError"
        assert "writ" not in (caught.value.details() or "")

    _alone(consortium, test)


def test_an_older_signing_certificate_opens_no_session(consortium: Consortium) -> None:
    old = consortium.participant("hospital-a").signing_certificate_der
    consortium.reissue(Role.PARTICIPANT, "hospital-a")

    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        talk = participant.talk()
        await talk.say(participant.hello(signing_certificate=old))
        refused = await talk.refused()
        assert refused.reason is RefusalReason.SIGNING_IDENTITY
        assert "allow-list" in refused.detail

    _alone(consortium, test)


def _manifest(consortium: Consortium, key: VerifyingKey, name: str = "hospital-a") -> Manifest:
    """A manifest with this key for that participant."""
    coordinator = consortium.coordinator().signing_key.verifying_key
    members = {
        Identity(CONSORTIUM, Role.COORDINATOR, "coordinator"): coordinator,
        Identity(CONSORTIUM, Role.PARTICIPANT, name): key,
    }
    made = make_manifest(consortium=CONSORTIUM, members=members, officers=[key_of("officer")])
    return Manifest.parse(made, source="consortium.json")


def test_whom_the_manifest_has_comes_with_the_key_that_it_says(consortium: Consortium) -> None:
    own = consortium.participant("hospital-a").signing_key.verifying_key
    other = key_of("hospital-a").verifying_key

    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        live.session._host = replace(live.session._host, consortium=_manifest(consortium, other))
        talk = participant.talk()
        await talk.say(participant.hello())
        refused = await talk.refused()
        assert refused.reason is RefusalReason.SIGNING_IDENTITY
        assert str(other.fingerprint) in refused.detail
        assert str(own.fingerprint) in refused.detail
        assert "manifest" in refused.detail
        for allowed in (_manifest(consortium, own), _manifest(consortium, other, "hospital-b"), None):
            live.session._host = replace(live.session._host, consortium=allowed)
            await participant.open()  # listed with its key, not listed (for plain jobs), or there is no manifest

    _alone(consortium, test)


def test_every_message_of_masking_reaches_its_member(consortium: Consortium) -> None:
    played = MaskedRound(make_masked_frame())
    sent = {}
    while played.waiting:
        member, message = played.waiting.popleft()
        sent[type(message)] = message
        for _, event in played.silos[member].hears(message):
            played.tell(member, event)

    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        talk, _ = await participant.open()
        for kind in (KeyRoster, ShareDelivery, SurvivorList, ConsistencyBundle):
            live.sessions.send(ParticipantId("hospital-a"), sent[kind])
            assert await talk.hear() == sent[kind]

    _alone(consortium, test)


def test_words_that_come_too_late_never_end_a_session(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        model, _ = await live.add_model(10)
        await live.submit("heart-1", ["hospital-a"], model)
        talk, _ = await participant.open()
        plan = await talk.expect(RoundPlan)
        await live.thread.call(live.conductor.desk.abort_job, plan.value.key.job, "", OPERATOR)
        word = seal(AttemptAbort(Digest(bytes(32)), 1, AttemptAbortReason.GONE), signer=key_of("a"), index=1)
        late = AttemptAnswer(AttemptKey(plan.value.key, AttemptNumber(1)), AnswerKind.ATTEMPT_ABORT, word.envelope)
        for _ in range(BAD_MESSAGES_MAX + 1):
            await talk.say(late)
        expected = BAD_MESSAGES_MAX + 1
        await live.until(lambda: live.count("refused_total", method="Session", error="LateError") == expected)
        assert live.count("connected_participants") == 1

    _alone(consortium, test)


def test_a_common_version_among_several_is_used(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        talk = participant.talk()
        await talk.say(participant.hello(versions=(99, 1, 0)))
        assert (await talk.expect(Welcome)).value.version == 1

    _alone(consortium, test)


def test_a_session_without_a_hello_ends(consortium: Consortium) -> None:
    async def run() -> None:
        async with _federation(consortium, times=HASTY) as (_, (participant,)):
            assert (await participant.talk().refused()).reason is RefusalReason.SILENT
            ended = participant.talk()
            await ended.stream.done_writing()
            assert (await ended.refused()).reason is RefusalReason.PROTOCOL

    asyncio.run(run())


def test_heartbeats_come_and_silence_ends(consortium: Consortium) -> None:
    async def run() -> None:
        async with _federation(consortium, times=HASTY) as (live, (participant,)):
            talk, _ = await participant.open()
            for _ in range(6):  # longer than the silence that is allowed
                assert await talk.hear() == Heartbeat()
                await talk.say(Heartbeat())
            assert (await talk.refused()).reason is RefusalReason.SILENT
            await live.until(lambda: live.count("connected_participants") == 0)
            await live.until(lambda: not live.conductor._registry.connected)

    asyncio.run(run())


def test_a_dead_peer_is_noticed_in_under_15_seconds() -> None:
    assert PATIENT.silence_s < 15
    assert PATIENT.silence_s >= 2 * PATIENT.heartbeat_s  # one lost heartbeat ends nothing


def test_the_newest_session_wins(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        older, first = await participant.open()
        newer, second = await participant.open()
        assert first.session != second.session
        assert (await older.refused()).reason is RefusalReason.SUPERSEDED
        assert live.count("sessions_superseded_total") == 1
        assert live.count("connected_participants") == 1
        # The old one's end does not end the new one, which is the one that is told things.
        model, _ = await live.add_model(10)
        await live.submit("heart-1", ["hospital-a"], model)
        assert (await newer.expect(RoundPlan)).value.model == model

    _alone(consortium, test)


def test_words_that_break_the_rules_change_nothing_and_are_counted(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        model, _ = await live.add_model(10)
        await live.submit("heart-1", ["hospital-a"], model)
        talk, _ = await participant.open()
        plan = await talk.expect(RoundPlan)
        await talk.say(b"\xff")
        await talk.say(Consent(NOWHERE, Digest(bytes(32))))
        await talk.say(Consent(plan.value.key, Digest(bytes(32))))
        await live.until(lambda: live.count("refused_total", method="Session", error="WireError") == 1)
        await live.until(lambda: live.count("refused_total", method="Session", error="UnknownError") == 1)
        await live.until(lambda: live.count("refused_total", method="Session", error="ConflictError") == 1)
        assert live.count("connected_participants") == 1

    _alone(consortium, test)


def test_too_many_of_them_end_the_session(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        talk, _ = await participant.open()
        for _ in range(BAD_MESSAGES_MAX):
            await talk.say(b"\xff")
        assert (await talk.refused()).reason is RefusalReason.PROTOCOL

    _alone(consortium, test)


def test_a_second_hello_ends_the_session(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        talk, _ = await participant.open()
        await talk.say(participant.hello())
        assert (await talk.refused()).reason is RefusalReason.PROTOCOL

    _alone(consortium, test)


def _take_off(consortium: Consortium, name: str) -> None:
    tables = consortium.allowlist.read_text().split("[[allowed]]")
    kept = [table for table in tables if f'"{name}"' not in table]
    assert len(kept) == len(tables) - 1
    new = consortium.allowlist.with_suffix(".new")
    new.write_text("[[allowed]]".join(kept))
    new.replace(consortium.allowlist)


def test_who_is_taken_off_the_allow_list_is_cut_and_out_of_the_round(consortium: Consortium) -> None:
    async def run() -> None:
        names = ["hospital-a", "hospital-b", "hospital-c"]
        async with _federation(consortium, names, times=replace(HASTY, silence_s=30.0)) as (live, members):
            model, _ = await live.add_model(10)
            talks = [(await member.open())[0] for member in members]
            await live.submit("heart-1", names, model, quorum=1)
            for talk in talks:
                await talk.expect(RoundPlan)
            await talks[2].stream.done_writing()  # away, but still in the round
            assert await talks[2].next() is None
            _take_off(consortium, "hospital-a")
            await talks[0].say(b"anything")
            assert (await talks[0].refused()).reason is RefusalReason.NOT_ALLOWED  # at once, whatever it says
            with pytest.raises(aio.AioRpcError) as caught:
                await members[0].open()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            _take_off(consortium, "hospital-b")
            assert (await talks[1].refused()).reason is RefusalReason.NOT_ALLOWED  # at a tick, although silent
            _take_off(consortium, "hospital-c")
            await live.until(lambda: live.count("members_dropped_total", reason="revoked") == 3)

    asyncio.run(run())


def test_an_error_that_nobody_foresaw_does_not_end_the_watch_over_the_allow_list(consortium: Consortium) -> None:
    errors = [RuntimeError("a bug")]

    class Faltering(Call):
        def recheck(self) -> None:
            if errors:
                raise errors.pop()

    async def run() -> None:
        async with _federation(consortium, times=replace(HASTY, silence_s=30.0)) as (live, (participant,)):
            _met_once(live, Faltering, AllowlistFile(consortium.allowlist))
            talk, _ = await participant.open()
            await live.until(lambda: not errors)
            _take_off(consortium, "hospital-a")
            assert (await talk.refused()).reason is RefusalReason.NOT_ALLOWED

    asyncio.run(run())


def _met_once(live: LiveCoordinator, kind: type[Call], allowlist: AllowlistFile) -> None:
    """As if hospital-z had been here and gone."""
    identity, digest = Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-z"), Digest.of(b"")
    call = kind("Session", identity, AllowedEntry(identity, digest, digest), Caller(identity, digest), allowlist)
    link = Link(call=call, session="gone")
    live.sessions.enter(link)
    live.sessions.leave(link)


def test_a_broken_allow_list_keeps_everybody_out_and_drops_nobody(consortium: Consortium) -> None:
    async def run() -> None:
        async with _federation(consortium, times=replace(HASTY, silence_s=30.0)) as (live, (participant,)):
            model, _ = await live.add_model(10)
            talk, _ = await participant.open()
            await live.submit("heart-1", ["hospital-a"], model)
            await talk.expect(RoundPlan)
            good = consortium.allowlist.read_text()
            consortium.allowlist.write_text("half writ")
            assert (await talk.refused()).reason is RefusalReason.NOT_ALLOWED
            consortium.allowlist.write_text(good)
            talk, _ = await participant.open()
            await talk.expect(RoundPlan)
            assert live.count("members_dropped_total", reason="revoked") == 0

    asyncio.run(run())


def test_who_does_not_read_is_cut(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, participant: FakeParticipant) -> None:
        await participant.open()  # and never hears again
        link = live.sessions._newest[participant.name]
        for _ in range(64):
            link.push(bytes(1 << 20))  # the queue does not look inside
        assert link.ended.result().reason is RefusalReason.SILENT
        await live.until(lambda: live.count("connected_participants") == 0)

    _alone(consortium, test)


def test_draining_says_goodbye_to_everybody(consortium: Consortium) -> None:
    async def run() -> None:
        names = ["hospital-a", "hospital-b"]
        async with _federation(consortium, names) as (live, members):
            talks = [(await member.open())[0] for member in members]
            draining = asyncio.create_task(live.sessions.drain(wait_s=5))
            for talk in talks:
                assert (await talk.refused()).reason is RefusalReason.DRAINING
            await draining
            late = members[0].talk()
            await late.say(members[0].hello())
            assert (await late.refused()).reason is RefusalReason.DRAINING
            assert len(live.conductor._registry.connected) == 2  # a restart is not a departure

    asyncio.run(run())
