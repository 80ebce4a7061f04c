"""Where all jobs are, in numbers: how many in which state, and of those that are not over, who is there for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from coordinator.cohort import Offers, assess
from coordinator.jobs import Jobs
from coordinator.storage.interface import JobRecord
from shared.ids import JobId, ParticipantId
from shared.job import JobSpec
from shared.reasons import JobState

STANDINGS_MAX = 100  # jobs that are not over, looked at one by one; operators can queue any number

_Job = tuple[JobRecord, JobSpec, tuple[ParticipantId, ...]]


@dataclass(frozen=True, slots=True)
class JobStanding:
    """One job that is not over."""

    quorum: int
    """Of its next round: all that it asks, where these are bound."""
    connected: int
    """Who of those that it asks is connected and has its task."""
    running: bool
    """And not waiting for its turn, nor paused. Below its quorum it runs on, without a round."""


@dataclass(frozen=True, slots=True)
class Standings:
    """All jobs at one moment."""

    states: Mapping[JobState, int]
    jobs: Mapping[JobId, JobStanding]
    """Those that run before those that wait, and these before the paused ones."""


def standings(jobs: Jobs, offers: Offers) -> Standings:
    """Look at the table. On the conductor's thread."""
    states = Counter(jobs.over.values())
    states.update(record.standing for record, _, _ in _not_over(jobs))
    return Standings(
        states,
        {job[0].job: _standing(*job, offers=offers) for job in islice(_not_over(jobs), STANDINGS_MAX)},
    )


def _not_over(jobs: Jobs) -> Iterator[_Job]:
    yield from ((job.record, job.spec, job.history.bound) for job in jobs.running.values())
    yield from ((job.record, job.spec, job.bound) for job in jobs.queued.values())
    yield from ((job.record, job.spec, job.bound) for job in jobs.paused.values())


def _standing(record: JobRecord, spec: JobSpec, bound: tuple[ParticipantId, ...], *, offers: Offers) -> JobStanding:
    found = assess(spec, offers, bound, control=record.control)
    running = record.standing is JobState.RUNNING
    return JobStanding(quorum=len(bound) or found.quorum, connected=len(found.able), running=running)
