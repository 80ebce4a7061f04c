"""The record of how a round ended: its one commit point, with the audit entry and the summary that people read.

In a masked round everything here is a total, but for one bit: that some member said that its update does not fit the
encoding (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coordinator.aggregation.fold import Totals
from coordinator.checkpoints import describe_version
from coordinator.round.effects import Abort, Commit, Protection
from coordinator.round.frame import RoundFrame
from coordinator.round.phases import Lefts, Rules
from coordinator.round.surroundings import Surroundings
from coordinator.scheduler import EndJob, FinishedRound, next_step
from coordinator.storage.interface import COMMITTED, ModelRecord, RoundAbort, RoundCommit
from shared.ids import ParticipantId
from shared.job import canonical_json
from shared.reasons import JobState, Purpose
from shared.wire.sealed import encode_envelope

LEFT = "left"  # in a round's summary, where somebody left the last attempt: the check that each of them named
RULES = "rules"  # in that of a round which somebody declined: by which rule of its policy; in no audit entry
CONTROL = "control"  # in a round's summary, where it was planned under a control: its revision
RANGE_MISS = "range_miss"  # in a round's summary
OPENED = "opened"  # in that of a round without a result: whose total may have been opened
SHARES = frozenset({"shares_fixed", "shares_revealed"})
"""Kinds of entries of the journal that end with their round, so that whoever gets hold of the disk later finds no share
of anybody's, neither sealed nor opened.
"""
Earlier = tuple[FinishedRound, ...]


def record_commit(
    effect: Commit, *, frame: RoundFrame, earlier: Earlier, around: Surroundings, durations: Mapping[str, object]
) -> None:
    """The result, the new version, the job's state and the audit entry become true together."""
    result = effect.result.value
    after = FinishedRound(result.key.number, result.purpose, None, result.next_model)
    job_state = _job_after(frame, earlier, after).state
    survivors = [frame.spec.members[index - 1] for index in result.survivors]
    facts = {
        "survivors": survivors,
        "dropped": dict(effect.dropped),
        **_who_left(effect.left),
        "weight_total": result.weight_total,
        "metrics": Totals(effect.totals).means(),
        "model": str(frame.plan.value.model),
        "next_model": str(result.next_model),
        **_told_of(effect.protection),
        **_controlled(frame),
    }
    summary = {**facts, **_by_which_rules(effect.rules), **durations}
    entry = around.audit.entry("round_committed", {**_names(frame), **facts, "job_state": job_state})
    stored = around.store.commit_round(
        RoundCommit(
            key=result.key,
            summary=canonical_json(summary),
            result=encode_envelope(effect.result.envelope),
            model=_version(frame, effect, survivors) if result.purpose is Purpose.TRAIN else None,
            job_state=job_state,
            audit=entry,
            forgotten=SHARES,
        )
    )
    if stored:
        around.audit.accept(entry)
    around.observer.finished(result.key, result.purpose, COMMITTED, summary)


def _version(frame: RoundFrame, effect: Commit, survivors: Collection[ParticipantId]) -> ModelRecord:
    result = effect.result.value
    description = describe_version(
        digest=result.next_model,
        parent=frame.plan.value.model,
        index=frame.index,
        key=result.key,
        survivors=survivors,
        dropped=effect.dropped,
        weight_total=result.weight_total,
        totals=effect.totals,
        strategy=frame.spec.strategy,
    )
    return ModelRecord(result.next_model, description)


def record_abort(
    effect: Abort, *, frame: RoundFrame, earlier: Earlier, around: Surroundings, durations: Mapping[str, object]
) -> None:
    """As `record_commit`, for a round without a result."""
    plan, aborted = frame.plan.value, effect.aborted.value
    after = FinishedRound(plan.key.number, plan.purpose, aborted.reason, plan.model)
    job = _job_after(frame, earlier, after)
    facts = {
        "reason": aborted.reason,
        "dropped": dict(effect.dropped),
        **_who_left(effect.left),
        **_told_of(effect.protection),
        **_controlled(frame),
    }
    if effect.opened:
        facts[OPENED] = list(effect.opened)
    summary = {**facts, **_by_which_rules(effect.rules), **durations}
    entry = around.audit.entry("round_aborted", {**_names(frame), **facts, "job_state": job.state})
    stored = around.store.abort_round(
        RoundAbort(
            key=plan.key,
            reason=aborted.reason,
            summary=canonical_json(summary),
            result=encode_envelope(effect.aborted.envelope),
            job_state=job.state,
            job_reason=job.reason,
            audit=entry,
            forgotten=SHARES,
        )
    )
    if stored:
        around.audit.accept(entry)
    around.observer.finished(plan.key, plan.purpose, aborted.reason, summary)


def _job_after(frame: RoundFrame, earlier: Earlier, finished: FinishedRound) -> EndJob:
    upcoming = next_step(frame.spec, (*earlier, finished))
    return upcoming if isinstance(upcoming, EndJob) else EndJob(JobState.RUNNING, "")


def _names(frame: RoundFrame) -> dict[str, object]:
    plan = frame.plan.value
    return {"job": plan.key.job, "round": plan.key.number, "purpose": plan.purpose}


def _controlled(frame: RoundFrame) -> dict[str, object]:
    """Where the round was planned with other rules than the job's: the revision, of which the log has the values."""
    revision = frame.plan.value.control.revision
    return {CONTROL: revision} if revision else {}


def _who_left(left: Lefts) -> dict[str, object]:
    """One word each out of a closed list, as the silo itself said it."""
    return {LEFT: dict(left)} if left else {}


def _by_which_rules(rules: Rules) -> dict[str, object]:
    """What a silo told the coordinator of its policy is for whoever runs the job. None of it is in the audit log, which
    may be shown to the other silos.
    """
    return {RULES: dict(rules)} if rules else {}


def _told_of(protection: Protection) -> dict[str, object]:
    """The bit is the only thing of a single silo that a masked round tells (docs/security.md)."""
    return {"encoding": protection.encoding.name.lower(), RANGE_MISS: protection.missed}
