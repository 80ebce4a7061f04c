"""The participant's journal in memory: every verb durable on return, as `participant.journal.Journal` says.

The records outlive the process: a test that ends one and starts the next hands over the same journal. A verb can be
made to fail once, as StorageError or as DurabilityUnknown with the write on disk or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from coordinator.storage.faults import Fault, FaultPlan, ProcessLife
from participant.consent import JobHistory
from participant.journal import OpenRound
from participant.round.phases import SpooledUpdate
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.protocol.messages import AttemptStart, RoundPlan, Sealed

__all__ = ["Fault", "FaultPlan", "MemoryJournal"]


@dataclass(frozen=True, slots=True)
class _Job:
    jobspec: Digest
    finished_round: int
    state_round: int


class MemoryJournal:
    """A `Journal` that lives as long as its references."""

    def __init__(self, *, faults: FaultPlan | None = None) -> None:
        self._life = ProcessLife(faults if faults is not None else FaultPlan())
        self._jobs: dict[JobId, _Job] = {}
        self._rounds: dict[RoundKey, OpenRound] = {}

    @property
    def faults(self) -> FaultPlan:
        return self._life.faults

    def crash(self) -> MemoryJournal:
        """End this process; the journal as the next one finds it."""
        self._life.end()
        successor = MemoryJournal(faults=self._life.faults)
        successor._jobs = self._jobs
        successor._rounds = self._rounds
        return successor

    def record_plan(self, plan: Sealed[RoundPlan], jobspec: Digest) -> None:
        key = plan.value.key

        def apply() -> None:
            self._jobs.setdefault(key.job, _Job(jobspec, 0, 0))
            self._rounds.setdefault(key, OpenRound(plan, None, None))

        self._life.write("record_plan", apply)

    def record_update(self, key: RoundKey, update: SpooledUpdate) -> None:
        self._change("record_update", key, lambda kept: replace(kept, update=update))

    def record_attempt(self, key: RoundKey, attempt: Sealed[AttemptStart]) -> None:
        self._change("record_attempt", key, lambda kept: replace(kept, attempt=attempt))

    def _change(self, verb: str, key: RoundKey, change: Callable[[OpenRound], OpenRound]) -> None:
        def apply() -> None:
            if key not in self._rounds:
                raise RuntimeError(f"round {key} is not open in the journal")
            self._rounds[key] = change(self._rounds[key])

        self._life.write(verb, apply)

    def record_end(self, key: RoundKey, *, keep_state: bool) -> None:
        def apply() -> None:
            self._rounds.pop(key, None)
            job = self._jobs.get(key.job)
            if job is not None:
                state = key.number if keep_state else job.state_round
                self._jobs[key.job] = _Job(job.jobspec, max(job.finished_round, key.number), state)

        self._life.write("record_end", apply)

    def open_rounds(self) -> Sequence[OpenRound]:
        self._life.read("open_rounds")
        return [self._rounds[key] for key in sorted(self._rounds)]

    def history(self, job: JobId) -> JobHistory | None:
        self._life.read("history")
        kept = self._jobs.get(job)
        return None if kept is None else JobHistory(kept.jobspec, kept.finished_round)

    def state_round(self, job: JobId) -> RoundNumber | None:
        self._life.read("state_round")
        kept = self._jobs.get(job)
        return RoundNumber(kept.state_round) if kept is not None and kept.state_round else None
