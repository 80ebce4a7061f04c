"""Every metric of the coordinator, as data. What it is fed with is in the rooms beside this one.

Nothing here is about one silo's data: totals and means over all survivors only, never one participant's loss or weight.
Participants are named where an operator must know whom to call: who is connected, and whom a round waits on.
"""

from __future__ import annotations

from coordinator.disk_use import DiskKind
from coordinator.rpc.authorization import MATRIX, TooMuch
from shared import process_metrics
from shared.errors import (
    AuditError,
    ConfigError,
    ConflictError,
    IdentityError,
    LateError,
    ModelError,
    PhaseError,
    RefusedError,
    StorageError,
    UnknownError,
    UnreachableError,
    WireError,
)
from shared.metrics import Label, Metric, counter, gauge, histogram
from shared.reasons import AbortReason, DropReason, JobState, Purpose, RefusalReason

PREFIX = "consilo_coordinator"
JOBS_SHOWN_MAX = 100  # jobs with gauges of their own; a coordinator that runs for months has had more
PHASES = (
    "recruiting",
    "gracing",
    "advertising",
    "sharing",
    "uploading",
    "confirming",
    "unmasking",
    "folding",
)
BUG = "InternalError"  # what a call ended with that met a bug
UPDATE, MODEL = "update", "model"
COMMITTED, ABORTED = "committed", "aborted"

# From a step of milliseconds in a test's federation to the longest training that a job may have, a day.
_PHASE_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 1, 5, 30, 120, 600, 1800, 7200, 28800)
_ROUND_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)

_ERRORS = (
    AuditError, ConfigError, ConflictError, IdentityError, LateError, ModelError, PhaseError, RefusedError,
    StorageError, UnknownError, UnreachableError, WireError, TooMuch,
)  # fmt: skip
_OPERATOR_GUIDE = "guide-operator.md#11-back-up-and-restore"

_JOB = Label("job", said="jobs that have an open round or moved lately")
_OPEN_JOB = Label("job", said="jobs that have an open round")
_NOT_OVER = Label("job", said="jobs that are not over")
_PARTICIPANT = Label("participant", said="members of the job")
_ALLOWED = Label("participant", said="participants on the allow-list")
_PHASE = Label("phase", PHASES)
_OUTCOME = Label("outcome", (COMMITTED, ABORTED))

# --- this process ---------------------------------------------------------------------------------------------------

BUILD = process_metrics.BUILD
READY = gauge(
    "ready",
    "1 while rounds can go on: the quorum of the open job is connected, or somebody is where there is no job.",
    read=True,
)

# --- jobs -----------------------------------------------------------------------------------------------------------

JOBS = gauge("jobs", "Jobs by state.", Label("state", tuple(JobState)), starts=True)
JOB_RUNNING = gauge("job_running", "1 for a job that runs; 0 while it waits for its turn, or is paused.", _NOT_OVER)
JOB_QUORUM = gauge("job_quorum", "Members that the job's next round needs to begin.", _NOT_OVER)
JOB_MEMBERS_CONNECTED = gauge("job_members_connected", "Members that are connected and have the job's task.", _NOT_OVER)
JOB_QUORUM_MARGIN = gauge(
    "job_quorum_margin", "How many of those may leave before the quorum is missed; below 0 it is.", _NOT_OVER
)

# --- rounds ---------------------------------------------------------------------------------------------------------

ROUND_PHASE = gauge(
    "round_phase",
    "1 for the phase that a job's open round is in.",
    _JOB,
    Label("phase", PHASES, said=f"{', '.join(PHASES[:2])}, [advertising, sharing,] uploading, [confirming, unmasking,] "
    "folding (in brackets: of a masked round)"),
)  # fmt: skip
ROUND_NUMBER = gauge("round_number", "The number of a job's last started round.", _JOB)
ROUND_QUORUM = gauge("round_quorum", "Members that must be Ready for the open round's attempt to begin.", _OPEN_JOB)
ROUND_FLOOR = gauge("round_floor", "Updates below which the open round's attempt fails.", _OPEN_JOB)
ROUND_READY = gauge("round_ready", "Members of the open round that are Ready.", _JOB)
ROUND_UPDATES = gauge("round_updates", "Updates that arrived in the open round's attempt.", _JOB)
ROUND_WAITING_ON = gauge("round_waiting_on", "1 for each member that a round waits on.", _JOB, _PARTICIPANT)
ROUND_PHASE_START = gauge(
    "round_phase_start_time_seconds",
    "Unix time at which the open round came to its phase; after a restart, that of the restart. None between rounds.",
    _OPEN_JOB,
)
ROUND_DEADLINE = gauge(
    "round_deadline_time_seconds",
    "Unix time at which the open round goes on, or ends, whatever comes. None between rounds and while it is folded.",
    _OPEN_JOB,
)
LAST_COMMIT = gauge(
    "last_commit_time_seconds", "Unix time of the job's last round with a result, of those of this process.", _JOB
)
FEDERATED_METRIC = gauge(
    "federated_metric",
    "Mean over all survivors in the last committed round; none where these were fewer than two.",
    _JOB,
    Label("metric", said="the metrics that the job declares"),
    Label("half", said="train, evaluate"),
)
FEDERATED_WEIGHT = gauge(
    "federated_weight",
    "Total weight of the last committed round (of its evaluation, if it was the closing one); "
    "none where survivors were fewer than two.",
    _JOB,
)
MEMBERS_DROPPED = counter(
    "members_dropped", "Members that were not in a finished round's result.", Label("reason", tuple(DropReason))
)
ROUNDS_COMMITTED = counter("rounds_committed", "Rounds with a result.", Label("purpose", tuple(Purpose)))
ROUNDS_ABORTED = counter("rounds_aborted", "Rounds without a result.", Label("reason", tuple(AbortReason)))
PHASE_DURATION = histogram(
    "phase_duration_seconds", "How long finished rounds were in each phase.", _PHASE, buckets=_PHASE_SECONDS
)
ROUND_DURATION = histogram(
    "round_duration_seconds", "How long rounds took from plan to end.", _OUTCOME, buckets=_ROUND_SECONDS
)

