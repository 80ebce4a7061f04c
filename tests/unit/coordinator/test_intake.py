"""A live upload changes hands without being read again, and no upload waits for another's disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from coordinator.intake import Intake, UploadId
from coordinator.storage.interface import Reader, Spool
from coordinator.storage.memory import MemoryBlobs
from shared.errors import ConflictError, LateError, WireError
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.update import Encoding, StatisticsLayout, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import encode_update_header
from tests.support.rounds import A, B

LAYOUT = UpdateLayout(Encoding.PLAIN, 300_000, StatisticsLayout(("loss",)).cells)
FIRST, SECOND = (AttemptKey(RoundKey(JobId("heart-1"), RoundNumber(n)), AttemptNumber(1)) for n in (1, 2))
MINE = UploadId(FIRST, A)
CHUNKS = [memoryview(bytes(end - start)) for start, end in LAYOUT.chunk_ranges()]


@dataclass
class _Watched:
    """A spool that tells what is done to it, and may be held up in a sync."""

    inner: Spool
    of: _Blobs

    @property
    def size(self) -> int:
        return self.inner.size

    def append(self, data: memoryview) -> None:
        self.inner.append(data)

    def truncate(self, size: int) -> None:
        self.inner.truncate(size)

    def sync(self) -> int:
        self.of.in_sync()
        return self.inner.sync()

    def reader(self) -> Reader:
        self.of.done.append("read")
        return self.inner.reader()

    def close(self) -> None:
        self.of.done.append("close")
        self.inner.close()


@dataclass
class _Blobs(MemoryBlobs):
    done: list[str] = field(default_factory=list)
    in_sync: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        super().__init__()

    def spool(self, key: AttemptKey, participant: ParticipantId) -> Spool:
        self.done.append("open")
        return _Watched(super().spool(key, participant), self)


def test_a_newer_stream_goes_on_with_what_is_there() -> None:
    blobs = _Blobs()
    intake = Intake(blobs)
    older = intake.open(MINE, LAYOUT, 0)
    older.append(CHUNKS[0])
    with pytest.raises(ConflictError, match="goes on at byte"):
        intake.open(MINE, LAYOUT, 0)
    newer = intake.open(MINE, LAYOUT, len(CHUNKS[0]))
    with pytest.raises(LateError):
        older.append(CHUNKS[1])
    newer.append(CHUNKS[1])
    assert newer.sync() == sum(map(len, CHUNKS[:2]))
    assert blobs.done == ["open", "read"]


def test_the_answer_to_a_status_stays_true() -> None:
    intake = Intake(MemoryBlobs())
    older = intake.open(MINE, LAYOUT, 0)
    older.append(CHUNKS[0])
    durable = intake.durable_bytes(MINE, LAYOUT)
    with pytest.raises(LateError):
        older.append(CHUNKS[1])
    intake.open(MINE, LAYOUT, durable).append(CHUNKS[1])


def test_a_new_process_hashes_whole_chunks_and_forgets_a_torn_one() -> None:
    blobs = MemoryBlobs()
    stream = Intake(blobs).open(MINE, LAYOUT, 0)
    stream.append(CHUNKS[0])
    stream.sync()
    stream.append(CHUNKS[1])
    after = blobs.crash(keep_bytes=7)
    assert Intake(after).durable_bytes(MINE, LAYOUT) == len(CHUNKS[0])


def test_what_a_former_process_left_is_doubted_once() -> None:
    """The bytes of this process are what was sent: a digest that they do not have is the participant's mistake."""
    blobs = MemoryBlobs()
    stream = Intake(blobs).open(MINE, LAYOUT, 0)
    assert not Intake(MemoryBlobs()).start_over(MINE, LAYOUT)
    for chunk in CHUNKS:
        stream.append(chunk)
    stream.sync()
    intake = Intake(blobs.crash(keep_bytes=0))
    older = intake.open(MINE, LAYOUT, LAYOUT.total_bytes)
    assert intake.start_over(MINE, LAYOUT)
    with pytest.raises(LateError):
        older.sync()
    assert intake.durable_bytes(MINE, LAYOUT) == 0
    again = intake.open(MINE, LAYOUT, 0)
    for chunk in CHUNKS:
        again.append(chunk)
    assert not intake.start_over(MINE, LAYOUT)
    assert again.sync() == LAYOUT.total_bytes


def test_a_committed_update_has_no_open_file_and_is_known_all_the_same() -> None:
    blobs = _Blobs()
    intake = Intake(blobs)
    intake.open(MINE, LAYOUT, 0).append(CHUNKS[0])
    intake.rest(MINE)
    assert blobs.done == ["open", "read", "close"]
    assert intake.durable_bytes(MINE, LAYOUT) == len(CHUNKS[0])
    assert blobs.done == ["open", "read", "close", "open"]


NOISE = UpdateLayout(Encoding.U32, 300_000, 70)
WIDE_NOISE = UpdateLayout(Encoding.U64, 0, 4)


@pytest.mark.parametrize("layout", [NOISE, WIDE_NOISE])
def test_of_a_masked_update_no_number_is_looked_at(layout: UpdateLayout) -> None:
    intake = Intake(MemoryBlobs())
    stream = intake.open(MINE, layout, 0)
    chunks = [b"\xff" * (end - start) for start, end in layout.chunk_ranges()]  # read as numbers, they are NaN
    for chunk in chunks:
        stream.append(memoryview(chunk))
    header = encode_update_header(UpdateHeader(layout.encoding, None, 1))
    assert intake.prove(MINE, layout, header) == update_digest(header, [Digest.of(chunk) for chunk in chunks])


def test_of_a_plain_update_each_number_is() -> None:
    intake = Intake(MemoryBlobs())
    stream = intake.open(MINE, LAYOUT, 0)
    with pytest.raises(WireError, match="holds a NaN"):
        stream.append(memoryview(b"\xff" * len(CHUNKS[0])))
    for chunk in CHUNKS:
        stream.append(chunk)
    header = encode_update_header(UpdateHeader(Encoding.PLAIN, 2.0, 1))
    with pytest.raises(WireError, match=r"header has weight 2\.0, its statistics 0\.0"):
        intake.prove(MINE, LAYOUT, header)


def test_nobody_waits_for_the_disk_of_another_round() -> None:
    reached, gate = threading.Event(), threading.Event()
    blobs = _Blobs()
    intake = Intake(blobs)
    other = intake.open(UploadId(SECOND, B), LAYOUT, 0)
    other.append(CHUNKS[0])
    intake.open(MINE, LAYOUT, 0)

    def stuck() -> None:
        reached.set()
        assert gate.wait(10)

    blobs.in_sync = stuck
    syncing = threading.Thread(target=other.sync)
    syncing.start()
    try:
        assert reached.wait(5)
        ended = threading.Thread(target=intake.forget, args=(FIRST.round,))
        ended.start()
        ended.join(5)
        assert not ended.is_alive()
        with pytest.raises(LateError):
            intake.open(MINE, LAYOUT, 0)
    finally:
        gate.set()
        syncing.join()
