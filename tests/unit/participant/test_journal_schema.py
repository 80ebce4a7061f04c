"""A journal of the first version, from the SQL that it was: what becomes of it, and what is kept of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from participant.journal import SqliteJournal
from participant.journal_file import JournalName, OlderJournalError
from participant.journal_schema import SCHEMA_VERSION
from participant.round.phases import Measured, Opening, SpooledUpdate
from shared.errors import StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.protocol.messages import Envelope
from tests.support.rounds import JOB, A, B, C, make_plan, make_spec, result_of, start_of

OTHER = JobId("brain-1")
SPEC = make_spec()
OPENING = Opening(
    Digest.of(b"h0"),
    Digest.of(b"t3"),
    (A, B, C),
    Digest.of(b"terms"),
    Envelope(b"a share of somebody's seed", b"s" * 64, 1),
)


def test_a_journal_of_version_1_is_brought_up_to_date_after_it_was_copied(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    journal = SqliteJournal(path)
    heart, brain = RoundKey(JOB, RoundNumber(2)), RoundKey(OTHER, RoundNumber(4))
    planned, opened = journal.open_rounds()
    assert [kept.plan.value.key for kept in (planned, opened)] == [brain, heart]
    assert planned.update is None
    assert opened.update == SpooledUpdate(
        Measured(1 / 3, (0.1 + 0.2,)), Measured(5e-324, (1.7976931348623157e308,)), 8, (3,), fits=False, root=None
    )
    assert opened.attempt is not None
    assert opened.opening == OPENING, "what may be said again is still there"
    history = journal.history(JOB)
    assert history is not None
    assert (history.finished_round, history.misses) == (1, 1)
    assert history.verified is not None
    assert journal.was_aborted(RoundKey(JobId("lung-1"), RoundNumber(1)))
    assert journal.name() == JournalName("0123456789abcdef0123456789abcdef", 7)
    assert list(journal.heads(8)) == []
    assert not journal.repeat_allowed(JOB)
    plan = make_plan(SPEC, number=4, job=OTHER)
    result = result_of(start_of(plan, SPEC), (1, 2, 3))
    journal.record_end(brain, keep_state=False, verified=result)
    journal.close()
    assert list(SqliteJournal(path).heads(8)) == [result.envelope]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT schema_version FROM meta").fetchall() == [(SCHEMA_VERSION,)]


def test_a_new_journal_and_one_of_version_1_come_to_the_same_tables(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    SqliteJournal(path).close()
    SqliteJournal(tmp_path / "new.sqlite").close()
    old, new = (_tables(file) for file in (path, tmp_path / "new.sqlite"))
    assert old == new


def test_the_copy_is_private_as_it_was_and_has_no_reply_that_nobody_would_delete(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    copy, left = tmp_path / "journal.sqlite.before-v2", tmp_path / "journal.sqlite.before-v2.new"
    left.write_bytes(b"of a copy that a crash ended")
    copy.write_bytes(b"of a migration that a crash ended")
    SqliteJournal(path).close()
    assert not left.exists()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert b"somebody's seed" not in copy.read_bytes()
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT schema_version FROM meta").fetchall() == [(1,)]
        assert database.execute("SELECT job, round FROM rounds ORDER BY job").fetchall() == [("brain-1", 4), (JOB, 2)]
        assert database.execute("SELECT job, round, reply FROM openings").fetchall() == [(JOB, 2, b"")]
    kept = copy.stat().st_mtime_ns
    SqliteJournal(path).close()
    assert copy.stat().st_mtime_ns == kept, "once is enough"


def test_who_does_not_hold_the_folder_leaves_an_older_journal_as_it_is(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    with pytest.raises(OlderJournalError, match=r"has schema version 1, this program writes 2: start the daemon"):
        SqliteJournal(path, may_migrate=False)
    assert not list(tmp_path.glob("*.before-*")), "a daemon of the older version may be at work in it"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT schema_version FROM meta").fetchall() == [(1,)]
    SqliteJournal(path).close()
    SqliteJournal(path, may_migrate=False).close()


def test_a_journal_that_cannot_be_copied_stays_as_it_is(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    (tmp_path / "journal.sqlite.before-v2").mkdir()
    with pytest.raises(StorageError, match=r"cannot be copied .* make room"):
        SqliteJournal(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT schema_version FROM meta").fetchall() == [(1,)]
    (tmp_path / "journal.sqlite.before-v2").rmdir()
    assert len(SqliteJournal(path).open_rounds()) == 2


def version_1(folder: Path) -> Path:
    """A journal as the first version left it: with an opened round, a planned one, an aborted one and a stopped job."""
    path = folder / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript((Path(__file__).with_name("journal_v1.sql")).read_text())
        database.execute("PRAGMA journal_mode=WAL")
    return path


def _tables(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(name, *map(str, row)) for name in names for row in database.execute(f"PRAGMA table_info({name})")]
        indexes = database.execute("SELECT tbl_name, name, coalesce(sql, '') FROM sqlite_master WHERE type = 'index'")
        return sorted([*columns, *indexes.fetchall()])
