"""How many participants it takes to open a sum (secure aggregation design 2.2).

Each silo computes the threshold itself, from the members that the job names and from nothing else: with a threshold of
the coordinator's, or one that follows from who happens to be present, two sums could open in one round.
"""

from __future__ import annotations


def default_max_colluding(members: int) -> int:
    """How many silos a job of that size assumes to pool what they know with the coordinator, unless it says so."""
    if members < 2:
        raise RuntimeError(f"a sum hides something among 2 members or more, got {members}")
    return 0 if members == 2 else max(1, (members - 1) // 3)


def threshold(members: int, max_colluding: int) -> int:
    """`t = max(floor((n + c) / 2) + 1, c + 2)`: shares that reconstruct a secret, signatures that fix the survivors.

    The first term makes `2t > n + c`: two openings of one round would need `2(t - c)` honest silos, each of which helps
    once, and there are `n - c`. The second leaves two honest silos in every sum. The result may exceed `members`: such
    a job cannot run, and `JobSpec` refuses it.
    """
    if members < 1 or max_colluding < 0:
        raise RuntimeError(f"expected members >= 1 and max_colluding >= 0, got {members} and {max_colluding}")
    return max((members + max_colluding) // 2 + 1, max_colluding + 2)
