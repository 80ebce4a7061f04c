"""Closed lists of reasons: what the wire, the audit log, the metrics and the runbook all call the same thing.

PROTOCOL.md section 9 explains each. The string value is what is logged, labelled and stored; it never changes once
released.
"""

from __future__ import annotations

from enum import StrEnum


class AbortReason(StrEnum):
    """Why a round ended without a new model version."""

    BELOW_QUORUM = "below_quorum"  # the deadline came with fewer Ready than the quorum
    BELOW_FLOOR = "below_floor"  # every attempt ended with fewer updates than the floor
    OPERATOR = "operator"  # somebody with the operator role aborted the job
    FOLD_FAILED = "fold_failed"  # the updates could not be combined (non-finite total, no weight)
    UNOPENABLE = "unopenable"  # silos began to open the total, and too few good shares came to end it
    DAMAGED = "damaged"  # an update or the model on the coordinator's disk is not what it was when it was taken in
    TOTAL_REFUSED = "total_refused"  # the opened total of weights is one that honest members cannot have
    RESTORED = "restored"  # the coordinator's records are an older copy: what was said in the round since is not known


class DropReason(StrEnum):
    """Why a member is not in a round's result.

    The first block is said by the participant, the second by the coordinator.
    """

    DECLINED = "declined"
    TASK_UNAVAILABLE = "task_unavailable"
    TASK_CRASHED = "task_crashed"
    TASK_DEADLINE = "task_deadline"
    TASK_INVALID = "task_invalid"  # the task broke its contract: wrong return type, metric missing, weight out of range
    NON_FINITE = "non_finite"
    MANIFEST_MISMATCH = "manifest_mismatch"
    MODEL_UNAVAILABLE = "model_unavailable"  # the model could not be fetched, or is not the announced one
    DISK = "disk"
    LOST = "lost"  # it no longer holds what this round needs (restarted before its update was spooled)
    OUT_OF_RANGE = "out_of_range"  # the update is too large even for the widest encoding

    ABSENT = "absent"  # never connected in this round
    DISCONNECTED = "disconnected"  # went away during this round and did not come back in time
    NOT_READY = "not_ready"  # connected, but training was not finished when the attempt started
    UPLOAD_LATE = "upload_late"  # Ready, but its update was not committed in time
    REVOKED = "revoked"  # taken off the allow-list
    EXCHANGE_LATE = "exchange_late"  # Ready, but its keys or its shares did not come in time
    ATTEMPT_LEFT = (
        "attempt_left"  # Ready, but it left the attempt: it had lost its secrets, or refused what it was shown
    )
    NOT_ASKED = "not_asked"  # the round is bound to members of a total that may have been opened on its model


SAID_BY_PARTICIPANT = frozenset(
    {
        DropReason.TASK_UNAVAILABLE,
        DropReason.TASK_CRASHED,
        DropReason.TASK_DEADLINE,
        DropReason.TASK_INVALID,
        DropReason.NON_FINITE,
        DropReason.MANIFEST_MISMATCH,
        DropReason.MODEL_UNAVAILABLE,
        DropReason.DISK,
        DropReason.LOST,
        DropReason.OUT_OF_RANGE,
    }
)
"""What a Withdraw may say; the other reasons are findings of the coordinator (and `declined` is said by Decline)."""


class ConsentRule(StrEnum):
    """The rule of the silo's policy by which it declines."""

    JOB_NOT_ALLOWED = "job_not_allowed"
    TASK_NOT_INSTALLED = "task_not_installed"
    COHORT_TOO_SMALL = "cohort_too_small"
    NOT_A_MEMBER = "not_a_member"
    MASKING_REQUIRED = "masking_required"
    JOBSPEC_CHANGED = "jobspec_changed"  # another specification under a job id that this silo already knows
    ROUND_REPLAYED = "round_replayed"  # a round older than one already finished, or the same with other content
    TRAINING_TOO_LONG = "training_too_long"
    JOURNAL_DOUBTFUL = "journal_doubtful"  # an empty or restored journal beside a signing key that was in use
    NOT_IN_CONSORTIUM = "not_in_consortium"  # no manifest is pinned here, or a member is not in it
    TWO_PARTY = "two_party"
    NO_COLLUSION = "no_collusion"  # the job assumes that nobody colludes
    COLLUSION_TOO_LOW = "collusion_too_low"  # the job assumes fewer colluding members than this silo does
    SURVIVORS_TOO_FEW = "survivors_too_few"
    JOB_STOPPED = "job_stopped"  # this silo found the coordinator's results wrong, and takes no further part
    JOB_NOT_APPROVED = "job_not_approved"  # the specification is none that this silo approved
    CONTROL_OUT_OF_BOUNDS = "control_out_of_bounds"  # a plan that no control allowed by the job could have led to


class AttemptAbortReason(StrEnum):
    """Why a participant left an attempt. It may take part in a higher one, with new keys."""

    GONE = "gone"  # it restarted: the attempt's secrets were in memory only
    EQUIVOCATION = "equivocation"  # a second message of one step, with other content
    BAD_ATTEMPT = "bad_attempt"  # the attempt is not what this silo knows of the round
    BAD_ROSTER = "bad_roster"
    BAD_SHARES = "bad_shares"
    BAD_SURVIVORS = "bad_survivors"
    REPEATED_TOTAL = "repeated_total"  # another total on a model that this silo helped to open a total on before
    RESEND_DIFFERS = "resend_differs"  # a chunk would have been sent a second time with other bytes


class RefusalReason(StrEnum):
    """Why the coordinator does not open a session."""

    NO_COMMON_VERSION = "no_common_version"
    MISSING_CAPABILITY = "missing_capability"
    SIGNING_IDENTITY = "signing_identity"
    SUPERSEDED = "superseded"  # the same identity opened a newer session
    NOT_ALLOWED = "not_allowed"  # not, or no longer, on the allow-list
    DRAINING = "draining"  # the coordinator is shutting down
    SILENT = "silent"  # no heartbeat within the limit
    PROTOCOL = "protocol"  # bytes that are no message, or a message out of order at the opening


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"  # running, until the round that is open now is over; shown, and never stored
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"

    @property
    def over(self) -> bool:
        """Whether nothing follows any more."""
        return self in {JobState.COMPLETED, JobState.ABORTED}


class Purpose(StrEnum):
    """What a round is for. An `evaluate` round makes no version and is not counted in the job's `rounds`."""

    TRAIN = "train"
    EVALUATE = "evaluate"
