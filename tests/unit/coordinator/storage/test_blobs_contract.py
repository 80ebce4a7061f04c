"""The contract of `Blobs`, held against every implementation: present, absent, broken; and the twins of each write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.storage.faults import Fault
from coordinator.storage.interface import Blobs, Leftovers, Spool, Staged, StoredModel, StoredSpool
from shared.errors import DurabilityUnknown, StorageError, UnknownError
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from tests.support.storage import BlobsBench, FileBlobsBench, MemoryBlobsBench

ROUND = RoundKey(JobId("heart-1"), RoundNumber(1))
FIRST = AttemptKey(ROUND, AttemptNumber(1))
SECOND = AttemptKey(ROUND, AttemptNumber(2))
NEXT_ROUND = AttemptKey(RoundKey(JobId("heart-1"), RoundNumber(2)), AttemptNumber(1))
ADA = ParticipantId("hospital-a")
BOB = ParticipantId("hospital-b")
MODEL = b"safetensors" * 10


@pytest.fixture(params=["memory", "files"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobsBench]:
    made: BlobsBench = MemoryBlobsBench() if request.param == "memory" else FileBlobsBench(tmp_path)
    yield made
    made.close()


def spool_with(blobs: Blobs, content: bytes, key: AttemptKey = FIRST, participant: ParticipantId = ADA) -> Spool:
    spool = blobs.spool(key, participant)
    spool.append(memoryview(content))
    spool.sync()
    return spool


def content_of(spool: Spool) -> bytes:
    reader = spool.reader()
    try:
        return bytes(reader.read_at(0, reader.size))
    finally:
        reader.close()


def stage_model(blobs: Blobs, content: bytes = MODEL, name: str = "round-1") -> Staged:
    staged = blobs.stage(name)
    staged.allocate(len(content))
    staged.write_at(0, memoryview(content))
    return staged


def model_content(blobs: Blobs, digest: Digest) -> bytes:
    reader = blobs.model(digest)
    try:
        return bytes(reader.read_at(0, reader.size))
    finally:
        reader.close()


def test_a_spool_grows_and_survives_what_was_synced(bench: BlobsBench) -> None:
    spool = bench.blobs.spool(FIRST, ADA)
    assert (spool.size, spool.sync()) == (0, 0)
    spool.append(memoryview(b"one"))
    assert spool.sync() == 3
    spool.append(memoryview(b"two"))
    assert spool.size == 6
    assert content_of(spool) == b"onetwo"
    spool.close()
    spool.close()
    again = bench.restart().spool(FIRST, ADA)
    assert again.size >= 3
    assert content_of(again)[:3] == b"one"


def test_a_spool_takes_views_of_any_item_type(bench: BlobsBench) -> None:
    spool = bench.blobs.spool(FIRST, ADA)
    spool.append(memoryview(bytes(range(16))).cast("I"))
    assert (spool.size, content_of(spool)) == (16, bytes(range(16)))


def test_a_spool_goes_on_where_it_was_cut(bench: BlobsBench) -> None:
    spool = spool_with(bench.blobs, b"one two three")
    spool.truncate(4)
    spool.append(memoryview(b"four"))
    assert spool.sync() == 8
    again = bench.restart().spool(FIRST, ADA)
    assert content_of(again) == b"one four"


def test_a_spool_cannot_be_cut_beyond_its_end(bench: BlobsBench) -> None:
    spool = spool_with(bench.blobs, b"one")
    for wrong in (-1, 4):
        with pytest.raises(RuntimeError):
            spool.truncate(wrong)


def test_spools_do_not_meet(bench: BlobsBench) -> None:
    keys = [(FIRST, ADA), (FIRST, BOB), (SECOND, ADA), (NEXT_ROUND, ADA)]
    for number, (key, participant) in enumerate(keys):
        spool_with(bench.blobs, bytes([number]), key, participant).close()
    blobs = bench.restart()
    assert [content_of(blobs.spool(*key)) for key in keys] == [b"\0", b"\1", b"\2", b"\3"]


def test_dropping_takes_all_attempts_of_one_round(bench: BlobsBench) -> None:
    for key in (FIRST, SECOND, NEXT_ROUND):
        spool_with(bench.blobs, b"update", key).close()
    bench.blobs.drop_spools(ROUND)
    bench.blobs.drop_spools(ROUND)
    bench.blobs.drop_spools(RoundKey(JobId("never-seen"), RoundNumber(1)))
    blobs = bench.restart()
    assert [blobs.spool(key, ADA).size for key in (FIRST, SECOND, NEXT_ROUND)] == [0, 0, 6]
    assert content_of(spool_with(blobs, b"anew")) == b"anew"


def test_spools_are_listed_and_attempts_dropped_one_by_one(bench: BlobsBench) -> None:
    assert list(bench.blobs.spooled()) == []
    for key, participant in ((NEXT_ROUND, ADA), (SECOND, ADA), (FIRST, BOB), (FIRST, ADA)):
        spool_with(bench.blobs, b"update", key, participant).close()
    blobs = bench.restart()
    assert list(blobs.spooled()) == [
        StoredSpool(key, participant, 6)
        for key, participant in ((FIRST, ADA), (FIRST, BOB), (SECOND, ADA), (NEXT_ROUND, ADA))
    ]
    blobs.drop_attempt(FIRST)
    blobs.drop_attempt(FIRST)
    blobs.drop_attempt(AttemptKey(RoundKey(JobId("never-seen"), RoundNumber(1)), AttemptNumber(1)))
    assert [spool.key for spool in bench.restart().spooled()] == [SECOND, NEXT_ROUND]


def test_models_are_listed_and_removed(bench: BlobsBench) -> None:
    assert list(bench.blobs.published()) == []
    contents = {Digest.of(content): content for content in (b"one", b"three")}
    for digest, content in contents.items():
        bench.blobs.publish(stage_model(bench.blobs, content), digest)
    stage_model(bench.blobs, b"of nobody's concern")
    blobs = bench.restart()
    listed = sorted(contents, key=str)
    assert list(blobs.published()) == [StoredModel(digest, len(contents[digest])) for digest in listed]
    reader = blobs.model(listed[0])
    for _ in range(2):
        blobs.remove_model(listed[0])
    assert bytes(reader.read_at(0, reader.size)) == contents[listed[0]], "whoever reads it goes on"
    reader.close()
    with pytest.raises(UnknownError):
        blobs.model(listed[0])
    blobs = bench.restart()
    assert [model.digest for model in blobs.published()] == listed[1:]
    blobs.publish(stage_model(blobs, contents[listed[0]]), listed[0])
    assert model_content(blobs, listed[0]) == contents[listed[0]], "published once more"


def test_what_was_staged_is_a_leftover_of_the_next_process(bench: BlobsBench) -> None:
    assert bench.blobs.leftovers == Leftovers(0, 0)
    stage_model(bench.blobs, name="round-1")
    stage_model(bench.blobs, b"another", name="round-2")
    bench.blobs.publish(stage_model(bench.blobs, name="round-3"), Digest.of(MODEL))
    assert bench.restart().leftovers == Leftovers(2, len(MODEL) + len(b"another"))


def test_a_readers_range_is_exact(bench: BlobsBench) -> None:
    spool = spool_with(bench.blobs, b"0123456789")
    reader = spool.reader()
    spool.close()
    assert reader.size == 10
    first, second = reader.read_at(2, 3), reader.read_at(8, 2)
    assert (bytes(second), bytes(reader.read_at(10, 0)), len(first)) == (b"89", b"", 3)
    for offset, length in ((8, 3), (11, 0), (-1, 2), (0, -1)):
        with pytest.raises(StorageError):
            reader.read_at(offset, length)
    reader.close()
    reader.close()
    with pytest.raises(RuntimeError):
        reader.read_at(0, 1)


def test_a_closed_spool_is_of_no_use(bench: BlobsBench) -> None:
    spool = spool_with(bench.blobs, b"one")
    spool.close()
    uses: list[Callable[[], object]] = [lambda: spool.append(memoryview(b"x")), spool.sync, spool.reader]
    for use in uses:
        with pytest.raises(RuntimeError):
            use()


def test_a_published_model_survives_and_a_staged_file_does_not(bench: BlobsBench) -> None:
    digest = Digest.of(MODEL)
    with pytest.raises(UnknownError):
        bench.blobs.model(digest)
    with pytest.raises(UnknownError):
        bench.blobs.model_location(digest)
    bench.blobs.publish(stage_model(bench.blobs), digest)
    stage_model(bench.blobs, name="round-2")
    blobs = bench.restart()
    assert model_content(blobs, digest) == MODEL
    assert str(digest) in blobs.model_location(digest)
    stage_model(blobs, name="round-2").discard()


def test_publishing_what_is_there_drops_the_staged_file(bench: BlobsBench) -> None:
    digest = Digest.of(MODEL)
    for _ in range(2):
        staged = stage_model(bench.blobs)
        bench.blobs.publish(staged, digest)
        staged.discard()
        with pytest.raises(RuntimeError):
            staged.reader()
        with pytest.raises(RuntimeError):
            bench.blobs.publish(staged, digest)
    assert model_content(bench.blobs, digest) == MODEL


def test_staging_a_name_again_starts_afresh(bench: BlobsBench) -> None:
    old = stage_model(bench.blobs)
    new = stage_model(bench.blobs, b"new")
    with pytest.raises(RuntimeError):
        old.write_at(0, memoryview(b"x"))
    old.discard()
    reader = new.reader()
    assert bytes(reader.read_at(0, 3)) == b"new"


def test_a_staged_file_is_written_inside_its_size_only(bench: BlobsBench) -> None:
    staged = bench.blobs.stage("round-1")
    staged.allocate(4)
    reader = staged.reader()
    assert bytes(reader.read_at(0, 4)) == bytes(4)
    for offset in (-1, 3):
        with pytest.raises(RuntimeError):
            staged.write_at(offset, memoryview(b"xx"))


def test_a_name_that_is_no_label_never_becomes_a_path(bench: BlobsBench) -> None:
    for wrong in ("../x", "..", "", "a/b", "A", "a\0b"):
        with pytest.raises(RuntimeError):
            bench.blobs.stage(wrong)
        with pytest.raises(RuntimeError):
            bench.blobs.spool(FIRST, ParticipantId(wrong))
        with pytest.raises(RuntimeError):
            bench.blobs.drop_spools(RoundKey(JobId(wrong), RoundNumber(1)))
        for verb in (bench.blobs.drop_attempt, lambda key: bench.blobs.spool(key, ADA)):
            with pytest.raises(RuntimeError):
                verb(AttemptKey(RoundKey(JobId(wrong), RoundNumber(1)), AttemptNumber(1)))
    with pytest.raises(RuntimeError):
        bench.blobs.spool(AttemptKey(ROUND, AttemptNumber(0)), ADA)


@pytest.mark.parametrize(
    "verb",
    [
        *("spool", "append", "truncate", "drop_spools", "drop_attempt", "stage", "allocate", "write_at", "publish"),
        *("discard", "remove_model"),
    ],
)
def test_a_write_that_failed_changed_nothing_and_can_be_tried_again(bench: BlobsBench, verb: str) -> None:
    digest = Digest.of(MODEL)
    spool = spool_with(bench.blobs, b"one")
    staged = stage_model(bench.blobs)
    other = Digest.of(b"another")
    bench.blobs.publish(stage_model(bench.blobs, b"another", name="round-3"), other)
    calls: dict[str, Callable[[], object]] = {
        "spool": lambda: bench.blobs.spool(SECOND, BOB),
        "append": lambda: spool.append(memoryview(b"twotwo")),
        "truncate": lambda: spool.truncate(1),
        "drop_spools": lambda: bench.blobs.drop_spools(ROUND),
        "stage": lambda: bench.blobs.stage("round-2"),
        "allocate": lambda: staged.allocate(len(MODEL)),
        "write_at": lambda: staged.write_at(0, memoryview(MODEL)),
        "publish": lambda: bench.blobs.publish(staged, digest),
        "discard": staged.discard,
        "drop_attempt": lambda: bench.blobs.drop_attempt(FIRST),
        "remove_model": lambda: bench.blobs.remove_model(other),
    }
    bench.fail_next(verb, Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError):
        calls[verb]()
    assert (spool.size, content_of(spool)) == (3, b"one")
    with pytest.raises(UnknownError):
        bench.blobs.model(digest)
    assert model_content(bench.blobs, other) == b"another"
    calls[verb]()


@pytest.mark.parametrize("verb", ["published", "spooled"])
def test_a_listing_that_failed_can_be_tried_again(bench: BlobsBench, verb: str) -> None:
    spool_with(bench.blobs, b"one").close()
    bench.blobs.publish(stage_model(bench.blobs), Digest.of(MODEL))
    look: Callable[[], object] = getattr(bench.blobs, verb)
    before = look()
    bench.fail_next(verb, Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError):
        look()
    assert look() == before


@pytest.mark.parametrize("fault", [Fault.FAILED_BUT_PERSISTED, Fault.FAILED_UNKNOWN_NOT_PERSISTED])
def test_a_removal_of_unknown_fate_is_repeated_by_the_next_process(bench: BlobsBench, fault: Fault) -> None:
    digest = Digest.of(MODEL)
    bench.blobs.publish(stage_model(bench.blobs), digest)
    bench.fail_next("remove_model", fault)
    with pytest.raises(DurabilityUnknown):
        bench.blobs.remove_model(digest)
    with pytest.raises(DurabilityUnknown):
        bench.blobs.remove_model(digest)
    blobs = bench.restart()
    assert [model.digest for model in blobs.published()] == ([] if fault is Fault.FAILED_BUT_PERSISTED else [digest])
    blobs.remove_model(digest)
    assert list(bench.restart().published()) == []


@pytest.mark.parametrize("fault", [Fault.FAILED_BUT_PERSISTED, Fault.FAILED_UNKNOWN_NOT_PERSISTED])
def test_a_failed_sync_is_not_tried_again(bench: BlobsBench, fault: Fault) -> None:
    spool = spool_with(bench.blobs, b"one")
    spool.append(memoryview(b"two"))
    bench.fail_next("sync", fault)
    with pytest.raises(DurabilityUnknown):
        spool.sync()
    uses: list[Callable[[], object]] = [
        spool.sync,
        lambda: spool.append(memoryview(b"x")),
        lambda: bench.blobs.stage("round-1"),
        lambda: bench.blobs.spool(FIRST, BOB),
    ]
    for use in uses:
        with pytest.raises(DurabilityUnknown):
            use()
    again = bench.restart().spool(FIRST, ADA)
    assert content_of(again) == (b"onetwo" if fault is Fault.FAILED_BUT_PERSISTED else b"one")


@pytest.mark.parametrize("fault", [Fault.FAILED_BUT_PERSISTED, Fault.FAILED_UNKNOWN_NOT_PERSISTED])
def test_a_publication_of_unknown_fate_is_repeated_by_the_next_process(bench: BlobsBench, fault: Fault) -> None:
    digest = Digest.of(MODEL)
    staged = stage_model(bench.blobs)
    bench.fail_next("publish", fault)
    with pytest.raises(DurabilityUnknown):
        bench.blobs.publish(staged, digest)
    with pytest.raises(DurabilityUnknown):
        bench.blobs.stage("round-2")
    blobs = bench.restart()
    if fault is Fault.FAILED_BUT_PERSISTED:
        assert model_content(blobs, digest) == MODEL
    else:
        with pytest.raises(UnknownError):
            blobs.model(digest)
    blobs.publish(stage_model(blobs), digest)
    assert model_content(blobs, digest) == MODEL


def test_dropping_of_unknown_fate_is_repeated_by_the_next_process(bench: BlobsBench) -> None:
    spool_with(bench.blobs, b"one").close()
    bench.fail_next("drop_spools", Fault.FAILED_BUT_PERSISTED)
    with pytest.raises(DurabilityUnknown):
        bench.blobs.drop_spools(ROUND)
    blobs = bench.restart()
    blobs.drop_spools(ROUND)
    assert blobs.spool(FIRST, ADA).size == 0
