"""The silo's record of what left it: three lines an upload, whole after a crash, bounded, never in a round's way."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from participant import sent as module
from participant.sent import BEFORE_SUFFIX, SENT_FILE, Sent, SentRecord
from shared.clock import ManualClock
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber

UPDATE = Digest.of(b"what left")


def attempt(number: int = 1, attempt: int = 1) -> AttemptKey:
    return AttemptKey(RoundKey(JobId("heart-1"), RoundNumber(number)), AttemptNumber(attempt))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=datetime(2026, 11, 29, 15, tzinfo=UTC))


@pytest.fixture
def record(tmp_path: Path, clock: ManualClock) -> SentRecord:
    return SentRecord(tmp_path, clock=clock)


def test_an_upload_from_its_first_byte_to_the_acknowledgement(record: SentRecord, clock: ManualClock) -> None:
    record.began(attempt(), 1234, protection="masked")
    began = Sent("heart-1", 1, 1, "masked", 1234, "2026-11-29T15:00:00+00:00")
    assert record.last(50) == (began,)
    clock.advance(60.0)
    record.left(attempt(), UPDATE)
    (whole,) = record.last(50)
    assert (whole.left_at, whole.update) == ("2026-11-29T15:01:00+00:00", str(UPDATE))
    assert whole.acknowledged_at == ""
    clock.advance(1.0)
    record.acknowledged(attempt())
    assert record.last(50) == (replace(whole, acknowledged_at="2026-11-29T15:01:01+00:00"),)


def test_the_newest_come_first_and_so_many(record: SentRecord) -> None:
    for number in range(1, 6):
        record.began(attempt(number), number, protection="plain")
    record.began(attempt(2, 2), 2, protection="plain")
    assert [(each.round, each.attempt) for each in record.last(3)] == [(2, 2), (5, 1), (4, 1)]


def test_one_that_is_begun_again_is_not_acknowledged_by_what_was_before(record: SentRecord) -> None:
    record.began(attempt(), 10, protection="plain")
    record.left(attempt(), UPDATE)
    record.acknowledged(attempt())
    record.began(attempt(), 10, protection="plain")
    (again,) = record.last(1)
    assert (again.left_at, again.update, again.acknowledged_at) == ("", "", "")


def test_nobody_else_may_read_it(record: SentRecord, tmp_path: Path) -> None:
    record.began(attempt(), 1, protection="plain")
    assert stat.S_IMODE((tmp_path / SENT_FILE).stat().st_mode) == 0o600


def test_a_line_that_a_crash_cut_costs_that_line_alone(record: SentRecord, tmp_path: Path) -> None:
    record.began(attempt(1), 1, protection="plain")
    with (tmp_path / SENT_FILE).open("ab") as file:
        file.write(b'{"attempt":1,"began_at":"2026')
    record.began(attempt(2), 2, protection="plain")
    assert [each.round for each in record.last(50)] == [2, 1]


def test_a_full_file_takes_the_place_of_the_one_before(
    record: SentRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_MAX_BYTES", 600)
    for number in range(1, 30):
        record.began(attempt(number), 1, protection="plain")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [SENT_FILE, SENT_FILE + BEFORE_SUFFIX]
    assert all(path.stat().st_size < 800 for path in tmp_path.iterdir())
    assert [each.round for each in record.last(5)] == [29, 28, 27, 26, 25]


def test_only_the_end_of_a_long_file_is_read(
    record: SentRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_BYTES", 500)
    for number in range(1, 30):
        record.began(attempt(number), 1, protection="plain")
    found = [each.round for each in record.last(50)]
    assert found == list(range(29, 29 - len(found), -1))
    assert 2 <= len(found) <= 5


def test_a_disk_that_refuses_costs_a_line_of_the_log_and_not_the_round(tmp_path: Path, clock: ManualClock) -> None:
    record = SentRecord(tmp_path / "gone", clock=clock)
    with capture_logs() as lines:
        record.began(attempt(), 1, protection="plain")
        record.left(attempt(), UPDATE)
        record.acknowledged(attempt())
    assert [(line["event"], line["job"], line["round"]) for line in lines] == [("sent_not_recorded", "heart-1", 1)] * 3
    assert record.last(50) == ()


@given(st.binary(max_size=300) | st.lists(st.sampled_from([
    {"job": "a", "round": 1, "attempt": 1}, {"job": 1, "round": 1, "attempt": 1},
    {"job": "a", "round": True, "attempt": 1},
    {"job": "a", "round": 1, "attempt": 1, "left_at": "x", "update": "y"}, [], None, 7,
    {"job": "a", "round": 1, "attempt": 1, "began_at": "x", "size": "1", "protection": "plain"},
])).map(lambda lines: "\n".join(map(json.dumps, lines)).encode()))  # fmt: skip
def test_whatever_is_in_the_file(data: bytes) -> None:
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"consilo-sent-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    try:
        (folder / SENT_FILE).write_bytes(data)
        record = SentRecord(folder, clock=ManualClock(start=datetime(2026, 11, 29, tzinfo=UTC)))
        assert all(isinstance(each, Sent) for each in record.last(50))
    finally:
        (folder / SENT_FILE).unlink()
        folder.rmdir()
