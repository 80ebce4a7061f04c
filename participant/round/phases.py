"""The states of a round at a participant: one frozen type per phase, holding exactly what exists in it.

    (plan) --consent--> Working --update spooled--> Ready --attempt--> Uploading --acknowledged--> Committed --> Fixed
       |                   |                          |                   |
    decline             withdraw                   withdraw            withdraw        any of these --result--> Finished
       +-------------------+-----------> Out <--------+-------------------+

    masked:  Ready --attempt--> Advertised --roster--> Shared --delivery--> Uploading --acknowledged--> Committed
             --survivors--> Confirmed --bundle--> Opened

*Working* fetches the model, evaluates it and trains; *Ready* has its update on disk; *Uploading* has an attempt to
send it in; *Committed* has the coordinator's word that it is durable there; *Fixed* is among the survivors. The
phases of the conversation (PROTOCOL.md section 5) are given by `phase_of`.

With masking, *Advertised* has drawn the secrets of its attempt and said its public keys; *Shared* knows everybody's
keys and dealt shares of its seeds; *Confirmed* signed which survivors it was shown; *Opened* gave its shares for the
total over them, once and for all. An attempt that is left before Confirmed leads back to Ready. Secrets live in
Advertised, Shared, Uploading, Committed and Confirmed, and nowhere else: a state that is replaced takes them along.
Every one of them is a `Secret`, so that no state prints one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from participant.consent import VerifiedResult
from shared.consortium import Consortium
from shared.ids import Digest, ParticipantId, RoundKey
from shared.job import JobSpec
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    ConsistencySignature,
    Decline,
    Envelope,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareKeys,
    Withdraw,
)
from shared.protocol.phases import Phase
from shared.secagg.keys import AttemptSecrets
from shared.secagg.masking import Masks
from shared.secagg.sealing import OpenedShare, SealedShare
from shared.secret import Secret
from shared.update import Encoding

MISSES_MAX = 3  # rounds in which a silo says that its update does not fit; after them it always says so (u64 for good)


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan that this silo looked at, and what it knows by itself of the round."""

    plan: Sealed[RoundPlan]
    digest: Digest
    spec: JobSpec
    index: int
    """1-based position among the job's members."""
    previous: RoundResult | None
    """The result that the plan carries, its signature verified; None before the first."""
    encoding: Encoding
    """Of this round until somebody's update does not fit: then it is u64."""
    misses: int
    """How often this silo said in this job that its update does not fit."""
    consortium: Consortium | None
    """The manifest that this silo pinned; a masked round needs it."""
    verified: VerifiedResult | None
    """The last result of this job that this silo verified."""

    @property
    def key(self) -> RoundKey:
        return self.plan.value.key

    @property
    def masked(self) -> bool:
        return self.spec.masking.masked


@dataclass(frozen=True, slots=True)
class Measured:
    """What one half of a task said of its data: how many examples, and the mean of each metric over them."""

    weight: float
    means: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SpooledUpdate:
    """A finished update on the silo's disk, before any encoding."""

    train: Measured | None
    """None in a round of purpose `evaluate`."""
    evaluate: Measured
    parameters: int
    """How many cells section 0 has in its file."""
    cells: tuple[int, ...]
    """The range cell of each aggregated tensor; none in a plain job or a round of purpose `evaluate`."""
    fits: bool
    """Whether it fits the encoding of the round (`Offer.encoding`), as far as this silo looked (`checks.says_fits`)."""
    root: Digest | None = None
    """Over the digests of section 0's pieces (`participant.spooled`) as it was finished; None where there is no section
    0, or where a version spooled it that kept no digests.
    """


@dataclass(frozen=True, slots=True)
class Plain:
    """The update is sent as it is."""


@dataclass(frozen=True, slots=True)
class Masked:
    """What an update is encoded and masked with in one attempt. The result is a function of the spool and of this."""

    h0: Digest
    transcript: Digest
    """t2, under which the masks are made."""
    masks: Masks
    encoding_seed: Secret
    scale_exponents: tuple[int, ...]
    """log2 S of each aggregated tensor."""


Protection: TypeAlias = Plain | Masked


