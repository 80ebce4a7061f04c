"""The silo's veto: asked before any data is read, answered by the silo's own policy and records (pure).

A coordinator cannot talk a silo into anything here: the rules look only at the job as signed into the plan, at
participant.toml, at the consortium's manifest as pinned there, and at what this silo journaled itself. A job's name is
the coordinator's word like all else in it; a silo that wrote down which specifications it approved (`approved_jobs`)
takes part in these, and in what a coordinator invents under the same name it does not.

A masked job hides an update among those of members who do not pool what they know with the coordinator. So the rules
for one ask who the members are (the pinned manifest, or the coordinator could bring its own), how many of them the job
assumes to collude, and over how many at least a total is opened. All three come from the members of the job, never from
who happens to be there.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from shared.consortium import Consortium
from shared.errors import ConsentRefused
from shared.ids import Digest, JobId, ParticipantId, RoundNumber, TaskName
from shared.job import TWO_PARTY, JobSpec, jobspec_digest
from shared.protocol.messages import RoundPlan
from shared.reasons import ConsentRule
from shared.secagg.threshold import default_max_colluding

MISSING_SHOWN = 3  # members that a refusal names; the rest are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """[policy] of participant.toml, which tasks are installed, and what this silo found when it started.

    What is left out declines: a silo gets what it asked for, or less.
    """

    participant: ParticipantId
    tasks: AbstractSet[TaskName]
    minimum_members: int
    allow_plain: bool
    allowed_jobs: tuple[str, ...]
    max_deadline_s: float
    minimum_survivors: int
    journal_doubtful: bool
    """The journal is empty or was restored, although the signing key was in use, and no person has confirmed it."""
    minimum_colluding: int | None = None
    """The least `masking.max_colluding` that is accepted; None: what is the default for the job's members."""
    allow_two_party: bool = False
    allow_no_collusion: bool = False
    approved_jobs: tuple[Digest, ...] = ()
    """Digests of the specifications that are accepted; none: names are all that is asked."""
    allowed_repeats: tuple[JobId, ...] = ()
    """Jobs that may open another total on a model on which this silo helped to open one; the machine asks for them."""
    consortium: Consortium | None = None
    """The manifest that this silo pinned; None when it pinned none."""


@dataclass(frozen=True, slots=True)
class VerifiedResult:
    """The result of a round, as this silo verified it."""

    number: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class JobHistory:
    """What this silo has on record of a job."""

    jobspec: Digest
    finished_round: int
    """The highest round that is over here; 0 before the first."""
    stopped: str = ""
    """Why this silo stopped the job for itself; empty while it takes part."""
    verified: VerifiedResult | None = None
    """The last result that this silo verified."""
    misses: int = 0
    """How many updates of this silo were beyond their round's range."""


def require_consent(
    policy: Policy, plan: RoundPlan, spec: JobSpec, history: JobHistory | None, *, alike: Sequence[JobId]
) -> None:
    """Raises ConsentRefused with the first rule that says no. `alike`: the jobs on record with this specification."""
    _require_own_terms(policy, plan, spec, alike)
    if spec.masking.masked:
        _require_known_members(policy, spec)
        _require_sound_masking(policy, spec)
    _require_allowed_control(plan, spec)
    if plan.deadline_s > policy.max_deadline_s:
        too_long = f"{plan.deadline_s:g} s to train, policy.max_deadline_s is {policy.max_deadline_s:g}"
        raise _no(ConsentRule.TRAINING_TOO_LONG, too_long)
    if history is not None:
        _require_same_job(plan, history)


def _require_own_terms(policy: Policy, plan: RoundPlan, spec: JobSpec, alike: Sequence[JobId]) -> None:
    """What a silo asks of any job."""
    members = len(spec.members)
    if policy.participant not in spec.members:
        raise _no(ConsentRule.NOT_A_MEMBER, f"job {plan.key.job} has no member {policy.participant}")
    if policy.journal_doubtful:
        raise _no(
            ConsentRule.JOURNAL_DOUBTFUL,
            "an empty or restored journal beside a signing key that was used: a person at the silo must confirm it",
        )
    if not any(fnmatch.fnmatchcase(spec.name, pattern) for pattern in policy.allowed_jobs):
        raise _no(ConsentRule.JOB_NOT_ALLOWED, f"policy.allowed_jobs is {list(policy.allowed_jobs)}, not {spec.name!r}")
    _require_approved(policy, plan, alike)
    if spec.task not in policy.tasks:
        raise _no(ConsentRule.TASK_NOT_INSTALLED, f"task {spec.task!r} is not under [tasks] in participant.toml")
    if members < policy.minimum_members:
        raise _no(
            ConsentRule.COHORT_TOO_SMALL, f"{members} members, policy.minimum_members is {policy.minimum_members}"
        )
    if not spec.masking.masked and not policy.allow_plain:
        raise _no(ConsentRule.MASKING_REQUIRED, "the job is plain, and policy.allow_plain is false")


