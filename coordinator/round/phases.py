"""The states of a round at the coordinator: one frozen type per phase, holding exactly what exists in it.

    Recruiting --quorum Ready--> Gracing --all Ready, or grace over--> Uploading --> Folding --> Committed
        |                           |                                  |   ^  |         |
        +--- deadline, declines ----+------ deadline: go with quorum --+   +--+         |
        v                                                                 next attempt  |
     Aborted <--------------------------- below the floor, fold failed, operator -------+

*Recruiting* waits for Ready. *Gracing* has its quorum and waits a little for the rest. *Uploading* is one attempt: its
cohort is who was Ready when it started, and from here on only the floor counts. *Folding* has its survivors fixed, on
disk, for good. *Committed* and *Aborted* are final, and entered only together with the store's commit.

Secure aggregation adds Advertising and Sharing before Uploading, and Confirming and Unmasking between it and Folding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey
from shared.job import JobSpec
from shared.protocol.messages import AttemptStart, Envelope, RoundPlan, Sealed
from shared.protocol.phases import Phase
from shared.reasons import AbortReason, DropReason
from shared.tensors import ModelIndex
from shared.update import StatisticsLayout, UpdateHeader, UpdateLayout


@dataclass(frozen=True, slots=True)
class RoundFrame:
    """What is fixed when the round is planned and true in every phase."""

    spec: JobSpec
    plan: Sealed[RoundPlan]
    index: ModelIndex
    """Of the model that the round starts from."""
    layout: UpdateLayout
    statistics: StatisticsLayout

    @property
    def key(self) -> RoundKey:
        return self.plan.value.key

    def index_of(self, participant: ParticipantId) -> int:
        """1-based position among the members. A stranger is a bug of the caller."""
        return self.spec.members.index(participant) + 1


@dataclass(frozen=True, slots=True)
class Present:
    """Has a session now."""


@dataclass(frozen=True, slots=True)
class Away:
    """Had a session in this round; since when it has none (monotonic seconds)."""

    since: float


@dataclass(frozen=True, slots=True)
class NeverSeen:
    """Has had no session in this round."""


Link: TypeAlias = Present | Away | NeverSeen


@dataclass(frozen=True, slots=True)
class Conversation:
    """The round as one member has it: phase of PROTOCOL.md section 5, and whether it is there to talk to."""

    phase: Phase
    link: Link


Conversations: TypeAlias = Mapping[ParticipantId, Conversation]
Outs: TypeAlias = Mapping[ParticipantId, DropReason]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One member's update, complete and durable."""

    commit: Envelope
    header: UpdateHeader
    update: Digest


@dataclass(frozen=True, slots=True)
class Recruiting:
    frame: RoundFrame
    conversations: Conversations
    outs: Outs
    deadline: float
    attempts_used: int


@dataclass(frozen=True, slots=True)
class Gracing:
    frame: RoundFrame
    conversations: Conversations
    outs: Outs
    deadline: float
    attempts_used: int
    grace_ends: float


@dataclass(frozen=True, slots=True)
class Uploading:
    frame: RoundFrame
    conversations: Conversations
    outs: Outs
    attempt: Sealed[AttemptStart]
    cohort: frozenset[ParticipantId]
    contributions: Mapping[ParticipantId, Contribution]
    deadline: float

    @property
    def key(self) -> AttemptKey:
        return self.attempt.value.key


@dataclass(frozen=True, slots=True)
class Folding:
    frame: RoundFrame
    conversations: Conversations
    outs: Outs
    attempt: Sealed[AttemptStart]
    survivors: Mapping[ParticipantId, Contribution]


@dataclass(frozen=True, slots=True)
class Committed:
    frame: RoundFrame
    next_model: Digest


@dataclass(frozen=True, slots=True)
class Aborted:
    frame: RoundFrame
    reason: AbortReason


OpenState: TypeAlias = Recruiting | Gracing | Uploading | Folding
RoundState: TypeAlias = OpenState | Committed | Aborted
