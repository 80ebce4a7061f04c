"""All rounds of a participant: what it repeats, what it ends, and whom it believes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from participant.consent import Policy
from participant.round.driver import Driver
from participant.round.effects import WorkDone, WorkFailed
from participant.round.phases import Offer, Protection, RoundState, SpooledUpdate
from participant.round.surroundings import Surroundings
from shared.control import JobControl
from shared.entropy import SeededEntropy
from shared.errors import ConflictError, IdentityError, PhaseError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.protocol.messages import AttemptStart, Decline, RoundPlan, RoundReply, Sealed, Withdraw
from shared.reasons import ConsentRule, DropReason
from shared.wire.sealed import encode_envelope
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import (
    COORDINATOR_KEY,
    KEY,
    TASK,
    A,
    B,
    aborted_of,
    key_of,
    list_of,
    make_plan,
    make_spec,
    result_of,
    spooled,
    start_of,
)

SPEC = make_spec()
PLAN = make_plan(SPEC)
SECOND = make_plan(SPEC, number=2)
VERIFIER = COORDINATOR_KEY.verifying_key


class RecordingWork:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, RoundKey]] = []

    def start_work(self, offer: Offer) -> None:
        self.asked.append(("work", offer.key))

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        self.asked.append(("upload", offer.key))

    def stop(self, offer: Offer) -> None:
        self.asked.append(("stop", offer.key))

    def keep_state(self, offer: Offer) -> bool:
        return True

    def erase(self, offer: Offer) -> None:
        self.asked.append(("erase", offer.key))


class Unobserved:
    def __init__(self) -> None:
        self.alarms: list[str] = []

    def moved(self, state: RoundState) -> None: ...

    def alarmed(self, what: str) -> None:
        self.alarms.append(what)


class Daemon:
    """A driver over a journal, with what it said."""

    def __init__(self, journal: MemoryJournal | None = None, *, minimum_members: int = 1) -> None:
        self.journal = journal or MemoryJournal()
        self.work = RecordingWork()
        self.observer = Unobserved()
        self.said: list[RoundReply] = []
        policy = Policy(
            participant=A,
            tasks=frozenset({TASK}),
            minimum_members=minimum_members,
            allow_plain=True,
            allowed_jobs=("*",),
            max_deadline_s=3600.0,
            minimum_survivors=2,
            journal_doubtful=False,
        )
        around = Surroundings(
            policy=policy,
            journal=self.journal,
            work=self.work,
            observer=self.observer,
            own_key=key_of(A).verifying_key,
            signer=key_of(A),
            entropy=SeededEntropy(b"silo a"),
        )
        self.driver = Driver(around=around)
        self.driver.start()
        self.driver.connected(self.said.append)

    def hears(self, *messages: Sealed[object]) -> list[str]:
        self.said.clear()
        for message in messages:
            self.driver.received(message, VERIFIER)  # type: ignore[arg-type] # one of the sealed messages
        return [type(message).__name__ for message in self.said]

    def restarted(self) -> Daemon:
        return Daemon(self.journal.crash())


def test_a_withdrawal_is_said_again_when_the_plan_is() -> None:
    daemon = Daemon()
    daemon.hears(PLAN)
    daemon.driver.report(KEY, WorkFailed(DropReason.TASK_CRASHED))
    assert daemon.hears(PLAN) == ["Withdraw"]
    assert isinstance(daemon.said[0], Withdraw)
    assert daemon.said[0].reason is DropReason.TASK_CRASHED


def test_after_a_restart_a_round_that_was_left_is_declined_and_not_played_twice() -> None:
    daemon = Daemon()
    daemon.hears(PLAN)
    daemon.driver.report(KEY, WorkFailed(DropReason.TASK_CRASHED))
    assert daemon.restarted().hears(PLAN) == ["Decline"]


def test_a_silo_that_declined_looks_again_when_it_is_asked_again() -> None:
    strict = Daemon(minimum_members=9)
    assert strict.hears(PLAN, PLAN) == ["Decline", "Decline"]
    assert all(isinstance(said, Decline) for said in strict.said)
    assert strict.restarted().hears(PLAN) == ["Consent"]


@pytest.mark.parametrize(
    "plan",
    [
        make_plan(SPEC, deadline_s=1.0),
        make_plan(SPEC, control=JobControl(1, quorum=1)),
        make_plan(SPEC, control=JobControl(1, deadline_s=1.0)),
    ],
    ids=["another deadline", "a quorum below the floor", "a control that the deadline does not follow"],
)
def test_a_plan_beyond_what_an_operator_may_change_is_declined_and_nothing_is_trained(plan: Sealed[RoundPlan]) -> None:
    daemon = Daemon()
    assert daemon.hears(plan) == ["Decline"]
    assert isinstance(daemon.said[0], Decline)
    assert daemon.said[0].rule is ConsentRule.CONTROL_OUT_OF_BOUNDS
    assert daemon.work.asked == []
    assert daemon.hears(make_plan(SPEC, control=JobControl(2, 30.0, 3), deadline_s=30.0)) == ["Consent"]


def test_what_was_left_is_forgotten_with_the_next_round_of_the_job() -> None:
    daemon = Daemon()
    daemon.hears(PLAN)
    daemon.driver.report(KEY, WorkFailed(DropReason.DISK))
    daemon.hears(SECOND)
    assert list(daemon.driver._rounds) == [SECOND.value.key]


def test_the_same_round_with_another_plan_is_a_conflict() -> None:
    daemon = Daemon()
    daemon.hears(PLAN)
    with pytest.raises(ConflictError, match="planned before with other content"):
        daemon.hears(make_plan(make_spec(rounds=7)))


def test_the_next_plan_proves_how_the_last_round_ended() -> None:
    daemon = Daemon()
    start = start_of(PLAN, SPEC)
    daemon.hears(PLAN)
    daemon.driver.report(KEY, WorkDone(spooled()))
    daemon.hears(start)
    carried = encode_envelope(result_of(start, [1, 2]).envelope)
    daemon.hears(make_plan(SPEC, number=2, previous_result=carried, model=Digest.of(b"next model")))
    assert daemon.journal.state_round(KEY.job) == 1
    assert ("erase", KEY) in daemon.work.asked
    assert daemon.driver.open_rounds == (SECOND.value.key,)


def test_a_result_that_the_coordinator_did_not_sign_proves_nothing() -> None:
    daemon = Daemon()
    daemon.hears(PLAN)
    forged = encode_envelope(make_plan(SPEC, signer=key_of("mallory")).envelope)
    with pytest.raises(IdentityError):
        daemon.hears(make_plan(SPEC, number=2, previous_result=forged))
    assert daemon.driver.open_rounds == (KEY,)


def carried_by(job: str = KEY.job, number: int = 1) -> bytes:
    """A result that a plan may carry, signed by the coordinator; it leads to `next model`."""
    of = RoundKey(JobId(job), RoundNumber(number))
    return encode_envelope(result_of(start_of(PLAN, SPEC), [1, 2], key=of).envelope)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (make_plan(SPEC, model=Digest.of(b"another")), "without a result that says so"),
        (make_plan(SPEC, number=2, previous_result=carried_by()), "the last result led to"),
        (make_plan(SPEC, number=2, previous_result=carried_by("other-1")), "not before it"),
        (make_plan(SPEC, number=2, previous_result=carried_by(number=2)), "not before it"),
    ],
)
def test_a_plan_that_does_not_follow_from_the_job_is_refused(plan: Sealed[RoundPlan], message: str) -> None:
    daemon = Daemon()
    with pytest.raises(ConflictError, match=message):
        daemon.hears(plan)
    assert daemon.driver.open_rounds == ()
    assert daemon.work.asked == []


def test_what_stands_under_this_silos_number_must_be_signed_by_it() -> None:
    daemon = Daemon()
    start = start_of(PLAN, SPEC)
    daemon.hears(PLAN)
    daemon.driver.report(KEY, WorkDone(spooled()))
    daemon.hears(start)
    honest = list_of(start, A, B)
    forged = replace(honest.commits[1], signer=1)
    with pytest.raises(IdentityError):
        daemon.driver.received(replace(honest, commits=(forged, honest.commits[1])), VERIFIER)
    daemon.driver.received(honest, VERIFIER)


def test_a_round_that_nobody_said_the_end_of_is_passed_over() -> None:
    daemon = Daemon()
    daemon.hears(PLAN, SECOND)
    assert daemon.driver.open_rounds == (SECOND.value.key,)
    assert daemon.journal.state_round(KEY.job) is None


def test_a_word_about_a_round_that_is_not_open_here_is_refused() -> None:
    daemon = Daemon()
    with pytest.raises(PhaseError, match="not open here"):
        daemon.hears(aborted_of(PLAN))
    daemon.driver.report(KEY, WorkFailed(DropReason.DISK))
    assert daemon.work.asked == []


def test_without_a_session_nothing_is_said_and_nothing_is_lost() -> None:
    daemon = Daemon()
    daemon.driver.disconnected()
    daemon.hears(PLAN)
    assert daemon.said == []
    daemon.driver.connected(daemon.said.append)
    assert daemon.hears(PLAN) == ["Consent"]
