"""What runs next (pure): which queued job may start, and what a running job does after each round.

Jobs are scheduled whole, first in first out. A job starts when its quorum is there and none of its members is in a
running job; one that cannot start waits, says why, and holds up no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coordinator.cohort import Offers, assess, listed
from shared.control import AS_SUBMITTED, JobControl
from shared.ids import Digest, JobId, ParticipantId, RoundNumber
from shared.job import JobSpec
from shared.reasons import AbortReason, JobState, Purpose

ENDS_THE_JOB = frozenset({AbortReason.OPERATOR, AbortReason.RESTORED})
"""Reasons of a round after which its job has no other."""


@dataclass(frozen=True, slots=True)
class FinishedRound:
    """What the next step depends on: one finished round of the job."""

    number: RoundNumber
    purpose: Purpose
    abort: AbortReason | None
    """None for a committed round."""
    next_model: Digest
    """The job's model after this round; after an abort, what it was."""


@dataclass(frozen=True, slots=True)
class RunRound:
    """Plan this round next."""

    number: RoundNumber
    purpose: Purpose
    model: Digest


@dataclass(frozen=True, slots=True)
class EndJob:
    """Nothing is left to do."""

    state: JobState
    reason: str


NextStep: TypeAlias = RunRound | EndJob


def next_step(spec: JobSpec, rounds: Sequence[FinishedRound]) -> NextStep:
    """What a running job does after these rounds, the closing evaluation included."""
    aborted = [finished for finished in rounds if finished.abort]
    if aborted and aborted[-1].abort in ENDS_THE_JOB:
        return EndJob(JobState.ABORTED, str(aborted[-1].abort))
    if len(aborted) > spec.round.aborted_rounds_allowed:
        reason = (
            f"{len(aborted)} rounds aborted, {spec.round.aborted_rounds_allowed} allowed; the last: {aborted[-1].abort}"
        )
        return EndJob(JobState.ABORTED, reason)
    committed = [finished for finished in rounds if not finished.abort]
    if any(finished.purpose is Purpose.EVALUATE for finished in committed):
        return EndJob(JobState.COMPLETED, "")
    model = committed[-1].next_model if committed else spec.initial_model
    purpose = Purpose.TRAIN if len(committed) < spec.rounds else Purpose.EVALUATE
    return RunRound(RoundNumber(len(rounds) + 1), purpose, model)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that waits for its turn."""

    job: JobId
    spec: JobSpec
    bound: tuple[ParticipantId, ...] = ()
    """Whom its next round asks, and nobody else, when that is so already: it was paused, and had rounds before."""
    control: JobControl = AS_SUBMITTED


def startable(
    queued: Iterable[Candidate], running: Mapping[JobId, JobSpec], offers: Offers
) -> tuple[Sequence[JobId], Mapping[JobId, str]]:
    """The jobs that may start now, in order, and for each other one why it waits."""
    busy: dict[ParticipantId, JobId] = {member: job for job, spec in running.items() for member in spec.members}
    start: list[JobId] = []
    waiting: dict[JobId, str] = {}
    for candidate in queued:
        members = candidate.spec.members
        assessment = assess(candidate.spec, offers, candidate.bound, control=candidate.control)
        taken = [member for member in members if member in busy]
        if taken:
            holders = list(dict.fromkeys(busy[member] for member in taken))
            have = "has" if len(holders) == 1 else "have"
            waiting[candidate.job] = f"{listed(holders)} {have} {listed(taken)}"
        elif not assessment.enough():
            waiting[candidate.job] = assessment.explain()
        else:
            start.append(candidate.job)
            busy.update(dict.fromkeys(members, candidate.job))
    return start, waiting
