"""Planted bugs of what a crash shows: words that run ahead of the disk, and restarts that begin anew what is going on.

As in `weakened`: what a tired engineer could have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coordinator.conductor import Conductor
from coordinator.jobs import RunningJob
from coordinator.planning import Planning, TakenUp
from coordinator.round.driver import RoundDriver
from coordinator.round.effects import Send
from coordinator.round.transition import Transition
from participant.journal import OpenRound
from participant.round.driver import Driver
from participant.round.effects import Say
from participant.round.transition import Transition as ParticipantTransition
from shared.ids import Digest, JobId
from shared.job import JobSpec
from shared.wire.sealed import seal
from tests.simulation.settings import Parts, PlantedBug
from tests.support.participant_journal import MemoryJournal

# --- sent before journaled: nobody has to wait for the disk of the coordinator ----------------------------------------


class HastyDriver(RoundDriver):
    def apply(self, transition: Transition) -> Digest | None:
        in_haste = sorted(transition.effects, key=lambda effect: not isinstance(effect, Send))
        return super().apply(replace(transition, effects=tuple(in_haste)))


class HastyConductor(Conductor):
    def _advance(self, job: RunningJob) -> None:
        super()._advance(job)
        if job.driver is not None:
            job.driver.__class__ = HastyDriver


def sent_before_journaled() -> Parts:
    return Parts(conductor=HastyConductor)


# --- said before journaled: nor for that of a silo --------------------------------------------------------------------


class HastySilo(Driver):
    def _apply(self, transition: ParticipantTransition) -> None:
        in_haste = sorted(transition.effects, key=lambda effect: not isinstance(effect, Say))
        super()._apply(replace(transition, effects=tuple(in_haste)))


def said_before_journaled() -> Parts:
    return Parts(driver=HastySilo)


# --- trained again: a restart takes an open round from its plan -------------------------------------------------------


class PlansOnlyJournal(MemoryJournal):
    def open_rounds(self) -> Sequence[OpenRound]:
        return [replace(record, update=None) for record in super().open_rounds()]

    def crash(self) -> MemoryJournal:
        left = super().crash()
        successor = PlansOnlyJournal(faults=left.faults)
        successor._kept = left._kept
        return successor


def trained_again() -> Parts:
    return Parts(journal=PlansOnlyJournal)


# --- planned again: a restart gives the open round a plan with a deadline of its own ----------------------------------


class EagerPlanning(Planning):
    def take_up(self, job: JobId, spec: JobSpec) -> TakenUp:
        taken = super().take_up(job, spec)
        if taken.open is None:
            return taken
        plan = replace(taken.open.plan.value, deadline_s=taken.open.plan.value.deadline_s / 2)
        return replace(taken, open=replace(taken.open, plan=seal(plan, signer=self._signer, index=0)))


class EagerConductor(Conductor):
    def start(self) -> None:
        self._planning.__class__ = EagerPlanning
        super().start()


def planned_again() -> Parts:
    return Parts(conductor=EagerConductor)


RESTART_BUGS: dict[str, PlantedBug] = {
    "sent before journaled": PlantedBug(sent_before_journaled, frozenset({"durable-before-sent"}), masked=True),
    "said before journaled": PlantedBug(said_before_journaled, frozenset({"durable-before-said"}), masked=True),
    "trained again": PlantedBug(trained_again, frozenset({"trained-once", "honest-refused"})),
    "planned again": PlantedBug(planned_again, frozenset({"durable-before-sent", "honest-refused"})),
}
