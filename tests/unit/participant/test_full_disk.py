"""A silo's disk that is full, read-only or broken: what each write says, and that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from participant.journal import SqliteJournal
from participant.marker import marker_path, take_into_use
from participant.round.phases import Opening
from participant.spool import Spool
from shared.errors import DurabilityUnknown, StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.job import jobspec_digest
from shared.protocol.messages import Envelope
from shared.reasons import Purpose
from tests.support.rounds import JOB, KEY, TASK, A, B, make_plan, make_spec, result_of, spooled, start_of
from tests.support.small_disk import SmallDisk, small_disk

SPEC = make_spec()
PLAN = make_plan(SPEC)
JOBSPEC = jobspec_digest(SPEC.to_bytes())
MODEL = Digest.of(b"model")
OPENING = Opening(Digest.of(b"h0"), Digest.of(b"t3"), (A, B), Digest.of(b"terms"), Envelope(b"r" * 9000, b"s" * 64, 1))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", size=2 << 20) as made:
        yield made


def nothing(_journal: SqliteJournal) -> None:
    """Before the first verb."""


def planned(journal: SqliteJournal) -> None:
    journal.record_plan(PLAN, JOBSPEC)


def end(journal: SqliteJournal) -> None:
    journal.record_end(KEY, keep_state=True, verified=result_of(start_of(PLAN, SPEC), (1, 2)))


VERBS: dict[str, tuple[Callable[[SqliteJournal], None], Callable[[SqliteJournal], object]]] = {
    "plan": (nothing, planned),
    "update": (planned, lambda journal: journal.record_update(KEY, spooled(fits=False))),
    "attempt": (planned, lambda journal: journal.record_attempt(KEY, start_of(PLAN, SPEC), Digest.of(b"core"))),
    "opening": (planned, lambda journal: journal.record_opening(KEY, Purpose.TRAIN, TASK, MODEL, OPENING)),
    "end": (planned, end),
    "stop": (planned, lambda journal: journal.stop_job(JOB, "for its own reason")),
    "allow": (nothing, lambda journal: journal.allow_repeat(JobId("brain-1"))),
    "generation": (nothing, lambda journal: journal.set_generation(7)),
}


def everything(journal: SqliteJournal) -> tuple[object, ...]:
    return (
        journal.open_rounds(), journal.history(JOB), journal.totals(TASK, MODEL), journal.heads(8),
        journal.repeat_allowed(JobId("brain-1")), journal.name().generation, journal.state_round(JOB),
    )  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("left", [0, 4096, 12288])
def test_a_record_on_a_full_disk_changes_nothing_and_is_made_when_there_is_room(
    tmp_path: Path, disk: SmallDisk, verb: str, left: int
) -> None:
    before, record = VERBS[verb]
    with closing(SqliteJournal(tmp_path / "on a large disk.db")) as undisturbed:
        before(undisturbed)
        record(undisturbed)
        expected = everything(undisturbed)
    journal = SqliteJournal(disk.folder / "journal.db")
    before(journal)
    known = everything(journal)
    disk.leave(left)
    refused = False
    try:
        record(journal)
    except StorageError:
        refused = True
        # `record_end` empties the write-ahead file when its record is made; that alone may be what the disk refuses.
        assert everything(journal) == known or verb == "end"
    assert refused or left, "a full disk takes nothing"
    disk.make_room()
    record(journal)
    assert everything(journal) == expected
    journal.close()
    with closing(SqliteJournal(disk.folder / "journal.db")) as again:
        assert everything(again) == expected


def test_the_marker_stays_whole_on_a_full_disk(disk: SmallDisk) -> None:
    journal, key = SqliteJournal(disk.folder.parent / "journal.db"), disk.folder / "signing.key"
    assert take_into_use(journal, key) is None
    written = marker_path(key).read_bytes()
    disk.fill()
    assert take_into_use(journal, key) is None, "the journal is ahead of its marker, which is no doubt"
    assert marker_path(key).read_bytes() == written
    disk.make_room()
    assert take_into_use(journal, key) is None
    assert marker_path(key).read_bytes() != written


# --- the spool --------------------------------------------------------------------------------------------------------


NEXT = RoundKey(JOB, RoundNumber(2))


def full_spool(folder: Path) -> Spool:
    """With something in every place."""
    spool = Spool(folder)
    spool.begin(KEY, PLAN_DIGEST)
    spool.deltas(KEY).write_bytes(bytes(4096))
    spool.new_state(KEY).write_bytes(b"momentum")
    spool.partial_model(MODEL).write_bytes(b"model")
    spool.state(JOB, RoundNumber(1)).parent.mkdir(mode=0o700)
    spool.state(JOB, RoundNumber(1)).write_bytes(b"older")
    return spool


PLAN_DIGEST = Digest.of(b"plan")
SPOOL: dict[str, Callable[[Spool], object]] = {
    "begin": lambda spool: spool.begin(NEXT, PLAN_DIGEST),
    "begin again": lambda spool: spool.begin(KEY, PLAN_DIGEST),
    "reserve": lambda spool: spool.reserve_update(KEY, 4),
    "seal": lambda spool: spool.seal_update(KEY),
    "keep model": lambda spool: spool.keep_model(MODEL),
    "keep state": lambda spool: spool.keep_state(KEY),
    "sweep models": lambda spool: spool.keep_only_models(()),
    "sweep states": lambda spool: spool.drop_older_states(JOB, RoundNumber(2)),
}


@pytest.mark.parametrize("write", SPOOL)
def test_what_a_read_only_disk_refuses_is_safe_to_do_again(disk: SmallDisk, write: str) -> None:
    spool = full_spool(disk.folder)
    disk.remount("ro")
    with pytest.raises(StorageError):
        SPOOL[write](spool)
    disk.remount("rw")
    if write != "reserve":  # which leaves 64 MiB free, and there are two
        SPOOL[write](spool)


def test_an_update_that_finds_no_room_says_how_much_it_needs(disk: SmallDisk) -> None:
    spool = full_spool(disk.folder)
    with pytest.raises(StorageError, match=r"the update needs 40 bytes, and 67108864 are to be left: .* has \d+ free"):
        spool.reserve_update(KEY, 10)
    with pytest.raises(StorageError, match=r"the model needs 3000000 bytes"):
        spool.require_room(Digest.of(b"another"), 3_000_000)
    assert spool.deltas(KEY).stat().st_size == 4096, "nothing was changed"


def test_digests_that_find_no_room_are_written_when_there_is_some(disk: SmallDisk) -> None:
    spool = full_spool(disk.folder)
    disk.fill()
    with pytest.raises(StorageError, match="No space left"):
        spool.seal_update(KEY)
    disk.make_room()
    assert spool.seal_update(KEY) == Digest.of(Digest.of(bytes(4096)).raw)


BROKEN = Path("/dev/full")  # opens, and cannot be synced


def test_a_sync_that_fails_ends_the_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.begin(KEY, PLAN_DIGEST)
    spool.partial_model(MODEL).symlink_to(BROKEN)
    with pytest.raises(DurabilityUnknown, match="may or may not be on disk"):
        spool.keep_model(MODEL)
    assert not spool.model(MODEL).exists()
    spool.new_state(KEY).symlink_to(BROKEN)
    with pytest.raises(DurabilityUnknown):
        spool.keep_state(KEY)
    with pytest.raises(DurabilityUnknown):
        spool.make_durable(KEY)
