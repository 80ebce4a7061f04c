"""What a silo makes of a plan: whether it follows from the job, what it says of rounds before it, and what its answers
tell a coordinator that writes plans and results of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

from participant.consent import VerifiedResult
from participant.round.driver import OPEN_ROUNDS_MAX
from participant.round.effects import WorkDone
from participant.round.phases import Opened, SpooledUpdate
from shared.errors import ConflictError
from shared.ids import JobId, RoundKey, RoundNumber
from shared.job import JobSpec, jobspec_digest
from shared.protocol.messages import (
    Decline,
    Ready,
    RoundPlan,
    RoundResult,
    Sealed,
    result_digest,
)
from shared.protocol.phases import Phase
from shared.reasons import ConsentRule
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
    assert len(daemon.driver.open_rounds) == 2
    daemon.hears(result_of(start, ALL, top_cells=(CELLS[0] - 1,)))
    assert daemon.observer.alarms == ["range_understated"]
    assert daemon.driver.open_rounds == ()
    assert daemon.work.erased == [KEY, second.value.key]


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
