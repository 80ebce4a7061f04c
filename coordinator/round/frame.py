"""What is fixed of a round when it is planned, and true in every phase: the job, the plan, the model, whom it asks.

A frame is never written: it is made again from the plan's bytes and from how the job's earlier rounds ended
(`coordinator.planning`), so a restart has the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.identity import VerifyingKey
from shared.ids import ParticipantId, RoundKey
from shared.job import JobSpec
from shared.protocol.messages import RoundPlan, Sealed
from shared.reasons import Purpose
from shared.tensors import ModelIndex
from shared.update import Encoding, StatisticsLayout, UpdateLayout


@dataclass(frozen=True, slots=True)
class RoundFrame:
    """What is fixed when the round is planned and true in every phase."""

    spec: JobSpec
    plan: Sealed[RoundPlan]
    index: ModelIndex
    """Of the model that the round starts from."""
    statistics: StatisticsLayout
    encoding: Encoding
    """Of this round's attempts, until a member says that its update does not fit."""
    consortium: bytes
    """The digest of the manifest that this coordinator has; empty in a plain job."""
    keys: Mapping[ParticipantId, VerifyingKey]
    """By which the members sign: of the manifest; empty in a plain job."""
    top_cells: tuple[int, ...] | None
    """Of the previous result; None before the first, and in a plain job."""
    bound: tuple[ParticipantId, ...] = ()
    """The members of a total that may have been opened on the model that the round starts from: it asks all of these
    and nobody else, since they open no other total on it. Empty where nothing was opened, and in a plain job.
    """

    @property
    def key(self) -> RoundKey:
        return self.plan.value.key

    @property
    def quorum(self) -> int:
        """So many Ready start an attempt."""
        return len(self.bound) or self.plan.value.control.quorum_of(self.spec)

    @property
    def floor(self) -> int:
        """With fewer updates an attempt fails."""
        return len(self.bound) or self.spec.floor

    @property
    def not_asked(self) -> tuple[ParticipantId, ...]:
        """Members who are out of this round from its plan on."""
        return tuple(member for member in self.spec.members if self.bound and member not in self.bound)

    def index_of(self, participant: ParticipantId) -> int:
        """1-based position among the members. A stranger is a bug of the caller."""
        return self.spec.members.index(participant) + 1

    def layout(self, encoding: Encoding) -> UpdateLayout:
        """Of this round's updates in that encoding."""
        trains = self.plan.value.purpose is Purpose.TRAIN
        tensors = sum(1 for _ in self.index.manifest.aggregated())
        return UpdateLayout.of_round(
            encoding=encoding,
            parameters=self.index.manifest.parameters if trains else 0,
            tensors=tensors if trains else 0,
            statistics=self.statistics,
        )
