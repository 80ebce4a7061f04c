"""The states of a round at the coordinator: one frozen type per phase, holding exactly what exists in it.

    Recruiting --quorum Ready--> Gracing --all Ready, or grace over--> one attempt:

    [Advertising --> Sharing -->] Uploading --> [Confirming --> Unmasking -->] Folding --> Committed
         ^                                            |             |             |
         +---- below the floor: the next attempt -----+             +-------------+--> Aborted

A round aborts from wherever too few are left, when its fold fails, and when an operator says so.

*Recruiting* waits for Ready. *Gracing* has its quorum and waits a little for the rest. What follows is one attempt: its
cohort is who was Ready when it started, and from here on only the floor counts. *Uploading* takes in updates. *Folding*
has its survivors fixed, on disk, for good. *Committed* and *Aborted* are final, and entered only together with the
store's commit.

The states in brackets belong to masking (PROTOCOL.md section 5.11). *Advertising* collects fresh keys (U1), *Sharing*
sealed shares (U2), *Confirming* the survivors' signatures that they were shown one list (U3), *Unmasking* the shares
that open the one total. From the moment that Unmasking is entered no other attempt of this round can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from coordinator.round.frame import RoundFrame
from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    Envelope,
    Sealed,
    ShareKeys,
    UnmaskShares,
    attempt_digest,
)
from shared.protocol.phases import Phase
from shared.reasons import AbortReason, AttemptAbortReason, ConsentRule, DropReason
from shared.secagg.sealing import SealedShare
from shared.update import Encoding, UpdateHeader, UpdateLayout


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
Rules: TypeAlias = Mapping[ParticipantId, ConsentRule]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One member's update, complete and durable."""

    commit: Envelope
    header: UpdateHeader
    update: Digest


@dataclass(frozen=True, slots=True)
class Roster:
    """U1: whose keys the masks are made of."""

    digest: Digest
    """t1."""
    adverts: Mapping[ParticipantId, Sealed[AdvertiseKeys]]


@dataclass(frozen=True, slots=True)
class Dealt:
    """What one member dealt: its signed word, and the sealed shares that it covers."""

    word: Sealed[ShareKeys]
    shares: tuple[SealedShare, ...]


@dataclass(frozen=True, slots=True)
class Masking:
    """What an attempt's masks depend on, complete: U2 is who dealt."""

    roster: Roster
    digest: Digest
    """t2."""
    dealt: Mapping[ParticipantId, Dealt]


@dataclass(frozen=True, slots=True)
class Opening:
    """Everything that opens one total, on the way to the fold."""

    masking: Masking
    survivors: Digest
    """t3."""
    revealed: Mapping[ParticipantId, UnmaskShares]


Lefts: TypeAlias = Mapping[ParticipantId, AttemptAbortReason]


class Fit(Enum):
    """What Ready members said of this round's encoding; the next attempt is in the widest one unless all fit."""

    ALL = "all"
    UNKNOWN = "unknown"
    """A member does not know the range, since it was not in the previous result."""
    MISSED = "missed"
    """The update of one that knows it is beyond it."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What each open round has."""

    frame: RoundFrame
    conversations: Conversations
    outs: Outs
    rules: Rules
    """By which rule each silo declined that did, since this process began."""
    fit: Fit

    @property
    def encoding(self) -> Encoding:
        """Of the next attempt."""
        return self.frame.encoding if self.fit is Fit.ALL else Encoding.U64


@dataclass(frozen=True, slots=True)
class _BeforeAttempt(_Open):
    """What a round has while it waits for Ready."""

    deadline: float
    grace_from: float
    """The grace begins with the quorum, and not before this: after a restart members need a while to come back."""


@dataclass(frozen=True, slots=True)
class Recruiting(_BeforeAttempt):
    pass


@dataclass(frozen=True, slots=True)
class Gracing(_BeforeAttempt):
    grace_ends: float


@dataclass(frozen=True, slots=True)
class _OfAttempt(_Open):
    """What each state of an attempt has."""

    attempt: Sealed[AttemptStart]
    lefts: Lefts
    """Who left this attempt, though not the round."""

    @property
    def key(self) -> AttemptKey:
        return self.attempt.value.key

    @property
    def h0(self) -> Digest:
        return attempt_digest(self.attempt)

    @property
    def layout(self) -> UpdateLayout:
        return self.frame.layout(self.attempt.value.encoding)


@dataclass(frozen=True, slots=True)
class Advertising(_OfAttempt):
    cohort: frozenset[ParticipantId]
    adverts: Mapping[ParticipantId, Sealed[AdvertiseKeys]]
    deadline: float


@dataclass(frozen=True, slots=True)
class Sharing(_OfAttempt):
    roster: Roster
    dealt: Mapping[ParticipantId, Dealt]
    deadline: float


@dataclass(frozen=True, slots=True)
class Uploading(_OfAttempt):
    cohort: frozenset[ParticipantId]
    """Who may upload: everybody who was Ready; in a masked attempt, U2."""
    masking: Masking | None
    contributions: Mapping[ParticipantId, Contribution]
    deadline: float

    @property
    def transcript(self) -> Digest:
        """What a commitment must name: t2, or h0 in the plain mode."""
        return self.masking.digest if self.masking is not None else self.h0


@dataclass(frozen=True, slots=True)
class Confirming(_OfAttempt):
    masking: Masking
    survivors: Mapping[ParticipantId, Contribution]
    digest: Digest
    """t3."""
    signatures: Mapping[ParticipantId, Envelope]
    deadline: float


@dataclass(frozen=True, slots=True)
class Unmasking(_OfAttempt):
    masking: Masking
    survivors: Mapping[ParticipantId, Contribution]
    digest: Digest
    bundle: tuple[Envelope, ...]
    revealed: Mapping[ParticipantId, UnmaskShares]
    deadline: float


@dataclass(frozen=True, slots=True)
class Folding(_OfAttempt):
    survivors: Mapping[ParticipantId, Contribution]
    opening: Opening | None
    """None in the plain mode."""

    @property
    def opened(self) -> Mapping[ParticipantId, UnmaskShares]:
        """What survivors gave to open the total."""
        return {} if self.opening is None else self.opening.revealed

    @property
    def transcript(self) -> Digest:
        """What the result names: t3, or h0 in the plain mode."""
        return self.opening.survivors if self.opening is not None else self.h0


@dataclass(frozen=True, slots=True)
class Committed:
    frame: RoundFrame
    next_model: Digest


@dataclass(frozen=True, slots=True)
class Aborted:
    frame: RoundFrame
    reason: AbortReason


AttemptState: TypeAlias = Advertising | Sharing | Uploading | Confirming | Unmasking | Folding
OpenState: TypeAlias = Recruiting | Gracing | AttemptState
RoundState: TypeAlias = OpenState | Committed | Aborted


def phase_name(state: RoundState) -> str:
    """The phase as dashboards and tables call it."""
    return type(state).__name__.lower()
