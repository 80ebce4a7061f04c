"""What a step of the round gives, and what it may use (pure: randomness comes in as `draw`)."""

from __future__ import annotations

from dataclasses import dataclass

from participant.round.effects import Effect
from participant.round.phases import RoundState
from shared.secagg.keys import Draw
from shared.wire.sealed import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the masked steps work with."""

    draw: Draw
    signer: Signer
    """Signs as this participant; its index among the members is the offer's."""


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state, and the effects to perform in order before it is in force."""

    state: RoundState
    effects: tuple[Effect, ...] = ()
