"""What happens to a round, and what a round asks for.

The machine never acts: each step returns the effects that the driver must perform **in the order given, each one
complete before the next one starts**. That order is the safety argument:

* `Journal` is durable when it returns. Everything sent or acknowledged after it may rely on it after `kill -9`.
* `Send` hands a message to the member's session, if it has one. A lost message is no harm: whatever still matters is
  said again on the next session.
* `AcknowledgeUpload` comes after the `Journal` of that contribution, never before.
* `StartFold` is answered later by `Folded` or `FoldFailed`. It may be started again after a restart, with equal result.
* `Commit` and `Abort` are the round's one commit point: round, model, job and audit entry become true together. What
  follows them (results to the members) may be repeated by anyone who reads the store.

When performing an effect raises, the rest of the list is not performed and the step did not happen: StorageError leaves
the old state in force; DurabilityUnknown ends the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from coordinator.round.phases import Contribution, Dealt, Fit, Lefts, Opening, Rules
from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    Envelope,
    RoundAborted,
    RoundBroadcast,
    RoundReply,
    RoundResult,
    Sealed,
    UnmaskShares,
)
from shared.reasons import AbortReason, DropReason
from shared.update import Encoding, UpdateHeader

# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """A member has a (new) session."""

    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A member's session ended."""

    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class Replied:
    """A member said something on its session."""

    participant: ParticipantId
    message: RoundReply


@dataclass(frozen=True, slots=True)
class UploadOffered:
    """A member's update is complete, verified and durable on our disk, and this is its signed word for it."""

    participant: ParticipantId
    attempt: AttemptKey
    commit: Envelope
    header: UpdateHeader
    update: Digest


@dataclass(frozen=True, slots=True)
class Folded:
    """The fold ended well; for a training round the new model is published."""

    next_model: Digest
    weight_total: float
    aggregate: Digest
    totals: Mapping[str, float]
    top_cells: tuple[int, ...] = ()
    """For each aggregated tensor, in a masked round of purpose `train`."""


@dataclass(frozen=True, slots=True)
class FoldFailed:
    """The updates could not be combined."""

    reason: AbortReason
    detail: str = ""
    """For the log."""


@dataclass(frozen=True, slots=True)
class AbortAsked:
    """The job is to end: an operator aborted it, or the records that it would go on from are an older copy."""

    reason: AbortReason = AbortReason.OPERATOR


@dataclass(frozen=True, slots=True)
class Revoked:
    """A member was taken off the allow-list."""

    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; some deadline may be over."""


Event: TypeAlias = (
    Connected | Disconnected | Replied | UploadOffered | Folded | FoldFailed | AbortAsked | Revoked | Tick
)

# --- what is journaled ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemberOut:
    """A member left the round for good."""

    participant: ParticipantId
    reason: DropReason


@dataclass(frozen=True, slots=True)
class RangeMissed:
    """Some member said that its update does not fit the round's encoding, or that it knows no range: what begins from
    here on is in the widest one. Whose word it was is nobody's business, and not kept.
    """

    fit: Fit


@dataclass(frozen=True, slots=True)
class AttemptBegun:
    """An attempt and its cohort, before anyone is told."""

    start: Sealed[AttemptStart]
    cohort: tuple[ParticipantId, ...]


@dataclass(frozen=True, slots=True)
class RosterFixed:
    """U1, before the roster is sent. No other keys are taken in this attempt."""

    adverts: Mapping[ParticipantId, Sealed[AdvertiseKeys]]


@dataclass(frozen=True, slots=True)
class SharesFixed:
    """U2 and what it dealt, before the shares are delivered."""

    dealt: Mapping[ParticipantId, Dealt]


@dataclass(frozen=True, slots=True)
class Contributed:
    """An update is in, before it is acknowledged."""

    participant: ParticipantId
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class SurvivorsFixed:
    """No update is taken from here on."""

    survivors: tuple[ParticipantId, ...]


@dataclass(frozen=True, slots=True)
class BundleMade:
    """Enough signatures over one list, before anybody is asked to open a share. From here on no other attempt."""

    signatures: Mapping[ParticipantId, Envelope]


@dataclass(frozen=True, slots=True)
class SharesRevealed:
    """One survivor's shares, before anything is done with them."""

    participant: ParticipantId
    word: Sealed[UnmaskShares]


Record: TypeAlias = (
    MemberOut
    | RangeMissed
    | AttemptBegun
    | RosterFixed
    | SharesFixed
    | Contributed
    | SurvivorsFixed
    | BundleMade
    | SharesRevealed
)

# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Journal:
    record: Record


@dataclass(frozen=True, slots=True)
class Send:
    participant: ParticipantId
    message: RoundBroadcast


@dataclass(frozen=True, slots=True)
class AcknowledgeUpload:
    participant: ParticipantId
    update: Digest


@dataclass(frozen=True, slots=True)
class StartFold:
    """Combine the survivors' updates, in this order; with an opening, take the masks off their sum."""

    attempt: AttemptKey
    encoding: Encoding
    survivors: Mapping[ParticipantId, Contribution]
    opening: Opening | None


@dataclass(frozen=True, slots=True)
class Protection:
    """How the round's updates were protected, as far as the record of the round tells it."""

    encoding: Encoding
    """Of the last attempt; of the one that would have been, in a round without any."""
    missed: bool
    """Whether some member said that its update does not fit the round's encoding."""


@dataclass(frozen=True, slots=True)
class Commit:
    result: Sealed[RoundResult]
    dropped: Mapping[ParticipantId, DropReason]
    rules: Rules
    """By which rule each silo declined that did."""
    left: Lefts
    """Who left the last attempt, by its own word."""
    totals: Mapping[str, float]
    protection: Protection


@dataclass(frozen=True, slots=True)
class Abort:
    aborted: Sealed[RoundAborted]
    dropped: Mapping[ParticipantId, DropReason]
    rules: Rules
    left: Lefts
    """Both as in `Commit`."""
    protection: Protection
    opened: tuple[ParticipantId, ...]
    """The survivors of a total that they were asked to open: on this model they open no other one."""


Effect: TypeAlias = Journal | Send | AcknowledgeUpload | StartFold | Commit | Abort