def _require_approved(policy: Policy, plan: RoundPlan, alike: Sequence[JobId]) -> None:
    """What was approved is one job: under a second id, the coordinator could have the same trained again from a model
    of its choice, over other members, and subtract.
    """
    if not policy.approved_jobs:
        return
    came = jobspec_digest(plan.jobspec)
    if came not in policy.approved_jobs:
        raise _no(
            ConsentRule.JOB_NOT_APPROVED,
            f"the job's specification is {came}, which policy.approved_jobs does not have: compare it with the data "
            "scientist by telephone (`consilo job digest`) before you add it",
        )
    others = [job for job in alike if job != plan.key.job]
    if others:
        raise _no(
            ConsentRule.JOB_NOT_APPROVED,
            f"specification {came} was approved for one job, and {others[0]} came with it: to run it again, the data "
            "scientist changes its name or seed, and has the new one approved",
        )


def _require_known_members(policy: Policy, spec: JobSpec) -> None:
    """Every member is one of the consortium's: a coordinator could be the others itself."""
    if policy.consortium is None:
        raise _no(
            ConsentRule.NOT_IN_CONSORTIUM,
            "the job is masked, and participant.toml pins no manifest under [consortium] that says who its members are",
        )
    missing = [member for member in spec.members if policy.consortium.participant_key(member) is None]
    if missing:
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        raise _no(
            ConsentRule.NOT_IN_CONSORTIUM,
            f"{', '.join(missing[:MISSING_SHOWN])}{more}: no participants of the consortium's manifest "
            f"{policy.consortium.digest} that this silo pinned",
        )


def _require_sound_masking(policy: Policy, spec: JobSpec) -> None:
    """A job may be valid and still protect less than this silo asks for."""
    members, colluding = len(spec.members), spec.masking.max_colluding
    if members <= TWO_PARTY:
        if not policy.allow_two_party:
            raise _no(
                ConsentRule.TWO_PARTY,
                "of 2 members each learns the other's update from the total, and policy.allow_two_party is false",
            )
    elif colluding == 0 and not policy.allow_no_collusion:
        raise _no(ConsentRule.NO_COLLUSION, "masking.max_colluding is 0, and policy.allow_no_collusion is false")
    _require_enough_colluding(policy, members=members, colluding=colluding)
    if spec.floor < policy.minimum_survivors:
        raise _no(
            ConsentRule.SURVIVORS_TOO_FEW,
            f"a total may be over {spec.floor} members, policy.minimum_survivors is {policy.minimum_survivors}",
        )


def _require_enough_colluding(policy: Policy, *, members: int, colluding: int) -> None:
    """A job without collusion was allowed in so many words: that takes the place of "auto", and of no number."""
    expected, why = policy.minimum_colluding, "policy.minimum_colluding"
    if expected is None:
        if colluding == 0:
            return
        expected, why = default_max_colluding(members), f"the default for {members} members"
    if colluding < expected:
        raise _no(ConsentRule.COLLUSION_TOO_LOW, f"masking.max_colluding is {colluding}, {why} is {expected}")


def _require_allowed_control(plan: RoundPlan, spec: JobSpec) -> None:
    """An operator may change some of a job while it runs, within what the job allows; the plan follows from that."""
    if complaint := plan.control.complaint(spec):
        raise _no(ConsentRule.CONTROL_OUT_OF_BOUNDS, f"revision {plan.control.revision} of its control: {complaint}")
    expected = plan.control.deadline_of(spec)
    if plan.deadline_s != expected:
        raise _no(
            ConsentRule.CONTROL_OUT_OF_BOUNDS,
            f"the plan gives {plan.deadline_s:g} s to train, the job and its control {expected:g} s",
        )


def _require_same_job(plan: RoundPlan, history: JobHistory) -> None:
    if history.stopped:
        raise _no(ConsentRule.JOB_STOPPED, f"this silo stopped job {plan.key.job} for itself: {history.stopped}")
    if history.jobspec != jobspec_digest(plan.jobspec):
        raise _no(ConsentRule.JOBSPEC_CHANGED, f"job {plan.key.job} came before with another specification")
    if plan.key.number <= history.finished_round:
        over = RoundNumber(history.finished_round)
        raise _no(ConsentRule.ROUND_REPLAYED, f"round {plan.key.number} is planned, but round {over} is over here")


def _no(rule: ConsentRule, message: str) -> ConsentRefused:
    return ConsentRefused(rule, message)
