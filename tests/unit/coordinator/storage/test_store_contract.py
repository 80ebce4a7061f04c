"""The contract of `Store`, held against every implementation: present, absent, broken; and the twins of each write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.storage.faults import Fault
from coordinator.storage.interface import (
    AuditEntry,
    JobRecord,
    JournalEntry,
    ModelRecord,
    RoundAbort,
    RoundCommit,
    RoundRecord,
    SetBack,
    Store,
    TimerNote,
)
from shared.control import JobControl, Pause
from shared.errors import ConflictError, DurabilityUnknown, StorageError, UnknownError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.reasons import AbortReason, JobState, Purpose
from tests.support.storage import MemoryStoreBench, SqlStoreBench, StoreBench

HEART = JobId("heart-1")
LUNG = JobId("lung-1")
FIRST = RoundKey(HEART, RoundNumber(1))
SECOND = RoundKey(HEART, RoundNumber(2))
PLAN = JournalEntry("plan", b"\x00plan\xff")
MODEL = ModelRecord(Digest.of(b"model"), b'{"parent":null}')
PRUNED = replace(MODEL, pruned=True)
WAIT = TimerNote("0 recruiting", 12.5)


@pytest.fixture(params=["memory", "sql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreBench]:
    made: StoreBench = MemoryStoreBench() if request.param == "memory" else SqlStoreBench(tmp_path)
    yield made
    made.close()


def job(name: JobId = HEART, spec: bytes = b"spec") -> JobRecord:
    return JobRecord(name, spec, "ada", "2026-11-22T10:00:00Z", JobState.QUEUED, "")


def line(seq: int) -> AuditEntry:
    return AuditEntry(seq, b"line %d" % seq)


def commit(
    key: RoundKey = FIRST, *, seq: int, result: bytes = b"result", model: ModelRecord | None = MODEL
) -> RoundCommit:
    return RoundCommit(key, b"summary", result, model, JobState.RUNNING, line(seq))


def abort(key: RoundKey = FIRST, *, seq: int, result: bytes = b"result") -> RoundAbort:
    return RoundAbort(key, AbortReason.BELOW_QUORUM, b"summary", result, JobState.ABORTED, "too few silos", line(seq))


def with_job(store: Store) -> None:
    assert store.submit_job(job(), line(0))


def with_round(store: Store) -> None:
    with_job(store)
    store.open_round(FIRST, Purpose.TRAIN, PLAN)


def with_commit(store: Store) -> None:
    with_round(store)
    assert store.commit_round(commit(seq=1))


def snapshot(store: Store) -> object:
    jobs = store.jobs()
    rounds = [record for known in jobs for record in store.rounds(known.job)]
    journals = [store.journal_of(known.key) for known in rounds]
    waits = [store.timer_of(known.key) for known in rounds]
    return jobs, rounds, journals, waits, store.models(), store.set_backs(), store.audit_entries(0)


def test_jobs_are_kept_in_the_order_of_submission(bench: StoreBench) -> None:
    assert bench.store.jobs() == ()
    assert bench.store.submit_job(job(LUNG), line(0))
    assert bench.store.submit_job(job(HEART), line(1))
    assert [known.job for known in bench.restart().jobs()] == [LUNG, HEART]
    assert bench.store.job(HEART) == job(HEART)
    assert bench.store.audit_entries(0) == (line(0), line(1))


def test_a_job_is_submitted_once(bench: StoreBench) -> None:
    with_job(bench.store)
    before = snapshot(bench.store)
    assert not bench.store.submit_job(job(), line(1))
    assert not bench.store.submit_job(job(), line(77)), "the entry of work already done is not looked at"
    with pytest.raises(ConflictError, match="another specification"):
        bench.store.submit_job(job(spec=b"other"), line(1))
    assert snapshot(bench.store) == before


def test_a_job_moves_through_its_states(bench: StoreBench) -> None:
    with_job(bench.store)
    bench.store.set_job_state(HEART, JobState.ABORTED, "the operator said so", line(1))
    record = bench.restart().job(HEART)
    assert (record.state, record.reason) == (JobState.ABORTED, "the operator said so")


def test_a_job_keeps_its_control_and_its_pause_through_rounds_and_restarts(bench: StoreBench) -> None:
    with_round(bench.store)
    control, pause = JobControl(2, 30.5, None), Pause("olga", "2026-11-22T10:00:00+00:00", "the power goes")
    bench.store.hold_job(HEART, pause, JobState.RUNNING, line(1))
    bench.store.control_job(HEART, control, line(2))
    assert bench.store.commit_round(commit(seq=3))
    store = bench.restart()
    record = store.job(HEART)
    assert (record.control, record.pause, record.state) == (control, pause, JobState.RUNNING)
    assert record.standing is JobState.PAUSING
    store.set_job_state(HEART, JobState.PAUSED, "", line(4))
    assert store.job(HEART).standing is JobState.PAUSED
    store.hold_job(HEART, None, JobState.QUEUED, line(5))
    store.control_job(HEART, JobControl(3, None, 3), line(6))
    record = bench.restart().job(HEART)
    assert (record.control, record.pause, record.state) == (JobControl(3, None, 3), None, JobState.QUEUED)


def test_what_is_absent_is_unknown_and_changes_nothing(bench: StoreBench) -> None:
    with_job(bench.store)
    before = snapshot(bench.store)
    unknown: list[Callable[[], object]] = [
        lambda: bench.store.job(LUNG),
        lambda: bench.store.set_job_state(LUNG, JobState.RUNNING, "", line(1)),
        lambda: bench.store.hold_job(LUNG, None, JobState.QUEUED, line(1)),
        lambda: bench.store.control_job(LUNG, JobControl(1), line(1)),
        lambda: bench.store.open_round(RoundKey(LUNG, RoundNumber(1)), Purpose.TRAIN, PLAN),
        lambda: bench.store.journal(FIRST, PLAN),
        lambda: bench.store.journal_of(FIRST),
        lambda: bench.store.round(FIRST),
        lambda: bench.store.round(RoundKey(LUNG, RoundNumber(1))),
        lambda: bench.store.commit_round(commit(seq=1)),
        lambda: bench.store.abort_round(abort(seq=1)),
        lambda: bench.store.model(MODEL.digest),
        lambda: bench.store.note_timer(FIRST, WAIT),
        lambda: bench.store.timer_of(FIRST),
        lambda: bench.store.promote_model(MODEL.digest, line(1), promoted=True),
        lambda: bench.store.prune_models([MODEL.digest], line(1)),
    ]
    for call in unknown:
        with pytest.raises(UnknownError):
            call()
    assert snapshot(bench.store) == before
    assert bench.store.rounds(LUNG) == ()
    assert bench.store.audit_entries(1) == ()


def test_a_round_is_opened_once_and_journals_in_order(bench: StoreBench) -> None:
    with_round(bench.store)
    with pytest.raises(ConflictError):
        bench.store.open_round(FIRST, Purpose.TRAIN, PLAN)
    bench.store.journal(FIRST, JournalEntry("ready", b"a"))
    bench.store.journal(FIRST, JournalEntry("ready", b"b"))
    assert bench.restart().journal_of(FIRST) == (PLAN, JournalEntry("ready", b"a"), JournalEntry("ready", b"b"))
    assert bench.store.rounds(HEART) == (RoundRecord(FIRST, Purpose.TRAIN, "", b"", b""),)


def test_rounds_are_listed_by_number(bench: StoreBench) -> None:
    with_job(bench.store)
    assert bench.store.submit_job(job(LUNG), line(1))
    tenth = RoundKey(HEART, RoundNumber(10))
    for key in (tenth, SECOND, RoundKey(LUNG, RoundNumber(3)), FIRST):
        bench.store.open_round(key, Purpose.EVALUATE, PLAN)
    assert [record.key for record in bench.store.rounds(HEART)] == [FIRST, SECOND, tenth]


def test_one_round_is_read_alone(bench: StoreBench) -> None:
    with_commit(bench.store)
    bench.store.open_round(SECOND, Purpose.EVALUATE, PLAN)
    assert bench.store.round(FIRST) == RoundRecord(FIRST, Purpose.TRAIN, "committed", b"summary", b"result")
    assert bench.restart().round(SECOND) == RoundRecord(SECOND, Purpose.EVALUATE, "", b"", b"")
    with pytest.raises(UnknownError):
        bench.store.round(RoundKey(HEART, RoundNumber(3)))


def test_a_commit_is_everything_at_once(bench: StoreBench) -> None:
    with_commit(bench.store)
    store = bench.restart()
    assert store.rounds(HEART) == (RoundRecord(FIRST, Purpose.TRAIN, "committed", b"summary", b"result"),)
    assert store.model(MODEL.digest) == MODEL
    assert store.job(HEART).state is JobState.RUNNING
    assert store.audit_entries(0) == (line(0), line(1))


def test_a_finished_round_stays_as_it_is(bench: StoreBench) -> None:
    with_commit(bench.store)
    before = snapshot(bench.store)
    assert not bench.store.commit_round(commit(seq=2))
    conflicts: list[Callable[[], object]] = [
        lambda: bench.store.commit_round(commit(seq=2, result=b"other")),
        lambda: bench.store.abort_round(abort(seq=2)),
        lambda: bench.store.journal(FIRST, PLAN),
        lambda: bench.store.open_round(FIRST, Purpose.TRAIN, PLAN),
        lambda: bench.store.note_timer(FIRST, WAIT),
    ]
    for call in conflicts:
        with pytest.raises(ConflictError):
            call()
    assert snapshot(bench.store) == before


def test_an_abort_names_its_reason_and_makes_no_model(bench: StoreBench) -> None:
    with_round(bench.store)
    assert bench.store.abort_round(abort(seq=1))
    assert not bench.store.abort_round(abort(seq=2))
    with pytest.raises(ConflictError):
        bench.store.commit_round(commit(seq=2))
    store = bench.restart()
    assert store.rounds(HEART)[0].outcome == "below_quorum"
    assert store.models() == ()
    assert (store.job(HEART).state, store.job(HEART).reason) == (JobState.ABORTED, "too few silos")


FORGOTTEN = frozenset({"shares_fixed", "shares_revealed"})
SEALED = JournalEntry("shares_fixed", b"sealed shares")
OPENED = JournalEntry("shares_revealed", b"opened shares")
ENDS: dict[str, Callable[[Store], bool]] = {
    "commit_round": lambda store: store.commit_round(replace(commit(seq=1), forgotten=FORGOTTEN)),
    "abort_round": lambda store: store.abort_round(replace(abort(seq=1), forgotten=FORGOTTEN)),
}


def with_shares(store: Store) -> None:
    with_round(store)
    store.open_round(SECOND, Purpose.TRAIN, PLAN)
    for key in (FIRST, SECOND):
        for entry in (SEALED, JournalEntry("ready", b"a"), OPENED, OPENED):
            store.journal(key, entry)


@pytest.mark.parametrize("verb", ENDS)
def test_a_round_forgets_some_kinds_of_entries_when_it_ends(bench: StoreBench, verb: str) -> None:
    with_shares(bench.store)
    assert ENDS[verb](bench.store)
    store = bench.restart()
    assert store.journal_of(FIRST) == (PLAN, JournalEntry("ready", b"a"))
    assert len(store.journal_of(SECOND)) == 5, "another round's are its own"
    assert not ENDS[verb](store)


@pytest.mark.parametrize("verb", ENDS)
@pytest.mark.parametrize("fault", Fault)
def test_what_is_forgotten_goes_with_the_end_of_the_round_or_not_at_all(
    bench: StoreBench, verb: str, fault: Fault
) -> None:
    with_shares(bench.store)
    bench.fail_next(verb, fault)
    with pytest.raises((StorageError, DurabilityUnknown)):
        ENDS[verb](bench.store)
    store = bench.restart()
    ended = fault is Fault.FAILED_BUT_PERSISTED
    assert bool(store.round(FIRST).outcome) is ended
    assert len(store.journal_of(FIRST)) == (2 if ended else 5)
    assert ENDS[verb](store) is not ended
    assert len(store.journal_of(FIRST)) == 2


def test_an_evaluating_round_makes_no_model(bench: StoreBench) -> None:
    with_round(bench.store)
    assert bench.store.commit_round(commit(seq=1, model=None))
    assert bench.store.models() == ()


def test_models_are_listed_oldest_first_and_kept_once(bench: StoreBench) -> None:
    with_round(bench.store)
    other = ModelRecord(Digest.of(b"another"), b"{}")
    assert bench.store.add_model(other, line(1))
    assert not bench.store.add_model(ModelRecord(other.digest, b"new lineage"), line(2))
    assert bench.store.commit_round(commit(seq=2))
    assert bench.restart().models() == (other, MODEL)


def test_a_round_that_changed_no_weight_keeps_the_first_record(bench: StoreBench) -> None:
    with_commit(bench.store)
    bench.store.open_round(SECOND, Purpose.TRAIN, PLAN)
    assert bench.store.commit_round(commit(SECOND, seq=2, model=ModelRecord(MODEL.digest, b"other lineage")))
    assert bench.store.models() == (MODEL,)


OTHER = ModelRecord(Digest.of(b"another"), b"{}")


def with_note(store: Store) -> None:
    with_round(store)
    store.note_timer(FIRST, WAIT)


def test_the_last_note_of_a_wait_stands_until_the_round_ends(bench: StoreBench) -> None:
    with_round(bench.store)
    bench.store.open_round(SECOND, Purpose.TRAIN, PLAN)
    assert bench.store.timer_of(FIRST) is None
    bench.store.note_timer(FIRST, WAIT)
    bench.store.note_timer(SECOND, TimerNote("0 recruiting", 0.0))
    bench.store.note_timer(FIRST, TimerNote("2 sharing", 29.999))
    store = bench.restart()
    assert (store.timer_of(FIRST), store.timer_of(SECOND)) == (
        TimerNote("2 sharing", 29.999),
        TimerNote("0 recruiting", 0.0),
    )
    assert store.commit_round(commit(seq=1))
    assert store.abort_round(abort(SECOND, seq=2))
    assert (store.timer_of(FIRST), store.timer_of(SECOND)) == (None, None)


def with_model(store: Store) -> None:
    with_job(store)
    assert store.add_model(MODEL, line(1))


def with_pruned_model(store: Store) -> None:
    with_model(store)
    store.prune_models([MODEL.digest], line(2))


def test_a_version_is_promoted_and_no_more(bench: StoreBench) -> None:
    with_model(bench.store)
    assert not bench.store.promote_model(MODEL.digest, line(77), promoted=False)
    assert bench.store.promote_model(MODEL.digest, line(2), promoted=True)
    assert not bench.store.promote_model(MODEL.digest, line(77), promoted=True)
    store = bench.restart()
    assert store.model(MODEL.digest) == replace(MODEL, promoted=True)
    assert store.promote_model(MODEL.digest, line(3), promoted=False)
    assert store.models() == (MODEL,)
    assert len(store.audit_entries(0)) == 4


def test_versions_are_pruned_all_or_none(bench: StoreBench) -> None:
    with_model(bench.store)
    assert bench.store.add_model(OTHER, line(2))
    before = snapshot(bench.store)
    with pytest.raises(UnknownError):
        bench.store.prune_models([MODEL.digest, Digest.of(b"nobody's")], line(3))
    assert snapshot(bench.store) == before
    bench.store.prune_models([MODEL.digest, OTHER.digest], line(3))
    assert bench.restart().models() == (PRUNED, replace(OTHER, pruned=True))
    bench.store.prune_models([MODEL.digest], line(4))
    assert bench.store.model(MODEL.digest) == PRUNED


def test_promoted_and_pruned_exclude_each_other(bench: StoreBench) -> None:
    with_pruned_model(bench.store)
    assert bench.store.add_model(OTHER, line(3))
    assert bench.store.promote_model(OTHER.digest, line(4), promoted=True)
    before = snapshot(bench.store)
    with pytest.raises(ConflictError, match="promoted"):
        bench.store.prune_models([MODEL.digest, OTHER.digest], line(5))
    for promoted in (True, False):
        with pytest.raises(ConflictError, match="pruned"):
            bench.store.promote_model(MODEL.digest, line(5), promoted=promoted)
    assert snapshot(bench.store) == before


def test_a_pruned_version_that_is_published_once_more_is_whole_again(bench: StoreBench) -> None:
    with_pruned_model(bench.store)
    assert bench.store.add_model(ModelRecord(MODEL.digest, b"new lineage"), line(3))
    assert bench.store.model(MODEL.digest) == MODEL
    bench.store.prune_models([MODEL.digest], line(4))
    bench.store.open_round(FIRST, Purpose.TRAIN, PLAN)
    assert bench.store.commit_round(commit(seq=5, model=ModelRecord(MODEL.digest, b"other lineage")))
    assert bench.restart().models() == (MODEL,)


RESTORED = SetBack("the backup of 2026-11-22T03:00:00Z")
SHOWN = SetBack("hospital-a showed the result of round 4", lost=Digest.of(b"payload"))


def with_set_back(store: Store) -> None:
    with_job(store)
    assert store.note_set_back(SHOWN, line(1))


def test_older_copies_are_noted_in_order_and_a_lost_result_once(bench: StoreBench) -> None:
    with_job(bench.store)
    assert bench.store.set_backs() == ()
    bench.store.end_set_backs()
    assert bench.store.note_set_back(RESTORED, line(1))
    bench.store.end_set_backs()
    assert bench.store.note_set_back(SHOWN, line(2))
    assert bench.store.note_set_back(RESTORED, line(3))
    assert not bench.store.note_set_back(replace(SHOWN, why="somebody else showed it"), line(77))
    ended = replace(RESTORED, ended=True)
    assert bench.restart().set_backs() == (ended, SHOWN, RESTORED)
    bench.store.end_set_backs()
    assert bench.restart().set_backs() == (ended, replace(SHOWN, ended=True), ended)
    assert not bench.store.note_set_back(SHOWN, line(77))
    assert len(bench.store.audit_entries(0)) == 4


def test_the_audit_log_takes_only_its_next_entry(bench: StoreBench) -> None:
    with_round(bench.store)
    assert bench.store.add_model(MODEL, line(1))
    before = snapshot(bench.store)
    for wrong in (0, 1, 3, 5):
        calls: list[Callable[[], object]] = [
            lambda wrong=wrong: bench.store.append_audit(line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.submit_job(job(LUNG), line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.set_job_state(HEART, JobState.RUNNING, "", line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.hold_job(HEART, None, JobState.PAUSED, line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.control_job(HEART, JobControl(1), line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.commit_round(commit(seq=wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.abort_round(abort(seq=wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.add_model(OTHER, line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.promote_model(MODEL.digest, line(wrong), promoted=True),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.prune_models([MODEL.digest], line(wrong)),  # type: ignore[misc]
            lambda wrong=wrong: bench.store.note_set_back(RESTORED, line(wrong)),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="goes on with entry 2"):
                call()
    assert snapshot(bench.store) == before
    bench.store.append_audit(line(2))
    assert bench.store.audit_entries(2) == (line(2),)


def test_audit_entries_come_in_pages_of_a_thousand(bench: StoreBench) -> None:
    for seq in range(1003):
        bench.store.append_audit(line(seq))
    assert [entry.seq for entry in bench.store.audit_entries(0)] == list(range(1000))
    assert [entry.seq for entry in bench.store.audit_entries(1000)] == [1000, 1001, 1002]
    assert bench.store.audit_entries(1003) == ()


WRITES: dict[str, tuple[Callable[[Store], None], Callable[[Store], object]]] = {
    "submit_job": (with_job, lambda store: store.submit_job(job(LUNG), line(1))),
    "set_job_state": (with_job, lambda store: store.set_job_state(HEART, JobState.RUNNING, "", line(1))),
    "hold_job": (with_job, lambda store: store.hold_job(HEART, Pause("ada", "now", ""), JobState.PAUSED, line(1))),
    "control_job": (with_job, lambda store: store.control_job(HEART, JobControl(1, quorum=2), line(1))),
    "open_round": (with_job, lambda store: store.open_round(FIRST, Purpose.TRAIN, PLAN)),
    "journal": (with_round, lambda store: store.journal(FIRST, JournalEntry("ready", b"a"))),
    "commit_round": (with_round, lambda store: store.commit_round(commit(seq=1))),
    "abort_round": (with_round, lambda store: store.abort_round(abort(seq=1))),
    "note_timer": (with_round, lambda store: store.note_timer(FIRST, WAIT)),
    "add_model": (with_job, lambda store: store.add_model(MODEL, line(1))),
    "promote_model": (with_model, lambda store: store.promote_model(MODEL.digest, line(2), promoted=True)),
    "prune_models": (with_model, lambda store: store.prune_models([MODEL.digest], line(2))),
    "note_set_back": (with_job, lambda store: store.note_set_back(SHOWN, line(1))),
    "end_set_backs": (with_set_back, lambda store: store.end_set_backs()),
    "append_audit": (with_job, lambda store: store.append_audit(line(1))),
}
READS: dict[str, Callable[[Store], object]] = {
    "job": lambda store: store.job(HEART),
    "jobs": lambda store: store.jobs(),
    "journal_of": lambda store: store.journal_of(FIRST),
    "round": lambda store: store.round(FIRST),
    "rounds": lambda store: store.rounds(HEART),
    "model": lambda store: store.model(MODEL.digest),
    "models": lambda store: store.models(),
    "audit_entries": lambda store: store.audit_entries(0),
    "timer_of": lambda store: store.timer_of(SECOND),
    "set_backs": lambda store: store.set_backs(),
}


@pytest.mark.parametrize("verb", WRITES)
def test_a_write_that_failed_changed_nothing_and_can_be_tried_again(bench: StoreBench, verb: str) -> None:
    prepare, write = WRITES[verb]
    prepare(bench.store)
    before = snapshot(bench.store)
    bench.fail_next(verb, Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError, match=verb):
        write(bench.store)
    assert snapshot(bench.store) == before
    assert write(bench.store) in (True, None)
    assert snapshot(bench.restart()) != before


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("fault", [Fault.FAILED_BUT_PERSISTED, Fault.FAILED_UNKNOWN_NOT_PERSISTED])
def test_after_a_commit_of_unknown_fate_only_the_next_process_knows(bench: StoreBench, verb: str, fault: Fault) -> None:
    prepare, write = WRITES[verb]
    prepare(bench.store)
    before = snapshot(bench.store)
    bench.fail_next(verb, fault)
    with pytest.raises(DurabilityUnknown, match=verb):
        write(bench.store)
    with pytest.raises(DurabilityUnknown, match="must end"):
        bench.store.append_audit(line(len(bench.store.audit_entries(0))))
    store = bench.restart()
    assert (snapshot(store) != before) == (fault is Fault.FAILED_BUT_PERSISTED)
    store.append_audit(line(len(store.audit_entries(0))))


@pytest.mark.parametrize("verb", READS)
def test_a_read_that_failed_says_so_and_can_be_tried_again(bench: StoreBench, verb: str) -> None:
    with_commit(bench.store)
    bench.store.open_round(SECOND, Purpose.TRAIN, PLAN)
    bench.store.note_timer(SECOND, WAIT)
    assert bench.store.note_set_back(SHOWN, line(2))
    bench.fail_next(verb, Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError, match=verb):
        READS[verb](bench.store)
    assert READS[verb](bench.store)
