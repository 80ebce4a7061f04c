"""How updates become the next model.

A strategy says what it must see. One that sees only the SUM works on a mean of updates and can be combined with
masking, where nothing else ever opens; one that needs INDIVIDUAL updates (a median, for one) cannot.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import numpy as np

from shared.casts import Float64s
from shared.job import StrategySpec


class Visibility(Enum):
    """What a strategy must see of the updates."""

    SUM = "sum"
    INDIVIDUAL = "individual"


class Strategy(Protocol):
    """The step from one model version to the next, chunk by chunk."""

    @property
    def name(self) -> str:
        """As in the job file."""
        ...

    @property
    def sees(self) -> Visibility: ...

    def apply(self, old: Float64s, mean_delta: Float64s) -> Float64s:
        """The new values of a chunk. May write into either argument, and may return one of them."""
        ...


class FedAvg:
    """The weighted mean of the updates is added to the model."""

    name = "fedavg"
    sees = Visibility.SUM

    def apply(self, old: Float64s, mean_delta: Float64s) -> Float64s:
        return np.add(old, mean_delta, out=mean_delta)


def strategy_for(spec: StrategySpec) -> Strategy:
    """The strategy that a job asks for."""
    match spec.name:
        case "fedavg":
            return FedAvg()
        case other:
            raise RuntimeError(f"there is no strategy {other!r}: JobSpec refuses it")
