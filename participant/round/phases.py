"""The states of a round at a participant: one frozen type per phase, holding exactly what exists in it.

    (plan) --consent--> Working --update spooled--> Ready --attempt--> Uploading --acknowledged--> Committed --> Fixed
       |                   |                          |                   |
    decline             withdraw                   withdraw            withdraw        any of these --result--> Finished
       +-------------------+-----------> Out <--------+-------------------+

*Working* fetches the model, evaluates it and trains; *Ready* has its update on disk; *Uploading* has an attempt to
send it in; *Committed* has the coordinator's word that it is durable there; *Fixed* is among the survivors. The
phases of the conversation (PROTOCOL.md section 5) are given by `phase_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from shared.ids import Digest, RoundKey
from shared.job import JobSpec
from shared.protocol.messages import AttemptStart, Decline, RoundPlan, Sealed, Withdraw
from shared.protocol.phases import Phase
from shared.update import UpdateHeader


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan that this silo looked at, and who it is in it."""

    plan: Sealed[RoundPlan]
    digest: Digest
    spec: JobSpec
    index: int
    """1-based position among the job's members."""

    @property
    def key(self) -> RoundKey:
        return self.plan.value.key


@dataclass(frozen=True, slots=True)
class SpooledUpdate:
    """A finished update on the silo's disk: the header, section 1, and how many cells section 0 has in its file."""

    header: UpdateHeader
    statistics: tuple[float, ...]
    parameters: int


@dataclass(frozen=True, slots=True)
class Working:
    offer: Offer


@dataclass(frozen=True, slots=True)
class Ready:
    offer: Offer
    update: SpooledUpdate


@dataclass(frozen=True, slots=True)
class Uploading:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class Committed:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class Fixed:
    offer: Offer
    attempt: Sealed[AttemptStart]


@dataclass(frozen=True, slots=True)
class Out:
    """Declined or withdrawn; `said` is repeated when the plan is."""

    offer: Offer
    said: Decline | Withdraw


@dataclass(frozen=True, slots=True)
class Finished:
    offer: Offer
    survived: bool
    """Whether this silo's update is in a committed result."""


RoundState: TypeAlias = Working | Ready | Uploading | Committed | Fixed | Out | Finished


def phase_of(state: RoundState) -> Phase:
    """Where the conversation is."""
    match state:
        case Working():
            return Phase.TRAINING
        case Ready():
            return Phase.READY
        case Uploading():
            return Phase.UPLOADING
        case Committed():
            return Phase.COMMITTED
        case Fixed():
            return Phase.FIXED
        case Out():
            return Phase.OUT
        case Finished():
            return Phase.FINISHED
        case _:
            assert_never(state)
