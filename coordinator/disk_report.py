"""What a person is told of the disk of a coordinator, which may be running: `consilo coordinator disk`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from coordinator.disk_use import DiskKind, disk_use
from coordinator.pruning import RecordReader, job_versions
from coordinator.retention import JobVersions, prunable
from coordinator.storage.beside import RecordsBeside
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.listing import DATABASE_FILE, published_in
from shared.disk_use import DiskUse
from shared.errors import ConfigError
from shared.ids import Digest


@dataclass(frozen=True, slots=True)
class JobModels:
    """The versions of one job. A version that two jobs share is in both."""

    job: str
    state: str
    versions: int
    files: int
    """How many of them have a file."""
    size: int
    prunable: int
    """How many of these files the policy would remove."""


@dataclass(frozen=True, slots=True)
class DiskReport:
    use: DiskUse[DiskKind]
    keep_versions: int
    jobs: tuple[JobModels, ...]
    prunable_files: int
    prunable_bytes: int
    unrecorded_files: int
    unrecorded_bytes: int

    def as_json(self) -> dict[str, object]:
        return {
            "free_bytes": self.use.free,
            "kinds": [
                {"kind": str(kind), "files": self.use.files[kind], "bytes": size}
                for kind, size in self.use.sizes.items()
            ],
            "jobs": [asdict(job) for job in self.jobs],
            "retention": {
                "keep_versions": self.keep_versions,
                "would_free_files": self.prunable_files,
                "would_free_bytes": self.prunable_bytes,
            },
            "unrecorded_models": {"files": self.unrecorded_files, "bytes": self.unrecorded_bytes},
        }


def report_disk(data_dir: Path, *, keep_versions: int) -> DiskReport:
    """Raises ConfigError where no coordinator has run, StorageError."""
    if not data_dir.is_dir():
        raise ConfigError(f"coordinator.data_dir: expected a folder, {data_dir} is none: has a coordinator run here?")
    use = disk_use(data_dir)
    path = data_dir / DATABASE_FILE
    if not path.is_file():
        return DiskReport(use, keep_versions, (), 0, 0, 0, 0)
    sizes = {model.digest: model.size for model in published_in(data_dir, FileCalls())}
    with closing(RecordsBeside(path)) as records:  # after the files: a model is there before its record
        return report_records(records, use, sizes, keep_versions=keep_versions)


def report_records(
    records: RecordReader, use: DiskUse[DiskKind], sizes: Mapping[Digest, int], *, keep_versions: int
) -> DiskReport:
    """Each verb is a transaction of its own, and a coordinator writes between two: so each is asked once. `sizes`: of
    the models' files. Raises StorageError.
    """
    models, jobs = records.models(), job_versions(records)
    chosen = [digest for digest in prunable(models, jobs, keep_versions=keep_versions) if digest in sizes]
    strays = sizes.keys() - {model.digest for model in models}
    return DiskReport(
        use=use,
        keep_versions=keep_versions,
        jobs=tuple(_models_of(job, sizes, frozenset(chosen)) for job in jobs),
        prunable_files=len(chosen),
        prunable_bytes=sum(sizes[digest] for digest in chosen),
        unrecorded_files=len(strays),
        unrecorded_bytes=sum(sizes[digest] for digest in strays),
    )


def _models_of(job: JobVersions, sizes: Mapping[Digest, int], chosen: frozenset[Digest]) -> JobModels:
    versions = set(job.versions)
    there = versions & sizes.keys()
    return JobModels(
        job=job.job,
        state=str(job.state),
        versions=len(versions),
        files=len(there),
        size=sum(sizes[version] for version in there),
        prunable=len(there & chosen),
    )
