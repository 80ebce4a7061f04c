"""The silo's veto: asked before any data is read, answered by the silo's own policy and records (pure).

A coordinator cannot talk a silo into anything here: the rules look only at the job as signed into the plan, at
participant.toml, and at what this silo journaled itself.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from shared.errors import ConsentRefused
from shared.ids import Digest, ParticipantId, RoundNumber, TaskName
from shared.job import JobSpec, jobspec_digest
from shared.protocol.messages import RoundPlan
from shared.reasons import ConsentRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """[policy] of participant.toml, and which tasks are installed."""

    participant: ParticipantId
    tasks: AbstractSet[TaskName]
    minimum_members: int
    allow_plain: bool
    allowed_jobs: tuple[str, ...]
    max_deadline_s: float


@dataclass(frozen=True, slots=True)
class JobHistory:
    """What this silo has on record of a job."""

    jobspec: Digest
    finished_round: int
    """The highest round that is over here; 0 before the first."""


def require_consent(policy: Policy, plan: RoundPlan, spec: JobSpec, history: JobHistory | None) -> None:
    """Raises ConsentRefused with the first rule that says no."""
    members = len(spec.members)
    if policy.participant not in spec.members:
        raise _no(ConsentRule.NOT_A_MEMBER, f"job {plan.key.job} has no member {policy.participant}")
    if not any(fnmatch.fnmatchcase(spec.name, pattern) for pattern in policy.allowed_jobs):
        raise _no(ConsentRule.JOB_NOT_ALLOWED, f"policy.allowed_jobs is {list(policy.allowed_jobs)}, not {spec.name!r}")
    if spec.task not in policy.tasks:
        raise _no(ConsentRule.TASK_NOT_INSTALLED, f"task {spec.task!r} is not under [tasks] in participant.toml")
    if members < policy.minimum_members:
        raise _no(
            ConsentRule.COHORT_TOO_SMALL, f"{members} members, policy.minimum_members is {policy.minimum_members}"
        )
    if not policy.allow_plain:  # plain is the only mode that a job of this version can have
        raise _no(ConsentRule.MASKING_REQUIRED, "the job is plain, and policy.allow_plain is false")
    if plan.deadline_s > policy.max_deadline_s:
        too_long = f"{plan.deadline_s:g} s to train, policy.max_deadline_s is {policy.max_deadline_s:g}"
        raise _no(ConsentRule.TRAINING_TOO_LONG, too_long)
    if history is not None:
        _require_same_job(plan, history)


def _require_same_job(plan: RoundPlan, history: JobHistory) -> None:
    if history.jobspec != jobspec_digest(plan.jobspec):
        raise _no(ConsentRule.JOBSPEC_CHANGED, f"job {plan.key.job} came before with another specification")
    if plan.key.number <= history.finished_round:
        over = RoundNumber(history.finished_round)
        raise _no(ConsentRule.ROUND_REPLAYED, f"round {plan.key.number} is planned, but round {over} is over here")


def _no(rule: ConsentRule, message: str) -> ConsentRefused:
    return ConsentRefused(rule, message)