@dataclass(frozen=True, slots=True)
class Dealt:
    """What this silo holds of the others once all shares are dealt."""

    t1: Digest
    t2: Digest
    held: Mapping[int, OpenedShare]
    """By dealer, this silo among them; the dealers are U2."""


@dataclass(frozen=True, slots=True)
class Total:
    """What tells two totals on one model apart. Where either differs, the difference of the two says something about
    single members.
    """

    names: tuple[ParticipantId, ...]
    """Whom it is over, ascending."""
    terms: Digest
    """How it counts them (`checks.terms_of`)."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How this silo helped to open a total: what it says again, byte for byte, and never says of another total."""

    attempt: Digest
    """h0"""
    survivors: Digest
    """t3"""
    names: tuple[ParticipantId, ...]
    """Of the survivors (U3), ascending."""
    terms: Digest
    reply: Envelope = field(repr=False)
    """The sealed UnmaskShares: shares of others, which no log is to have."""

    @property
    def total(self) -> Total:
        return Total(self.names, self.terms)


@dataclass(frozen=True, slots=True)
class Working:
    offer: Offer


@dataclass(frozen=True, slots=True)
class Ready:
    offer: Offer
    update: SpooledUpdate
    last: Sealed[AttemptStart] | None
    """The masked attempt that it took part in last; its secrets are gone."""


@dataclass(frozen=True, slots=True)
class Advertised:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    secrets: AttemptSecrets
    advert: Sealed[AdvertiseKeys]


@dataclass(frozen=True, slots=True)
class Shared:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    secrets: AttemptSecrets
    advert: Sealed[AdvertiseKeys]
    roster: Mapping[int, AdvertiseKeys]
    """Who advertised (U1), by index, ascending."""
    t1: Digest
    word: Sealed[ShareKeys]
    shares: tuple[SealedShare, ...]


@dataclass(frozen=True, slots=True)
class Uploading:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    protection: Protection
    dealt: Dealt | None
    """None in a plain attempt."""


@dataclass(frozen=True, slots=True)
class Committed:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    protection: Protection
    dealt: Dealt | None
    """None in a plain attempt."""
    commit: Envelope | None
    """The word that was acknowledged; None when the coordinator had it from an earlier call."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Among the survivors of a plain attempt."""

    offer: Offer
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Among the survivors of a masked attempt, as this silo signed."""

    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    dealt: Dealt
    t3: Digest
    survivors: tuple[int, ...]
    """U3, ascending."""
    word: Sealed[ConsistencySignature]


@dataclass(frozen=True, slots=True)
class Opened:
    """It gave its shares. It holds no secret any more, and takes part in no other attempt at this round."""

    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    opening: Opening


@dataclass(frozen=True, slots=True)
class Out:
    """Declined or withdrawn; `said` is repeated when the plan is."""

    offer: Offer
    said: Decline | Withdraw
    over: bool
    """On record as over here: the silo had consented to it, and its update may have been sent before it left."""


@dataclass(frozen=True, slots=True)
class Finished:
    offer: Offer
    survived: bool
    """Whether this silo's update is in a committed result."""


InAttempt: TypeAlias = Advertised | Shared | Uploading | Committed | Confirmed
RoundState: TypeAlias = Working | Ready | InAttempt | Fixed | Opened | Out | Finished


def is_needed(state: RoundState) -> bool:
    """Whether others count on what this silo holds in memory alone: its shares are dealt, and it opened none."""
    return isinstance(state, Shared | Uploading | Committed | Confirmed) and state.offer.masked


def phase_of(state: RoundState) -> Phase:
    """Where the conversation is."""
    match state:
        case Working():
            return Phase.TRAINING
        case Ready():
            return Phase.READY
        case Advertised():
            return Phase.ADVERTISING
        case Shared():
            return Phase.SHARING
        case Uploading():
            return Phase.UPLOADING
        case Committed():
            return Phase.COMMITTED
        case Fixed() | Confirmed():
            return Phase.FIXED
        case Opened():
            return Phase.OPENING
        case Out():
            return Phase.OUT
        case Finished():
            return Phase.FINISHED
        case _:
            assert_never(state)
