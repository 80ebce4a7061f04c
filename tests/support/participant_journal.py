"""The participant's journal in memory: every verb durable on return, as `participant.journal.Journal` says.

The records outlive the process: a test that ends one and starts the next hands over the same journal. A verb can be
made to fail once, as StorageError or as DurabilityUnknown with the write on disk or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from coordinator.storage.faults import Fault, FaultPlan, ProcessLife
from participant.consent import JobHistory
from participant.journal import OpenRound
from participant.round.checks import verified_result
from participant.round.phases import Opening, SpooledUpdate, Total
from shared.errors import ConflictError
from shared.ids import Digest, JobId, RoundKey, RoundNumber, TaskName
from shared.protocol.messages import AttemptStart, Envelope, RoundPlan, RoundResult, Sealed
from shared.reasons import Purpose

__all__ = ["Fault", "FaultPlan", "MemoryJournal"]


@dataclass(frozen=True, slots=True)
class _Job:
    history: JobHistory
    state_round: int


@dataclass(slots=True)
class _Records:
    """What is on disk."""

    jobs: dict[JobId, _Job] = field(default_factory=dict)
    rounds: dict[RoundKey, OpenRound] = field(default_factory=dict)
    cores: dict[RoundKey, Digest] = field(default_factory=dict)
    aborts: set[RoundKey] = field(default_factory=set)
    heads: dict[JobId, Envelope] = field(default_factory=dict)
    """The newest last."""
    allowances: set[JobId] = field(default_factory=set)
    openings: dict[tuple[RoundKey, Purpose], tuple[tuple[TaskName, Digest], Opening]] = field(default_factory=dict)


class MemoryJournal:
    """A `Journal` that lives as long as its references."""

    def __init__(self, *, faults: FaultPlan | None = None) -> None:
        self._life = ProcessLife(faults if faults is not None else FaultPlan())
        self._kept = _Records()

    @property
    def faults(self) -> FaultPlan:
        return self._life.faults

    def crash(self) -> MemoryJournal:
        """End this process; the journal as the next one finds it."""
        self._life.end()
        successor = MemoryJournal(faults=self._life.faults)
        successor._kept = self._kept
        return successor

    def record_plan(self, plan: Sealed[RoundPlan], jobspec: Digest) -> None:
        key = plan.value.key

        def apply() -> None:
            self._kept.jobs.setdefault(key.job, _Job(JobHistory(jobspec, 0), 0))
            self._kept.rounds.setdefault(key, OpenRound(plan, None, None))

        self._life.write("record_plan", apply)

    def record_update(self, key: RoundKey, update: SpooledUpdate) -> None:
        def apply() -> None:
            known = self._open(key)
            if known.update is None and not update.fits:
                self._change_job(key.job, lambda history: replace(history, misses=history.misses + 1))
            self._kept.rounds[key] = replace(known, update=update)

        self._life.write("record_update", apply)

    def record_attempt(self, key: RoundKey, attempt: Sealed[AttemptStart], core: Digest | None) -> None:
        def apply() -> None:
            known = self._open(key)
            if core is not None and self._kept.cores.setdefault(key, core) != core:
                raise ConflictError(f"an attempt at round {key} differs from an earlier one in what all of them share")
            self._kept.rounds[key] = replace(known, attempt=attempt)

        self._life.write("record_attempt", apply)

    def record_opening(self, key: RoundKey, purpose: Purpose, task: TaskName, model: Digest, opening: Opening) -> None:
        def apply() -> None:
            made = ((task, model), opening)
            if self._kept.openings.setdefault((key, purpose), made) != made:
                raise ConflictError(f"round {key} was opened before, as another total or in another attempt")
            if key in self._kept.rounds:
                self._kept.rounds[key] = replace(self._kept.rounds[key], opening=opening)

        self._life.write("record_opening", apply)

    def totals(self, task: TaskName, model: Digest) -> Sequence[Total]:
        self._life.read("totals")
        by_place = sorted(self._kept.openings.items(), key=lambda item: item[0])
        return [opening.total for _, (place, opening) in by_place if place == (task, model)]

    def record_end(
        self, key: RoundKey, *, keep_state: bool, verified: Sealed[RoundResult] | None = None, aborted: bool = False
    ) -> None:
        def apply() -> None:
            if aborted:
                self._kept.aborts.add(key)
            self._kept.rounds.pop(key, None)
            job = self._kept.jobs.get(key.job)
            if job is None:
                return
            history = replace(job.history, finished_round=max(job.history.finished_round, key.number))
            if verified is not None and (history.verified is None or history.verified.number < key.number):
                history = replace(history, verified=verified_result(verified.value, verified.envelope))
                self._kept.heads.pop(key.job, None)
                self._kept.heads[key.job] = verified.envelope
            self._kept.jobs[key.job] = _Job(history, key.number if keep_state else job.state_round)

        self._life.write("record_end", apply)

    def was_aborted(self, key: RoundKey) -> bool:
        self._life.read("was_aborted")
        return key in self._kept.aborts

    def heads(self, limit: int) -> Sequence[Envelope]:
        self._life.read("heads")
        return [*reversed(self._kept.heads.values())][:limit]

    def allow_repeat(self, job: JobId) -> bool:
        def apply() -> bool:
            added = job not in self._kept.allowances
            self._kept.allowances.add(job)
            return added

        return self._life.write("allow_repeat", apply)

    def repeat_allowed(self, job: JobId) -> bool:
        self._life.read("repeat_allowed")
        return job in self._kept.allowances

    def stop_job(self, job: JobId, reason: str) -> None:
        def apply() -> None:
            if job not in self._kept.jobs:
                raise RuntimeError(f"job {job} is not in the journal")
            self._change_job(job, lambda history: replace(history, stopped=history.stopped or reason))

        self._life.write("stop_job", apply)

    def open_rounds(self) -> Sequence[OpenRound]:
        self._life.read("open_rounds")
        return [self._kept.rounds[key] for key in sorted(self._kept.rounds)]

    def history(self, job: JobId) -> JobHistory | None:
        self._life.read("history")
        kept = self._kept.jobs.get(job)
        return None if kept is None else kept.history

    def jobs_with(self, jobspec: Digest) -> Sequence[JobId]:
        self._life.read("jobs_with")
        return [job for job, kept in self._kept.jobs.items() if kept.history.jobspec == jobspec]

    def jobs_on_record(self) -> int:
        self._life.read("jobs_on_record")
        return len(self._kept.jobs)

    def state_round(self, job: JobId) -> RoundNumber | None:
        self._life.read("state_round")
        kept = self._kept.jobs.get(job)
        return RoundNumber(kept.state_round) if kept is not None and kept.state_round else None

    def _open(self, key: RoundKey) -> OpenRound:
        if key not in self._kept.rounds:
            raise RuntimeError(f"round {key} is not open in the journal")
        return self._kept.rounds[key]

    def _change_job(self, job: JobId, change: Callable[[JobHistory], JobHistory]) -> None:
        kept = self._kept.jobs[job]
        self._kept.jobs[job] = _Job(change(kept.history), kept.state_round)
