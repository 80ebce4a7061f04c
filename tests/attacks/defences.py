"""The switches of the smallest silo, and what it keeps: on its disk, and of the attempt that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from shared.ids import Digest, ParticipantId, RoundKey
from shared.protocol.messages import AdvertiseKeys, AttemptStart, Envelope, RoundPlan, Sealed, ShareKeys, attempt_digest
from shared.secagg.keys import AttemptSecrets
from shared.secagg.sealing import OpenedShare


class Lives(Enum):
    """For how long a silo uses the seed of its pairwise masks (per round: that of its own mask as well)."""

    ATTEMPT = "attempt"
    ROUND = "round"
    JOB = "job"


@dataclass(frozen=True, kw_only=True)
class Defences:
    """Each is on in the protocol; the comments name the attack that each stops."""

    seeds: Lives = Lives.ATTEMPT  # past rounds opened by a drop; replays
    consistency_round: bool = True  # other survivors shown to each silo
    one_list: bool = True  # a second list within an attempt: both kinds of share
    one_opening: bool = True  # a second attempt after an opening: subtraction
    totals_remembered: bool = True  # another job on the same model: subtraction
    totals_at_opening: bool = True  # the same, both lists signed before either total is opened
    members_of_the_job: bool = True  # a cohort of the coordinator's choice
    known_members: bool = True  # members whom no manifest knows
    signatures: bool = True  # keys of the coordinator's own in the place of others
    threshold_of_the_job: bool = True  # a threshold that follows from who is there
    collusion_of_the_job: bool = True  # a threshold that follows from what the coordinator says
    plan_is_fixed: bool = True  # a range that the coordinator states again and again
    same_bytes: bool = True  # a mask on two different contents
    sound_keys: bool = True  # a key with which everybody agrees on the same
    self_mask: bool = True  # the late upload of one that was declared dropped
    pair_masks: bool = True  # one total for each survivor


NONE = Defences(
    consistency_round=True,
    one_list=False,
    one_opening=False,
    totals_remembered=False,
    members_of_the_job=False,
    known_members=False,
    signatures=False,
    collusion_of_the_job=False,
    sound_keys=False,
)
"""Of a member who colludes: it goes along with everything."""


@dataclass
class Records:
    """What is on the silo's disk."""

    plans: dict[RoundKey, Sealed[RoundPlan]] = field(default_factory=dict)
    openings: dict[RoundKey, Digest] = field(default_factory=dict)
    """h0"""
    totals: dict[tuple[str, Digest, str], dict[RoundKey, set[ParticipantId]]] = field(default_factory=dict)
    """By task, model and purpose: over whom each round's is."""
    misses: int = 0


@dataclass
class Run:
    """The attempt that runs."""

    attempt: Sealed[AttemptStart]
    members: tuple[ParticipantId, ...]
    index: int
    threshold: int
    secrets: AttemptSecrets
    advert: Sealed[AdvertiseKeys]
    roster: Mapping[int, AdvertiseKeys] = field(default_factory=dict)
    t1: Digest | None = None
    word: Sealed[ShareKeys] | None = None
    t2: Digest | None = None
    held: dict[int, OpenedShare] = field(default_factory=dict)
    words: bytes | None = None
    """The content that was sent."""
    commit: Envelope | None = None
    t3: Digest | None = None
    survivors: tuple[int, ...] = ()

    @property
    def h0(self) -> Digest:
        return attempt_digest(self.attempt)
