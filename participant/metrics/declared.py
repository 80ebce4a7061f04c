"""Every metric of the participant, as data. They are the silo's own; nothing of them is sent to the coordinator."""

from __future__ import annotations

from participant.disk_use import DiskKind
from participant.round.ending import ALARMS
from participant.rpc.counting import CONTROL, MODEL, UPDATE
from shared import process_metrics
from shared.errors import (
    ConfigError,
    ConflictError,
    IdentityError,
    LateError,
    PhaseError,
    RefusedError,
    StorageError,
    UnknownError,
    UnreachableError,
    WireError,
)
from shared.metrics import Label, Metric, counter, gauge, histogram
from shared.reasons import SAID_BY_PARTICIPANT, AttemptAbortReason, ConsentRule

PREFIX = "consilo_participant"
JOBS_SHOWN_MAX = 100  # jobs with gauges of their own
PHASES = (
    "working",
    "ready",
    "advertised",
    "shared",
    "uploading",
    "committed",
    "fixed",
    "confirmed",
    "opened",
)
SURVIVED, WITHOUT = "survived", "without_this_silo"
TRAIN, EVALUATE = "train", "evaluate"

# From a test's milliseconds to a day, which is the longest that a round may train.
_TRAINING_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)

# What the coordinator may have done wrong, and why a session does not open.
_PEER = (ConflictError, IdentityError, LateError, PhaseError, RefusedError, UnknownError, WireError)
_FAILURES = (*_PEER, ConfigError, StorageError, UnreachableError)

_JOB = Label("job", said="jobs that have an open round here or moved lately")
_OPEN_JOB = Label("job", said="jobs that have an open round here")


def _names(errors: tuple[type[Exception], ...]) -> tuple[str, ...]:
    return tuple(sorted(error.__name__ for error in errors))


# --- this process ---------------------------------------------------------------------------------------------------

BUILD = process_metrics.BUILD
READY = gauge(
    "ready", "1 while this silo can take part: a session is open, and the daemon was not told to end.", read=True
)
TASK_AVAILABLE = gauge(
    "task_available",
    "1 for a task that was loaded, 0 for one that was not, or not yet.",
    Label("task", said="the installed tasks"),
)

# --- session --------------------------------------------------------------------------------------------------------

SESSION_OPEN = gauge("session_open", "1 while a session with the coordinator is open.")
SESSION_START = gauge(
    "session_start_time_seconds", "Unix time at which the session was opened. None without one.", read=True
)
SESSIONS = counter("sessions", "Sessions opened since the start.")
SESSIONS_FAILED = counter(
    "sessions_failed", "Attempts to open a session that failed.", Label("error", _names(_FAILURES))
)
MESSAGES_REFUSED = counter(
    "messages_refused",
    "Messages of the coordinator that were refused. Anything but 0 deserves a look.",
    Label("error", _names(_PEER)),
)
SENT_BYTES = counter(
    "sent_bytes",
    "Bytes that left for the coordinator, before TLS; what a broken connection swallowed counts too.",
    Label("kind", (UPDATE, CONTROL), said="update (frames of updates), control (everything else that is said)"),
)
RECEIVED_BYTES = counter(
    "received_bytes",
    "Bytes that came from the coordinator, after TLS.",
    Label("kind", (MODEL, CONTROL), said="model, control (everything else)"),
)

# --- rounds ---------------------------------------------------------------------------------------------------------

ROUNDS = gauge(
    "rounds",
    "Open rounds by phase.",
    Label("phase", PHASES, said="working, ready, advertised, shared, uploading, committed, fixed (plain), confirmed, "
    "opened"),
    starts=True,
)  # fmt: skip
ROUND_PHASE_START = gauge(
    "round_phase_start_time_seconds",
    "Unix time at which the open round came to its phase; after a restart, that of the restart. None between rounds.",
    _OPEN_JOB,
)
ROUNDS_FINISHED = counter(
    "rounds_finished",
    "Rounds that ended, with this silo's update or without, masked and plain ones apart. None that this silo left.",
    Label("outcome", (SURVIVED, WITHOUT)),
    Label("mode", ("masked", "plain")),
)
ROUNDS_LEFT = counter(
    "rounds_left",
    "Rounds declined (a rule of section 9.3) or withdrawn from (a reason of section 9.2), each once.",
    Label("reason", (*sorted(ConsentRule), *sorted(SAID_BY_PARTICIPANT))),
)
ATTEMPTS_LEFT = counter(
    "attempts_left",
    "Attempts at a masked round that this silo said it left.",
    Label("reason", tuple(AttemptAbortReason)),
)
ALARMS_RAISED = counter(
    "alarms",
    "Words of the coordinator that an honest one does not say. Anything but 0 needs a person; the log says which job.",
    Label("what", ALARMS),
)
TRAINING_DURATION = histogram(
    "training_duration_seconds", "How long the task trained, of trainings with a result.", buckets=_TRAINING_SECONDS
)
LOCAL_METRIC = gauge(
    "local_metric",
    "What this silo's task said of its own data in the last round that it was ready for. It stays in the silo.",
    _JOB,
    Label("metric", said="the metrics that the job declares"),
    Label("half", (TRAIN, EVALUATE)),
    page="What this silo's task said of its own data in the last round that it was ready for. It stays in the silo. "
    "Only with `local_metrics = true` in `[metrics]`: other accounts of the machine can read loopback.",
)
"""Only where the silo asks for it."""

# --- saturation, certificates, log, disk ------------------------------------------------------------------------------

EVENT_LOOP_LAG = process_metrics.EVENT_LOOP_LAG
CERTIFICATE_END = process_metrics.CERTIFICATE_END
LOG_LINES_LOST = process_metrics.LOG_LINES_LOST
DISK = gauge(
    "disk_bytes",
    "What the data folder has, by kind.",
    Label("kind", tuple(DiskKind)),
    page="What the data folder has, by kind ([guide](guide-silo.md#the-disk)).",
)
DISK_FREE = gauge(
    "disk_free_bytes", "What is free for this user on the disk of the data folder; 64 MiB are left free.", read=True
)
DISK_SIZE = process_metrics.DISK_SIZE

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""In the order in which they stand above."""
