"""Every Prometheus name, label and help text of the coordinator.

Nothing here is about one silo's data: totals and means over all survivors only, never one participant's loss or weight.
Participants are named where an operator must know whom to call: who is connected, and whom a round waits on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from coordinator.disk_use import DiskKind
from coordinator.round.gathering import answered, owing
from coordinator.round.phases import (
    Aborted,
    Advertising,
    Committed,
    Confirming,
    Folding,
    Gracing,
    Recruiting,
    RoundState,
    Sharing,
    Unmasking,
    Uploading,
    phase_name,
)
from coordinator.storage.interface import COMMITTED
from shared.build import BuildInfo
from shared.disk_use import DiskUse
from shared.ids import JobId, ParticipantId, RoundKey
from shared.protocol.phases import Phase
from shared.reasons import AbortReason, DropReason, Purpose

PREFIX = "consilo_coordinator"
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
PHASE_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 1, 5, 30, 120, 600, 1800, 7200, 28800)

JOBS_SHOWN_MAX = 100  # jobs with gauges of their own; a coordinator that runs for months has had more

_NOT_READY = frozenset({Phase.UNPLANNED, Phase.PLANNED, Phase.TRAINING})


class CoordinatorMetrics:
    """Counts. Implements `Observer` of the driver and the counters of the rpc package; any thread."""

    def __init__(self, *, build: BuildInfo) -> None:
        self.registry = CollectorRegistry()
        self._build = Info(f"{PREFIX}_build", "Which code this is.", registry=self.registry)
        self._build.info({"version": build.version, "revision": build.revision, "python": build.python})
        self._phase = self._gauge("round_phase", "1 for the phase that a job's open round is in.", "job", "phase")
        self._number = self._gauge("round_number", "The number of a job's last started round.", "job")
        self._ready = self._gauge("round_ready", "Members of the open round that are Ready.", "job")
        self._updates = self._gauge("round_updates", "Updates that arrived in the open round's attempt.", "job")
        self._waiting = self._gauge(
            "round_waiting_on", "1 for each member that a round waits on.", "job", "participant"
        )
        self._mean = self._gauge(
            "federated_metric", "Mean over all survivors in the last committed round.", "job", "metric", "half"
        )
        self._weight = self._gauge("federated_weight", "Total weight of the last committed round.", "job")
        self._dropped = self._counter("members_dropped", "Members not in a finished round's result.", "reason")
        self._committed = self._counter("rounds_committed", "Rounds with a result.", "purpose")
        self._aborted = self._counter("rounds_aborted", "Rounds without a result.", "reason")
        self._phase_s = Histogram(
            f"{PREFIX}_phase_duration_seconds",
            "How long finished rounds were in each phase.",
            ["phase"],
            buckets=PHASE_SECONDS,
            registry=self.registry,
        )
        self._received_bytes = self._counter("received_bytes", "Bulk bytes taken in.", "kind")
        self._sent_bytes = self._counter("sent_bytes", "Bulk bytes sent.", "kind")
        self._connected_count = self._gauge("connected_participants", "Participants with a session.")
        self._connected = self._gauge("participant_connected", "1 for a participant with a session.", "participant")
        self._superseded = self._counter(
            "sessions_superseded", "Sessions replaced by a newer one of the same identity."
        )
        self._ended = self._counter("sessions_refused", "Sessions that the coordinator refused or ended.", "reason")
        self._foreign = self._counter("heads_refused", "Results that a participant showed and that another key signed.")
        self._lost = self._counter(
            "results_lost", "Results that a participant showed and that are not on record: the records were set back."
        )
        self._refused = self._counter("refused", "Calls and messages that were refused.", "method", "error")
        self._disk = self._gauge("disk_bytes", "What the data folder has, by kind, once a minute.", "kind")
        self._free = self._gauge("disk_free_bytes", "What is free on the disk of the data folder, once a minute.")
        self._arrange_labels()
        self._seen: set[ParticipantId] = set()
        self._shown: dict[JobId, set[tuple[Gauge, tuple[str, ...]]]] = {}
        """Of each job the gauges that it has, the job that moved last at the end."""
        self._open: set[JobId] = set()

    def _arrange_labels(self) -> None:
        """Closed lists start at zero, so that a first event is an increase and not a new series."""
        for drop in DropReason:
            self._dropped.labels(drop)
        for purpose in Purpose:
            self._committed.labels(purpose)
        for abort in AbortReason:
            self._aborted.labels(abort)

    # --- Observer -----------------------------------------------------------------------------------------------------

    def moved(self, state: RoundState) -> None:
        job = state.frame.key.job
        current = phase_name(state)
        for phase in PHASES:
            self._show(self._phase, phase == current, job, phase)
        self._show(self._number, state.frame.key.number, job)
        ready, updates, waiting = _arrivals(state)
        self._show(self._ready, ready, job)
        self._show(self._updates, updates, job)
        for member in state.frame.spec.members:
            self._show(self._waiting, member in waiting, job, member)
        self._shown[job] = self._shown.pop(job)
        if isinstance(state, Committed | Aborted):
            self._open.discard(job)
        else:
            self._open.add(job)
        self._forget_jobs()

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        if outcome == COMMITTED:
            self._committed.labels(purpose).inc()
        else:
            self._aborted.labels(outcome).inc()
        for reason in _mapping(summary, "dropped").values():
            self._dropped.labels(str(reason)).inc()
        for phase, seconds in _mapping(summary, "phases_s").items():
            self._phase_s.labels(phase).observe(_number(seconds))
        if outcome == COMMITTED:
            self._show(self._weight, _number(summary.get("weight_total")), key.job)
            for cell, mean in _mapping(summary, "metrics").items():
                half, _, metric = cell.partition(".")
                self._show(self._mean, _number(mean), key.job, metric, half)

    def _show(self, gauge: Gauge, value: float, job: JobId, *labels: str) -> None:
        gauge.labels(job, *labels).set(value)
        self._shown.setdefault(job, set()).add((gauge, (job, *labels)))

    def _forget_jobs(self) -> None:
        """Of more jobs than are shown, those without an open round that moved longest ago."""
        idle = [job for job in self._shown if job not in self._open]
        for job in idle[: max(0, len(self._shown) - JOBS_SHOWN_MAX)]:
            for gauge, labels in self._shown.pop(job):
                gauge.remove(*labels)

    # --- sessions and transfers ---------------------------------------------------------------------------------------

    def connected(self, participants: Collection[ParticipantId]) -> None:
        self._connected_count.set(len(participants))
        self._seen.update(participants)
        for participant in self._seen:
            self._connected.labels(participant).set(participant in participants)

    def superseded(self) -> None:
        self._superseded.inc()

    def session_ended(self, reason: str) -> None:
        self._ended.labels(reason).inc()

    def heads_refused(self, count: int) -> None:
        self._foreign.inc(count)

    def result_lost(self) -> None:
        self._lost.inc()

    def refused(self, method: str, error: str) -> None:
        self._refused.labels(method.rpartition("/")[2], error).inc()

    def received(self, kind: str, count: int) -> None:
        self._received_bytes.labels(kind).inc(count)

    def sent(self, kind: str, count: int) -> None:
        self._sent_bytes.labels(kind).inc(count)

    # --- the disk -----------------------------------------------------------------------------------------------------

    def disk(self, use: DiskUse[DiskKind]) -> None:
        for kind, size in use.sizes.items():
            self._disk.labels(kind).set(size)
        self._free.set(use.free)

    def log_values_refused(self, count: Callable[[], int]) -> None:
        """Follow the log guard's count of secrets that it stopped; it has to stay at zero."""
        gauge = self._gauge("log_secrets_refused", "Secrets that were about to be logged. Anything but 0 is a bug.")
        gauge.set_function(count)

    # --- making -------------------------------------------------------------------------------------------------------

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)


def _arrivals(state: RoundState) -> tuple[int, int, Collection[ParticipantId]]:
    """How many are Ready, how many updates came, and whom the round waits on."""
    match state:
        case Recruiting() | Gracing():
            late = {name for name, talk in state.conversations.items() if talk.phase in _NOT_READY}
            waiting = late - state.outs.keys()
            return len(state.conversations) - len(waiting | state.outs.keys()), 0, waiting
        case Uploading():
            return len(state.cohort), len(state.contributions), owing(state)
        case Advertising() | Sharing():
            return len(owing(state) | set(answered(state))), 0, owing(state)
        case Confirming() | Unmasking():
            return len(state.survivors), len(state.survivors), owing(state)
        case Folding():
            return len(state.survivors), len(state.survivors), ()
        case Committed() | Aborted():
            return 0, 0, ()


def _mapping(summary: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = summary.get(name, {})
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
