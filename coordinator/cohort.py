"""Who could take part in a job now, and if that is not enough, why (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from shared.ids import ParticipantId, TaskName
from shared.job import JobSpec

Offers = Mapping[ParticipantId, AbstractSet[TaskName]]
"""The connected participants, each with the tasks that it has installed."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Which members could start now, and what keeps the others."""

    able: frozenset[ParticipantId]
    absent: tuple[ParticipantId, ...]
    without_task: tuple[ParticipantId, ...]

    def enough_for(self, quorum: int) -> bool:
        return len(self.able) >= quorum

    def explain(self, spec: JobSpec) -> str:
        """Why the job waits, for `consilo job show`. Members are named: who reads it runs the coordinator."""
        parts = [f"{len(self.able)} of quorum {spec.round.quorum}"]
        if self.absent:
            parts.append("not connected: " + ", ".join(self.absent))
        if self.without_task:
            parts.append(f"without task {spec.task}: " + ", ".join(self.without_task))
        return "; ".join(parts)


def assess(spec: JobSpec, offers: Offers) -> Assessment:
    """Sort a job's members by whether they are connected and offer its task."""
    absent = tuple(member for member in spec.members if member not in offers)
    without = tuple(member for member in spec.members if member in offers and spec.task not in offers[member])
    return Assessment(frozenset(spec.members) - set(absent) - set(without), absent, without)
