"""The participant's metrics as one object: what the daemon's parts are given to count with. On the event loop alone."""

from __future__ import annotations

from participant.disk_use import DiskKind
from participant.metrics import declared
from participant.round.phases import Finished, Measured, Offer, Out, Ready, RoundState
from shared.build import BuildInfo
from shared.clock import Clock, SystemClock
from shared.errors import FederationError, PeerError
from shared.ids import RoundKey, TaskName
from shared.metrics import JobSeries
from shared.process_metrics import ProcessMetrics
from shared.protocol.messages import AnswerKind, AttemptAbort, AttemptAnswer, Decline, ParticipantMessage
from shared.wire.sealed import reopen

_CLOCK = SystemClock()
_LEFT_KEPT = 1000  # more than the driver keeps: it forgets a round that was left once the job's next one is planned


class ParticipantMetrics(ProcessMetrics[DiskKind]):
    """Implements the observers of the driver, of the session, of transfers and of work."""

    def __init__(self, *, build: BuildInfo, local_metrics: bool = False, clock: Clock = _CLOCK) -> None:
        super().__init__(
            [metric for metric in declared.METRICS if local_metrics or metric is not declared.LOCAL_METRIC],
            prefix=declared.PREFIX,
            build=build,
            ready=declared.READY,
            disk=declared.DISK,
            disk_free=declared.DISK_FREE,
        )
        registered = self._registered
        registered.read(declared.SESSION_START, lambda: self._session_since)
        self._clock = clock
        self._session_since: float | None = None
        self._session = registered.gauge(declared.SESSION_OPEN)
        self._sessions = registered.counter(declared.SESSIONS)
        self._sessions_failed = registered.counter(declared.SESSIONS_FAILED)
        self._refused = registered.counter(declared.MESSAGES_REFUSED)
        self._sent = registered.counter(declared.SENT_BYTES)
        self._received = registered.counter(declared.RECEIVED_BYTES)
        self._phase = registered.gauge(declared.ROUNDS)
        self._phase_start = registered.gauge(declared.ROUND_PHASE_START)
        self._finished = registered.counter(declared.ROUNDS_FINISHED)
        self._left = registered.counter(declared.ROUNDS_LEFT)
        self._attempts_left = registered.counter(declared.ATTEMPTS_LEFT)
        self._alarms = registered.counter(declared.ALARMS_RAISED)
        self._training = registered.histogram(declared.TRAINING_DURATION)
        self._local = registered.gauge(declared.LOCAL_METRIC) if local_metrics else None
        self._tasks = registered.gauge(declared.TASK_AVAILABLE)
        self._phases: dict[RoundKey, str] = {}
        self._counted_left: dict[RoundKey, None] = {}  # oldest first
        self._jobs = JobSeries(most=declared.JOBS_SHOWN_MAX)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def moved(self, state: RoundState) -> None:
        key = state.offer.key
        before = self._phases.pop(key, None)
        if before is not None:
            self._phase.labels(before).dec()
        if isinstance(state, Finished | Out):
            self._count_end(state)
            if not any(other.job == key.job for other in self._phases):
                self._jobs.hide(self._phase_start, key.job)
                self._jobs.moved(key.job, still_open=False)
            return
        phase = self._phases[key] = type(state).__name__.lower()
        self._phase.labels(phase).inc()
        if phase != before:
            self._jobs.show(self._phase_start, self._clock.now().timestamp(), key.job)
        if isinstance(state, Ready):
            self._show_local(state.offer, declared.TRAIN, state.update.train)
            self._show_local(state.offer, declared.EVALUATE, state.update.evaluate)
        self._jobs.moved(key.job, still_open=True)

    def _count_end(self, state: Finished | Out) -> None:
        """Each round once: as left, however often that is said again, or as finished."""
        key = state.offer.key
        counted = key in self._counted_left
        self._counted_left.pop(key, None)
        match state:
            case Finished(offer=offer, survived=survived):
                if survived or not counted:  # declined at first, then accepted: it may have survived
                    outcome = declared.SURVIVED if survived else declared.WITHOUT
                    self._finished.labels(outcome, offer.spec.masking.mode).inc()
            case Out(said=said):
                self._counted_left[key] = None
                if len(self._counted_left) > _LEFT_KEPT:
                    del self._counted_left[next(iter(self._counted_left))]
                if not counted:
                    self._left.labels(said.rule if isinstance(said, Decline) else said.reason).inc()

    def _show_local(self, offer: Offer, half: str, measured: Measured | None) -> None:
        if measured is not None and self._local is not None:
            for metric, mean in zip(offer.spec.metrics, measured.means, strict=False):
                self._jobs.show(self._local, mean, offer.key.job, metric, half)

    def alarmed(self, what: str) -> None:
        self._alarms.labels(what).inc()

    # --- the session --------------------------------------------------------------------------------------------------

    def said(self, message: ParticipantMessage) -> None:
        if isinstance(message, AttemptAnswer) and message.kind is AnswerKind.ATTEMPT_ABORT:
            self._attempts_left.labels(reopen(AttemptAbort, message.envelope).value.reason).inc()

    def session(self, *, open_now: bool) -> None:
        self._session.set(int(open_now))
        self._session_since = self._clock.now().timestamp() if open_now else None
        if open_now:
            self._sessions.inc()

    def session_failed(self, error: FederationError) -> None:
        self._sessions_failed.labels(type(error).__name__).inc()

    def refused(self, error: PeerError) -> None:
        self._refused.labels(type(error).__name__).inc()

    def sent(self, kind: str, count: int) -> None:
        self._sent.labels(kind).inc(count)

    def received(self, kind: str, count: int) -> None:
        self._received.labels(kind).inc(count)

    # --- work ---------------------------------------------------------------------------------------------------------

    def trained(self, seconds: float) -> None:
        self._training.observe(seconds)

    def task_loaded(self, name: TaskName, *, available: bool) -> None:
        self._tasks.labels(name).set(available)
