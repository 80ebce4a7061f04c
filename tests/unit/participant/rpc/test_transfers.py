"""Transfers over a real channel: what is sent, what is sent again, and how one ends whose bytes are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from participant.protect import Chunk, ResendDiffers
from participant.rpc.counting import CONTROL, UPDATE
from participant.rpc.transfer import Transfers
from shared.errors import ConflictError, ModelError, StorageError, TaskError, UnreachableError
from shared.ids import AttemptKey, AttemptNumber, Digest
from shared.protocol.messages import Envelope
from shared.update import CHUNK_BYTES, Encoding, UpdateLayout, update_digest
from tests.support.counted import Counted
from tests.support.fake_coordinator import FakeTransferService, fake_transfers
from tests.support.rounds import KEY

ATTEMPT = AttemptKey(KEY, AttemptNumber(1))
LAYOUT = UpdateLayout(Encoding.U32, 5 * CHUNK_BYTES // 8, 4)
HEADER = b"header"
LIMIT_S = 30.0


@dataclass
class Update:
    """Chunks that are never the same buffer for longer than they may be."""

    fails_at: int | None = None
    error: Exception = field(default_factory=lambda: TaskError("NaN"))
    made: int = 0

    def __iter__(self) -> Iterator[Chunk]:
        buffer = bytearray(CHUNK_BYTES)
        for position, content in enumerate(self.contents()):
            if position == self.fails_at:
                raise self.error
            self.made += 1
            buffer[: len(content)] = content
            data = memoryview(buffer)[: len(content)]
            yield Chunk(data, Digest.of(data))

    @staticmethod
    def contents() -> list[bytes]:
        ranges = enumerate(LAYOUT.chunk_ranges(), start=1)
        return [bytes([position]) * (end - start) for position, (start, end) in ranges]

    @property
    def digest(self) -> Digest:
        return update_digest(HEADER, map(Digest.of, self.contents()))


def commit(digest: Digest) -> Envelope:
    return Envelope(b"commit " + digest.raw, bytes(64), 1)


def upload(service: FakeTransferService, chunks: Update, counted: Counted | None = None) -> Envelope:
    async def scenario() -> Envelope:
        async with fake_transfers(service) as channel:
            calls = Transfers(channel=channel, address="here", counter=counted or Counted())
            sending = calls.upload(key=ATTEMPT, chunks=chunks, layout=LAYOUT, header=HEADER, commit=commit)
            return await asyncio.wait_for(sending, LIMIT_S)

    service.told = chunks.digest
    return asyncio.run(scenario())


def test_an_update_is_sent_and_committed_to() -> None:
    service, update = FakeTransferService(), Update()
    assert upload(service, update) == commit(update.digest)
    assert service.offsets == [0]
    assert service.received == update.contents()
    assert service.commits == [commit(update.digest)]


def test_what_leaves_is_counted_and_what_does_not_leave_is_not() -> None:
    whole, rest, nothing = Counted(), Counted(), Counted()
    upload(FakeTransferService(), Update(), whole)
    upload(FakeTransferService(held=CHUNK_BYTES), Update(), rest)
    upload(FakeTransferService(held=LAYOUT.total_bytes, committed=True), Update(), nothing)
    frames = whole.sent_by_kind[UPDATE] - LAYOUT.total_bytes
    assert 0 < frames < 100 * LAYOUT.chunks
    assert CHUNK_BYTES <= whole.sent_by_kind[UPDATE] - rest.sent_by_kind[UPDATE] < CHUNK_BYTES + 100
    assert nothing.sent_by_kind[UPDATE] == 0
    assert nothing.sent_by_kind[CONTROL] < whole.sent_by_kind[CONTROL]  # it asked, and committed to nothing
    assert whole.received_by_kind.keys() == {CONTROL}


def test_what_the_coordinator_has_is_not_sent_again() -> None:
    service, update = FakeTransferService(held=CHUNK_BYTES), Update()
    assert upload(service, update) == commit(update.digest)
    assert service.offsets == [CHUNK_BYTES]
    assert service.received == update.contents()[1:]


def test_an_update_that_is_committed_already_gives_the_same_word() -> None:
    service, update = FakeTransferService(held=LAYOUT.total_bytes, committed=True), Update()
    assert upload(service, update) == commit(update.digest)
    assert service.received == []
    assert service.commits == []


@pytest.mark.parametrize("held", [1, CHUNK_BYTES + 1, LAYOUT.total_bytes + CHUNK_BYTES])
def test_a_coordinator_that_has_what_was_never_sent_is_refused(held: int) -> None:
    service = FakeTransferService(held=held)
    with pytest.raises(ConflictError):
        upload(service, Update())
    assert service.received == []


@pytest.mark.parametrize(
    "error", [TaskError("NaN"), StorageError("cut short"), ResendDiffers("other bytes"), RuntimeError("a bug")]
)
@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_a_source_that_fails_ends_the_upload_in_its_error(error: Exception, fails_at: int) -> None:
    service = FakeTransferService()
    with pytest.raises(type(error), match=str(error)):
        upload(service, Update(fails_at=fails_at, error=error))
    assert service.received == Update.contents()[: len(service.received)]
    assert len(service.received) <= fails_at
    assert service.commits == []


def test_an_acknowledgement_of_something_else_is_a_conflict() -> None:
    service = FakeTransferService(acknowledged=Digest.of(b"something else"))
    with pytest.raises(ConflictError, match="acknowledged update"):
        upload(service, Update())


def test_an_upload_can_be_given_up() -> None:
    class Slow(FakeTransferService):
        async def upload(self, frames: object, _context: object) -> bytes:
            started.set()
            await asyncio.Event().wait()
            return b""

    started = asyncio.Event()

    async def scenario() -> None:
        async with fake_transfers(Slow()) as channel:
            calls = Transfers(channel=channel, address="here")
            sending = asyncio.create_task(
                calls.upload(key=ATTEMPT, chunks=Update(), layout=LAYOUT, header=HEADER, commit=commit)
            )
            await asyncio.wait_for(started.wait(), LIMIT_S)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending

    asyncio.run(scenario())


# --- models -----------------------------------------------------------------------------------------------------------

MODEL = b"the model"


def fetch(service: FakeTransferService, partial: Path, counted: Counted | None = None) -> None:
    async def scenario() -> None:
        async with fake_transfers(service) as channel:
            calls = Transfers(channel=channel, address="here", counter=counted or Counted())
            await asyncio.wait_for(calls.fetch_model(Digest.of(MODEL), len(MODEL), partial), LIMIT_S)

    asyncio.run(scenario())


def test_a_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    service, partial, counted = FakeTransferService(model=MODEL), tmp_path / "model.part", Counted()
    partial.write_bytes(MODEL[:4])
    fetch(service, partial, counted)
    assert (service.offsets, partial.read_bytes()) == ([4], MODEL)
    assert len(MODEL) - 4 <= counted.received_by_kind["model"] < len(MODEL) + 10


@pytest.mark.parametrize("kept", [bytes(4), bytes(len(MODEL)), bytes(len(MODEL) + 1)])
def test_what_was_kept_and_came_to_harm_is_fetched_again(tmp_path: Path, kept: bytes) -> None:
    service, partial = FakeTransferService(model=MODEL), tmp_path / "model.part"
    partial.write_bytes(kept)
    with pytest.raises(UnreachableError, match="damaged"):
        fetch(service, partial)
    fetch(service, partial)
    assert (service.offsets[-1], partial.read_bytes()) == (0, MODEL)


def test_another_model_than_the_announced_one_is_not_asked_for_again(tmp_path: Path) -> None:
    partial = tmp_path / "model.part"
    with pytest.raises(ModelError):
        fetch(FakeTransferService(model=bytes(len(MODEL))), partial)
    assert not partial.exists()
