"""The one place that performs a round's effects.

`RoundDriver` holds the state of one open round. Each event goes through the machine; the effects are performed in their
order, and only when all of them are done is the new state in force. A StorageError on the way leaves the old state, and
the caller may send the event again. DurabilityUnknown must end the process: the next start reads what is true.

Everything runs on one thread. A fold is handed to `Folds` and comes back as an event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from coordinator.aggregation.fold import Totals
from coordinator.audit import AuditLog
from coordinator.checkpoints import describe_version
from coordinator.round.effects import (
    Abort,
    AcknowledgeUpload,
    Commit,
    Event,
    Journal,
    Send,
    StartFold,
    Tick,
)
from coordinator.round.journal import decode_record, encode_plan, encode_record, restore
from coordinator.round.machine import Seal, Transition, begin, next_deadline, step
from coordinator.round.members import linked
from coordinator.round.phases import Aborted, Committed, Contribution, Present, RoundFrame, RoundState
from coordinator.scheduler import EndJob, FinishedRound, next_step
from coordinator.storage.interface import COMMITTED, ModelRecord, RoundAbort, RoundCommit, Store
from shared.clock import Clock
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey
from shared.job import canonical_json
from shared.protocol.messages import RoundBroadcast
from shared.reasons import JobState, Purpose
from shared.wire.sealed import encode_envelope


@dataclass(frozen=True, slots=True)
class FoldOrder:
    """Everything that a fold needs; its result depends on nothing else."""

    frame: RoundFrame
    attempt: AttemptKey
    survivors: Mapping[ParticipantId, Contribution]


class Outbox(Protocol):
    """The sessions. A message to a participant without one is dropped: it will be told again when it is back."""

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None: ...


class Folds(Protocol):
    """Runs folds elsewhere and reports `Folded` or `FoldFailed` for the round later."""

    def start(self, order: FoldOrder) -> None: ...

    def drop(self, key: RoundKey) -> None:
        """A round was aborted: its fold is not begun any more. One that was begun already is reported as ever."""
        ...


class Observer(Protocol):
    """Told what became true, for metrics and logs. Never asked anything, never fails."""

    def moved(self, state: RoundState) -> None:
        """The round is in this state now."""
        ...

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        """The round is over; `summary` is what `consilo job show` prints."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a driver works with."""

    store: Store
    audit: AuditLog
    outbox: Outbox
    folds: Folds
    seal: Seal
    clock: Clock
    observer: Observer


@dataclass(slots=True)
class _Timing:
    """When the round entered each phase, for its summary."""

    started: float
    phase: str
    since: float
    spent_s: dict[str, float] = field(default_factory=dict)

    def move(self, phase: str, now: float) -> None:
        if phase != self.phase:
            self.spent_s[self.phase] = self.spent_s.get(self.phase, 0.0) + now - self.since
            self.phase, self.since = phase, now


