"""The silo's veto: each rule refuses what it is there for, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from participant.consent import JobHistory, Policy, require_consent
from shared.errors import ConsentRefused
from shared.ids import Digest, TaskName
from shared.job import JobSpec, jobspec_digest
from shared.reasons import ConsentRule
from tests.support.rounds import STRANGER, TASK, A, B, make_plan, make_spec

POLICY = Policy(
    participant=A,
    tasks=frozenset({TASK}),
    minimum_members=3,
    allow_plain=True,
    allowed_jobs=("heart*", "lung"),
    max_deadline_s=3600.0,
)
SPEC = make_spec()


def ask(policy: Policy = POLICY, *, spec: JobSpec = SPEC, number: int = 1, history: JobHistory | None = None) -> None:
    require_consent(policy, make_plan(spec, number=number).value, spec, history)


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
        ({"tasks": frozenset()}, ConsentRule.TASK_NOT_INSTALLED),
        ({"tasks": frozenset({TaskName("lung")})}, ConsentRule.TASK_NOT_INSTALLED),
        ({"minimum_members": 5}, ConsentRule.COHORT_TOO_SMALL),
        ({"allow_plain": False}, ConsentRule.MASKING_REQUIRED),
        ({"max_deadline_s": 599.0}, ConsentRule.TRAINING_TOO_LONG),
    ],
)
def test_each_rule_of_the_policy(changed: dict[str, object], rule: ConsentRule) -> None:
    assert refused_by(replace(POLICY, **changed)) is rule  # type: ignore[arg-type] # one field of each type


def test_a_job_that_comes_back_with_another_specification_is_refused() -> None:
    before = JobHistory(jobspec_digest(make_spec(rounds=9).to_bytes()), 0)
    assert refused_by(POLICY, history=before) is ConsentRule.JOBSPEC_CHANGED


def test_a_round_is_played_once() -> None:
    history = JobHistory(jobspec_digest(SPEC.to_bytes()), 2)
    assert refused_by(POLICY, history=history, number=1) is ConsentRule.ROUND_REPLAYED
    assert refused_by(POLICY, history=history, number=2) is ConsentRule.ROUND_REPLAYED
    ask(history=history, number=3)


def test_the_first_rule_that_says_no_is_named() -> None:
    other = JobHistory(Digest.of(b"another"), 7)
    rules = [
        refused_by(replace(POLICY, participant=STRANGER, tasks=frozenset()), history=other),
        refused_by(replace(POLICY, tasks=frozenset(), minimum_members=9), history=other),
        refused_by(POLICY, history=other),
    ]
    assert rules == [ConsentRule.NOT_A_MEMBER, ConsentRule.TASK_NOT_INSTALLED, ConsentRule.JOBSPEC_CHANGED]


def test_the_refusal_says_what_is_set_and_what_was_asked() -> None:
    with pytest.raises(ConsentRefused, match=r"4 members, policy\.minimum_members is 5"):
        ask(replace(POLICY, minimum_members=5))
    small = make_spec(members=(A, B), quorum=2)
    with pytest.raises(ConsentRefused, match=r"2 members, policy\.minimum_members is 3"):
        ask(spec=small)
