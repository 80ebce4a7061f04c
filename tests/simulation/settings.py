"""What a simulated federation is made of: its job, and its parts, each of which a test may weaken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from coordinator.conductor import Conductor
from coordinator.folding import run_fold
from coordinator.intake import Intake
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.surroundings import FoldOrder
from coordinator.round.transition import Seal
from coordinator.storage.interface import Blobs
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from participant.round.driver import Driver
from shared.consortium import Consortium
from shared.entropy import Entropy, SeededEntropy
from shared.ids import JobId, ParticipantId
from shared.job import DEFAULT_MIN_SURVIVORS, TWO_PARTY, JobSpec, MaskingSpec
from shared.secagg.threshold import threshold
from tests.simulation.boundaries import Boundaries
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import PLAIN, make_spec, manifest_of

JOB = JobId("heart-1")
COORDINATOR = "coordinator"
BANKS = 2
"""Rounds write to one half of the model or to the other, so that what belongs to the round before is seen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The job of one history: small numbers, so that a reproduction can be read.

    In a masked job `quorum` and `floor` are raised to what its threshold asks for; `colluding` is lowered until two
    members are left who do not collude.
    """

    members: int = 4
    rounds: int = 2
    quorum: int = 3
    floor: int = 2
    attempts: int = 2
    masked: bool = False
    encoding: Literal["u32", "u16", "u64"] = "u32"
    colluding: int = 1
    exchange_deadline_s: float = 30.0
    padding: int = 0
    """Elements of the model that nobody ever changes."""

    @property
    def names(self) -> tuple[ParticipantId, ...]:
        return tuple(ParticipantId(f"hospital-{number:03}") for number in range(1, self.members + 1))

    @property
    def elements(self) -> int:
        return BANKS * self.members + self.padding

    @property
    def consortium(self) -> Consortium:
        return _consortium(self.names)

    def spec(self) -> JobSpec:
        quorum, floor = min(self.quorum, self.members), self.floor
        masking = self._masking()
        if masking.masked:
            least = TWO_PARTY if masking.allow_two_party else DEFAULT_MIN_SURVIVORS
            floor = max(min(floor, self.members), least)
            quorum = max(quorum, floor, threshold(self.members, masking.max_colluding))
        return make_spec(
            members=self.names,
            rounds=self.rounds,
            elements=self.elements,
            masking=masking,
            quorum=quorum,
            min_survivors=min(floor, quorum),
            attempts=self.attempts,
            aborted_rounds_allowed=2,
            exchange_deadline_s=self.exchange_deadline_s,
        )

    def _masking(self) -> MaskingSpec:
        if not self.masked:
            return PLAIN
        colluding = min(self.colluding, self.members - 2)
        return MaskingSpec(
            max_colluding=colluding,
            encoding=self.encoding,
            allow_two_party=self.members == TWO_PARTY,
            allow_no_collusion=self.members > TWO_PARTY and colluding == 0,
        )


@cache
def _consortium(names: tuple[ParticipantId, ...]) -> Consortium:
    return manifest_of(*names)


def _unchanged(seal: Seal) -> Seal:
    return seal


def _nothing_planned(_owner: str) -> Boundaries:
    return Boundaries()


def _fresh(participant: ParticipantId, life: int) -> Entropy:
    """Of one life of a participant's process: the history replays, and no two lives draw the same."""
    return SeededEntropy(f"{participant}, life {life}".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The real components. A planted bug replaces one of them by a weakened one."""

    store: type[MemoryStore] = MemoryStore
    blobs: type[MemoryBlobs] = MemoryBlobs
    intake: type[Intake] = Intake
    conductor: type[Conductor] = Conductor
    fold: Callable[[FoldOrder, Blobs], Folded | FoldFailed] = run_fold
    seal: Callable[[Seal], Seal] = _unchanged
    driver: type[Driver] = Driver
    journal: type[MemoryJournal] = MemoryJournal
    entropy: Callable[[ParticipantId, int], Entropy] = _fresh
    boundaries: Callable[[str], Boundaries] = _nothing_planned
    """Of the machine of this owner: COORDINATOR, or a participant's name."""


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A weakened part, and the invariants by which it may be convicted."""

    parts: Callable[[], Parts]
    invariants: frozenset[str]
    masked: bool = False
    """Whether it shows in masked jobs; else in plain ones."""
    from_share: int = 0
    """Where its search begins: a rare history is not looked for where it is known not to be."""


class Convicted(AssertionError):  # noqa: N818 - says what happened to the history
    """An invariant does not hold. `invariant` is its short name."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def hold(condition: bool, invariant: str, detail: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not condition:
        raise Convicted(invariant, detail)
