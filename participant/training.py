"""The calls of a task in one round: evaluate the global model, then train from it.

A training that was interrupted goes on from what its task saved (`Round.save`). After a restart of the daemon that is
the same work begun again: the checkpoint of the plan is still in the round's folder. When only the task's process was
killed, it is started again here, a few times. What the task itself raised is an outcome, because it would raise it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from participant.fitting import NoUpdate
from participant.journal import Journal
from participant.patience import Patience
from participant.round.effects import Event, WorkProgressed
from participant.round.phases import Measured, Offer
from participant.spool import Spool
from participant.tasks.contract import (
    CheckpointPlace,
    EvaluationDone,
    NoteKind,
    RoundContext,
    TaskFailed,
    TaskHandle,
    TrainingDone,
)
from shared.clock import Clock
from shared.errors import WireError
from shared.ids import JobId, ParticipantId, RoundKey, TaskName
from shared.reasons import DropReason
from shared.update import Encoding, UpdateHeader

log = structlog.get_logger()

# How often a training goes on from its checkpoint after its process was killed. A kill from outside (a machine that is
# short of memory, a person) passes; what kills it each time is in the task or its data, and is an outcome.
TASK_RESTARTS_MAX = 2


class Training:
    """What the installed tasks are asked."""

    def __init__(
        self,
        *,
        participant: ParticipantId,
        tasks: Mapping[TaskName, TaskHandle],
        spool: Spool,
        journal: Journal,
        clock: Clock,
        progress: Callable[[RoundKey, Event], None] | None,
    ) -> None:
        """`progress`: None where the silo shares none."""
        self._participant = participant
        self._tasks = tasks
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._report_progress = progress
        self.percents: dict[RoundKey, int] = {}
        """How far each training is, for the silo itself, whatever it shares."""

    def drop_older_states(self, job: JobId) -> None:
        """What the task kept before the job's last committed round. Raises StorageError."""
        number = self._journal.state_round(job)
        if number is not None:
            self._spool.drop_older_states(job, number)

    async def evaluate(self, offer: Offer, ends: float) -> Measured:
        """What the global model is worth on this silo's data. Raises NoUpdate, or StorageError."""
        outcome = await self._tasks[offer.spec.task].evaluate(
            context=self._context(offer),
            model=self._spool.model(offer.plan.value.model),
            state_in=self._state_in(offer),
            deadline_s=self._remaining(ends),
        )
        if isinstance(outcome, TaskFailed):
            raise NoUpdate(outcome.reason, outcome.message)
        return measured(outcome)

    async def train(self, offer: Offer, ends: float, patience: Patience) -> TrainingDone:
        """The update is in the spool, not yet durable. Raises NoUpdate, or StorageError."""
        key = offer.key
        place = CheckpointPlace(self._spool.checkpoint(key, offer.digest), f"{key} {offer.digest}")
        notes = _Notes(key, patience)
        restarts_left = TASK_RESTARTS_MAX
        while True:
            outcome = await self._tasks[offer.spec.task].train(
                context=self._context(offer),
                model=self._spool.model(offer.plan.value.model),
                state_in=self._state_in(offer),
                update_out=self._spool.deltas(key),
                state_out=self._spool.new_state(key),
                deadline_s=self._remaining(ends),
                progress=self._progress(key),
                checkpoint=place,
                noted=notes.take,
            )
            if isinstance(outcome, TrainingDone):
                return outcome
            if not (outcome.process_ended and restarts_left and place.path.exists()):
                full = outcome.reason is DropReason.TASK_DEADLINE and notes.no_room
                raise NoUpdate(DropReason.DISK if full else outcome.reason, outcome.message)
            restarts_left -= 1
            log.warning(
                "task_restarts", job=key.job, round=key.number, detail=outcome.message, restarts_left=restarts_left,
                meaning="training goes on from what the task saved",
            )  # fmt: skip

    def _context(self, offer: Offer) -> RoundContext:
        spec = offer.spec
        return RoundContext(
            job=offer.key.job,
            job_name=spec.name,
            number=offer.key.number,
            participant=self._participant,
            job_seed=spec.seed,
            training=spec.training,
            metrics=spec.metrics,
        )

    def _state_in(self, offer: Offer) -> Path | None:
        job = offer.key.job
        number = self._journal.state_round(job)
        return None if number is None else self._spool.state(job, number)

    def _remaining(self, ends: float) -> float:
        return max(0.001, ends - self._clock.monotonic())

    def _progress(self, key: RoundKey) -> Callable[[float], None]:
        report = self._report_progress

        def progressed(fraction: float) -> None:
            percent = self.percents[key] = int(100 * fraction)
            if report is not None:
                report(key, WorkProgressed(percent))

        return progressed


class _Notes:
    """What a task says of one training, in the log."""

    def __init__(self, key: RoundKey, patience: Patience) -> None:
        self._key = key
        self._patience = patience
        self.no_room = False

    def take(self, kind: NoteKind, detail: str) -> None:
        if kind is NoteKind.NO_ROOM:
            self.no_room = True
            self._patience.waits(detail)
            return
        # A task may save at each of its steps.
        level = {NoteKind.SAVED: log.debug, NoteKind.RESTORED: log.info}.get(kind, log.warning)
        level(f"task_checkpoint_{kind}", job=self._key.job, round=self._key.number, detail=detail)


def measured(done: TrainingDone | EvaluationDone) -> Measured:
    """What a call came back with. Raises NoUpdate for a weight that no update may have."""
    try:
        UpdateHeader(Encoding.PLAIN, done.weight, contributors=1)
    except WireError as error:
        raise NoUpdate(DropReason.TASK_INVALID, str(error)) from None
    return Measured(done.weight, done.values)
