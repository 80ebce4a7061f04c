"""The participant's durable memory: one contract for the file and for the fake, and what only the file can do."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from participant.consent import JobHistory
from participant.journal import Journal, OpenRound, SqliteJournal, Unfinished
from participant.journal_file import JournalFile
from participant.journal_records import decode_spooled, encode_spooled
from participant.journal_schema import SCHEMA_VERSION
from participant.round.checks import verified_result
from participant.round.phases import Measured, Opening, SpooledUpdate, Total
from shared.errors import ConfigError, ConflictError, StorageError
from shared.ids import Digest, JobId, ParticipantId, RoundKey, RoundNumber, TaskName
from shared.job import jobspec_digest
from shared.protocol.messages import Envelope, RoundResult, Sealed
from shared.reasons import Purpose
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import JOB, KEY, MEMBERS, TASK, A, B, C, make_plan, make_spec, result_of, spooled, start_of

MODEL = Digest.of(b"model")
CORE = Digest.of(b"core")
TERMS = Digest.of(b"terms")
OTHER = JobId("brain-1")
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
    reopen().record_attempt(KEY, start, CORE)
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
    journal.record_attempt(KEY, start_of(PLAN, SPEC, attempt=1), None)
    journal.record_attempt(KEY, start_of(PLAN, SPEC, attempt=2), None)
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


def test_jobs_are_found_by_their_specification(reopen: Reopen) -> None:
    journal = reopen()
    assert list(journal.jobs_with(JOBSPEC)) == []
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_plan(make_plan(SPEC, job=OTHER), JOBSPEC)
    journal.record_plan(make_plan(SPEC, job=JobId("lung-1")), Digest.of(b"another"))
    journal.record_end(KEY, keep_state=False)
    assert sorted(reopen().jobs_with(JOBSPEC)) == [OTHER, JOB]


def test_the_newest_jobs_come_first(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    for job in ("zebra-1", "brain-1", "heart-1"):
        journal.record_plan(make_plan(SPEC, job=JobId(job)), JOBSPEC)
    journal.stop_job(OTHER, "false result")
    found = journal.newest_jobs(2)
    assert [job for job, _ in found] == ["heart-1", "brain-1"]
    assert found[1][1] == JobHistory(JOBSPEC, 0, stopped="false result")
    assert [job for job, _ in journal.newest_jobs(9)] == ["heart-1", "brain-1", "zebra-1"]
    journal.close()


def test_records_about_a_round_that_is_not_open_are_a_bug(reopen: Reopen) -> None:
    journal = reopen()
    with pytest.raises(RuntimeError, match="not open in the journal"):
        journal.record_update(KEY, spooled())
    with pytest.raises(RuntimeError, match="not open in the journal"):
        journal.record_attempt(KEY, start_of(PLAN, SPEC), CORE)
    journal.record_end(KEY, keep_state=False)
    assert journal.history(JOB) is None


AWKWARD = (0.1 + 0.2, 1e-308, 5e-324, 1.7976931348623157e308, -0.0)


@pytest.mark.parametrize(
    "update",
    [
        SpooledUpdate(Measured(1 / 3, AWKWARD), Measured(5e-324, AWKWARD), 7, (-32, 0, 32), fits=False),
        SpooledUpdate(None, Measured(1.0, ()), 0, (), fits=True),
        SpooledUpdate(Measured(1.0, ()), Measured(1.0, ()), 7, (), fits=True, root=Digest.of(b"chunks")),
    ],
)
def test_numbers_are_kept_to_the_last_bit(update: SpooledUpdate) -> None:
    assert repr(decode_spooled(encode_spooled(update))) == repr(update)


# --- what masking adds ------------------------------------------------------------------------------------------------


def opening(*names: ParticipantId, reply: bytes = b"shares") -> Opening:
    return Opening(Digest.of(b"h0"), Digest.of(b"t3"), names or (A, B, C), TERMS, Envelope(reply, b"s" * 64, 1))


def open_total(
    journal: Journal,
    made: Opening | None = None,
    *,
    key: RoundKey = KEY,
    task: TaskName = TASK,
    model: Digest = MODEL,
    purpose: Purpose = Purpose.TRAIN,
) -> None:
    journal.record_opening(key, purpose, task, model, made or opening())


def miss(number: int, *, fits: bool = False) -> SpooledUpdate:
    return SpooledUpdate(Measured(1.0, (0.5,)), Measured(1.0, (0.5,)), number, (3,), fits=fits)


def test_a_round_has_one_core_for_ever(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_attempt(KEY, start_of(PLAN, SPEC), CORE)
    journal.record_attempt(KEY, start_of(PLAN, SPEC, attempt=2), CORE)
    for _ in range(2):
        with pytest.raises(ConflictError, match="differs from an earlier one"):
            journal.record_attempt(KEY, start_of(PLAN, SPEC, attempt=3), Digest.of(b"another core"))
        assert [kept.attempt for kept in journal.open_rounds()] == [start_of(PLAN, SPEC, attempt=2)]
        journal = reopen()
    journal.record_end(KEY, keep_state=False)
    journal.record_plan(PLAN, JOBSPEC)  # the driver does not: the journal would refuse all the same
    with pytest.raises(ConflictError):
        journal.record_attempt(KEY, start_of(PLAN, SPEC), Digest.of(b"another core"))


def test_an_opening_is_there_after_a_restart_with_its_exact_reply(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    open_total(journal)
    open_total(journal)
    (kept,) = reopen().open_rounds()
    assert kept.opening == opening()


@pytest.mark.parametrize(
    "other",
    [
        opening(A, B),
        opening(reply=b"other shares"),
        replace(opening(), attempt=Digest.of(b"another h0")),
        replace(opening(), survivors=Digest.of(b"another t3")),
        replace(opening(), terms=Digest.of(b"other terms")),
    ],
)
def test_a_round_is_opened_once(reopen: Reopen, other: Opening) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    open_total(journal)
    with pytest.raises(ConflictError, match="was opened before"):
        open_total(journal, other)
    (kept,) = reopen().open_rounds()
    assert kept.opening == opening()


@pytest.mark.parametrize("change", [{"task": TaskName("brain")}, {"model": Digest.of(b"another")}])
def test_one_round_is_not_opened_as_another_total(reopen: Reopen, change: dict[str, Any]) -> None:
    journal = reopen()
    open_total(journal)
    with pytest.raises(ConflictError, match="was opened before"):
        open_total(journal, **change)


def test_an_opened_round_stays_opened_when_it_is_over(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    open_total(journal)
    journal.record_end(KEY, keep_state=True)
    journal = reopen()
    with pytest.raises(ConflictError):
        open_total(journal, opening(A, B))
    assert list(journal.totals(TASK, MODEL)) == [Total((A, B, C), TERMS)]


def test_totals_are_found_across_jobs_by_task_and_model_whatever_their_purpose(reopen: Reopen) -> None:
    journal = reopen()
    open_total(journal)
    otherwise = replace(opening(*MEMBERS), terms=Digest.of(b"other terms"))
    open_total(journal, otherwise, key=RoundKey(OTHER, RoundNumber(4)))
    open_total(journal, opening(A), key=RoundKey(OTHER, RoundNumber(5)), model=Digest.of(b"another"))
    open_total(journal, opening(B), key=RoundKey(OTHER, RoundNumber(6)), task=TaskName("brain"))
    open_total(journal, opening(C), key=RoundKey(OTHER, RoundNumber(7)), purpose=Purpose.EVALUATE)
    journal = reopen()
    assert list(journal.totals(TASK, MODEL)) == [otherwise.total, Total((C,), TERMS), Total((A, B, C), TERMS)]
    assert list(journal.totals(TASK, Digest.of(b"never opened"))) == []


def test_each_round_with_an_update_that_does_not_fit_is_one_miss(reopen: Reopen) -> None:
    journal = reopen()
    for plan, fits in ((PLAN, False), (SECOND, True), (make_plan(SPEC, number=3), False)):
        journal.record_plan(plan, JOBSPEC)
        for _ in range(2):
            journal.record_update(plan.value.key, miss(8, fits=fits))
    history = reopen().history(JOB)
    assert history is not None
    assert history.misses == 2


def verify(journal: Journal, number: int = 1, *, job: JobId = JOB) -> Sealed[RoundResult]:
    """A round of the job is planned and ends with a result that is held to be true."""
    plan = make_plan(SPEC, number=number, job=job)
    result = result_of(start_of(plan, SPEC), (1, 2, 3))
    journal.record_plan(plan, JOBSPEC)
    journal.record_end(plan.value.key, keep_state=False, verified=result)
    return result


def test_the_last_verified_result_is_kept(reopen: Reopen) -> None:
    journal = reopen()
    second = verify(journal, 2)
    verify(journal, 1)
    journal = reopen()
    expected = JobHistory(JOBSPEC, 2, verified=verified_result(second.value, second.envelope))
    assert journal.history(JOB) == expected, "what was verified is never taken back"
    assert list(journal.heads(8)) == [second.envelope]


def test_heads_are_the_last_results_as_they_were_signed_the_newest_first(reopen: Reopen) -> None:
    journal = reopen()
    assert list(journal.heads(8)) == []
    verify(journal)
    brain, lung = verify(journal, job=OTHER), verify(journal, job=JobId("lung-1"))
    journal.record_plan(make_plan(SPEC, job=JobId("knee-1")), JOBSPEC)
    heart = verify(journal, 2)
    journal.stop_job(OTHER, "what was signed stays signed")
    journal = reopen()
    assert list(journal.heads(8)) == [heart.envelope, lung.envelope, brain.envelope]
    assert list(journal.heads(2)) == [heart.envelope, lung.envelope]
    assert list(journal.heads(0)) == []


def test_a_round_that_ends_without_a_verified_result_leaves_the_head_as_it_is(reopen: Reopen) -> None:
    journal = reopen()
    first = verify(journal)
    journal.record_plan(SECOND, JOBSPEC)
    journal.record_end(SECOND.value.key, keep_state=False, aborted=True)
    assert list(reopen().heads(8)) == [first.envelope]


def test_a_repeat_is_allowed_by_name_and_for_good(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    assert journal.allow_repeat(OTHER), "nothing is known of it yet"
    assert not journal.allow_repeat(OTHER)
    journal = reopen()
    assert [journal.repeat_allowed(job) for job in (OTHER, JOB)] == [True, False]
    assert not journal.allow_repeat(OTHER)
    assert journal.history(OTHER) is None


def test_a_stopped_job_stays_stopped_for_its_first_reason(reopen: Reopen) -> None:
    journal = reopen()
    journal.record_plan(PLAN, JOBSPEC)
    journal.stop_job(JOB, "the range was stated too small")
    journal.stop_job(JOB, "another reason")
    journal = reopen()
    assert journal.history(JOB) == JobHistory(JOBSPEC, 0, stopped="the range was stated too small")
    with pytest.raises(RuntimeError, match="not in the journal"):
        journal.stop_job(OTHER, "never seen")


def test_a_round_that_was_said_to_be_aborted_is_never_forgotten(reopen: Reopen) -> None:
    journal = reopen()
    for plan in (PLAN, SECOND):
        journal.record_plan(plan, JOBSPEC)
        assert not journal.was_aborted(plan.value.key)
    for _ in range(2):
        journal.record_end(KEY, keep_state=False, aborted=True)
    journal.record_end(SECOND.value.key, keep_state=False)
    journal = reopen()
    assert [journal.was_aborted(plan.value.key) for plan in (PLAN, SECOND)] == [True, False]


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def three_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many are kept, so that a test need not verify hundreds."""
    monkeypatch.setattr("participant.journal.HEADS_KEPT", 3)


