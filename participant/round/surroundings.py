"""What the driver of rounds works with: contracts that the daemon implements, and that tests implement again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from participant.consent import Policy
from participant.journal import Journal
from participant.round.phases import Offer, Protection, RoundState, SpooledUpdate
from shared.entropy import Entropy
from shared.protocol.messages import AttemptStart, Sealed
from shared.wire.sealed import Signer, Verifier


class Work(Protocol):
    """What takes long. Each start returns at once; its end is reported to the driver as an event."""

    def start_work(self, offer: Offer) -> None:
        """Fetch, evaluate, train, spool: ends in WorkDone or WorkFailed."""
        ...

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        """Send until acknowledged: ends in UploadAcknowledged or UploadImpossible."""
        ...

    def stop(self, offer: Offer) -> None:
        """End what runs for this round; nothing more is reported of it."""
        ...

    def keep_state(self, offer: Offer) -> bool:
        """The round committed with this silo's update: keep the task's new state, if there is one."""
        ...

    def erase(self, offer: Offer) -> None:
        """Remove the round's spool."""
        ...


class Observer(Protocol):
    """Told what became true, for metrics. Never asked anything."""

    def moved(self, state: RoundState) -> None: ...

    def alarmed(self, what: str) -> None:
        """The coordinator said what an honest one does not; `what` is of a fixed list of names."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a driver works with."""

    policy: Policy
    journal: Journal
    work: Work
    observer: Observer
    own_key: Verifier
    """Of this participant's own signatures."""
    signer: Signer
    """Makes them."""
    entropy: Entropy
    """Of the secrets of masked attempts."""
