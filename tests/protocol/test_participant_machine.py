"""The participant's half of a round, alone: what it does about each word, and what it does not believe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from participant.round.checks import layout_of
from participant.round.effects import (
    AttemptAnnounced,
    PassedOver,
    PlanRepeated,
    SurvivorsListed,
    UploadAcknowledged,
    UploadImpossible,
    WorkDone,
    WorkFailed,
    WorkProgressed,
)
from participant.round.machine import decline, resume
from shared.errors import ConflictError, PhaseError, WireError
from shared.ids import AttemptKey, AttemptNumber, Digest, RoundKey, RoundNumber
from shared.protocol.messages import attempt_digest
from shared.protocol.phases import Phase
from shared.reasons import ConsentRule, DropReason, Purpose
from shared.update import Encoding, StatisticsLayout, UpdateLayout
from tests.support.participant_transcript import Silo
from tests.support.rounds import ELEMENTS, JOB, METRICS, A, B, C, D, layout, make_offer, make_plan, make_spec, spooled

OPEN = [Phase.TRAINING, Phase.READY, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED]


def withdrawn() -> Silo:
    silo = Silo()
    silo.hear(WorkFailed(DropReason.TASK_CRASHED))
    return silo


def declined() -> Silo:
    return Silo(opening=decline(make_offer(), ConsentRule.JOB_NOT_ALLOWED))


# --- the good round ---------------------------------------------------------------------------------------------------


def test_a_round_in_which_all_goes_well() -> None:
    silo = Silo()
    assert silo.opening == ["record plan", "say consent", "start work"], "on record before it is said"
    assert silo.hear(WorkProgressed(40)) == ["say progress 40"]
    assert silo.trained() == ["record update", "say ready"]
    assert silo.announced() == ["record attempt 1", "start upload 1"]
    assert silo.acknowledged() == []
    assert silo.is_in(Phase.COMMITTED)
    assert silo.listed(A, B, C) == ["stop"]
    assert silo.is_in(Phase.FIXED)
    assert silo.hear(silo.result(1, 2, 3)) == ["stop", "record end, survived", "erase"]
    assert silo.is_in(Phase.FINISHED)


@pytest.mark.parametrize("phase", OPEN)
def test_an_abort_ends_the_round_from_every_phase(phase: Phase) -> None:
    silo = Silo().to(phase)
    assert silo.hear(silo.aborted()) == ["stop", "record end", "erase"]
    assert silo.is_in(Phase.FINISHED)


@pytest.mark.parametrize("phase", OPEN)
def test_a_result_without_this_silo_ends_the_round_from_every_phase(phase: Phase) -> None:
    silo = Silo().to(phase)
    assert silo.hear(silo.result(2, 3)) == ["stop", "record end", "erase"]


@pytest.mark.parametrize("phase", [Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED])
def test_a_result_with_this_silo_keeps_its_state(phase: Phase) -> None:
    silo = Silo().to(phase)
    assert silo.hear(silo.result(1, 2)) == ["stop", "record end, survived", "erase"]


@pytest.mark.parametrize("phase", OPEN)
def test_a_later_round_ends_this_one(phase: Phase) -> None:
    assert Silo().to(phase).hear(PassedOver()) == ["stop", "record end", "erase"]


# --- saying no --------------------------------------------------------------------------------------------------------


def test_a_silo_that_declines_records_nothing_and_starts_nothing() -> None:
    silo = declined()
    assert silo.opening == ["say decline: job_not_allowed"]
    assert silo.is_in(Phase.OUT)


@pytest.mark.parametrize("reason", [DropReason.TASK_CRASHED, DropReason.NON_FINITE, DropReason.MODEL_UNAVAILABLE])
def test_work_that_failed_is_a_withdrawal_and_the_end_is_on_record_first(reason: DropReason) -> None:
    assert Silo().hear(WorkFailed(reason)) == ["stop", "record end", f"say withdraw: {reason}", "erase"]


def test_an_upload_that_is_impossible_is_a_withdrawal() -> None:
    silo = Silo().to(Phase.UPLOADING)
    other = UploadImpossible(Digest.of(b"an attempt before"), DropReason.DISK)
    silo.ignores(other)
    mine = UploadImpossible(attempt_digest(silo.start()), DropReason.DISK)
    assert silo.hear(mine) == ["stop", "record end", "say withdraw: disk", "erase"]
    silo.ignores(mine)


def test_one_that_is_out_says_so_again_and_nothing_else() -> None:
    assert withdrawn().asked_again() == ["say withdraw: task_crashed"]
    assert declined().asked_again() == ["say decline: job_not_allowed"]


def test_work_that_ends_after_the_round_does_not_matter() -> None:
    for silo in (withdrawn(), Silo().to(Phase.FINISHED)):
        silo.ignores(WorkDone(spooled()))
        silo.ignores(WorkFailed(DropReason.TASK_CRASHED))
        silo.ignores(WorkProgressed(99))
        silo.ignores(UploadAcknowledged(attempt_digest(silo.start()), None))


# --- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", OPEN)
def test_asked_again_it_says_what_still_matters(phase: Phase) -> None:
    silo = Silo().to(phase)
    before = silo.state
    assert silo.asked_again() == (["say consent"] if phase is Phase.TRAINING else ["say consent", "say ready"])
    assert silo.state is before


def test_the_same_attempt_again_changes_nothing() -> None:
    for phase in (Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED):
        silo = Silo().to(phase)
        silo.ignores(AttemptAnnounced(silo.start()))


def test_an_attempt_that_comes_while_training_is_waited_with() -> None:
    silo = Silo()
    silo.ignores(AttemptAnnounced(silo.start()))
    assert silo.trained() == ["record update", "say ready"], "the coordinator answers with the attempt"


@pytest.mark.parametrize("phase", [Phase.UPLOADING, Phase.COMMITTED])
def test_a_higher_attempt_starts_the_upload_again(phase: Phase) -> None:
    silo = Silo().to(phase)
    assert silo.announced(2) == ["stop", "record attempt 2", "start upload 2"]
    assert silo.acknowledged(1) == [], "the word for the attempt that is over"
    assert silo.is_in(Phase.UPLOADING)
    silo.acknowledged(2)
    assert silo.is_in(Phase.COMMITTED)


def test_a_list_may_overtake_the_acknowledgement() -> None:
    silo = Silo().to(Phase.UPLOADING)
    assert silo.listed(A, B) == ["stop"]
    assert silo.acknowledged() == []
    assert silo.is_in(Phase.FIXED)


def test_an_outcome_again_changes_nothing() -> None:
    silo = Silo().to(Phase.FINISHED)
    silo.ignores(silo.result(1, 2, 3))
    silo.ignores(PassedOver())
    silo.ignores(silo.aborted())


# --- restart ----------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_from_what_was_recorded() -> None:
    offer = make_offer()
    start = Silo().start()
    assert Silo(opening=resume(offer, None, None, None)).opening == ["start work"]
    ready = Silo(opening=resume(offer, spooled(), None, None))
    assert (ready.opening, ready.phase) == ([], Phase.READY)
    uploading = Silo(opening=resume(offer, spooled(), start, None))
    assert (uploading.opening, uploading.phase) == (["start upload 1"], Phase.UPLOADING)


# --- what it does not believe -----------------------------------------------------------------------------------------

CHANGED: dict[str, Any] = {
    "version": {"version": 2},
    "suite": {"suite": 2},
    "round": {"key": AttemptKey(RoundKey(JOB, RoundNumber(2)), AttemptNumber(1))},
    "purpose": {"purpose": Purpose.EVALUATE},
    "plan": {"plan": Digest.of(b"another plan")},
    "job specification": {"jobspec": Digest.of(b"another job")},
    "consortium": {"consortium": b"somebody"},
    "model": {"model": Digest.of(b"another model")},
    "previous result": {"previous_result": Digest.of(b"another result")},
    "members": {"members": (A, B)},
    "layout": {"layout": layout(Purpose.EVALUATE).digest},
    "assumption on collusion": {"max_colluding": 1},
    "exchange deadline": {"exchange_deadline_s": 1.0},
    "upload deadline": {"upload_deadline_s": 1.0},
    "encoding": {"encoding": Encoding.U64},
}


@pytest.mark.parametrize("phase", [Phase.READY, Phase.UPLOADING, Phase.COMMITTED])
@pytest.mark.parametrize("field", CHANGED)
def test_an_attempt_that_differs_from_what_the_silo_knows_is_refused(field: str, phase: Phase) -> None:
    silo = Silo().to(phase)
    number = 1 if phase is Phase.READY else 2
    changed = dict(CHANGED[field])
    if field == "round" and number == 2:
        changed["key"] = AttemptKey(changed["key"].round, AttemptNumber(2))
    silo.refuses(AttemptAnnounced(silo.start(number, **changed)), ConflictError, f"another {field} than")


def test_the_same_attempt_with_other_content_is_refused() -> None:
    silo = Silo().to(Phase.UPLOADING)
    silo.refuses(AttemptAnnounced(silo.start(upload_deadline_s=1.0)), ConflictError, "announced before")


def test_more_attempts_than_the_job_allows_are_refused() -> None:
    silo = Silo().to(Phase.READY)
    silo.refuses(AttemptAnnounced(silo.start(3)), ConflictError, "the job allows 2")


def test_a_lower_attempt_is_refused() -> None:
    silo = Silo().to(Phase.UPLOADING)
    silo.announced(2)
    silo.refuses(AttemptAnnounced(silo.start(1)), ConflictError, "comes after attempt 2")


def test_a_survivor_list_of_another_attempt_or_without_this_silo_is_refused() -> None:
    for phase in (Phase.UPLOADING, Phase.COMMITTED):
        silo = Silo().to(phase)
        silo.refuses(silo.listing(A, B, number=2), ConflictError, "survivors of attempt")
        silo.refuses(silo.listing(B, C, D), ConflictError, "without this participant")
        listed = silo.listing(A, B)
        of_another = silo.listing(A, B, number=2).survivors
        mixed = replace(listed.survivors, commits=of_another.commits)
        silo.refuses(SurvivorsListed(mixed, (), repeats_allowed=False), ConflictError, "without this participant")


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.READY])
def test_a_result_that_counts_what_was_never_sent_is_refused(phase: Phase) -> None:
    silo = Silo().to(phase)
    silo.refuses(silo.result(1, 2), ConflictError, "never sent")


def test_a_result_that_counts_what_a_declining_silo_never_sent_is_refused() -> None:
    silo = declined()
    silo.refuses(silo.result(1, 2), ConflictError, "never sent")


def test_a_silo_that_withdrew_may_have_been_counted_before_it_was_heard() -> None:
    silo = Silo().to(Phase.UPLOADING)
    silo.hear(UploadImpossible(attempt_digest(silo.start()), DropReason.LOST))
    silo.hear(silo.result(1, 2))
    assert silo.phase is Phase.FINISHED


def test_a_result_of_another_attempt_purpose_or_size_is_refused() -> None:
    silo = Silo().to(Phase.COMMITTED)
    silo.refuses(silo.result(1, 2, number=2), ConflictError, "another attempt")
    silo.refuses(silo.result(1, 2, purpose=Purpose.EVALUATE), ConflictError, "planned to train")
    silo.refuses(silo.result(1, 5), WireError, "member 5 of 4")


def test_an_abort_of_another_plan_is_refused() -> None:
    silo = Silo()
    other = Silo(opening=resume(make_offer(plan=make_plan(make_spec(rounds=9))), None, None, None))
    silo.refuses(other.aborted(), ConflictError, "another plan")


def test_words_out_of_order_are_refused() -> None:
    silo = Silo()
    silo.ignores(silo.listing(A, B))
    silo.to(Phase.FINISHED).refuses(PlanRepeated(), PhaseError, "round_plan in phase finished")
    silo.refuses(silo.listing(A, B), PhaseError, "survivor_list in phase finished")
    silo.refuses(AttemptAnnounced(silo.start()), PhaseError, "plain_attempt in phase finished")


def test_the_layout_is_derived_and_not_received() -> None:
    cells = StatisticsLayout(METRICS).cells
    assert layout_of(make_offer(), spooled(), Encoding.PLAIN) == UpdateLayout(Encoding.PLAIN, ELEMENTS, cells)
    closing = make_offer(plan=make_plan(make_spec(), purpose=Purpose.EVALUATE))
    assert layout_of(closing, spooled(), Encoding.PLAIN) == UpdateLayout(Encoding.PLAIN, 0, cells)
