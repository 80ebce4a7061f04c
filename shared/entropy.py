"""Randomness is a parameter: the operating system's generator in production, a fixed stream in simulations."""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol


class Entropy(Protocol):
    """A source of bytes that nobody can predict."""

    def take(self, count: int) -> bytes:
        """`count` fresh bytes."""
        ...


class SystemEntropy:
    """The operating system's generator."""

    def take(self, count: int) -> bytes:
        return secrets.token_bytes(count)


class SeededEntropy:
    """SHA-256 in counter mode over a seed, so that a simulated history replays. Never for production."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._counter = 0

    def take(self, count: int) -> bytes:
        out = b""
        while len(out) < count:
            out += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        return out[:count]