@pytest.mark.usefixtures("three_heads")
def test_of_many_jobs_the_newest_heads_are_kept(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite3")
    first, *others = [verify(journal, job=JobId(f"lung-{number}")) for number in range(4)]
    assert list(journal.heads(8)) == [result.envelope for result in reversed(others)]
    assert journal.history(first.value.key.job) is not None, "a job itself is never forgotten"
    journal.close()


@pytest.mark.usefixtures("three_heads")
def test_a_job_of_many_rounds_takes_no_other_jobs_head_away(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite3")
    quiet = verify(journal, job=OTHER)
    *_, newest = [verify(journal, number) for number in range(1, 5)]
    assert list(journal.heads(8)) == [newest.envelope, quiet.envelope]
    journal.close()


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


@pytest.mark.parametrize("may_migrate", [True, False])
def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, *, may_migrate: bool) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    content = path.read_bytes()
    with pytest.raises(ConfigError, match=r"expected this silo's journal at .*, found another database: .*backup"):
        SqliteJournal(path, may_migrate=may_migrate)
    assert path.read_bytes() == content


def test_who_only_looks_makes_no_journal_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()
    with pytest.raises(ConfigError, match=r"expected this silo's journal at .*, found an empty file: .*backup"):
        SqliteJournal(path, may_migrate=False)
    assert path.read_bytes() == b""
    SqliteJournal(path).close()
    SqliteJournal(path, may_migrate=False).close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is a text and not a database at all" * 100)
    with pytest.raises(StorageError, match=r"expected this silo's journal at .*confirm-journal"):
        SqliteJournal(path)
    with pytest.raises(StorageError, match="cannot be opened"):
        SqliteJournal(tmp_path / "missing" / "journal.db")


def test_a_reply_is_gone_from_the_disk_when_its_round_is_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.record_plan(PLAN, JOBSPEC)
    open_total(journal, opening(reply=b"a share of somebody's seed"))
    assert any(b"somebody's seed" in file.read_bytes() for file in tmp_path.iterdir()), "it was there to be found"
    journal.record_end(KEY, keep_state=False)
    assert not any(b"somebody's seed" in file.read_bytes() for file in tmp_path.iterdir()), "the journal is still open"
    journal.close()


def test_what_a_crash_left_in_the_write_ahead_file_is_gone_after_the_next_start(tmp_path: Path) -> None:
    """The end of a round is committed, and the process dies before the write-ahead file is emptied."""
    running, restarted = tmp_path / "running", tmp_path / "restarted"
    running.mkdir()
    journal = SqliteJournal(running / "journal.db")
    journal.record_plan(PLAN, JOBSPEC)
    open_total(journal, opening(reply=b"a share of somebody's seed"))
    journal.record_plan(SECOND, JOBSPEC)
    shutil.copytree(running, restarted)
    assert any(b"somebody's seed" in file.read_bytes() for file in restarted.iterdir())
    with sqlite3.connect(restarted / "journal.db") as crashed:
        crashed.execute("PRAGMA secure_delete=ON")
        crashed.execute("UPDATE openings SET reply = x''")
    shutil.copytree(restarted, tmp_path / "at-the-crash")
    crashed.close()
    SqliteJournal(tmp_path / "at-the-crash" / "journal.db")
    left = [file.name for file in (tmp_path / "at-the-crash").iterdir() if b"somebody's seed" in file.read_bytes()]
    assert left == []


def test_a_write_ahead_file_that_somebody_reads_cannot_be_emptied(tmp_path: Path) -> None:
    """What cannot be done is said: SQLite itself only mentions it."""
    path = tmp_path / "journal.db"
    file = JournalFile(path, busy_timeout_s=0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT * FROM meta").fetchall()
        file.set_generation(3)
        with pytest.raises(StorageError, match="another process"):
            file.shed_deleted()
    file.shed_deleted()
    file.close()


def test_a_past_that_nobody_knows_ends_all_that_is_on_record(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.record_plan(PLAN, JOBSPEC)
    journal.record_plan(make_plan(SPEC, job=OTHER, number=3), JOBSPEC)
    journal.record_plan(make_plan(SPEC, job=JobId("lung-1")), JOBSPEC)
    journal.stop_job(JobId("lung-1"), "for its own reason")
    open_total(journal, opening(reply=b"a share of somebody's seed"))
    journal.allow_repeat(OTHER)
    head = verify(journal, job=JobId("knee-1"))
    assert journal.unfinished() == Unfinished(
        (RoundKey(OTHER, RoundNumber(3)), KEY, RoundKey(JobId("lung-1"), RoundNumber(1))),
        (OTHER, JOB, JobId("knee-1")),
    )
    journal.end_everything("a restore")
    journal.end_everything("a second one")
    assert not any(b"somebody's seed" in file.read_bytes() for file in tmp_path.iterdir())
    journal.close()
    journal = SqliteJournal(path)
    assert list(journal.open_rounds()) == []
    assert journal.unfinished() == Unfinished((), ())
    assert journal.history(JOB) == JobHistory(JOBSPEC, 1, stopped="a restore")
    assert journal.history(OTHER) == JobHistory(JOBSPEC, 3, stopped="a restore")
    assert journal.history(JobId("lung-1")) == JobHistory(JOBSPEC, 1, stopped="for its own reason")
    with pytest.raises(ConflictError):
        open_total(journal, opening(A, B))
    assert not journal.repeat_allowed(OTHER), "whoever said so may have meant what nobody knows now"
    assert list(journal.heads(8)) == [head.envelope]


def test_whoever_watches_openings_is_told_after_the_record(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    seen: list[int] = []
    journal = SqliteJournal(path, on_opening=lambda made: seen.append(len(made.totals(TASK, MODEL))))
    open_total(journal)
    assert seen == [1]


def test_a_journal_has_a_name_and_a_generation(tmp_path: Path) -> None:
    journal, other = SqliteJournal(tmp_path / "one.db"), SqliteJournal(tmp_path / "two.db")
    assert journal.name().generation == 0
    assert journal.name().name != other.name().name
    journal.set_generation(7)
    again = SqliteJournal(tmp_path / "one.db")
    assert again.name() == journal.name()
    assert again.name().generation == 7


def test_a_write_that_cannot_be_done_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.record_plan(PLAN, JOBSPEC)
    journal._file._database.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="cannot be written"):
        journal.record_end(KEY, keep_state=False)
    journal._file._database.execute("PRAGMA query_only = OFF")
    assert list(journal.open_rounds()) == [OpenRound(PLAN, None, None)]
    journal.record_end(KEY, keep_state=False)
    assert list(journal.open_rounds()) == []


VERBS: dict[str, Callable[[SqliteJournal], None]] = {
    "plan": lambda journal: journal.record_plan(PLAN, JOBSPEC),
    "update": lambda journal: journal.record_update(KEY, spooled()),
    "attempt": lambda journal: journal.record_attempt(KEY, start_of(PLAN, SPEC), CORE),
    "opening": open_total,
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
        4: [OpenRound(PLAN, spooled(), start_of(PLAN, SPEC), opening())],
        5: [],
    }
    assert list(journal.open_rounds()) == reached[count]
    assert (journal.state_round(JOB) == RoundNumber(1)) is (count == 5)
    assert (journal.history(JOB) is not None) is (count > 0)
    assert bool(journal.totals(TASK, MODEL)) is (count > 3)
