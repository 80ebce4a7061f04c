"""The participant's durable memory: one contract for the file and for the fake, and what only the file can do."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from participant.consent import JobHistory
from participant.journal import (
    SCHEMA_VERSION,
    Journal,
    OpenRound,
    SqliteJournal,
    decode_spooled,
    encode_spooled,
)
from participant.round.phases import SpooledUpdate
from shared.errors import ConfigError, StorageError
from shared.ids import JobId, RoundNumber
from shared.job import jobspec_digest
from shared.update import Encoding, UpdateHeader
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import JOB, KEY, make_plan, make_spec, spooled, start_of

SPEC = make_spec()
PLAN = make_plan(SPEC)
JOBSPEC = jobspec_digest(SPEC.to_bytes())
SECOND = make_plan(SPEC, number=2)

Reopen = Callable[[], Journal]


@pytest.fixture(params=["file", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Opens the journal; called again, it is as the next process finds it."""
    if request.param == "file":
        return lambda: SqliteJournal(tmp_path / "journal.db")
    kept = [MemoryJournal()]

    def crash() -> Journal:
        kept.append(kept[-1].crash())
        return kept[-1]

    return crash


def test_a_new_journal_knows_nothing(reopen: Reopen) -> None:
    journal = reopen()
    assert list(journal.open_rounds()) == []
    assert journal.history(JOB) is None
    assert journal.state_round(JOB) is None


def test_each_record_is_there_after_a_restart(reopen: Reopen) -> None:
    start = start_of(PLAN, SPEC)
    reopen().record_plan(PLAN, JOBSPEC)
    assert list(reopen().open_rounds()) == [OpenRound(PLAN, None, None)]
    reopen().record_update(KEY, spooled())
    assert list(reopen().open_rounds()) == [OpenRound(PLAN, spooled(), None)]
    reopen().record_attempt(KEY, start)
    assert list(reopen().open_rounds()) == [OpenRound(PLAN, spooled(), start)]
    reopen().record_end(KEY, keep_state=True)
    journal = reopen()
    assert list(journal.open_rounds()) == []
    assert journal.history(JOB) == JobHistory(JOBSPEC, 1)
    assert journal.state_round(JOB) == 1


def test_the_same_plan_again_changes_nothing(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_update(KEY, spooled())
    journal.record_plan(PLAN, JOBSPEC)
    assert list(journal.open_rounds()) == [OpenRound(PLAN, spooled(), None)]


def test_the_newest_attempt_is_the_one_kept(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_attempt(KEY, start_of(PLAN, SPEC, attempt=1))
    journal.record_attempt(KEY, start_of(PLAN, SPEC, attempt=2))
    (kept,) = journal.open_rounds()
    assert kept.attempt == start_of(PLAN, SPEC, attempt=2)


def test_rounds_and_jobs_are_apart_and_in_order(reopen: Reopen) -> None:
    journal = reopen()
    other = make_plan(SPEC, job=JobId("brain-1"))
    for plan in (SECOND, other, PLAN):
        journal.record_plan(plan, JOBSPEC)
    assert [kept.plan for kept in journal.open_rounds()] == [other, PLAN, SECOND]
    journal.record_end(PLAN.value.key, keep_state=False)
    assert [kept.plan for kept in journal.open_rounds()] == [other, SECOND]
    assert journal.history(JobId("brain-1")) == JobHistory(JOBSPEC, 0)


def test_what_is_over_stays_over(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_plan(SECOND, JOBSPEC)
    journal.record_end(SECOND.value.key, keep_state=True)
    journal.record_end(PLAN.value.key, keep_state=False)
    assert journal.history(JOB) == JobHistory(JOBSPEC, 2), "an earlier round that ends later takes nothing back"
    assert journal.state_round(JOB) == 2


def test_an_aborted_round_leaves_the_task_state_as_it_was(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_end(KEY, keep_state=True)
    journal.record_plan(SECOND, JOBSPEC)
    journal.record_end(SECOND.value.key, keep_state=False)
    assert journal.state_round(JOB) == 1


def test_the_first_specification_of_a_job_is_kept(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_plan(SECOND, jobspec_digest(b"another"))
    assert journal.history(JOB) == JobHistory(JOBSPEC, 0)


def test_records_about_a_round_that_is_not_open_are_a_bug(reopen: Reopen) -> None:
    journal = reopen()
    with pytest.raises(RuntimeError, match="not open in the journal"):
        journal.record_update(KEY, spooled())
    with pytest.raises(RuntimeError, match="not open in the journal"):
        journal.record_attempt(KEY, start_of(PLAN, SPEC))
    journal.record_end(KEY, keep_state=False)
    assert journal.history(JOB) is None


@pytest.mark.parametrize("statistics", [(), (0.1 + 0.2, 1e-308, 5e-324, 1.7976931348623157e308, -0.0)])
def test_numbers_are_kept_to_the_last_bit(statistics: tuple[float, ...]) -> None:
    update = SpooledUpdate(UpdateHeader(Encoding.PLAIN, 1 / 3, 1), statistics, 7)
    assert repr(decode_spooled(encode_spooled(update))) == repr(update)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_private(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "journal.db").close()
    assert (tmp_path / "journal.db").stat().st_mode & 0o777 == 0o600


def test_a_journal_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET schema_version = ?", (SCHEMA_VERSION + 1,))
    database.close()
    content = path.read_bytes()
    with pytest.raises(ConfigError, match=f"schema version {SCHEMA_VERSION + 1}, this program knows {SCHEMA_VERSION}"):
        SqliteJournal(path)
    assert path.read_bytes() == content


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is a text and not a database at all" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        SqliteJournal(path)
    with pytest.raises(StorageError, match="cannot be opened"):
        SqliteJournal(tmp_path / "missing" / "journal.db")


def test_a_write_that_cannot_be_done_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.record_plan(PLAN, JOBSPEC)
    journal._database.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="cannot be written"):
        journal.record_end(KEY, keep_state=False)
    journal._database.execute("PRAGMA query_only = OFF")
    assert list(journal.open_rounds()) == [OpenRound(PLAN, None, None)]
    journal.record_end(KEY, keep_state=False)
    assert list(journal.open_rounds()) == []


VERBS: dict[str, Callable[[SqliteJournal], None]] = {
    "plan": lambda journal: journal.record_plan(PLAN, JOBSPEC),
    "update": lambda journal: journal.record_update(KEY, spooled()),
    "attempt": lambda journal: journal.record_attempt(KEY, start_of(PLAN, SPEC)),
    "end": lambda journal: journal.record_end(KEY, keep_state=True),
}


@pytest.mark.parametrize("count", range(len(VERBS) + 1))
def test_a_process_that_is_killed_leaves_what_its_verbs_promised(count: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = os.fork()
    if child == 0:
        journal = SqliteJournal(path)
        for verb in list(VERBS.values())[:count]:
            verb(journal)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    journal = SqliteJournal(path)
    reached = {
        0: [],
        1: [OpenRound(PLAN, None, None)],
        2: [OpenRound(PLAN, spooled(), None)],
        3: [OpenRound(PLAN, spooled(), start_of(PLAN, SPEC))],
        4: [],
    }
    assert list(journal.open_rounds()) == reached[count]
    assert (journal.state_round(JOB) == RoundNumber(1)) is (count == 4)
    assert (journal.history(JOB) is not None) is (count > 0)
