"""What operators ask, through the operator's own client against the real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from coordinator.audit import verify_lines
from coordinator.client.rpc import OperationsChannel
from coordinator.storage.interface import Staged
from shared.errors import ConflictError, FederationError, ModelError, UnknownError, UnreachableError, WireError
from shared.ids import Digest, JobId
from shared.protocol.messages import RoundPlan
from shared.reasons import AbortReason, JobState
from shared.update import CHUNK_BYTES, DType, ModelManifest, TensorSpec
from shared.wire import operations as wire
from shared.wire.transfer import encode_data
from tests.support.credentials import Consortium
from tests.support.fake_participant import fake_participant
from tests.support.live_coordinator import LiveCoordinator, live_coordinator
from tests.support.models import model_bytes, random_tensors

JOB = JobId("heart-1")
Ask = Callable[[Callable[[OperationsChannel], object]], Awaitable[object]]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    made = Consortium(tmp_path_factory.mktemp("consortium"))
    made.participant("hospital-a")
    made.operator()
    return made


def _run(consortium: Consortium, test: Callable[[LiveCoordinator, OperationsChannel], Awaitable[None]]) -> None:
    async def run() -> None:
        async with live_coordinator(consortium, consortium.folder) as live:
            with OperationsChannel(address=f"localhost:{live.port}", tls=consortium.operator().tls) as channel:
                await test(live, channel)

    asyncio.run(run())


def _model(elements: int) -> bytes:
    manifest = ModelManifest.of([TensorSpec("weights", DType.F32, (elements,))])
    return model_bytes(manifest, random_tensors(manifest, 3))


def _put_frames(content: bytes, digest: Digest | None = None, size: int | None = None) -> list[bytes]:
    opening = wire.PutModelOpen(digest or Digest.of(content), len(content) if size is None else size)
    chunks = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    return [wire.encode_put_model_open(opening), *map(encode_data, chunks)]


def test_a_model_goes_in_once_and_comes_out_whole(consortium: Consortium) -> None:
    content = _model(600_000)
    digest = Digest.of(content)

    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        def put(frames: list[bytes]) -> bool:
            return wire.decode_put_model_response(channel.send("PutModel", iter(frames)))

        assert await asyncio.to_thread(put, _put_frames(content))
        assert not await asyncio.to_thread(put, _put_frames(content))
        listed = await asyncio.to_thread(channel.ask, "ListModels", wire.encode_list_models())
        assert [model.model for model in wire.decode_list_models_response(listed)] == [digest]

        def export(offset: int) -> bytes:
            request = wire.encode_export_model(wire.ExportModel(digest, offset))
            return b"".join(bytes(wire.decode_export_frame(frame)) for frame in channel.follow("ExportModel", request))

        assert await asyncio.to_thread(export, 0) == content
        assert await asyncio.to_thread(export, 999) == content[999:]
        with pytest.raises(ConflictError, match="cannot be read from"):
            await asyncio.to_thread(export, len(content) + 1)

    _run(consortium, test)


def _promoted(channel: OperationsChannel, digest: Digest, *, promoted: bool = True) -> bool:
    request = wire.encode_promote_model(wire.PromoteModel(digest, promoted))
    return wire.decode_promote_model_response(channel.ask("PromoteModel", request))


def _listed(channel: OperationsChannel) -> list[tuple[Digest, bool, bool]]:
    listed = wire.decode_list_models_response(channel.ask("ListModels", wire.encode_list_models()))
    return [(model.model, model.promoted, model.pruned) for model in listed]


def _prune(live: LiveCoordinator, digest: Digest) -> None:
    """As the policy does; on the conductor's thread."""
    audit = live.conductor._audit
    entry = audit.entry("model_pruned", {"models": [str(digest)]})
    live.store.prune_models([digest], entry)
    audit.accept(entry)
    live.blobs.remove_model(digest)