class RoundDriver:
    """One open round."""

    def __init__(self, *, state: RoundState, earlier: tuple[FinishedRound, ...], around: Surroundings) -> None:
        self.state = state
        self._earlier = earlier
        self._around = around
        now = around.clock.monotonic()
        self._timing = _Timing(now, phase_name(state), now)

    @classmethod
    def plan(
        cls,
        frame: RoundFrame,
        *,
        earlier: tuple[FinishedRound, ...],
        present: Collection[ParticipantId],
        around: Surroundings,
    ) -> RoundDriver:
        """Open a round: the plan is durable before anyone hears of it."""
        around.store.open_round(frame.key, frame.plan.value.purpose, encode_plan(frame.plan))
        begun = begin(frame, present, around.clock.monotonic())
        driver = cls(state=begun.state, earlier=earlier, around=around)
        driver.apply(begun)
        return driver

    @classmethod
    def resume(cls, frame: RoundFrame, *, earlier: tuple[FinishedRound, ...], around: Surroundings) -> RoundDriver:
        """Go on with a round that a former process left open."""
        restored = _restore(frame, around)
        driver = cls(state=restored.state, earlier=earlier, around=around)
        driver.apply(restored)
        return driver

    @classmethod
    def restored(
        cls,
        frame: RoundFrame,
        *,
        earlier: tuple[FinishedRound, ...],
        present: Collection[ParticipantId],
        around: Surroundings,
    ) -> RoundDriver:
        """A round that a former process left open and that only is to be ended: nothing of it is started again."""
        state = _restore(frame, around).state
        for member in present:
            if not isinstance(state, Committed | Aborted):
                state = linked(state, member, Present())
        return cls(state=state, earlier=earlier, around=around)

    @property
    def frame(self) -> RoundFrame:
        return self.state.frame

    @property
    def finished(self) -> bool:
        return isinstance(self.state, Committed | Aborted)

    @property
    def deadline(self) -> float:
        return next_deadline(self.state)

    def handle(self, event: Event) -> Digest | None:
        """Take one event. Returns the digest of the update that was acknowledged, if one was. Raises PeerError."""
        return self.apply(step(self.state, event, self._around.clock.monotonic(), self._around.seal))

    def tick(self) -> None:
        self.handle(Tick())

    def apply(self, transition: Transition) -> Digest | None:
        acknowledged = None
        for effect in transition.effects:
            if isinstance(effect, AcknowledgeUpload):
                acknowledged = effect.update
            else:
                self._perform(effect)
        self.state = transition.state
        self._timing.move(phase_name(self.state), self._around.clock.monotonic())
        self._around.observer.moved(self.state)
        return acknowledged

    def _perform(self, effect: Journal | Send | StartFold | Commit | Abort) -> None:
        match effect:
            case Journal(record):
                self._around.store.journal(self.frame.key, encode_record(record))
            case Send(participant, message):
                self._around.outbox.send(participant, message)
            case StartFold(attempt, survivors):
                self._around.folds.start(FoldOrder(self.frame, attempt, survivors))
            case Commit():
                self._commit(effect)
            case Abort():
                self._abort(effect)
            case _:
                assert_never(effect)

    def _commit(self, effect: Commit) -> None:
        around, frame, result = self._around, self.frame, effect.result.value
        after = FinishedRound(result.key.number, result.purpose, None, result.next_model)
        job_state = self._job_after(after).state
        survivors = [frame.spec.members[index - 1] for index in result.survivors]
        facts = {
            "survivors": survivors,
            "dropped": dict(effect.dropped),
            "weight_total": result.weight_total,
            "metrics": Totals(effect.totals).means(),
            "model": str(frame.plan.value.model),
            "next_model": str(result.next_model),
        }
        summary = {**facts, **self._durations()}
        entry = around.audit.entry("round_committed", {**self._names(), **facts, "job_state": job_state})
        stored = around.store.commit_round(
            RoundCommit(
                key=result.key,
                summary=canonical_json(summary),
                result=encode_envelope(effect.result.envelope),
                model=self._version(effect, survivors) if result.purpose is Purpose.TRAIN else None,
                job_state=job_state,
                audit=entry,
            )
        )
        if stored:
            around.audit.accept(entry)
        around.observer.finished(result.key, result.purpose, COMMITTED, summary)

    def _version(self, effect: Commit, survivors: Collection[ParticipantId]) -> ModelRecord:
        frame, result = self.frame, effect.result.value
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

    def _abort(self, effect: Abort) -> None:
        around, plan, aborted = self._around, self.frame.plan.value, effect.aborted.value
        after = FinishedRound(plan.key.number, plan.purpose, aborted.reason, plan.model)
        job = self._job_after(after)
        facts: dict[str, object] = {"reason": aborted.reason, "dropped": dict(effect.dropped)}
        summary = {**facts, **self._durations()}
        entry = around.audit.entry("round_aborted", {**self._names(), **facts, "job_state": job.state})
        stored = around.store.abort_round(
            RoundAbort(
                key=plan.key,
                reason=aborted.reason,
                summary=canonical_json(summary),
                result=encode_envelope(effect.aborted.envelope),
                job_state=job.state,
                job_reason=job.reason,
                audit=entry,
            )
        )
        if stored:
            around.audit.accept(entry)
        around.observer.finished(plan.key, plan.purpose, aborted.reason, summary)

    def _job_after(self, finished: FinishedRound) -> EndJob:
        upcoming = next_step(self.frame.spec, (*self._earlier, finished))
        return upcoming if isinstance(upcoming, EndJob) else EndJob(JobState.RUNNING, "")

    def _names(self) -> dict[str, object]:
        plan = self.frame.plan.value
        return {"job": plan.key.job, "round": plan.key.number, "purpose": plan.purpose}

    def _durations(self) -> dict[str, object]:
        now = self._around.clock.monotonic()
        self._timing.move("ending", now)
        spent = {phase: round(seconds, 6) for phase, seconds in self._timing.spent_s.items()}
        return {"phases_s": spent, "duration_s": round(now - self._timing.started, 6)}


def _restore(frame: RoundFrame, around: Surroundings) -> Transition:
    records = [decode_record(entry) for entry in around.store.journal_of(frame.key)[1:]]
    return restore(frame, records, around.clock.monotonic())


def phase_name(state: RoundState) -> str:
    """The phase as dashboards and tables call it."""
    return type(state).__name__.lower()
