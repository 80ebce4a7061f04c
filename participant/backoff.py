"""How long to wait before the next try: exponential with full jitter, so that silos do not come back all at once.

The delay is uniform between zero and a ceiling that doubles (Amazon's "full jitter"); a floor keeps a fast failure from
becoming a busy loop.
"""

from __future__ import annotations

from shared.entropy import Entropy, SystemEntropy

FIRST_CEILING_S = 0.5
LAST_CEILING_S = 15.0
FLOOR_S = 0.1


class Backoff:
    """Delays for one thing that is tried again."""

    def __init__(self, *, entropy: Entropy | None = None, last_ceiling_s: float = LAST_CEILING_S) -> None:
        self._entropy = entropy or SystemEntropy()
        self._last_ceiling_s = last_ceiling_s
        self._ceiling_s = FIRST_CEILING_S

    def next_delay_s(self) -> float:
        """The next delay in seconds."""
        share = int.from_bytes(self._entropy.take(8), "big") / 2**64
        delay_s = max(FLOOR_S, share * self._ceiling_s)
        self._ceiling_s = min(2 * self._ceiling_s, self._last_ceiling_s)
        return delay_s

    def reset(self) -> None:
        """It worked: the next failure starts small."""
        self._ceiling_s = FIRST_CEILING_S
