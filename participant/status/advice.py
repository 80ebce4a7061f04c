"""What each reason means for this silo, in a sentence: why it said no, and what to do if it should not have.

Reasons are closed lists (`shared.reasons`), so each has its sentence and a test sees to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from participant.round.ending import ALARM_HISTORY, ALARM_RANGE, ALARM_RESULT
from shared.reasons import SAID_BY_PARTICIPANT, ConsentRule, DropReason

DECLINED: Mapping[ConsentRule, str] = {
    ConsentRule.JOB_NOT_ALLOWED: "The job's name is none of policy.allowed_jobs.",
    ConsentRule.TASK_NOT_INSTALLED: "The job's task is not under [tasks].",
    ConsentRule.COHORT_TOO_SMALL: "The job has fewer members than policy.minimum_members.",
    ConsentRule.NOT_A_MEMBER: "This silo is no member of the job, and was asked all the same: tell the operator.",
    ConsentRule.MASKING_REQUIRED: "The job is plain, and policy.allow_plain is false.",
    ConsentRule.JOBSPEC_CHANGED: "A job that is known here came with another specification: tell the operator.",
    ConsentRule.ROUND_REPLAYED: "A round that is over here was planned again: tell the operator.",
    ConsentRule.TRAINING_TOO_LONG: "The round may train longer than policy.max_deadline_s.",
    ConsentRule.JOURNAL_DOUBTFUL: "The journal is empty or was restored: see `consilo participant confirm-journal`.",
    ConsentRule.NOT_IN_CONSORTIUM: "A member is not in the manifest that is pinned under [consortium], or none is.",
    ConsentRule.TWO_PARTY: "The job has two members, of which each learns the other's update from the total.",
    ConsentRule.NO_COLLUSION: "The job assumes that nobody colludes, and policy.allow_no_collusion is false.",
    ConsentRule.COLLUSION_TOO_LOW: "The job withstands fewer colluding members than policy.minimum_colluding.",
    ConsentRule.SURVIVORS_TOO_FEW: "The job's totals may be over fewer updates than policy.minimum_survivors.",
    ConsentRule.JOB_STOPPED: "This silo stopped the job for itself: see the jobs on record below.",
    ConsentRule.JOB_NOT_APPROVED: "The job's specification is none of policy.approved_jobs: compare it by telephone.",
    ConsentRule.CONTROL_OUT_OF_BOUNDS: "The plan breaks rules that no operator may change: tell the operator.",
}

WITHDREW: Mapping[DropReason, str] = {
    DropReason.TASK_UNAVAILABLE: "The task does not load: `consilo participant check` says why.",
    DropReason.TASK_CRASHED: "The task ended with an error: its file in task-logs has it.",
    DropReason.TASK_DEADLINE: "Training was not finished before the round's deadline.",
    DropReason.TASK_INVALID: "The task returned what the job does not allow: its file in task-logs has it.",
    DropReason.NON_FINITE: "Training came to values that are no numbers (NaN or infinity).",
    DropReason.MANIFEST_MISMATCH: "The task's model is not the job's: is another version installed?",
    DropReason.MODEL_UNAVAILABLE: "The model could not be fetched, or was not the announced one.",
    DropReason.DISK: "The disk is full, or refused: make room in the data folder.",
    DropReason.LOST: "The daemon restarted before the update was on disk, or the disk changed it.",
    DropReason.OUT_OF_RANGE: "The update is too large even for the widest encoding.",
}

ALARMS: Mapping[str, str] = {
    ALARM_RANGE: "A result says a smaller range than this silo's own update had.",
    ALARM_HISTORY: "A plan follows another result than the one that this silo verified.",
    ALARM_RESULT: "A result does not say what this silo knows of the round.",
}


def for_declined(rule: ConsentRule) -> str:
    return DECLINED[rule]


def for_withdrawn(reason: DropReason) -> str:
    return WITHDREW[reason] if reason in SAID_BY_PARTICIPANT else ""
