"""Models down and updates up: resumed, refused, committed once, and a whole round by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from coordinator.rpc.transfer import TRANSFERS_MAX
from shared.errors import ConflictError, FederationError, LateError, UnknownError, UnreachableError, WireError
from shared.ids import AttemptKey, AttemptNumber, Digest
from shared.protocol.messages import RoundPlan
from shared.update import CHUNK_BYTES
from shared.wire.status import ERROR_METADATA_KEY
from shared.wire.transfer import UploadOpen, encode_data, encode_upload_open
from tests.support.credentials import Consortium
from tests.support.fake_participant import Attempt, FakeParticipant, Talk, fake_participant
from tests.support.live_coordinator import LiveCoordinator, live_coordinator

ELEMENTS = 600_000  # 2.4 MB: three chunks, the last one short

Test = Callable[[LiveCoordinator, list[FakeParticipant]], Awaitable[None]]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


@asynccontextmanager
async def _members(consortium: Consortium, live: LiveCoordinator, *names: str) -> AsyncIterator[list[FakeParticipant]]:
    async with AsyncExitStack() as open_:
        yield [
            await open_.enter_async_context(
                fake_participant(live.port, name, consortium.participant(name), consortium.coordinator())
            )
            for name in names
        ]


def _run(consortium: Consortium, test: Test, *, stalled_s: float = 60.0) -> None:
    names = ("hospital-a", "hospital-b")

    async def run() -> None:
        for name in (*names, "hospital-c"):
            consortium.participant(name)
        async with (
            live_coordinator(consortium, consortium.folder, stalled_s=stalled_s) as live,
            _members(consortium, live, *names) as members,
        ):
            await test(live, members)

    asyncio.run(run())


async def _uploading(
    live: LiveCoordinator, members: list[FakeParticipant], elements: int = ELEMENTS
) -> list[tuple[Talk, Attempt]]:
    """A round in which everybody may upload now."""
    model, _ = await live.add_model(elements)
    talks = [(await member.open())[0] for member in members]
    await live.submit("heart-1", [member.name for member in members], model)
    pairs = zip(members, talks, strict=True)
    attempts = await asyncio.gather(*(member.train(talk) for member, talk in pairs))
    return list(zip(talks, attempts, strict=True))


async def _refused(call: Awaitable[Any], error: type[FederationError]) -> str:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    assert dict(caught.value.trailing_metadata() or ()).get(ERROR_METADATA_KEY) == error.__name__
    return caught.value.details() or ""


def test_a_round_from_plan_to_result(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        invited = await _uploading(live, members)
        assert live.count("round_phase", job="heart-1", phase="uploading") == 1
        assert live.count("round_waiting_on", job="heart-1", participant="hospital-a") == 1
        for member, (_, attempt) in zip(members, invited, strict=True):
            await member.upload(attempt)
            assert (await member.status(attempt.key)).durable_bytes == attempt.layout.total_bytes
            await member.commit(attempt)
        results = [await member.result(talk) for member, (talk, _) in zip(members, invited, strict=True)]
        assert results[0] == results[1]
        assert results[0].survivors == (1, 2)
        assert results[0].weight_total == 20
        assert live.blobs.model_location(results[0].next_model)
        assert live.count("rounds_committed_total", purpose="train") == 1
        assert live.count("federated_metric", job="heart-1", metric="loss", half="train") == 0.5
        assert live.count("received_bytes_total", kind="update") == 2 * invited[0][1].layout.total_bytes
        assert live.count("sent_bytes_total", kind="model") > 2 * 4 * ELEMENTS

    _run(consortium, test)


def test_a_model_is_fetched_whole_or_from_an_offset(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        model, content = await live.add_model(ELEMENTS)
        talk, _ = await members[0].open()
        await live.submit("heart-1", [members[0].name], model)
        await talk.expect(RoundPlan)
        for offset in (0, CHUNK_BYTES, 12_345, len(content) - 1, len(content)):
            got = [chunk async for chunk in members[0].fetch(model, offset)]
            assert b"".join(got) == content[offset:]
            assert all(len(chunk) == CHUNK_BYTES for chunk in got[:-1])

        async def drain(member: FakeParticipant, wanted: Digest, offset: int = 0) -> None:
            async for _ in member.fetch(wanted, offset):
                pass

        await _refused(drain(members[0], model, len(content) + 1), ConflictError)
        await _refused(drain(members[0], Digest(bytes(32))), UnknownError)
        await _refused(drain(members[1], model), UnknownError)  # no member of this job

    _run(consortium, test)


def test_an_upload_goes_on_where_it_broke(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        (_, attempt), *_ = await _uploading(live, members)
        member, chunks = members[0], attempt.chunks()
        broken = member.uploading()
        await broken.write(encode_upload_open(UploadOpen(attempt.key, 0)))
        await broken.write(encode_data(chunks[0]))
        await broken.write(encode_data(chunks[1]))
        await live.until(lambda: live.count("received_bytes_total", kind="update") >= 2 * CHUNK_BYTES)
        broken.cancel()
        assert (await member.status(attempt.key)).durable_bytes == 2 * CHUNK_BYTES
        detail = await _refused(member.commit(attempt), ConflictError)
        assert "send the rest" in detail
        elsewhere = [encode_upload_open(UploadOpen(attempt.key, CHUNK_BYTES))]
        await _refused(member.uploading(elsewhere), ConflictError)
        await member.upload(attempt, offset=2 * CHUNK_BYTES)
        first = await member.commit(attempt)
        assert await member.commit(attempt) == first  # said twice, counted once
        status = await member.status(attempt.key)
        assert (status.durable_bytes, status.committed) == (attempt.layout.total_bytes, True)

    _run(consortium, test)


def test_what_no_upload_may_be(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        (_, attempt), *_ = await _uploading(live, members)
        member, opening = members[0], encode_upload_open(UploadOpen(attempt.key, 0))
        await _refused(member.uploading([encode_data(b"1234")]), WireError)
        await _refused(member.uploading([]), WireError)
        await _refused(member.uploading([opening, opening]), WireError)
        await _refused(member.uploading([opening, encode_data(b"short")]), WireError)
        await _refused(member.uploading([opening, b"\xff\xff"]), WireError)
        frames = [opening, *map(encode_data, attempt.chunks())]
        await _refused(member.uploading([*frames, encode_data(b"more")]), WireError)
        await member.upload(attempt, offset=attempt.layout.total_bytes)
        await _refused(member.commit(attempt, member.commitment(attempt, update=Digest(bytes(32)))), ConflictError)
        await _refused(member.commit(attempt, member.commitment(attempt, attempt=Digest(bytes(32)))), ConflictError)
        await _refused(member.commit(attempt, member.commitment(attempt, header=b"\xff")), WireError)
        other = members[1].commitment(attempt)  # signed by another member
        with pytest.raises(aio.AioRpcError) as caught:
            await member.commit(attempt, other)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert not (await member.status(attempt.key)).committed

    _run(consortium, test)


def test_a_damaged_spool_of_a_former_process_is_sent_again_once(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        (_, attempt), *_ = await _uploading(live, members)
        member = members[0]
        spool = live.blobs.spool(attempt.key, member.name)
        spool.append(memoryview(b"\x01" + attempt.content[1:]))  # what a former process left, but for one byte
        spool.close()
        assert (await member.status(attempt.key)).durable_bytes == attempt.layout.total_bytes
        await _refused(member.commit(attempt), UnreachableError)  # to be tried again: ConflictError would be final
        assert (await member.status(attempt.key)).durable_bytes == 0
        wrong = member.commitment(attempt, update=Digest(bytes(32)))
        await member.upload(attempt)
        await _refused(member.commit(attempt, wrong), ConflictError)
        assert (await member.status(attempt.key)).durable_bytes == attempt.layout.total_bytes
        await member.commit(attempt)
        await _refused(member.commit(attempt, wrong), ConflictError)
        assert (await member.status(attempt.key)).committed

    _run(consortium, test)


def test_what_comes_too_late_or_to_the_wrong_place(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        (talk, attempt), (_, second) = await _uploading(live, members, elements=10)
        member = members[0]
        next_attempt = AttemptKey(attempt.key.round, AttemptNumber(7))
        await _refused(member.status(next_attempt), LateError)
        async with _members(consortium, live, "hospital-c") as (stranger,):
            await stranger.open()
            await _refused(stranger.status(attempt.key), UnknownError)
            await _refused(stranger.upload(attempt), UnknownError)
        for each, its in ((member, attempt), (members[1], second)):
            await each.upload(its)
            await each.commit(its)
        await member.result(talk)
        await _refused(member.status(attempt.key), LateError)
        await _refused(member.upload(attempt), LateError)
        await _refused(member.commit(attempt), LateError)

    _run(consortium, test)


def test_a_newer_stream_takes_over(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        (_, attempt), *_ = await _uploading(live, members)
        member, chunks = members[0], attempt.chunks()
        older = member.uploading()
        await older.write(encode_upload_open(UploadOpen(attempt.key, 0)))
        await older.write(encode_data(chunks[0]))
        await live.until(lambda: live.count("received_bytes_total", kind="update") >= CHUNK_BYTES)
        assert (await member.status(attempt.key)).durable_bytes == CHUNK_BYTES
        await older.write(encode_data(chunks[1]))  # the answer to the status stays true
        await _refused(older, LateError)
        await member.upload(attempt, offset=CHUNK_BYTES)
        await member.commit(attempt)

    _run(consortium, test)


def test_a_stalled_upload_is_given_up(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        (_, attempt), *_ = await _uploading(live, members, elements=10)
        stalled = members[0].uploading()
        await stalled.write(encode_upload_open(UploadOpen(attempt.key, 0)))
        await _refused(stalled, UnreachableError)  # to be tried again: LateError would be final

    _run(consortium, test, stalled_s=0.2)


def test_one_participant_has_few_transfers_at_a_time(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, members: list[FakeParticipant]) -> None:
        open_ = [members[0].uploading() for _ in range(TRANSFERS_MAX)]
        for upload in open_:
            await upload.wait_for_connection()
        refused = members[0].uploading()
        with pytest.raises(aio.AioRpcError) as caught:
            await refused
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        other = members[1].uploading([encode_data(b"x")])
        await _refused(other, WireError)  # its own share is untouched
        for upload in open_:
            upload.cancel()
        await live.until(lambda: live.count("refused_total", method="UploadUpdate", error="WireError") == 1)

        async def again() -> str:
            with pytest.raises(aio.AioRpcError) as caught:
                await members[0].uploading([encode_data(b"x")])
            return caught.value.code().name

        while await again() == "RESOURCE_EXHAUSTED":  # until the coordinator has heard of the cancelling
            pass

    _run(consortium, test)
