"""What happens to a round at the participant, and what it asks for, in order.

As at the coordinator: effects are performed in the order given, each complete before the next. The records are
durable before what depends on them is said: the plan before Consent, the update before Ready, the attempt before its
upload, the end before the spool is erased. `Say` is dropped while there is no session; what still matters is said
again when the coordinator repeats its own part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from participant.round.phases import Offer, SpooledUpdate
from shared.ids import Digest
from shared.protocol.messages import AttemptStart, RoundAborted, RoundReply, RoundResult, Sealed, SurvivorList
from shared.reasons import DropReason

# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanRepeated:
    """The coordinator said the same plan again: on a new session it does."""


@dataclass(frozen=True, slots=True)
class WorkProgressed:
    percent: int


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The update is complete in the spool, not yet recorded."""

    update: SpooledUpdate


@dataclass(frozen=True, slots=True)
class WorkFailed:
    reason: DropReason


@dataclass(frozen=True, slots=True)
class AttemptAnnounced:
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class UploadAcknowledged:
    attempt: Digest


@dataclass(frozen=True, slots=True)
class UploadImpossible:
    """The spool cannot be sent: unreadable, or not what it was."""

    attempt: Digest
    reason: DropReason


@dataclass(frozen=True, slots=True)
class SurvivorsListed:
    survivors: SurvivorList


@dataclass(frozen=True, slots=True)
class ResultCame:
    result: Sealed[RoundResult]


@dataclass(frozen=True, slots=True)
class AbortCame:
    aborted: Sealed[RoundAborted]


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A later round of the same job was planned, and nothing said how this one ended."""


Event: TypeAlias = (
    PlanRepeated
    | WorkProgressed
    | WorkDone
    | WorkFailed
    | AttemptAnnounced
    | UploadAcknowledged
    | UploadImpossible
    | SurvivorsListed
    | ResultCame
    | AbortCame
    | PassedOver
)

# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordPlan:
    offer: Offer


@dataclass(frozen=True, slots=True)
class RecordUpdate:
    offer: Offer
    update: SpooledUpdate


@dataclass(frozen=True, slots=True)
class RecordAttempt:
    offer: Offer
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """The round is over here; `survived` decides whether the task's new state is kept."""

    offer: Offer
    survived: bool


@dataclass(frozen=True, slots=True)
class Say:
    message: RoundReply


@dataclass(frozen=True, slots=True)
class StartWork:
    offer: Offer


@dataclass(frozen=True, slots=True)
class StartUpload:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class Stop:
    """End whatever runs for this round: its task call, its transfers."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Erase:
    """Remove the round's spool."""

    offer: Offer


Effect: TypeAlias = RecordPlan | RecordUpdate | RecordAttempt | RecordEnd | Say | StartWork | StartUpload | Stop | Erase
