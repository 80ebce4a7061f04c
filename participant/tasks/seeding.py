"""The seed of one call of a task.

    seed = first 8 bytes, big-endian, without the top bit, of
           H("task-seed", u64be(job seed), u32be(round), participant, purpose)

with `H` of `shared.hashing` (SHA-256 over a tag and length-prefixed parts). It depends on nothing that a restart or
another machine would change. Silos differ, so that four silos with one data loader do not shuffle alike; purposes
differ, so that what evaluation draws does not move training. `init` is the initial model (round 0, no participant).
"""

from __future__ import annotations

from enum import StrEnum

from shared.hashing import tagged_hash

SEED_MAX = 2**63 - 1
LOAD_SEED = 0  # for `Task.__init__` and `build_model` in a federation: what they draw is equal everywhere, always


class SeedPurpose(StrEnum):
    """What is about to be called."""

    INIT = "init"
    TRAIN = "train"
    EVALUATE = "evaluate"


def derive_seed(*, job_seed: int, round_number: int, participant: str, purpose: SeedPurpose) -> int:
    """From 0 to SEED_MAX."""
    digest = tagged_hash(
        "task-seed",
        job_seed.to_bytes(8, "big"),
        round_number.to_bytes(4, "big"),
        participant.encode(),
        purpose.encode(),
    )
    return int.from_bytes(digest.raw[:8], "big") & SEED_MAX


def init_seed(seed: int) -> int:
    """The seed under which `consilo task init-model --seed` builds a model."""
    return derive_seed(job_seed=seed, round_number=0, participant="", purpose=SeedPurpose.INIT)
