"""What a simulated federation is made of: its job, and its parts, each of which a test may weaken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.conductor import Conductor
from coordinator.folding import run_fold
from coordinator.intake import Intake
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.surroundings import FoldOrder
from coordinator.round.transition import Seal
from coordinator.storage.interface import Blobs
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from shared.ids import JobId, ParticipantId
from shared.job import JobSpec
from tests.support.rounds import MEMBERS, make_spec

JOB = JobId("heart-1")
BANKS = 2
"""Rounds write to one half of the model or to the other, so that what belongs to the round before is seen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The job of one history: small numbers, so that a reproduction can be read."""

    members: int = 4
    rounds: int = 2
    quorum: int = 3
    floor: int = 2
    attempts: int = 2

    @property
    def names(self) -> tuple[ParticipantId, ...]:
        return MEMBERS[: self.members]

    @property
    def elements(self) -> int:
        return BANKS * self.members

    def spec(self) -> JobSpec:
        quorum = min(self.quorum, self.members)
        return make_spec(
            members=self.names,
            rounds=self.rounds,
            elements=self.elements,
            quorum=quorum,
            min_survivors=min(self.floor, quorum),
            attempts=self.attempts,
            aborted_rounds_allowed=2,
        )


def _unchanged(seal: Seal) -> Seal:
    return seal


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The real components. A planted bug replaces one of them by a weakened one."""

    store: type[MemoryStore] = MemoryStore
    blobs: type[MemoryBlobs] = MemoryBlobs
    intake: type[Intake] = Intake
    conductor: type[Conductor] = Conductor
    fold: Callable[[FoldOrder, Blobs], Folded | FoldFailed] = run_fold
    seal: Callable[[Seal], Seal] = _unchanged


class Convicted(AssertionError):  # noqa: N818 - says what happened to the history
    """An invariant does not hold. `invariant` is its short name."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def hold(condition: bool, invariant: str, detail: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not condition:
        raise Convicted(invariant, detail)
