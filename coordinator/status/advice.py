"""What to do about each reason that a round or a member can have: one sentence for a night on call.

Reasons are closed lists (`shared.reasons`), so each has its sentence and a test sees to it. PROTOCOL.md section 9 says
what they mean exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.reasons import AbortReason, DropReason

DROPPED: Mapping[DropReason, str] = {
    DropReason.DECLINED: "The silo's own policy said no. Its log names the rule: talk to its IT before the next round.",
    DropReason.TASK_UNAVAILABLE: "The task does not load there. Its IT runs `consilo participant check`.",
    DropReason.TASK_CRASHED: "The task ended with an error. The silo's task log has it; the data scientist mends it.",
    DropReason.TASK_DEADLINE: "Training took longer than the round allows: see `consilo job control --deadline-s`.",
    DropReason.TASK_INVALID: "The task returned what the job does not allow. The data scientist looks at it.",
    DropReason.NON_FINITE: "Training diverged there (NaN or infinity). The data scientist looks at data and rate.",
    DropReason.MANIFEST_MISMATCH: "The silo has another version of the task: its model has other tensors.",
    DropReason.MODEL_UNAVAILABLE: "It could not fetch the model, or got damaged bytes. Look at its connection.",
    DropReason.DISK: "The silo's disk is full or refuses. Its IT makes room; it comes back by itself.",
    DropReason.LOST: "It restarted before its update was on disk. Nothing to do: it is in the next round.",
    DropReason.OUT_OF_RANGE: "Its update is too large even for the widest encoding: did training diverge there?",
    DropReason.ABSENT: "It was never connected in this round. Call its IT: is the daemon running, is the way open?",
    DropReason.DISCONNECTED: "It went away and did not come back in time. Look at its session and its network.",
    DropReason.NOT_READY: "It was still training when the attempt began. A longer grace or deadline lets it in.",
    DropReason.UPLOAD_LATE: "Its update did not arrive in time. Look at its bandwidth and the upload deadline.",
    DropReason.REVOKED: "It was taken off the allow-list. If nobody here did that, find out who did.",
    DropReason.EXCHANGE_LATE: "Its keys or shares did not come in time. Look at its connection.",
    DropReason.ATTEMPT_LEFT: "It left the attempt, for the check that it named. More than `gone` needs a person.",
    DropReason.NOT_ASKED: "This round asks only members of a total that may have been opened. Nothing to do.",
}

ABORTED: Mapping[AbortReason, str] = {
    AbortReason.BELOW_QUORUM: "Too few members were Ready by the deadline: see who was missing, and why.",
    AbortReason.BELOW_FLOOR: "Every attempt ended with fewer updates than the floor: look at the members' connections.",
    AbortReason.OPERATOR: "Somebody with the operator role ended the job; the audit log names them.",
    AbortReason.FOLD_FAILED: "The updates could not be combined: the task's numbers are not finite, or weigh nothing.",
    AbortReason.UNOPENABLE: "Too few shares came to open the total. The next round asks the same members alone.",
    AbortReason.DAMAGED: "Bytes on the coordinator's disk changed. Check that disk before anything else.",
    AbortReason.TOTAL_REFUSED: "The total is one that honest members cannot have: a silo sent what it must not.",
    AbortReason.RESTORED: "The records are an older copy (a backup was restored). Start the job again.",
}


def for_dropped(reason: str) -> str:
    """Empty for a reason of another version."""
    return DROPPED[DropReason(reason)] if reason in tuple(DropReason) else ""


def for_aborted(reason: str) -> str:
    """Empty for a reason of another version."""
    return ABORTED[AbortReason(reason)] if reason in tuple(AbortReason) else ""