# --- sessions and calls ---------------------------------------------------------------------------------------------

CONNECTED_PARTICIPANTS = gauge("connected_participants", "Participants with a session.")
PARTICIPANT_CONNECTED = gauge(
    "participant_connected", "1 for a participant with a session, 0 for one that may come.", _ALLOWED
)
SESSION_START = gauge(
    "session_start_time_seconds", "Unix time at which the participant's session was opened. None without one.", _ALLOWED
)
SESSIONS_SUPERSEDED = counter("sessions_superseded", "Sessions replaced by a newer one of the same identity.")
SESSIONS_REFUSED = counter(
    "sessions_refused", "Sessions that the coordinator refused or ended.", Label("reason", tuple(RefusalReason))
)
HEADS_REFUSED = counter(
    "heads_refused",
    "Results that a participant showed and that another key signed: it serves, or served, another coordinator.",
)
RESULTS_LOST = counter(
    "results_lost",
    "Results that a participant showed and that are not on record: the data folder is an older copy.",
    page="Results that a participant showed and that are not on record: the data folder is an older copy "
    f"([guide]({_OPERATOR_GUIDE})).",
)
REFUSED = counter(
    "refused",
    "Calls and messages that were refused.",
    Label("method", tuple(sorted(path.rpartition("/")[2] for path in MATRIX)), said="each method of the wire"),
    Label("error", (*sorted(error.__name__ for error in _ERRORS), BUG)),
)
CALLS_OPEN = gauge("calls_open", "Calls that are being answered; each session is one.", read=True)
RECEIVED_BYTES = counter("received_bytes", "Bulk bytes taken in.", Label("kind", (UPDATE,)))
SENT_BYTES = counter("sent_bytes", "Bulk bytes sent.", Label("kind", (MODEL,)))

# --- saturation -----------------------------------------------------------------------------------------------------

EVENT_LOOP_LAG = process_metrics.EVENT_LOOP_LAG
CONDUCTOR_WAITING = gauge("conductor_waiting", "Pieces of work that wait for the conductor's thread.", read=True)
CONDUCTOR_BUSY = counter("conductor_busy_seconds", "How long the conductor's thread worked.", read=True)
FOLD_BUSY = counter("fold_busy_seconds", "How long the thread that adds updates worked.", read=True)
TRANSFER_THREADS = gauge("transfer_threads", "Threads that read and write bulk bytes.", read=True)
TRANSFER_THREADS_BUSY = gauge("transfer_threads_busy", "How many of these have work now.", read=True)

# --- records, certificates, log, disk ---------------------------------------------------------------------------------

AUDIT_ENTRIES = gauge("audit_entries", "Entries of the audit log.", read=True)
AUDIT_PUBLISHED = gauge(
    "audit_published_entries", "How many of these are in the file audit.log, which follows.", read=True
)
AUDIT_HEAD_TIME = gauge("audit_head_time_seconds", "Unix time of the last entry.", read=True)
CERTIFICATE_END = process_metrics.CERTIFICATE_END
LOG_SECRETS_REFUSED = gauge(
    "log_secrets_refused", "Secrets that were about to be logged. Anything but 0 is a bug to report.", read=True
)
LOG_LINES_LOST = process_metrics.LOG_LINES_LOST
DISK = gauge(
    "disk_bytes",
    "What the data folder has, by kind.",
    Label("kind", tuple(DiskKind)),
    page="What the data folder has, by kind ([guide](guide-operator.md#what-lies-on-the-disk)).",
)
DISK_FREE = gauge("disk_free_bytes", "What is free for this user on the disk of the data folder.", read=True)
DISK_SIZE = process_metrics.DISK_SIZE

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""In the order in which they stand above."""
