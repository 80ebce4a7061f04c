"""A masked round at the driver: what it brings to the machine, what is on disk when, and what outlives a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from participant.consent import VerifiedResult
from participant.round.checks import terms_of
from participant.round.effects import WorkDone
from participant.round.phases import (
    Confirmed,
    Opened,
    Ready,
    Total,
)
from shared.errors import ConflictError, DurabilityUnknown, PhaseError, StorageError
from shared.ids import Digest, JobId, RoundKey
from shared.protocol.messages import (
    AnswerKind,
    Decline,
    RoundResult,
    result_digest,
)
from shared.protocol.phases import Phase
from shared.reasons import ConsentRule, Purpose
from shared.update import Encoding
from shared.wire.sealed import encode_envelope, reopen
from shared.wire.session import HEAD_MAX_BYTES
from tests.support.masked_cohort import ALL, CELLS, NOBODY, Cohort, sealed_result
from tests.support.masked_daemon import Daemon
from tests.support.participant_journal import Fault, FaultPlan, MemoryJournal
from tests.support.rounds import (
    KEY,
    MANIFEST,
    MEMBERS,
    TASK,
    make_masked_spec,
    make_plan,
    manifest_of,
    result_of,
    spooled,
)


def test_a_masked_round_from_plan_to_opening() -> None:
    daemon = Daemon(Cohort())
    assert daemon.hears(daemon.cohort.plan) == ["Consent"]
    daemon = Daemon(Cohort()).to(Phase.OPENING)
    assert isinstance(daemon.state, Opened)
    expected = Total(MEMBERS, terms_of(daemon.cohort.spec))
    assert daemon.journal.totals(TASK, daemon.cohort.plan.value.model) == [expected]
    assert daemon.observer.alarms == []


def test_what_an_offer_knows_comes_from_the_plan_and_the_journal() -> None:
    daemon = Daemon(Cohort(number=2, after=CELLS))
    daemon.hears(daemon.cohort.plan)
    offer = daemon.state.offer
    assert (offer.encoding, offer.misses, offer.verified, offer.consortium) == (Encoding.U32, 0, None, MANIFEST)
    assert offer.previous is not None
    assert offer.previous.top_cells == CELLS
    daemon.driver.report(offer.key, WorkDone(spooled(cells=CELLS, fits=False)))
    again = daemon.restarted()
    assert again.state.offer.misses == 1
    assert again.state.offer.previous == offer.previous
    assert isinstance(again.state, Ready)


# --- restart ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED])
def test_a_restart_loses_the_attempt_and_takes_part_in_the_next(phase: Phase) -> None:
    daemon = Daemon(Cohort()).to(phase).restarted()
    assert daemon.hears(daemon.cohort.plan) == ["Consent", "Ready"]
    assert daemon.hears(daemon.cohort.start()) == ["attempt_abort"]
    assert daemon.observer.alarms == []
    assert daemon.to(Phase.OPENING, number=2).hears(daemon.cohort.bundle(number=2).bundle) == ["unmask_shares"]


def test_what_was_opened_survives_a_restart_byte_for_byte() -> None:
    daemon = Daemon(Cohort()).to(Phase.OPENING)
    said = daemon.cohort.me.answers[AnswerKind.UNMASK_SHARES]
    again = daemon.restarted()
    assert isinstance(again.state, Opened)
    assert again.hears(again.cohort.bundle().bundle) == ["unmask_shares"]
    assert again.said == [said]
    assert again.hears(again.cohort.start()) == ["unmask_shares"]
    with pytest.raises(ConflictError, match="after this silo helped to open"):
        again.hears(again.cohort.start(2))


@pytest.mark.parametrize("fault", list(Fault))
def test_nothing_is_opened_that_is_not_on_disk(fault: Fault) -> None:
    plan = FaultPlan()
    daemon = Daemon(Cohort(), MemoryJournal(faults=plan)).to(Phase.FIXED)
    plan.inject("record_opening", fault)
    with pytest.raises((StorageError, DurabilityUnknown)):
        daemon.hears(daemon.cohort.bundle().bundle)
    assert daemon.said == []
    assert isinstance(daemon.state, Confirmed)
    if fault is Fault.FAILED_NOT_PERSISTED:
        assert daemon.hears(daemon.cohort.bundle().bundle) == ["unmask_shares"]
        return
    again = daemon.restarted()
    said = again.hears(again.cohort.start())
    assert said == (["unmask_shares"] if fault is Fault.FAILED_BUT_PERSISTED else ["attempt_abort"])


@pytest.mark.parametrize("fault", list(Fault))
def test_no_key_is_advertised_in_an_attempt_that_is_not_on_disk(fault: Fault) -> None:
    plan = FaultPlan()
    cohort = Cohort()
    daemon = Daemon(cohort, MemoryJournal(faults=plan))
    daemon.hears(cohort.plan)
    daemon.driver.report(KEY, WorkDone(cohort.update))
    plan.inject("record_attempt", fault)
    with pytest.raises((StorageError, DurabilityUnknown)):
        daemon.hears(cohort.start())
    assert daemon.said == []
    again = daemon.restarted()
    expected = "attempt_abort" if fault is Fault.FAILED_BUT_PERSISTED else "advertise_keys"
    assert again.hears(cohort.start()) == [expected]


# --- what the journal knows -------------------------------------------------------------------------------------------


def test_another_core_of_the_round_is_not_taken_part_in() -> None:
    """Another manifest is pinned between two attempts: all attempts of a round are under one."""
    daemon = Daemon(Cohort()).to(Phase.ADVERTISING)
    other = manifest_of(*MEMBERS)
    again = daemon.restarted(consortium=other)
    assert again.hears(again.cohort.start(2, consortium=other.digest.raw)) == ["attempt_abort"]
    assert again.observer.alarms == ["bad_attempt"]
    assert isinstance(again.state, Ready)
    assert again.hears(again.cohort.start(2, consortium=other.digest.raw)) == ["attempt_abort"]


ANOTHER_TOTAL: dict[str, tuple[dict[str, Any], Purpose]] = {
    "other members": ({"names": MEMBERS[:3]}, Purpose.TRAIN),
    "other members, to evaluate": ({"names": MEMBERS[:3]}, Purpose.EVALUATE),
    "another cap": ({"terms": terms_of(make_masked_spec(masking={"max_weight": 260.0}))}, Purpose.TRAIN),
}


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("case", ANOTHER_TOTAL)
def test_another_total_on_the_same_model_in_another_job_needs_a_person(case: str, *, allowed: bool) -> None:
    other, purpose = ANOTHER_TOTAL[case]
    state = Daemon(Cohort()).to(Phase.OPENING).state
    assert isinstance(state, Opened)
    before = replace(state.opening, **other)
    journal = MemoryJournal()
    daemon = Daemon(Cohort(), journal, allowed_repeats=(KEY.job,) if allowed else ()).to(Phase.COMMITTED)
    plan = daemon.cohort.plan.value
    journal.record_opening(RoundKey(JobId("other-1"), KEY.number), purpose, TASK, plan.model, before)
    said = daemon.hears(daemon.cohort.listing().survivors)
    assert said == (["consistency_signature"] if allowed else ["attempt_abort"])
    assert daemon.observer.alarms == ([] if allowed else ["repeated_total"])


def test_a_person_may_allow_it_while_the_daemon_runs_and_what_it_opens_is_logged() -> None:
    state = Daemon(Cohort()).to(Phase.OPENING).state
    assert isinstance(state, Opened)
    journal = MemoryJournal()
    daemon = Daemon(Cohort(), journal).to(Phase.COMMITTED)
    plan, before = daemon.cohort.plan.value, replace(state.opening, names=MEMBERS[:3])
    journal.record_opening(RoundKey(JobId("other-1"), KEY.number), Purpose.TRAIN, TASK, plan.model, before)
    assert journal.allow_repeat(KEY.job)
    listing = daemon.cohort.listing()
    for index in ALL[1:]:
        daemon.cohort.silos[index].hear(listing)
    assert daemon.hears(listing.survivors) == ["consistency_signature"]
    with capture_logs() as logs:
        assert daemon.hears(daemon.cohort.bundle().bundle) == ["unmask_shares"]
    (line,) = [entry for entry in logs if entry["event"] == "repeat_opened"]
    assert (line["job"], line["model"]) == (KEY.job, str(plan.model))
    assert "a total over other members than" in line["detail"]


def test_a_refusal_says_which_command_allows_it() -> None:
    state = Daemon(Cohort()).to(Phase.OPENING).state
    assert isinstance(state, Opened)
    journal = MemoryJournal()
    daemon = Daemon(Cohort(), journal).to(Phase.COMMITTED)
    plan, before = daemon.cohort.plan.value, replace(state.opening, names=MEMBERS[:3])
    journal.record_opening(RoundKey(JobId("other-1"), KEY.number), Purpose.TRAIN, TASK, plan.model, before)
    with capture_logs() as logs:
        assert daemon.hears(daemon.cohort.listing().survivors) == ["attempt_abort"]
    (alarm,) = [entry for entry in logs if entry["event"] == "alarm"]
    assert f"`consilo participant allow {KEY.job}`" in alarm["detail"]


def test_heads_are_the_results_that_were_verified_and_fit_a_hello() -> None:
    daemon = Daemon(Cohort())
    assert not daemon.driver.heads
    _finished(daemon)
    (head,) = daemon.driver.heads
    assert reopen(RoundResult, head).value.key == KEY
    huge = replace(head, payload=bytes(HEAD_MAX_BYTES + 1))
    daemon.journal._kept.heads[JobId("other-1")] = huge
    assert daemon.driver.heads == (head,), "one that a Hello cannot carry is left out: it must not keep the silo away"


# --- the coordinator's word against itself ----------------------------------------------------------------------------


def _finished(daemon: Daemon) -> VerifiedResult:
    """Round 1 is over, with a result that this silo verified."""
    cohort = daemon.cohort
    state = daemon.to(Phase.OPENING).state
    assert isinstance(state, Opened)
    result = result_of(
        cohort.start(), ALL, transcript=state.opening.survivors, top_cells=CELLS, next_model=cohort.plan.value.model
    )
    daemon.hears(result)
    return VerifiedResult(1, result_digest(encode_envelope(result.envelope)))


def test_a_verified_result_is_what_the_next_advert_vouches_for() -> None:
    daemon = Daemon(Cohort())
    verified = _finished(daemon)
    history = daemon.journal.history(KEY.job)
    assert history is not None
    assert history.verified == verified


@pytest.mark.parametrize("shown", ["another", "none"])
def test_a_plan_on_another_history_ends_the_job_for_this_silo(shown: str) -> None:
    daemon = Daemon(Cohort())
    _finished(daemon)
    spec = daemon.cohort.spec
    plan = make_plan(spec, number=2)
    if shown == "another":
        other = sealed_result(daemon.cohort.plan, 1, aggregate=NOBODY)
        plan = make_plan(spec, number=2, previous_result=encode_envelope(other.envelope))
    with capture_logs() as logs, pytest.raises(ConflictError, match="takes no further part"):
        daemon.hears(plan)
    assert daemon.observer.alarms == ["another_history"]
    assert [line["what"] for line in logs if line["event"] == "alarm"] == ["another_history"]
    assert daemon.hears(plan) == ["Decline"]
    assert isinstance(daemon.said[0], Decline)
    assert daemon.said[0].rule is ConsentRule.JOB_STOPPED
    assert daemon.restarted().hears(plan) == ["Decline"]


def test_a_range_that_cannot_be_true_ends_the_job_for_this_silo() -> None:
    daemon = Daemon(Cohort()).to(Phase.COMMITTED)
    daemon.hears(result_of(daemon.cohort.start(), ALL, top_cells=(CELLS[0] - 1,)))
    assert daemon.observer.alarms == ["range_understated"]
    assert daemon.journal.state_round(KEY.job) is None
    history = daemon.journal.history(KEY.job)
    assert history is not None
    assert history.stopped
    assert history.verified is None
    assert history.finished_round == 1


def test_an_exchange_of_a_round_that_is_not_open_is_refused() -> None:
    daemon = Daemon(Cohort())
    cohort = Cohort().to(Phase.FIXED)
    for message in (
        cohort.roster().roster, cohort.delivery().delivery, cohort.listing().survivors, cohort.bundle().bundle,
    ):  # fmt: skip
        with pytest.raises(PhaseError, match="not open here"):
            daemon.hears(message)


def test_no_secret_of_a_round_is_logged() -> None:
    daemon = Daemon(Cohort())
    with capture_logs() as logs:
        daemon.to(Phase.COMMITTED)
        daemon.hears(daemon.cohort.delivery(1, 2, 3).delivery)
    assert [line["event"] for line in logs] == ["round_accepted", "alarm"]
    assert logs[1]["what"] == "equivocation"
    assert "Secret" not in repr(logs)
    assert not any(isinstance(value, bytes | Digest) for line in logs for value in line.values())
