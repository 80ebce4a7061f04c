"""Which model versions may be pruned: a decision over what is on record, and nothing else.

A job's versions are its initial model and what each of its committed train rounds made. Its next round, and one that is
open, starts from the newest of them. A version stays as long as any job keeps it, so that one which two jobs share goes
with the last of them. What is no version of any job (a model that was brought for a job to come) is nobody's to prune.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from coordinator.storage.interface import ModelRecord
from shared.ids import Digest, JobId
from shared.reasons import JobState

KEEP_ALL = 0


def pruned(model: Digest) -> str:
    """What is said to whoever asks for the file of a pruned version."""
    return (
        f"model {model} was pruned: [retention] keep_versions of the coordinator does not keep it, its file is no more "
        "there, and its entry model_pruned in the audit log says since when"
    )


@dataclass(frozen=True, slots=True)
class JobVersions:
    """The versions of one job."""

    job: JobId
    state: JobState
    versions: tuple[Digest, ...]
    """The initial model first, then one for each committed train round in order; one may be there twice."""

    @property
    def over(self) -> bool:
        return self.state.over


def prunable(models: Sequence[ModelRecord], jobs: Sequence[JobVersions], *, keep_versions: int) -> tuple[Digest, ...]:
    """The versions whose files may go when each job keeps its newest `keep_versions` (0: all), oldest first."""
    if keep_versions == KEEP_ALL:
        return ()
    of_jobs = {version for job in jobs for version in job.versions}
    kept = {version for job in jobs for version in _kept(job, keep_versions)}
    return tuple(
        model.digest for model in models if model.digest in of_jobs - kept and not model.promoted and not model.pruned
    )


def _kept(job: JobVersions, keep_versions: int) -> Iterable[Digest]:
    newest_first = dict.fromkeys(reversed(job.versions))
    yield from islice(newest_first, keep_versions)
    if not job.over:
        yield job.versions[0]
