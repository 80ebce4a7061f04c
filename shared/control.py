"""What an operator may change of a job while it runs: how long a round may train, how many must be Ready, and a pause.

A `JobSpec` is immutable, and silos approve it by its digest. A `JobControl` stands beside it: it travels in the signed
RoundPlan, takes effect with the next round that is planned, and moves nothing that protects anybody. The floor, the
members and the masking are the job's for good, and the quorum stays between floor and members (PROTOCOL.md section
3.3). Both sides ask the same `complaint`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.job import DEADLINE_MAX_S, JobSpec


@dataclass(frozen=True, slots=True)
class JobControl:
    """What rounds have other than the job says; None: as submitted."""

    revision: int = 0
    """Counts the changes; 0 before the first."""
    deadline_s: float | None = None
    quorum: int | None = None

    def deadline_of(self, spec: JobSpec) -> float:
        """Time for fetch, evaluation and training of a round that is planned under this control."""
        return spec.round.deadline_s if self.deadline_s is None else self.deadline_s

    def quorum_of(self, spec: JobSpec) -> int:
        """How many members must be Ready in such a round before an attempt starts."""
        return spec.round.quorum if self.quorum is None else self.quorum

    def changed(self, change: ControlChange) -> JobControl:
        """The next revision; this one where the change changes nothing."""
        base = JobControl(self.revision) if change.reset else self
        made = replace(
            base,
            deadline_s=base.deadline_s if change.deadline_s is None else change.deadline_s,
            quorum=base.quorum if change.quorum is None else change.quorum,
        )
        return self if made == self else replace(made, revision=self.revision + 1)

    def complaint(self, spec: JobSpec) -> str:
        """What of this control the job does not allow; empty when it allows all of it."""
        deadline_s, quorum, members = self.deadline_of(spec), self.quorum_of(spec), len(spec.members)
        if not 0 < deadline_s <= DEADLINE_MAX_S:
            return f"deadline_s: expected seconds above 0 and at most {DEADLINE_MAX_S:.0f}, got {deadline_s:.12g}"
        if not spec.floor <= quorum <= members:
            return (
                f"quorum: expected {spec.floor} (the job's floor) to {members} (its members), got {quorum}; "
                "neither of these two changes while a job runs"
            )
        return ""


@dataclass(frozen=True, slots=True)
class ControlChange:
    """What an operator asks to be changed; what is None stays as it is."""

    reset: bool = False
    """First of all, everything is as submitted again."""
    deadline_s: float | None = None
    quorum: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Who had a job paused, when, and why."""

    by: str
    at: str
    """RFC 3339, UTC; for people."""
    reason: str


AS_SUBMITTED = JobControl()
