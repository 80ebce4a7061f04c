"""Delays grow, are capped, differ between silos and start small again after success."""

from __future__ import annotations

from participant.backoff import FIRST_CEILING_S, FLOOR_S, LAST_CEILING_S, Backoff
from shared.entropy import SeededEntropy


class Highest:
    """Entropy that always gives the largest share."""

    def take(self, count: int) -> bytes:
        return b"\xff" * count


def test_ceilings_double_up_to_the_last() -> None:
    backoff = Backoff(entropy=Highest())
    delays = [round(backoff.next_delay_s(), 6) for _ in range(8)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, LAST_CEILING_S, LAST_CEILING_S, LAST_CEILING_S]


def test_after_success_it_starts_small() -> None:
    backoff = Backoff(entropy=Highest())
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert round(backoff.next_delay_s(), 6) == FIRST_CEILING_S


def test_delays_are_spread_and_never_a_busy_loop() -> None:
    one, other = (Backoff(entropy=SeededEntropy(seed)) for seed in (b"one", b"other"))
    mine, theirs = ([backoff.next_delay_s() for _ in range(20)] for backoff in (one, other))
    assert mine != theirs
    assert min(mine + theirs) >= FLOOR_S
