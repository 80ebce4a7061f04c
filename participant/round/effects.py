"""What happens to a round at the participant, and what it asks for, in order.

As at the coordinator: effects are performed in the order given, each complete before the next. The records are
durable before what depends on them is said: the plan before Consent, the update before Ready, the attempt before its
upload (masked: before its keys), the opening before the shares, the end before the spool is erased. `Say` is dropped
while there is no session; what still matters is said again when the coordinator repeats its own part.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from participant.round.phases import Offer, Opening, Protection, SpooledUpdate, Total
from shared.ids import Digest
from shared.protocol.messages import (
    AttemptStart,
    ConsistencyBundle,
    Envelope,
    KeyRoster,
    RoundAborted,
    RoundReply,
    RoundResult,
    Sealed,
    ShareDelivery,
    SurvivorList,
)
from shared.reasons import AttemptAbortReason, DropReason

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
class RosterCame:
    roster: KeyRoster


@dataclass(frozen=True, slots=True)
class DeliveryCame:
    delivery: ShareDelivery


@dataclass(frozen=True, slots=True)
class UploadAcknowledged:
    attempt: Digest
    commit: Envelope | None
    """The signed word that was acknowledged; None when the coordinator says that it has it from an earlier call."""


@dataclass(frozen=True, slots=True)
class UploadImpossible:
    """The spool cannot be sent. A DropReason (it is unreadable, or not what it was) ends the round for this silo; an
    AttemptAbortReason (a chunk would differ from what was sent) only this attempt.
    """

    attempt: Digest
    reason: DropReason | AttemptAbortReason


@dataclass(frozen=True, slots=True)
class SurvivorsListed:
    survivors: SurvivorList
    opened_before: Collection[Total]
    """What this silo helped to open on the same task and model, in any job, in rounds of either purpose."""
    repeats_allowed: bool
    """Whether the silo's policy lets this job open another one."""


@dataclass(frozen=True, slots=True)
class BundleCame:
    """As of the survivors' list, and looked up again: between the two this silo may have opened a total in another job,
    whose list it was shown before this one's bundle.
    """

    bundle: ConsistencyBundle
    opened_before: Collection[Total]
    repeats_allowed: bool


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
    | RosterCame
    | DeliveryCame
    | UploadAcknowledged
    | UploadImpossible
    | SurvivorsListed
    | BundleCame
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
    """`core`: what all masked attempts of the round have in common; None in a plain job."""

    offer: Offer
    attempt: Sealed[AttemptStart]
    core: Digest | None


@dataclass(frozen=True, slots=True)
class RecordOpening:
    """On record before a share is said: from here on this silo helps to open no other total of this round."""

    offer: Offer
    opening: Opening


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """The round is over here; `survived` decides whether the task's new state is kept."""

    offer: Offer
    survived: bool
    verified: Sealed[RoundResult] | None
    """The result that ended it, when it was one, and this silo holds it to be true."""
    aborted: bool
    """The coordinator said that it was aborted: there is no result of it."""


@dataclass(frozen=True, slots=True)
class StopJob:
    """The silo takes no further part in the job: what it was shown cannot be true."""

    offer: Offer
    reason: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Somebody at the silo should know: the coordinator said what an honest one does not. `what` is a fixed name."""

    offer: Offer
    what: str
    detail: str


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
    protection: Protection


@dataclass(frozen=True, slots=True)
class Stop:
    """End whatever runs for this round: its task call, its transfers."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Erase:
    """Remove the round's spool."""

    offer: Offer


Effect: TypeAlias = (
    RecordPlan
    | RecordUpdate
    | RecordAttempt
    | RecordOpening
    | RecordEnd
    | StopJob
    | Alarm
    | Say
    | StartWork
    | StartUpload
    | Stop
    | Erase
)