def test_a_version_is_promoted_and_the_log_says_by_whom(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        digest, _ = await live.add_model(10)

        def talk() -> None:
            assert _promoted(channel, digest)
            assert not _promoted(channel, digest)
            assert _listed(channel) == [(digest, True, False)]
            assert _promoted(channel, digest, promoted=False)
            assert not _promoted(channel, digest, promoted=False)
            assert _listed(channel) == [(digest, False, False)]
            with pytest.raises(UnknownError, match="there is no model"):
                _promoted(channel, Digest(bytes(32)))

        await asyncio.to_thread(talk)
        bodies = [json.loads(entry.line[129:]) for entry in live.store.audit_entries(1)]
        said = {"model": str(digest), "by": "spiffe://hearts.example/operator/operator"}
        assert [(body["kind"], body["data"]) for body in bodies] == [("model_promoted", said), ("model_demoted", said)]

    _run(consortium, test)


def test_a_pruned_version_is_refused_with_that_reason_until_its_file_is_brought_again(consortium: Consortium) -> None:
    content = _model(10)
    digest = Digest.of(content)

    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        await asyncio.to_thread(channel.send, "PutModel", iter(_put_frames(content)))
        spec = await live.submit("first-1", ["hospital-b"], digest)
        await live.thread.call(_prune, live, digest)
        export = wire.encode_export_model(wire.ExportModel(digest, 0))

        def refused() -> None:
            assert _listed(channel) == [(digest, False, True)]
            with pytest.raises(
                UnknownError, match=r"was pruned: \[retention\] keep_versions .* which versions are kept"
            ):
                list(channel.follow("ExportModel", export))
            with pytest.raises(UnknownError, match=r"was pruned: .* start from a version that is kept"):
                channel.ask("SubmitJob", wire.encode_submit_job(wire.SubmitJob(JOB, spec.to_bytes())))
            with pytest.raises(ConflictError, match="was pruned"):
                _promoted(channel, digest)

        await asyncio.to_thread(refused)

        def brought_again() -> None:
            assert wire.decode_put_model_response(channel.send("PutModel", iter(_put_frames(content))))
            assert _listed(channel) == [(digest, False, False)]
            assert b"".join(map(wire.decode_export_frame, channel.follow("ExportModel", export))) == content
            channel.ask("SubmitJob", wire.encode_submit_job(wire.SubmitJob(JOB, spec.to_bytes())))

        await asyncio.to_thread(brought_again)

    _run(consortium, test)


def test_a_version_whose_file_was_lost_is_taken_again(consortium: Consortium) -> None:
    """As when the records were set back, and retention had removed it since."""
    content = _model(10)

    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        def put() -> bool:
            return wire.decode_put_model_response(channel.send("PutModel", iter(_put_frames(content))))

        assert await asyncio.to_thread(put)
        await live.thread.call(live.blobs.remove_model, Digest.of(content))
        assert await asyncio.to_thread(put)
        assert not await asyncio.to_thread(put)
        live.blobs.model(Digest.of(content)).close()

    _run(consortium, test)


def test_what_no_model_may_be(consortium: Consortium) -> None:
    content = _model(10)
    chunk = encode_data(content)
    cases = [
        ([chunk], WireError, "first frame"),
        ([], WireError, "first frame"),
        (_put_frames(content, digest=Digest(bytes(32))), ConflictError, "SHA-256"),
        (_put_frames(content, size=len(content) - 1), WireError, "more were sent"),
        (_put_frames(content, size=len(content) + 1), WireError, "were sent"),
        ([*_put_frames(content)[:1], *_put_frames(content)[:1]], WireError, "opened once"),
        ([*_put_frames(content)[:1], encode_data(b"")], WireError, "empty frame"),
        (_put_frames(content, size=wire.MODEL_MAX_BYTES + 1), WireError, "at most"),
        (_put_frames(b"no model at all, but its digest is right"), ModelError, "."),
    ]

    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        for frames, error, text in cases:
            with pytest.raises(error, match=text):
                await asyncio.to_thread(channel.send, "PutModel", iter(frames))
        await asyncio.to_thread(channel.send, "PutModel", iter(_put_frames(content)))  # no slot is left taken

    _run(consortium, test)


def test_who_is_no_longer_allowed_ends_in_the_middle_of_a_model(consortium: Consortium) -> None:
    opening, chunk = _put_frames(_model(10))
    good = consortium.allowlist.read_text()

    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        def frames() -> Iterator[bytes]:
            yield opening
            assert staged.wait(10)
            consortium.allowlist.write_text("half writ")
            yield chunk

        staged, stage = threading.Event(), live.blobs.stage

        def told(name: str) -> Staged:
            staged.set()
            return stage(name)

        live.blobs.stage = told  # type: ignore[method-assign] # the cheapest way to know that the opening was let in
        try:
            with pytest.raises(FederationError):
                await asyncio.to_thread(channel.send, "PutModel", frames())
        finally:
            consortium.allowlist.write_text(good)
        assert live.store.models() == ()

    _run(consortium, test)


def test_a_job_is_submitted_watched_and_aborted(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        model, _ = await live.add_model(10)
        spec = await live.submit("first-1", ["hospital-b"], model)  # waits for somebody who never comes
        text = json.loads(spec.to_bytes())
        text["members"] = ["hospital-a"]
        mine = wire.SubmitJob(JOB, json.dumps(text, sort_keys=True, separators=(",", ":")).encode())

        def submit(value: wire.SubmitJob) -> wire.JobStatus:
            return wire.decode_submit_job_response(channel.ask("SubmitJob", wire.encode_submit_job(value)))

        first = await asyncio.to_thread(submit, mine)
        assert first.state is JobState.QUEUED
        assert "not connected: hospital-a" in first.reason
        assert first.submitted_by == "spiffe://hearts.example/operator/operator"
        assert await asyncio.to_thread(submit, mine) == first
        with pytest.raises(ConflictError):
            await asyncio.to_thread(submit, wire.SubmitJob(JOB, spec.to_bytes()))
        with pytest.raises(WireError):
            await asyncio.to_thread(submit, wire.SubmitJob(JobId("other-1"), b"{}"))

        seen: list[wire.JobDetail] = []

        def watch() -> None:
            seen.extend(map(wire.decode_watch_job_response, channel.follow("WatchJob", wire.encode_watch_job(JOB))))

        watching = asyncio.create_task(asyncio.to_thread(watch))
        await live.until(lambda: bool(seen))
        member, coordinator = consortium.participant("hospital-a"), consortium.coordinator()
        async with fake_participant(live.port, "hospital-a", member, coordinator) as participant:
            talk, _ = await participant.open()
            await talk.expect(RoundPlan)
            await live.until(lambda: seen[-1].live is not None)
            detail = wire.decode_get_job_response(
                await asyncio.to_thread(channel.ask, "GetJob", wire.encode_get_job(JOB))
            )
            assert detail == seen[-1]
            assert detail.live is not None
            assert detail.live.phase == "recruiting"
            assert [(member.participant, member.connected) for member in detail.live.members] == [("hospital-a", True)]
            abort = wire.encode_abort_job(wire.AbortJob(JOB, "enough"))
            aborted = wire.decode_abort_job_response(await asyncio.to_thread(channel.ask, "AbortJob", abort))
            assert aborted.state is JobState.ABORTED
            with pytest.raises(ConflictError):
                await asyncio.to_thread(channel.ask, "AbortJob", abort)
            await watching
        assert seen[-1].job == aborted
        assert [round_.outcome for message in seen for round_ in message.rounds] == [AbortReason.OPERATOR]
        jobs = wire.decode_list_jobs_response(await asyncio.to_thread(channel.ask, "ListJobs", wire.encode_list_jobs()))
        assert [(job.job, job.state) for job in jobs] == [("first-1", JobState.QUEUED), (JOB, JobState.ABORTED)]
        with pytest.raises(UnknownError):
            await asyncio.to_thread(channel.ask, "GetJob", wire.encode_get_job(JobId("none-1")))

    _run(consortium, test)


def test_a_watch_is_told_that_the_coordinator_is_ending(consortium: Consortium) -> None:
    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        model, _ = await live.add_model(10)
        await live.submit("first-1", ["hospital-b"], model)
        seen: list[bytes] = []

        def watch() -> None:
            seen.extend(channel.follow("WatchJob", wire.encode_watch_job(JobId("first-1"))))

        watching = asyncio.create_task(asyncio.to_thread(watch))
        await live.until(lambda: bool(seen))
        live.operations.drain()
        with pytest.raises(UnreachableError):
            await watching

    _run(consortium, test)


def test_the_audit_log_can_be_read_from_anywhere(consortium: Consortium, tmp_path: Path) -> None:
    async def test(live: LiveCoordinator, channel: OperationsChannel) -> None:
        model, _ = await live.add_model(10)
        for number in range(5):
            await live.submit(f"job-{number}", ["hospital-b"], model)

        def read(start: int) -> bytes:
            pages = channel.follow("ReadAudit", wire.encode_read_audit(start))
            return b"".join(wire.decode_read_audit_response(page) for page in pages)

        log = await asyncio.to_thread(read, 0)
        key = consortium.coordinator().signing_key.verifying_key
        assert verify_lines(log, verifying_key=key).size == 6
        assert log.endswith(await asyncio.to_thread(read, 4))
        assert await asyncio.to_thread(read, 6) == b""
        with pytest.raises(WireError, match="at most"):
            await asyncio.to_thread(read, wire.AUDIT_START_MAX + 1)

    _run(consortium, test)
