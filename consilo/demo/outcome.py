"""What the demo found, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consilo.demo.folders import Federation
from coordinator.client.views import committed_rounds, summary_of
from coordinator.storage.interface import COMMITTED
from shared.ids import Digest
from shared.reasons import Purpose
from shared.wire.operations import JobDetail


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo found."""

    job: JobDetail
    federated_accuracy: float
    pooled_accuracy: float
    alone_accuracy: dict[str, float]
    model_path: Path
    model_digest: Digest
    audit_verified: bool
    audit_head: str
    seconds: float

    @property
    def rounds_committed(self) -> int:
        return committed_rounds(self.job.rounds)

    @property
    def survivors(self) -> dict[int, tuple[str, ...]]:
        """Whose updates are in each round of training that was committed."""
        return {
            finished.key.number: summary_of(finished).survivors
            for finished in self.job.rounds
            if finished.purpose is Purpose.TRAIN and finished.outcome == COMMITTED
        }

    @property
    def back_in(self) -> list[dict[str, Any]]:
        """For every member that was left out of a round: the first round after it that its update is in."""
        found = []
        for drop in self.dropped:
            later = (number for number, names in self.survivors.items() if number > drop["round"])
            back = [number for number in sorted(later) if drop["participant"] in self.survivors[number]]
            found += [{"participant": drop["participant"], "round": number} for number in back[:1]]
        return found

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """Every member that was left out of a round, and why."""
        return [
            {"participant": name, "round": finished.key.number, "reason": reason}
            for finished in self.job.rounds
            for name, reason in sorted(summary_of(finished).dropped.items())
        ]

    def as_json(self, federation: Federation) -> dict[str, Any]:
        protection = federation.protection
        return {
            "federated_accuracy": self.federated_accuracy,
            "pooled_accuracy": self.pooled_accuracy,
            "alone_accuracy": self.alone_accuracy,
            "rounds": federation.rounds,
            "rounds_committed": self.rounds_committed,
            "dropped": self.dropped,
            "back_in": self.back_in,
            "masking": protection.mode,
            "members": protection.members,
            "threshold": protection.threshold if protection.masked else None,
            "max_colluding": protection.max_colluding if protection.masked else None,
            "model_path": str(self.model_path),
            "model_digest": str(self.model_digest),
            "audit_verified": self.audit_verified,
            "audit_head": self.audit_head,
            "job": self.job.job.job,
            "seed": federation.seed,
            "folder": str(federation.root),
            "seconds": round(self.seconds, 1),
        }
