"""The silo's veto: each rule refuses what it is there for, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from participant.consent import JobHistory, Policy, VerifiedResult, require_consent
from shared.consortium import Consortium, make_manifest
from shared.control import JobControl
from shared.errors import ConsentRefused
from shared.identity import Identity, Role
from shared.ids import Digest, JobId, ParticipantId, TaskName
from shared.job import DEADLINE_MAX_S, JobSpec, MaskingSpec, jobspec_digest
from shared.reasons import ConsentRule
from tests.support.rounds import JOB, STRANGER, TASK, A, B, C, D, key_of, make_plan, make_spec


def consortium_of(*names: str, role: Role = Role.PARTICIPANT) -> Consortium:
    members = {Identity("hearts.example", role, name): key_of(name).verifying_key for name in names}
    made = make_manifest(consortium="hearts.example", members=members, officers=[key_of("officer")])
    return Consortium.parse(made, source="consortium.json")


POLICY = Policy(
    participant=A,
    tasks=frozenset({TASK}),
    minimum_members=3,
    allow_plain=True,
    allowed_jobs=("heart*", "lung"),
    max_deadline_s=3600.0,
    minimum_survivors=3,
    journal_doubtful=False,
)
SPEC = make_spec()

TEN = tuple(ParticipantId(f"hospital-{letter}") for letter in "abcdefghij")  # the default c of ten is 3
STRICT = replace(POLICY, allow_plain=False, consortium=consortium_of(*TEN))


def masked(
    *, members: tuple[ParticipantId, ...] = TEN, colluding: int = 3, survivors: int = 3, **allowed: Any
) -> JobSpec:
    masking = MaskingSpec(max_colluding=colluding, **allowed)
    return make_spec(members=members, masking=masking, quorum=len(members), min_survivors=survivors)


def ask(
    policy: Policy = POLICY,
    *,
    spec: JobSpec = SPEC,
    number: int = 1,
    history: JobHistory | None = None,
    alike: Sequence[JobId] = (),
    **planned: Any,
) -> None:
    require_consent(policy, make_plan(spec, number=number, **planned).value, spec, history, alike=alike)


def refused_by(policy: Policy, **asked: object) -> ConsentRule:
    with pytest.raises(ConsentRefused) as refusal:
        ask(policy, **asked)  # type: ignore[arg-type] # as `ask`
    return refusal.value.rule


def test_what_the_policy_allows_is_consented_to() -> None:
    ask()
    ask(replace(POLICY, minimum_members=4, max_deadline_s=600.0))
    ask(replace(POLICY, allowed_jobs=("*",)))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"participant": STRANGER}, ConsentRule.NOT_A_MEMBER),
        ({"allowed_jobs": ()}, ConsentRule.JOB_NOT_ALLOWED),
        ({"allowed_jobs": ("heart-?",)}, ConsentRule.JOB_NOT_ALLOWED),
        ({"allowed_jobs": ("HEART",)}, ConsentRule.JOB_NOT_ALLOWED),
        ({"approved_jobs": (Digest.of(b"another"),)}, ConsentRule.JOB_NOT_APPROVED),
        ({"tasks": frozenset()}, ConsentRule.TASK_NOT_INSTALLED),
        ({"tasks": frozenset({TaskName("lung")})}, ConsentRule.TASK_NOT_INSTALLED),
        ({"minimum_members": 5}, ConsentRule.COHORT_TOO_SMALL),
        ({"allow_plain": False}, ConsentRule.MASKING_REQUIRED),
        ({"max_deadline_s": 599.0}, ConsentRule.TRAINING_TOO_LONG),
        ({"journal_doubtful": True}, ConsentRule.JOURNAL_DOUBTFUL),
    ],
)
def test_each_rule_of_the_policy(changed: dict[str, object], rule: ConsentRule) -> None:
    assert refused_by(replace(POLICY, **changed)) is rule  # type: ignore[arg-type] # one field of each type


def test_a_job_is_approved_by_what_it_is_and_not_by_its_name() -> None:
    """A coordinator could keep the name, and change anything else: the initial model by a bit, for one."""
    approved = jobspec_digest(SPEC.to_bytes())
    policy = replace(POLICY, approved_jobs=(Digest.of(b"another"), approved))
    ask(policy)
    ask(policy, alike=(JOB,), history=JobHistory(approved, 1), number=2)
    invented = SPEC.model_copy(update={"initial": str(Digest.of(b"the same model, but for a bit"))})
    with pytest.raises(ConsentRefused, match=f"{jobspec_digest(invented.to_bytes())}.*compare") as refusal:
        ask(policy, spec=invented)
    assert refusal.value.rule is ConsentRule.JOB_NOT_APPROVED


def test_what_was_approved_is_one_job() -> None:
    """The same job under a second id would train the same again, from a model that the coordinator chose."""
    policy = replace(POLICY, approved_jobs=(jobspec_digest(SPEC.to_bytes()),))
    with pytest.raises(ConsentRefused, match="heart-0 came with it") as refusal:
        ask(policy, alike=(JobId("heart-0"),))
    assert refusal.value.rule is ConsentRule.JOB_NOT_APPROVED
    ask(alike=(JobId("heart-0"),))  # nothing is approved here, so names are all that is asked


@pytest.mark.parametrize(
    ("control", "deadline_s"),
    [
        (JobControl(1), 600.0),
        (JobControl(2, deadline_s=60.0), 60.0),
        (JobControl(3, quorum=3), 600.0),
        (JobControl(4, deadline_s=3600.0, quorum=4), 3600.0),
    ],
)
def test_what_an_operator_may_change_is_consented_to(control: JobControl, deadline_s: float) -> None:
    ask(control=control, deadline_s=deadline_s)


@pytest.mark.parametrize(
    ("control", "deadline_s", "message"),
    [
        (JobControl(1, quorum=1), 600.0, r"expected 2 \(the job's floor\) to 4 \(its members\), got 1"),
        (JobControl(1, quorum=5), 600.0, r"to 4 \(its members\), got 5"),
        (JobControl(1, quorum=0), 600.0, "got 0"),
        (JobControl(1, deadline_s=DEADLINE_MAX_S + 1), DEADLINE_MAX_S + 1, "deadline_s: expected seconds above 0"),
        (JobControl(1, deadline_s=60.0), 600.0, "the plan gives 600 s to train, the job and its control 60 s"),
        (JobControl(), 60.0, "the plan gives 60 s to train, the job and its control 600 s"),
    ],
)
def test_a_control_that_the_job_does_not_allow_is_declined(
    control: JobControl, deadline_s: float, message: str
) -> None:
    with pytest.raises(ConsentRefused, match=message) as refusal:
        ask(replace(POLICY, max_deadline_s=1e9), control=control, deadline_s=deadline_s)
    assert refusal.value.rule is ConsentRule.CONTROL_OUT_OF_BOUNDS


def test_the_floor_of_a_masked_job_is_no_less_than_its_threshold_whatever_the_control() -> None:
    spec = masked()  # ten members of which three may collude: seven must help
    assert spec.floor == 7
    ask(STRICT, spec=spec, control=JobControl(1, quorum=7))
    assert refused_by(STRICT, spec=spec, control=JobControl(1, quorum=6)) is ConsentRule.CONTROL_OUT_OF_BOUNDS


def test_the_longest_time_that_a_silo_allows_holds_against_the_deadline_of_the_plan() -> None:
    policy = replace(POLICY, max_deadline_s=599.0)
    ask(policy, control=JobControl(1, deadline_s=599.0), deadline_s=599.0)
    control = JobControl(1, deadline_s=601.0)
    policy = replace(POLICY, max_deadline_s=600.0)
    assert refused_by(policy, control=control, deadline_s=601.0) is ConsentRule.TRAINING_TOO_LONG


def test_a_job_that_comes_back_with_another_specification_is_refused() -> None:
    before = JobHistory(jobspec_digest(make_spec(rounds=9).to_bytes()), 0)
    assert refused_by(POLICY, history=before) is ConsentRule.JOBSPEC_CHANGED


def test_a_round_is_played_once() -> None:
    history = JobHistory(jobspec_digest(SPEC.to_bytes()), 2)
    assert refused_by(POLICY, history=history, number=1) is ConsentRule.ROUND_REPLAYED
    assert refused_by(POLICY, history=history, number=2) is ConsentRule.ROUND_REPLAYED
    ask(history=history, number=3)


def test_a_plain_job_is_asked_nothing_about_masking() -> None:
    ask(replace(POLICY, minimum_survivors=99, minimum_colluding=99, consortium=None))


def test_a_masked_job_among_members_of_the_consortium_is_consented_to() -> None:
    ask(STRICT, spec=masked())
    ask(STRICT, spec=masked(colluding=4))
    ask(STRICT, spec=masked(members=(A, B, C), colluding=1))
    ask(replace(STRICT, minimum_colluding=4), spec=masked(colluding=4))


@pytest.mark.parametrize(
    "consortium",
    [
        None,
        consortium_of(*TEN[:-1]),
        consortium_of(*TEN, role=Role.COORDINATOR),
    ],
)
def test_every_member_is_a_participant_of_the_pinned_consortium(consortium: Consortium | None) -> None:
    assert refused_by(replace(STRICT, consortium=consortium), spec=masked()) is ConsentRule.NOT_IN_CONSORTIUM


def test_two_members_need_the_silos_own_word() -> None:
    pair = masked(members=(A, B), colluding=0, survivors=2, allow_two_party=True)
    lenient = replace(STRICT, minimum_members=2, minimum_survivors=2)
    assert refused_by(STRICT, spec=pair) is ConsentRule.COHORT_TOO_SMALL
    assert refused_by(lenient, spec=pair) is ConsentRule.TWO_PARTY
    assert refused_by(replace(lenient, allow_no_collusion=True), spec=pair) is ConsentRule.TWO_PARTY
    ask(replace(lenient, allow_two_party=True), spec=pair)
    ask(replace(lenient, allow_two_party=True, minimum_colluding=0), spec=pair)
    asked = replace(lenient, allow_two_party=True, minimum_colluding=1)
    assert refused_by(asked, spec=pair) is ConsentRule.COLLUSION_TOO_LOW
    still = replace(lenient, allow_two_party=True, minimum_survivors=3)
    assert refused_by(still, spec=pair) is ConsentRule.SURVIVORS_TOO_FEW


def test_a_job_that_withstands_no_collusion_needs_the_silos_own_word() -> None:
    trusting = masked(colluding=0, allow_no_collusion=True)
    assert refused_by(STRICT, spec=trusting) is ConsentRule.NO_COLLUSION
    assert refused_by(replace(STRICT, allow_two_party=True), spec=trusting) is ConsentRule.NO_COLLUSION
    assert refused_by(replace(STRICT, minimum_colluding=0), spec=trusting) is ConsentRule.NO_COLLUSION
    ask(replace(STRICT, allow_no_collusion=True), spec=trusting)
    ask(replace(STRICT, allow_no_collusion=True, minimum_colluding=0), spec=trusting)


@pytest.mark.parametrize("least", [1, 2])
def test_a_number_that_the_silo_wrote_holds_for_no_collusion_too(least: int) -> None:
    """`allow_no_collusion` takes the place of "auto", and of no number."""
    policy = replace(STRICT, allow_no_collusion=True, minimum_colluding=least)
    assert refused_by(policy, spec=masked(colluding=0, allow_no_collusion=True)) is ConsentRule.COLLUSION_TOO_LOW


@pytest.mark.parametrize(("asked", "colluding"), [(None, 2), (4, 3), (2, 1)])
def test_a_job_that_withstands_less_collusion_than_the_silo_expects(asked: int | None, colluding: int) -> None:
    policy = replace(STRICT, minimum_colluding=asked, allow_no_collusion=True, allow_two_party=True)
    assert refused_by(policy, spec=masked(colluding=colluding)) is ConsentRule.COLLUSION_TOO_LOW
    ask(policy, spec=masked(colluding=colluding + 1))


def test_how_many_updates_a_total_hides_among() -> None:
    four = masked(members=(A, B, C, D), colluding=1)  # threshold 3
    policy = replace(STRICT, minimum_survivors=4)
    assert refused_by(policy, spec=four) is ConsentRule.SURVIVORS_TOO_FEW
    ask(policy, spec=masked(members=(A, B, C, D), colluding=1, survivors=4))
    ask(replace(STRICT, minimum_survivors=7), spec=masked())  # threshold 7 of ten, whatever the job's own floor
    assert refused_by(replace(STRICT, minimum_survivors=8), spec=masked()) is ConsentRule.SURVIVORS_TOO_FEW


def test_a_job_that_this_silo_stopped_stays_stopped() -> None:
    result = VerifiedResult(2, Digest.of(b"result"))
    history = JobHistory(jobspec_digest(SPEC.to_bytes()), 2, verified=result)
    ask(history=history, number=3)
    stopped = replace(history, stopped="round 2 came with another result")
    assert refused_by(POLICY, history=stopped, number=3) is ConsentRule.JOB_STOPPED
    with pytest.raises(ConsentRefused, match="stopped job heart-1 for itself: round 2 came with another result"):
        ask(history=stopped, number=3)


def test_the_first_rule_that_says_no_is_named() -> None:
    """Each policy has one thing wrong less than the one before."""
    pair = masked(members=(A, B), colluding=0, survivors=2, allow_two_party=True)
    other = JobHistory(Digest.of(b"another"), 7, stopped="for a reason")
    policy = replace(
        POLICY,
        participant=STRANGER,
        journal_doubtful=True,
        allowed_jobs=(),
        approved_jobs=(Digest.of(b"another"),),
        tasks=frozenset(),
        minimum_survivors=3,
        max_deadline_s=1.0,
    )
    mended: list[tuple[dict[str, object], ConsentRule]] = [
        ({}, ConsentRule.NOT_A_MEMBER),
        ({"participant": A}, ConsentRule.JOURNAL_DOUBTFUL),
        ({"journal_doubtful": False}, ConsentRule.JOB_NOT_ALLOWED),
        ({"allowed_jobs": ("*",)}, ConsentRule.JOB_NOT_APPROVED),
        ({"approved_jobs": (jobspec_digest(pair.to_bytes()),)}, ConsentRule.TASK_NOT_INSTALLED),
        ({"tasks": frozenset({TASK})}, ConsentRule.COHORT_TOO_SMALL),
        ({"minimum_members": 2}, ConsentRule.NOT_IN_CONSORTIUM),
        ({"consortium": STRICT.consortium}, ConsentRule.TWO_PARTY),
        ({"allow_two_party": True}, ConsentRule.SURVIVORS_TOO_FEW),
        ({"minimum_survivors": 2}, ConsentRule.TRAINING_TOO_LONG),
        ({"max_deadline_s": 3600.0}, ConsentRule.JOB_STOPPED),
    ]
    for mending, rule in mended:
        policy = replace(policy, **mending)  # type: ignore[arg-type] # one field of each type
        assert refused_by(policy, spec=pair, history=other) is rule
    other = replace(other, stopped="")
    assert refused_by(policy, spec=pair, history=other) is ConsentRule.JOBSPEC_CHANGED
    other = replace(other, jobspec=jobspec_digest(pair.to_bytes()))
    assert refused_by(policy, spec=pair, history=other) is ConsentRule.ROUND_REPLAYED


def test_every_rule_is_asked_for_here() -> None:
    """A rule without a test would not be noticed when it is lost."""
    text = Path(__file__).read_text()
    assert [rule.name for rule in ConsentRule if f"ConsentRule.{rule.name}" not in text] == []


def test_a_refusal_names_a_few_of_the_unknown_members_and_counts_the_rest() -> None:
    alone = replace(STRICT, consortium=consortium_of(A))
    with pytest.raises(ConsentRefused, match="hospital-b, hospital-c, hospital-d and 6 more: no participants of"):
        ask(alone, spec=masked())
    with pytest.raises(ConsentRefused, match="hospital-b, hospital-c: no participants of"):
        ask(alone, spec=masked(members=(A, B, C), colluding=1))
    with pytest.raises(ConsentRefused, match="pins no manifest"):
        ask(replace(STRICT, consortium=None), spec=masked())


def test_the_refusal_says_what_is_set_and_what_was_asked() -> None:
    with pytest.raises(ConsentRefused, match=r"4 members, policy\.minimum_members is 5"):
        ask(replace(POLICY, minimum_members=5))
    small = make_spec(members=(A, B), quorum=2)
    with pytest.raises(ConsentRefused, match=r"2 members, policy\.minimum_members is 3"):
        ask(spec=small)
