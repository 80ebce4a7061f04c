"""Versions go by the policy, leftovers go at a start, and nothing that a round goes on with is among them."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest

from coordinator.audit import resume
from coordinator.pruning import Pruning
from coordinator.round.effects import AttemptBegun
from coordinator.round.journal import decode_record, encode_record
from coordinator.storage.faults import Fault
from coordinator.storage.interface import JournalEntry, SetBack
from shared.errors import DurabilityUnknown
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber
from shared.reasons import JobState
from tests.support.rounds import (
    COORDINATOR_KEY,
    ELEMENTS,
    JOB,
    MEMBERS,
    A,
    coordinator_seal,
    initial_model,
    make_masked_spec,
)
from tests.unit.coordinator.test_masked_jobs import Federation, manifest

CONSORTIUM = manifest(*MEMBERS)


def federation(*, keep_versions: int, rounds: int) -> Federation:
    made = Federation(consortium=CONSORTIUM, keep_versions=keep_versions)
    made.submit(make_masked_spec(rounds=rounds))
    made.connect()
    return made


def kept(made: Federation) -> list[int]:
    """The numbers of the versions whose files are there: 0 is the initial model."""
    published = {model.digest for model in made.blobs.published()}
    records = made.store.models()
    assert {model.digest for model in records if not model.pruned} == published
    return [number for number, model in enumerate(records) if model.digest in published]


def pruned_entries(made: Federation) -> list[list[str]]:
    bodies = [json.loads(entry.line[129:]) for entry in made.store.audit_entries(0)]
    return [body["data"]["models"] for body in bodies if body["kind"] == "model_pruned"]


def test_each_commit_prunes_what_the_policy_does_not_keep() -> None:
    made = federation(keep_versions=2, rounds=5)
    for rounds, versions in enumerate([[0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]], start=1):
        made.run(rounds=rounds)
        assert kept(made) == versions
    made.run()
    assert made.store.job(JOB).state is JobState.COMPLETED
    assert kept(made) == [4, 5], "the job is over: its initial model is a version like others"
    digests = [str(model.digest) for model in made.store.models()]
    assert pruned_entries(made) == [[digests[number]] for number in (1, 2, 3, 0)]


def test_without_a_policy_everything_stays() -> None:
    made = federation(keep_versions=0, rounds=4)
    made.run()
    assert kept(made) == [0, 1, 2, 3, 4]
    assert pruned_entries(made) == []


def test_a_start_prunes_by_the_policy_of_now() -> None:
    made = federation(keep_versions=0, rounds=4)
    made.run(rounds=3)
    made.keep_versions = 1
    made.restart(CONSORTIUM)
    assert kept(made) == [0, 3]


def test_a_promoted_version_stays() -> None:
    made = federation(keep_versions=1, rounds=5)
    made.run(rounds=1)
    first = made.store.models()[1].digest
    entry = made.audit.entry("model_promoted", {"model": str(first)})
    assert made.store.promote_model(first, entry, promoted=True)
    made.audit.accept(entry)
    made.run()
    assert kept(made) == [1, 5]


def crash(made: Federation) -> None:
    """The next process, on what the one before left."""
    made.store, made.blobs = made.store.crash(), made.blobs.crash()
    made.audit = resume(made.store.audit_entries, sign=partial(COORDINATOR_KEY.sign, "audit"), clock=made.clock)
    made.orders.clear()
    made.restart(CONSORTIUM)
    made.connect()


@pytest.mark.parametrize("verb", ["prune_models", "remove_model"])
@pytest.mark.parametrize("fault", [Fault.FAILED_BUT_PERSISTED, Fault.FAILED_UNKNOWN_NOT_PERSISTED])
def test_a_crash_between_the_record_and_the_file_is_made_good_by_the_next_start(verb: str, fault: Fault) -> None:
    made = federation(keep_versions=1, rounds=4)
    made.run(rounds=1)
    plan = made.store.faults if verb == "prune_models" else made.blobs.faults
    plan.inject(verb, fault)
    with pytest.raises(DurabilityUnknown):
        made.run(rounds=2)
    crash(made)
    assert kept(made) == [0, 2]
    assert len(pruned_entries(made)) == 1
    made.run()
    assert kept(made) == [4]


@pytest.mark.parametrize("verb", ["models", "jobs", "rounds", "prune_models", "remove_model"])
def test_a_disk_that_fails_while_room_is_made_costs_room_alone(verb: str) -> None:
    made = federation(keep_versions=1, rounds=4)
    made.run(rounds=1)
    store, blobs = made.store, made.blobs
    pruning = Pruning(store=store, audit=made.audit, blobs=blobs, keep_versions=1)
    (blobs if verb == "remove_model" else store).faults.inject(verb, Fault.FAILED_NOT_PERSISTED)
    pruning.prune()
    made.run()
    assert kept(made) == [4]
    assert made.store.job(JOB).state is JobState.COMPLETED


@pytest.mark.parametrize(
    "verb", ["models", "set_backs", "published", "spooled", "round", "remove_model", "drop_attempt"]
)
def test_a_disk_that_fails_in_a_sweep_keeps_no_round_from_going_on(verb: str) -> None:
    made = federation(keep_versions=9, rounds=2)
    made.run(rounds=1)
    publish(made, b"of nobody's concern")
    spool(made, AttemptKey(RoundKey(JOB, RoundNumber(1)), AttemptNumber(1)))
    on_blobs = verb in {"published", "spooled", "remove_model", "drop_attempt"}
    pruning = Pruning(store=made.store, audit=made.audit, blobs=made.blobs, keep_versions=9)
    (made.blobs if on_blobs else made.store).faults.inject(verb, Fault.FAILED_NOT_PERSISTED)
    pruning.start()
    pruning.after(made.store.round(RoundKey(JOB, RoundNumber(1))), folding=False)
    made.restart(CONSORTIUM)
    made.connect()
    made.run()
    assert kept(made) == [0, 1, 2]
    assert list(made.blobs.spooled()) == []


def publish(made: Federation, content: bytes) -> Digest:
    staged = made.blobs.stage("stray")
    staged.allocate(len(content))
    staged.write_at(0, memoryview(content))
    made.blobs.publish(staged, Digest.of(content))
    return Digest.of(content)


def spool(made: Federation, key: AttemptKey) -> AttemptKey:
    with closing(made.blobs.spool(key, A)) as opened:
        opened.append(memoryview(b"update"))
        opened.sync()
    return key


def spooled(made: Federation) -> list[AttemptKey]:
    return [found.key for found in made.blobs.spooled()]


def test_models_that_no_record_names_are_swept_with_the_first_commit_after_a_start() -> None:
    made = federation(keep_versions=9, rounds=4)
    made.run(rounds=2)
    stray = publish(made, b"a fold that was never committed")
    crash(made)
    assert stray in {model.digest for model in made.blobs.published()}, "its record may have been lost"
    made.run()
    assert kept(made) == [0, 1, 2, 3, 4]


def test_where_all_is_kept_they_are_kept_too() -> None:
    made = federation(keep_versions=0, rounds=4)
    made.run(rounds=2)
    stray = publish(made, b"a fold that was never committed")
    crash(made)
    made.run()
    assert stray in {model.digest for model in made.blobs.published()}


def test_where_the_records_are_an_older_copy_such_models_stay() -> None:
    made = federation(keep_versions=0, rounds=3)
    made.run(rounds=2)
    lost, first = publish(made, b"what a later round made"), made.store.models()[1].digest
    entry = made.audit.entry("records_rolled_back", {})
    assert made.store.note_set_back(SetBack("a backup"), entry)
    made.audit.accept(entry)
    entry = made.audit.entry("model_pruned", {"models": [str(first)]})
    made.store.prune_models([first], entry)
    made.audit.accept(entry)
    crash(made)
    published = {model.digest for model in made.blobs.published()}
    assert lost in published
    assert first not in published, "its record says that it goes"


def test_a_fold_that_was_published_and_not_committed_is_done_again() -> None:
    made = federation(keep_versions=1, rounds=2)
    made.run(rounds=1)
    assert made.orders, "the second round is at its fold"
    before = made.store.models()
    content = initial_model()[: -8 * ELEMENTS] + bytes([2]) * 8 * ELEMENTS  # what that fold will make
    digest = publish(made, content)
    crash(made)
    assert made.orders, "its fold was begun again"
    assert digest in {model.digest for model in made.blobs.published()}, "and what nobody committed waits for a commit"
    made.run()
    assert made.store.models()[-1].digest == digest
    assert kept(made) == [2]
    assert len(before) == 2


def test_nothing_is_pruned_while_a_fold_may_make_it_again() -> None:
    made = federation(keep_versions=0, rounds=3)
    made.run(rounds=2)
    pruning = Pruning(store=made.store, audit=made.audit, blobs=made.blobs, keep_versions=1)
    ended = made.store.round(RoundKey(JOB, RoundNumber(2)))
    pruning.after(ended, folding=True)
    assert kept(made) == [0, 1, 2]
    pruning.after(ended, folding=False)
    assert kept(made) == [0, 2]


def test_spools_go_at_a_start_but_those_of_the_attempt_at_hand() -> None:
    made = federation(keep_versions=0, rounds=3)
    made.run(rounds=1)
    over, at_hand = RoundKey(JOB, RoundNumber(1)), RoundKey(JOB, RoundNumber(2))
    begun = attempt_entries(made, at_hand)
    assert [record.start.value.key.attempt for record in begun] == [1]
    second = replace(begun[0].start.value, key=AttemptKey(at_hand, AttemptNumber(2)))
    made.store.journal(at_hand, encode_record(replace(begun[0], start=coordinator_seal(second))))
    for key in (over, at_hand, RoundKey(JOB, RoundNumber(9)), RoundKey(JobId("gone-1"), RoundNumber(1))):
        for attempt in (1, 2):
            spool(made, AttemptKey(key, AttemptNumber(attempt)))
    Pruning(store=made.store, audit=made.audit, blobs=made.blobs, keep_versions=0).start()
    assert spooled(made) == [AttemptKey(at_hand, AttemptNumber(2))]


def test_spools_of_a_round_whose_journal_nobody_can_read_stay() -> None:
    made = federation(keep_versions=0, rounds=3)
    made.run(rounds=1)
    at_hand = RoundKey(JOB, RoundNumber(2))
    made.store.journal(at_hand, JournalEntry("of a newer version", b"{}"))
    key = spool(made, AttemptKey(at_hand, AttemptNumber(1)))
    Pruning(store=made.store, audit=made.audit, blobs=made.blobs, keep_versions=0).start()
    assert spooled(made) == [key]


def attempt_entries(made: Federation, key: RoundKey) -> list[AttemptBegun]:
    records = [decode_record(entry) for entry in made.store.journal_of(key)[1:]]
    return [record for record in records if isinstance(record, AttemptBegun)]


def test_what_was_swept_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    made = federation(keep_versions=9, rounds=2)
    made.run(rounds=1)
    publish(made, b"twelve bytes")
    spool(made, AttemptKey(RoundKey(JOB, RoundNumber(1)), AttemptNumber(1)))
    made.blobs.stage("left").allocate(100)
    capsys.readouterr()
    crash(made)
    assert swept(capsys) == [{"models": 0, "spools": 1, "staged": 1, "bytes": 6 + 100}]
    made.run()
    assert swept(capsys) == [{"models": 1, "spools": 0, "staged": 0, "bytes": 12}]
    crash(made)
    assert "storage_swept" not in capsys.readouterr().err, "nothing to say"


def swept(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    counts = ("models", "spools", "staged", "bytes")
    return [{count: line[count] for count in counts} for line in lines if line["event"] == "storage_swept"]
