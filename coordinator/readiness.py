"""Whether rounds can go on now (pure).

Ready means that a round would not want for members: those that are connected reach the quorum of each job that runs, or
of the first that waits for its turn; without such a job, somebody is there at all. It is for alerts and for people.
Nothing waits for it to start anything: a federation that comes up from nothing is not ready until its silos have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.cohort import Offers, assess
from coordinator.scheduler import Candidate


@dataclass(frozen=True, slots=True)
class Readiness:
    """Ready, or why not; members are named in it, so it is for whoever runs this coordinator."""

    ready: bool
    why: str


def readiness(running: Sequence[Candidate], waiting: Sequence[Candidate], offers: Offers) -> Readiness:
    """`waiting` are the jobs that could run here, in the order in which they take their turn."""
    for job in running or waiting[:1]:
        assessment = assess(job.spec, offers, job.bound, control=job.control)
        if not assessment.enough():
            return Readiness(ready=False, why=f"job {job.job}: {assessment.explain()}")
    if running or waiting:
        return Readiness(ready=True, why="")
    if not offers:
        return Readiness(ready=False, why="no participant is connected")
    return Readiness(ready=True, why="")
