"""Every Prometheus metric of the participant: name, labels and help, and what feeds it.

They are the silo's own, served on its own loopback by default. Nothing here is sent to the coordinator.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Info

from participant.disk_use import DiskKind
from participant.round.phases import Finished, Out, RoundState
from shared.build import BuildInfo
from shared.disk_use import DiskUse
from shared.errors import PeerError
from shared.ids import RoundKey
from shared.protocol.messages import AnswerKind, AttemptAbort, AttemptAnswer, Decline, ParticipantMessage
from shared.wire.sealed import reopen


class ParticipantMetrics:
    """Implements the observers of the driver and of the session."""

    def __init__(self, *, build: BuildInfo) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._session = Gauge(
            "consilo_participant_session_open", "Whether a session with the coordinator is open.", registry=registry
        )
        self._sessions = Counter("consilo_participant_sessions", "Sessions opened since the start.", registry=registry)
        self._phase = Gauge("consilo_participant_rounds", "Open rounds by phase.", ["phase"], registry=registry)
        self._finished = Counter(
            "consilo_participant_rounds_finished",
            "Rounds that ended, by outcome and by mode (masked or plain).",
            ["outcome", "mode"],
            registry=registry,
        )
        self._refused = Counter(
            "consilo_participant_messages_refused",
            "Coordinator messages that were refused, by error.",
            ["error"],
            registry=registry,
        )
        self._left = Counter(
            "consilo_participant_rounds_left",
            "Rounds declined or withdrawn from, by reason.",
            ["reason"],
            registry=registry,
        )
        self._attempts_left = Counter(
            "consilo_participant_attempts_left",
            "Attempts at a masked round that this silo said it left, by reason.",
            ["reason"],
            registry=registry,
        )
        self._disk = Gauge(
            "consilo_participant_disk_bytes",
            "What the data folder has, by kind, once a minute.",
            ["kind"],
            registry=registry,
        )
        self._free = Gauge(
            "consilo_participant_disk_free_bytes",
            "What is free on the disk of the data folder, once a minute.",
            registry=registry,
        )
        self._alarms = Counter(
            "consilo_participant_alarms",
            "Words of the coordinator that an honest one does not say, by what was wrong. A person should look.",
            ["what"],
            registry=registry,
        )
        Info("consilo_participant_build", "What runs here.", registry=registry).info(
            {"version": build.version, "revision": build.revision, "python": build.python}
        )
        self._phases: dict[RoundKey, str] = {}

    def moved(self, state: RoundState) -> None:
        key = state.offer.key
        before = self._phases.pop(key, None)
        if before is not None:
            self._phase.labels(before).dec()
        if isinstance(state, Finished):
            outcome = "survived" if state.survived else "without_this_silo"
            self._finished.labels(outcome, state.offer.spec.masking.mode).inc()
        elif isinstance(state, Out):
            said = state.said
            self._left.labels(said.rule if isinstance(said, Decline) else said.reason).inc()
        else:
            self._phases[key] = type(state).__name__.lower()
            self._phase.labels(self._phases[key]).inc()

    def alarmed(self, what: str) -> None:
        self._alarms.labels(what).inc()

    def said(self, message: ParticipantMessage) -> None:
        if isinstance(message, AttemptAnswer) and message.kind is AnswerKind.ATTEMPT_ABORT:
            self._attempts_left.labels(reopen(AttemptAbort, message.envelope).value.reason).inc()

    def session(self, *, open_now: bool) -> None:
        self._session.set(int(open_now))
        if open_now:
            self._sessions.inc()

    def refused(self, error: PeerError) -> None:
        self._refused.labels(type(error).__name__).inc()

    def disk(self, use: DiskUse[DiskKind]) -> None:
        for kind, size in use.sizes.items():
            self._disk.labels(kind).set(size)
        self._free.set(use.free)
