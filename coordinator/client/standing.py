"""Where a job is in its life, and under which rules: who paused it, what an operator changed, and since when.

Pure: values in, words and JSON values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.job import JobSpec
from shared.reasons import JobState
from shared.wire.operations import JobStatus


def why(job: JobStatus) -> str:
    """Why it is where it is, in one line: who paused it, or what it waits for, or why it ended."""
    return pause_words(job) or job.reason


def pause_words(job: JobStatus) -> str:
    """Who had it paused, when and why; empty for a job that goes on."""
    if job.pause is None:
        return ""
    reason = f": {job.pause.reason}" if job.pause.reason else ""
    asked = f"asked {job.pause.at} by {job.pause.by}{reason}"
    return f"after the open round, {asked}" if job.state is JobState.PAUSING else asked


def control_words(job: JobStatus, spec: JobSpec) -> str:
    """What an operator changed; empty for a job that is run as it was submitted."""
    control = job.control
    if not control.revision:
        return ""
    changes = []
    if control.quorum is not None:
        changes.append(f"quorum {control.quorum} instead of {spec.round.quorum}")
    if control.deadline_s is not None:
        changes.append(f"deadline {control.deadline_s:g} s instead of {spec.round.deadline_s:g} s")
    return f"revision {control.revision}: {', '.join(changes) or 'as submitted'}"


def since_words(since: int | None) -> str:
    return "from the next round on" if since is None else f"since round {since}"


def pause_json(job: JobStatus) -> dict[str, Any] | None:
    if job.pause is None:
        return None
    return {"by": job.pause.by, "at": job.pause.at, "reason": job.pause.reason}


def control_json(job: JobStatus) -> dict[str, Any] | None:
    """None for a job that is run as it was submitted."""
    control = job.control
    if not control.revision:
        return None
    return {"revision": control.revision, "deadline_s": control.deadline_s, "quorum": control.quorum}


def places_in_queue(jobs: Sequence[JobStatus]) -> Sequence[int | None]:
    """For each job its place among those that are queued, from 1; None for one that is not."""
    places: list[int | None] = []
    ahead = 0
    for job in jobs:
        queued = job.state is JobState.QUEUED
        ahead += queued
        places.append(ahead if queued else None)
    return places
