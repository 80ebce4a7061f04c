"""What rounds and jobs are doing. On the conductor's thread alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coordinator.metrics import declared
from coordinator.round.gathering import answered, owing
from coordinator.round.machine import next_deadline
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
from coordinator.standings import Standings
from coordinator.storage.interface import COMMITTED
from coordinator.telling import LEAST_IN_A_TOTAL
from shared.clock import Clock
from shared.ids import JobId, ParticipantId, RoundKey
from shared.metrics import JobSeries, Registered
from shared.protocol.phases import Phase
from shared.reasons import JobState, Purpose

_NOT_READY = frozenset({Phase.UNPLANNED, Phase.PLANNED, Phase.TRAINING})


class RoundMetrics:
    """An `Observer` of the driver."""

    def __init__(self, registered: Registered, clock: Clock) -> None:
        self._clock = clock
        self._jobs = JobSeries(most=declared.JOBS_SHOWN_MAX)
        self._reached: dict[JobId, tuple[RoundKey, str]] = {}
        """Of each open round the phase that it was last seen in."""
        self._number = registered.gauge(declared.ROUND_NUMBER)
        self._phase = registered.gauge(declared.ROUND_PHASE)
        self._phase_start = registered.gauge(declared.ROUND_PHASE_START)
        self._deadline = registered.gauge(declared.ROUND_DEADLINE)
        self._quorum = registered.gauge(declared.ROUND_QUORUM)
        self._floor = registered.gauge(declared.ROUND_FLOOR)
        self._ready = registered.gauge(declared.ROUND_READY)
        self._updates = registered.gauge(declared.ROUND_UPDATES)
        self._waiting = registered.gauge(declared.ROUND_WAITING_ON)
        self._last_commit = registered.gauge(declared.LAST_COMMIT)
        self._mean = registered.gauge(declared.FEDERATED_METRIC)
        self._weight = registered.gauge(declared.FEDERATED_WEIGHT)
        self._dropped = registered.counter(declared.MEMBERS_DROPPED)
        self._committed = registered.counter(declared.ROUNDS_COMMITTED)
        self._aborted = registered.counter(declared.ROUNDS_ABORTED)
        self._phase_s = registered.histogram(declared.PHASE_DURATION)
        self._round_s = registered.histogram(declared.ROUND_DURATION)

    def moved(self, state: RoundState) -> None:
        key, current, show = state.frame.key, phase_name(state), self._jobs.show
        for phase in declared.PHASES:
            show(self._phase, phase == current, key.job, phase)
        show(self._number, key.number, key.job)
        ready, updates, waiting = _arrivals(state)
        show(self._ready, ready, key.job)
        show(self._updates, updates, key.job)
        for member in state.frame.spec.members:
            show(self._waiting, member in waiting, key.job, member)
        over = isinstance(state, Committed | Aborted)
        if over:
            self._show_no_round(key.job)
        else:
            self._show_open(state, current)
        self._jobs.moved(key.job, still_open=not over)

    def _show_open(self, state: RoundState, phase: str) -> None:
        frame, show = state.frame, self._jobs.show
        job, reached = frame.key.job, (frame.key, phase)
        show(self._quorum, frame.quorum, job)
        show(self._floor, frame.floor, job)
        now = self._clock.now().timestamp()
        if self._reached.get(job) != reached:
            self._reached[job] = reached
            show(self._phase_start, now, job)
        deadline = next_deadline(state)
        if deadline < float("inf"):
            # To the second: the two clocks are read one after the other, and a deadline that stands must not move.
            show(self._deadline, round(now + deadline - self._clock.monotonic()), job)
        else:
            self._jobs.hide(self._deadline, job)

    def _show_no_round(self, job: JobId) -> None:
        self._reached.pop(job, None)
        for gauge in (self._quorum, self._floor, self._phase_start, self._deadline):
            self._jobs.hide(gauge, job)

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        committed = outcome == COMMITTED
        if committed:
            self._committed.labels(purpose).inc()
        else:
            self._aborted.labels(outcome).inc()
        for reason in _mapping(summary, "dropped").values():
            self._dropped.labels(str(reason)).inc()
        for phase, seconds in _mapping(summary, "phases_s").items():
            self._phase_s.labels(phase).observe(_number(seconds))
        if "duration_s" in summary:
            ended = declared.COMMITTED if committed else declared.ABORTED
            self._round_s.labels(ended).observe(_number(summary["duration_s"]))
        if committed:
            self._jobs.show(self._last_commit, self._clock.now().timestamp(), key.job)
            self._show_totals(key.job, summary)

    def _show_totals(self, job: JobId, summary: Mapping[str, object]) -> None:
        survivors = summary.get("survivors")
        if not isinstance(survivors, Collection) or len(survivors) < LEAST_IN_A_TOTAL:
            # One silo's own figures. Older ones go too: standing on, they would be taken for this round's.
            for gauge in (self._weight, self._mean):
                self._jobs.hide_all(gauge, job)
            return
        self._jobs.show(self._weight, _number(summary.get("weight_total")), job)
        for cell, mean in _mapping(summary, "metrics").items():
            half, _, metric = cell.partition(".")
            self._jobs.show(self._mean, _number(mean), job, metric, half)


class JobMetrics:
    """Where the jobs are, and whether those that are not over could go on."""

    def __init__(self, registered: Registered) -> None:
        self._states = registered.gauge(declared.JOBS)
        self._running = registered.gauge(declared.JOB_RUNNING)
        self._quorum = registered.gauge(declared.JOB_QUORUM)
        self._connected = registered.gauge(declared.JOB_MEMBERS_CONNECTED)
        self._margin = registered.gauge(declared.JOB_QUORUM_MARGIN)
        self._seen = Standings({}, {})

    def stand(self, now: Standings) -> None:
        """After each piece of the conductor's work: nothing is done where nothing changed."""
        before, self._seen = self._seen, now
        if now.states != before.states:
            for state in JobState:
                self._states.labels(state).set(now.states.get(state, 0))
        for job in before.jobs.keys() - now.jobs.keys():
            for gauge in (self._running, self._quorum, self._connected, self._margin):
                gauge.remove(job)
        for job, standing in now.jobs.items():
            if before.jobs.get(job) != standing:
                self._running.labels(job).set(standing.running)
                self._quorum.labels(job).set(standing.quorum)
                self._connected.labels(job).set(standing.connected)
                self._margin.labels(job).set(standing.connected - standing.quorum)


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
