"""The generators of python, numpy and torch: seeded for each call, and part of what a task saves while it trains."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seed python, numpy and torch (on every device)."""
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 - the generator that the user's code may use
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Where they are now, as what a task's state may be made of. A generator that a task made itself is its own."""
    kind, words, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - as above
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, [int(word) for word in words], int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Put them back to where they were. Those of a device that is not here any more are left out."""
    random.setstate(states["python"])
    kind, words, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, np.array(words, np.uint32), position, has_gauss, gauss))  # noqa: NPY002 - as above
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
