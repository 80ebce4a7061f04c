"""Who could take part in a job now, and if that is not enough, why (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from shared.control import AS_SUBMITTED, JobControl
from shared.ids import ParticipantId, TaskName
from shared.job import JobSpec

NAMED_MAX = 50  # in one list of names: a job may have 1,000 members, and why it waits is read by people

Offers = Mapping[ParticipantId, AbstractSet[TaskName]]
"""The connected participants, each with the tasks that it has installed."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Which of those that are asked could start now, and what keeps the others."""

    spec: JobSpec
    quorum: int
    bound: tuple[ParticipantId, ...]
    able: frozenset[ParticipantId]
    absent: tuple[ParticipantId, ...]
    without_task: tuple[ParticipantId, ...]

    def enough(self) -> bool:
        return len(self.able) >= (len(self.bound) or self.quorum)

    def explain(self) -> str:
        """Why the job waits, for `consilo job show`. Members are named: who reads it runs the coordinator."""
        parts = [f"{len(self.able)} of quorum {self.quorum}"]
        if self.bound:
            asked = listed(self.bound)
            parts = [f"{len(self.able)} of {len(self.bound)}: of this model a total over {asked} may have been opened"]
        if self.absent:
            parts.append(f"not connected: {listed(self.absent)}")
        if self.without_task:
            parts.append(f"without task {self.spec.task}: {listed(self.without_task)}")
        return "; ".join(parts)


def assess(
    spec: JobSpec, offers: Offers, bound: tuple[ParticipantId, ...] = (), *, control: JobControl = AS_SUBMITTED
) -> Assessment:
    """Sort those that the job's next round asks by whether they are connected and offer its task: all members, or those
    that it is `bound` to. The quorum is that of the round, which the job's `control` may have changed.
    """
    asked = bound or spec.members
    absent = tuple(member for member in asked if member not in offers)
    without = tuple(member for member in asked if member in offers and spec.task not in offers[member])
    able = frozenset(asked) - set(absent) - set(without)
    return Assessment(spec, control.quorum_of(spec), bound, able, absent, without)


def listed(names: Sequence[str]) -> str:
    """Names for a sentence: of many the first ones, and how many more there are."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
