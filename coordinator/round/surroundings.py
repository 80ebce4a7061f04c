"""What a round's driver works with, as it sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from coordinator.audit import AuditLog
from coordinator.round.frame import RoundFrame
from coordinator.round.phases import Contribution, Opening, RoundState
from coordinator.round.transition import Seal
from coordinator.storage.interface import Store
from shared.clock import Clock
from shared.ids import AttemptKey, ParticipantId, RoundKey
from shared.protocol.messages import RoundBroadcast
from shared.reasons import Purpose
from shared.update import Encoding


@dataclass(frozen=True, slots=True)
class FoldOrder:
    """Everything that a fold needs; its result depends on nothing else."""

    frame: RoundFrame
    attempt: AttemptKey
    encoding: Encoding
    survivors: Mapping[ParticipantId, Contribution]
    opening: Opening | None
    """What takes the masks off the sum; None in the plain mode."""


class Outbox(Protocol):
    """The sessions. A message to a participant without one is dropped: it will be told again when it is back."""

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None: ...


class Folds(Protocol):
    """Runs folds elsewhere and reports `Folded` or `FoldFailed` for the round later."""

    def start(self, order: FoldOrder) -> None: ...

    def drop(self, key: RoundKey) -> None:
        """A round was aborted: its fold is not begun any more. One that was begun already is reported as ever."""
        ...


class Observer(Protocol):
    """Told what became true, for metrics and logs. Never asked anything, never fails."""

    def moved(self, state: RoundState) -> None:
        """The round is in this state now."""
        ...

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        """The round is over; `summary` is what `consilo job show` prints."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a driver works with."""

    store: Store
    audit: AuditLog
    outbox: Outbox
    folds: Folds
    seal: Seal
    clock: Clock
    observer: Observer
