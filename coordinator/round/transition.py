"""What a step of the round gives, and the one thing that it needs from outside: signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from coordinator.round.effects import Effect
from coordinator.round.phases import RoundState
from shared.protocol.messages import AttemptStart, RoundAborted, RoundResult, Sealed

V = TypeVar("V", AttemptStart, RoundResult, RoundAborted)


class Seal(Protocol):
    """Encodes and signs, as the coordinator."""

    def __call__(self, value: V, /) -> Sealed[V]: ...


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state, and the effects to perform in order before it is in force."""

    state: RoundState
    effects: tuple[Effect, ...] = ()

    def then(self, follow: Callable[[RoundState], Transition]) -> Transition:
        """The same, and then another one from where it led."""
        after = follow(self.state)
        return Transition(after.state, self.effects + after.effects)
