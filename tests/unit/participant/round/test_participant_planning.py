"""What a silo makes of a plan: whether it follows from the job, what it says of rounds before it, and what its answers
tell a coordinator that writes plans and results of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

from participant.consent import VerifiedResult
from participant.round.driver import JOBS_MAX, OPEN_ROUNDS_MAX
from participant.round.effects import WorkDone, WorkFailed
from participant.round.phases import MISSES_MAX, Opened, SpooledUpdate
from shared.errors import ConflictError
from shared.ids import JobId, RoundKey, RoundNumber
from shared.job import JobSpec, jobspec_digest
from shared.protocol.messages import (
    Decline,
    Ready,
    RoundPlan,
    RoundResult,
    Sealed,
    Withdraw,
    result_digest,
)
from shared.protocol.phases import Phase
from shared.reasons import ConsentRule, DropReason, Purpose
from shared.wire.sealed import encode_envelope
from tests.support.masked_cohort import ALL, CELLS, Cohort
from tests.support.masked_daemon import Daemon
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import (
    JOB,
    KEY,
    aborted_of,
    make_masked_spec,
    make_plan,
    result_of,
    spooled,
    start_of,
)

SPEC = make_masked_spec(rounds=100)
JOBSPEC = jobspec_digest(SPEC.to_bytes())
OTHERS = (2, 3, 4)


def silo() -> Daemon:
    """Member A, that nothing was said to yet; in a job of a hundred rounds."""
    return Daemon(Cohort(rounds=100))


def finished(daemon: Daemon, *survivors: int, **changed: Any) -> Sealed[RoundResult]:
    """The end of round 1 that this silo helped to open: a result that may be true."""
    state = daemon.to(Phase.OPENING).state
    assert isinstance(state, Opened)
    fields = {"transcript": state.opening.survivors, "top_cells": CELLS, "next_model": SPEC.initial_model, **changed}
    return result_of(daemon.cohort.start(), survivors or ALL, **fields)


def after(result: Sealed[RoundResult] | None, number: int, spec: JobSpec = SPEC, **changed: Any) -> Sealed[RoundPlan]:
    carried = b"" if result is None else encode_envelope(result.envelope)
    return make_plan(spec, number=number, previous_result=carried, **changed)


def invented(number: int, top_cell: int) -> Sealed[RoundResult]:
    """Of a round that never was: nobody but the coordinator signs a result."""
    start = start_of(make_plan(SPEC), SPEC)
    key = RoundKey(JOB, RoundNumber(number))
    return result_of(start, OTHERS, key=key, top_cells=(top_cell,), next_model=SPEC.initial_model)


def trained(daemon: Daemon, plan: Sealed[RoundPlan], update: SpooledUpdate | None = None) -> bool:
    """What Ready says of an update."""
    daemon.said.clear()
    daemon.driver.report(plan.value.key, WorkDone(update or spooled(cells=CELLS)))
    (ready,) = daemon.said
    assert isinstance(ready, Ready)
    return ready.fits


def misses(daemon: Daemon) -> int:
    history = daemon.journal.history(JOB)
    assert history is not None
    return history.misses


def stopped(daemon: Daemon) -> str:
    history = daemon.journal.history(JOB)
    assert history is not None
    return history.stopped


# --- a plan on a result that this silo knows to be false --------------------------------------------------------------


def test_a_plan_on_a_result_that_is_refused_ends_the_job_for_this_silo() -> None:
    daemon = silo()
    false = finished(daemon, *OTHERS)  # without this silo, although it signed that it is in
    with pytest.raises(ConflictError, match=r"over other survivors.*takes no further part"):
        daemon.hears(after(false, 2))
    assert daemon.observer.alarms == ["false_result"]
    assert daemon.said == []
    assert daemon.driver.open_rounds == ()
    assert daemon.work.erased == [KEY]
    assert stopped(daemon)
    assert daemon.restarted().hears(after(None, 3)) == ["Decline"]


def test_a_plan_on_a_result_that_stops_the_job_is_declined() -> None:
    daemon = silo()
    understated = finished(daemon, top_cells=(CELLS[0] - 1,))
    assert daemon.hears(after(understated, 2)) == ["Decline"]
    assert isinstance(daemon.said[0], Decline)
    assert daemon.said[0].rule is ConsentRule.JOB_STOPPED
    assert daemon.observer.alarms == ["range_understated"]
    assert daemon.driver.open_rounds == ()


def test_a_plan_on_a_result_that_holds_is_consented_to_as_on_record() -> None:
    daemon = silo()
    result = finished(daemon)
    plan = after(result, 2)
    assert daemon.hears(plan) == ["Consent"]
    offer = daemon.driver._rounds[plan.value.key].offer
    assert offer.verified == VerifiedResult(1, result_digest(encode_envelope(result.envelope)))


def test_a_job_that_is_stopped_has_no_open_round_left() -> None:
    """As an older process may have left them: two open rounds of one job."""
    journal = MemoryJournal()
    first, second = make_plan(SPEC), after(None, 2)
    for plan in (first, second):
        journal.record_plan(plan, JOBSPEC)
    start = start_of(first, SPEC)
    journal.record_update(KEY, spooled(cells=CELLS))
    journal.record_attempt(KEY, start, None)
    daemon = Daemon(Cohort(rounds=100), journal)
    assert list(daemon.driver.open_rounds) == [KEY, second.value.key]
    daemon.hears(result_of(start, ALL, top_cells=(CELLS[0] - 1,)))
    assert daemon.observer.alarms == ["range_understated"]
    assert daemon.driver.open_rounds == ()
    assert daemon.work.erased == [KEY, second.value.key]


# --- whether an update fits -------------------------------------------------------------------------------------------


def test_after_a_round_that_this_silo_was_in_the_answer_is_about_the_update() -> None:
    for fits in (True, False):
        daemon = silo()
        plan = after(finished(daemon), 2)
        daemon.hears(plan)
        assert trained(daemon, plan, spooled(cells=CELLS, fits=fits)) is fits
        assert misses(daemon) == (not fits)


@pytest.mark.parametrize("top_cell", [-31, 28])
def test_a_range_that_this_silo_was_not_in_is_answered_with_no_whatever_the_update(top_cell: int) -> None:
    """Never heard of; or told, and not in it: the coordinator alone says such a result."""
    for told in (False, True):
        daemon, result = silo(), invented(1, top_cell)
        if told:
            daemon.hears(make_plan(SPEC))
            daemon.hears(result)
        plan = after(result, 2)
        assert daemon.hears(plan) == ["Consent"]
        assert not trained(daemon, plan)
        assert misses(daemon) == 0
        again = daemon.restarted()
        again.hears(plan)
        assert [said.fits for said in again.said if isinstance(said, Ready)] == [False]


def test_a_result_that_counts_a_silo_that_withdrew_gives_it_no_range() -> None:
    daemon = silo()
    daemon.hears(make_plan(SPEC))
    daemon.driver.report(KEY, WorkFailed(DropReason.OUT_OF_RANGE))
    assert [type(said) for said in daemon.said][-1] is Withdraw
    result = result_of(start_of(make_plan(SPEC), SPEC), ALL, top_cells=(-31,), next_model=SPEC.initial_model)
    daemon.hears(result)
    plan = after(result, 2)
    assert daemon.hears(plan) == ["Consent"]
    assert not trained(daemon, plan)
    assert misses(daemon) == 0


def test_a_silo_that_was_absent_goes_on_and_looks_again_when_it_is_back() -> None:
    daemon = silo()
    daemon.hears(finished(daemon))
    third = after(invented(2, CELLS[0]), 3)
    assert daemon.hears(third) == ["Consent"]
    assert not trained(daemon, third)
    assert (daemon.observer.alarms, misses(daemon)) == ([], 0)
    start = start_of(third, SPEC)
    daemon.hears(start)
    again = daemon.restarted()
    fourth = after(result_of(start, ALL, top_cells=CELLS, next_model=SPEC.initial_model), 4)
    assert again.hears(fourth) == ["Consent"]
    assert trained(again, fourth)
    assert again.observer.alarms == []


@pytest.mark.parametrize("profile", ["u32", "u64"])
def test_where_no_range_is_asked_about_the_answer_is_yes(profile: str) -> None:
    spec = make_masked_spec(rounds=100, masking={"encoding": profile})
    evaluation = {"purpose": Purpose.EVALUATE} if profile == "u32" else {}
    number = 101 if evaluation else 2
    daemon, result = silo(), invented(1, 3)
    plan = after(result, number, spec, **evaluation)
    assert daemon.hears(plan) == ["Consent"]
    assert trained(daemon, plan, spooled(cells=() if evaluation else CELLS))


def test_misses_are_read_when_the_answer_is_made() -> None:
    daemon = silo()
    plan = after(finished(daemon), 2)
    daemon.hears(plan)
    for number in range(50, 50 + MISSES_MAX):
        journal, other = daemon.journal, after(None, number)
        journal.record_plan(other, JOBSPEC)
        journal.record_update(other.value.key, spooled(cells=CELLS, fits=False))
    assert not trained(daemon, plan)


# --- one open round of a job ------------------------------------------------------------------------------------------


def test_a_plan_below_an_open_round_is_refused() -> None:
    daemon = silo()
    assert daemon.hears(after(None, 5)) == ["Consent"]
    with pytest.raises(ConflictError, match=r"round heart-1/5 is open here"):
        daemon.hears(after(None, 4))
    assert [key.number for key in daemon.driver.open_rounds] == [5]
    assert daemon.hears(make_plan(SPEC, number=4, job=JobId("heart-2"))) == ["Consent"], "of another job"


def test_rounds_that_are_open_are_limited() -> None:
    daemon = silo()
    for number in range(OPEN_ROUNDS_MAX):
        assert daemon.hears(make_plan(SPEC, job=JobId(f"job-{number}"))) == ["Consent"]
    one_more = make_plan(SPEC, job=JobId("one-more"))
    with pytest.raises(ConflictError, match=f"{OPEN_ROUNDS_MAX} rounds are open here"):
        daemon.hears(one_more)
    assert daemon.hears(make_plan(SPEC, job=JobId("job-0"), number=2)) == ["Consent"], "it ends the one before it"
    daemon.hears(aborted_of(make_plan(SPEC, job=JobId("job-1"))))
    assert daemon.hears(one_more) == ["Consent"]


def test_jobs_that_a_coordinator_can_make_a_silo_remember_are_limited() -> None:
    daemon = silo()
    assert daemon.hears(make_plan(SPEC, job=JobId("known"))) == ["Consent"]
    daemon.hears(aborted_of(make_plan(SPEC, job=JobId("known"))))
    daemon.journal.jobs_on_record = lambda: JOBS_MAX  # type: ignore[method-assign] # the cheapest way to so many
    with pytest.raises(ConflictError, match=f"{JOBS_MAX} jobs are on record here"):
        daemon.hears(make_plan(SPEC, job=JobId("invented")))
    assert daemon.hears(make_plan(SPEC, job=JobId("known"), number=2)) == ["Consent"], "a job that is on record goes on"


# --- a round that was aborted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("withdrew", [False, True])
def test_a_result_of_a_round_that_was_aborted_is_another_history(*, withdrew: bool) -> None:
    daemon = silo()
    result = finished(daemon)
    if withdrew:
        daemon = silo()
        daemon.hears(daemon.cohort.plan)
        daemon.driver.report(KEY, WorkFailed(DropReason.DISK))
    daemon.hears(aborted_of(daemon.cohort.plan))
    again = daemon.restarted()
    with pytest.raises(ConflictError, match=r"which was said to be aborted.*takes no further part"):
        again.hears(after(result, 2))
    assert again.observer.alarms == ["another_history"]
    assert stopped(again)


def test_a_round_that_was_passed_over_may_have_a_result() -> None:
    daemon = silo()
    daemon.hears(after(None, 1))
    daemon.hears(after(None, 2))
    assert daemon.hears(after(invented(1, 3), 3)) == ["Consent"]
    assert daemon.observer.alarms == []


# --- a restart under another policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.READY, Phase.ADVERTISING, Phase.FIXED])
def test_a_round_that_the_policy_declines_now_does_not_go_on(phase: Phase) -> None:
    daemon = silo()
    if phase in {Phase.TRAINING, Phase.READY}:
        daemon.hears(daemon.cohort.plan)
    if phase is Phase.READY:
        daemon.driver.report(KEY, WorkDone(daemon.cohort.update))
    elif phase is not Phase.TRAINING:
        daemon.to(phase)
    again = daemon.restarted(allowed_jobs=("nothing",))
    assert again.driver.open_rounds == ()
    assert again.work.erased == [KEY]
    assert again.hears(again.cohort.plan) == ["Decline"]
    assert isinstance(again.said[0], Decline)
    assert again.said[0].rule is ConsentRule.JOB_NOT_ALLOWED
    assert again.restarted().hears(again.cohort.plan) == ["Decline"], "the round is over here"


@pytest.mark.parametrize("asked", [False, True])
def test_what_was_sent_before_may_be_counted(*, asked: bool) -> None:
    daemon = silo().to(Phase.FIXED)
    for again in (daemon.restarted(allowed_jobs=("nothing",)), daemon.restarted()):
        if asked:
            assert again.hears(again.cohort.plan) == ["Decline"]
        if again.driver._rounds:
            again.hears(result_of(again.cohort.start(), ALL, top_cells=CELLS))
        history = again.journal.history(JOB)
        assert history is not None
        assert history.verified is None, "its update is gone: the ranges cannot be held against it"


def test_what_was_opened_is_repeated_whatever_the_policy_says_now() -> None:
    daemon = silo().to(Phase.OPENING)
    again = daemon.restarted(allowed_jobs=("nothing",))
    assert isinstance(again.state, Opened)
    assert again.hears(again.cohort.bundle().bundle) == ["unmask_shares"]


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "number", "follows"),
    [
        (Purpose.TRAIN, 1, True),
        (Purpose.TRAIN, 5, True),
        (Purpose.TRAIN, 6, False),
        (Purpose.TRAIN, 100_000, False),
        (Purpose.EVALUATE, 2, False),
        (Purpose.EVALUATE, 3, True),
        (Purpose.EVALUATE, 6, True),
        (Purpose.EVALUATE, 7, False),
    ],
)
def test_the_number_of_a_round_follows_from_the_job(purpose: Purpose, number: int, *, follows: bool) -> None:
    """Two rounds and three that may abort."""
    daemon, plan = Daemon(Cohort()), make_plan(make_masked_spec(), number=number, purpose=purpose)
    if follows:
        assert daemon.hears(plan) == ["Consent"]
        return
    with pytest.raises(ConflictError, match=f"round {number} to {purpose}"):
        daemon.hears(plan)
    assert daemon.driver.open_rounds == ()
