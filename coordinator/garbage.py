"""What may go from a coordinator's data folder, and why: `consilo coordinator gc`.

A start sweeps, and a commit prunes (`coordinator.pruning`); both are done here too, so that one look shows all of it.
What only a person may say is here alone:

* **copies** that a newer version made of the database before it brought it up to date. They are for going back, and who
  knows that nobody will?
* **models that no record names.** Most are what a fold published and a crash kept from being committed. But in a
  database that was set back they are versions whose records were lost, and then they are all that is left of them. So
  they go when a person says so, and never where it is on record that the records were set back.

Nothing that a record needs is ever in it. The folder is its own meanwhile: a running coordinator has the lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from coordinator.pruning import PRUNED_AT_ONCE, Pruning, RecordReader, job_versions, unneeded
from coordinator.retention import prunable
from coordinator.startup import Records
from coordinator.storage.filecalls import FileCalls, writing
from coordinator.storage.interface import Leftovers
from coordinator.storage.listing import COPY_PREFIX, left_over_in, published_in, spooled_in
from shared.durable import sync_path
from shared.errors import DurabilityUnknown
from shared.garbage import Garbage
from shared.ids import Digest


class GarbageKind(StrEnum):
    """The order of a table."""

    VERSIONS = "versions"
    PRUNED = "pruned_versions"
    SPOOLS = "spools"
    UNFINISHED = "unfinished_files"
    COPIES = "database_copies"
    UNRECORDED = "unrecorded_models"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person said."""

    keep_versions: int
    copies_before: datetime
    unrecorded_models: bool


def look_for_garbage(data_dir: Path, records: RecordReader, left: Leftovers, asked: Asked) -> tuple[Garbage, ...]:
    """What is there of each kind, in order. Nothing is changed. Raises StorageError."""
    calls = FileCalls()
    sizes = {model.digest: model.size for model in published_in(data_dir, calls)}
    recorded = {model.digest: model.pruned for model in records.models()}
    chosen = prunable(records.models(), job_versions(records), keep_versions=asked.keep_versions)
    spools = unneeded(records, spooled_in(data_dir, calls))
    policy = f"[retention] keep_versions = {asked.keep_versions} does not keep them"
    return (
        _models(GarbageKind.VERSIONS, [each for each in chosen if each in sizes], sizes, why=policy),
        _models(
            GarbageKind.PRUNED,
            [each for each in sizes if recorded.get(each, False)],
            sizes,
            why="the audit log says since when",
        ),
        Garbage.named(
            GarbageKind.SPOOLS,
            {f"{spool.key} {spool.participant}": spool.size for spool in spools},
            goes=True,
            why="no round goes on with them",
        ),
        Garbage(GarbageKind.UNFINISHED, {}, left.files, left.size, goes=True, why="nobody can see them any more"),
        _copies(data_dir, asked),
        _unrecorded({str(each): size for each, size in sizes.items() if each not in recorded}, records, asked),
    )


def collect(data_dir: Path, opened: Records, asked: Asked) -> tuple[Garbage, ...]:
    """Remove what goes, with an entry in the audit log before it. Unfinished files alone have begun to go when theirs
    is written: opening the folder removes them, as each start does. What was found is returned, and what is still there
    as such: a sweep that fails is no reason for a coordinator not to run, so it is only logged.

    Raises StorageError, DurabilityUnknown.
    """
    store, audit, blobs = opened.store, opened.audit, opened.blobs
    found = look_for_garbage(data_dir, store, blobs.leftovers, asked)
    going = tuple(garbage for garbage in found if garbage.goes and garbage.files)
    for garbage in going:
        if garbage.kind is not GarbageKind.VERSIONS:  # which the pruning records
            _record(opened, garbage)
    Pruning(store=store, audit=audit, blobs=blobs, keep_versions=asked.keep_versions).start()
    for garbage in going:
        if garbage.kind is GarbageKind.COPIES:
            _remove_copies(data_dir, list(garbage.sizes))
        if garbage.kind is GarbageKind.UNRECORDED:
            for name in garbage.sizes:
                blobs.remove_model(Digest.parse(name))
    blobs.finish_erasing()
    opened.catch_up()
    return _told(found, look_for_garbage(data_dir, store, left_over_in(data_dir, FileCalls()), asked))


def _told(found: Sequence[Garbage], after: Sequence[Garbage]) -> tuple[Garbage, ...]:
    """What was found, less what is still there, which is told of as such."""
    stuck = [
        replace(garbage, goes=False, stuck=True, why="still there: the log says why")
        for garbage in after
        if garbage.goes and garbage.files
    ]
    there = {name for garbage in stuck for name in garbage.sizes}
    unseen = next((garbage for garbage in stuck if garbage.kind is GarbageKind.UNFINISHED), None)
    told = []
    for garbage in found:
        if garbage.kind is GarbageKind.UNFINISHED and unseen is not None:
            files, size = max(0, garbage.files - unseen.files), max(0, garbage.size - unseen.size)
            told.append(replace(garbage, files=files, size=size))
        elif garbage.goes and there & garbage.sizes.keys():
            went = {name: size for name, size in garbage.sizes.items() if name not in there}
            told.append(Garbage.named(garbage.kind, went, goes=True, why=garbage.why))
        else:
            told.append(garbage)
    return (*told, *stuck)


def _models(kind: GarbageKind, chosen: Sequence[Digest], sizes: Mapping[Digest, int], *, why: str) -> Garbage:
    return Garbage.named(kind, {str(digest): sizes[digest] for digest in chosen}, goes=True, why=why)


def _copies(data_dir: Path, asked: Asked) -> Garbage:
    with writing(f"looking through {data_dir}"):
        found = {path.name: path.stat() for path in sorted(data_dir.glob(f"{COPY_PREFIX}*"))}
    old = {name: stat.st_size for name, stat in found.items() if stat.st_mtime < asked.copies_before.timestamp()}
    before = f"made before {asked.copies_before:%Y-%m-%d}"
    if not old:
        every = {name: stat.st_size for name, stat in found.items()}
        return Garbage.named(GarbageKind.COPIES, every, goes=False, why=f"none was {before}")
    return Garbage.named(GarbageKind.COPIES, old, goes=True, why=before)


def _unrecorded(found: Mapping[str, int], records: RecordReader, asked: Asked) -> Garbage:
    why, goes = "a record may have named them: --unrecorded-models removes them", False
    if found and records.set_backs():
        why = "the records were set back: they may be versions whose records were lost"
    elif asked.unrecorded_models:
        why, goes = "no record names them", True
    return Garbage.named(GarbageKind.UNRECORDED, found, goes=goes, why=why)


def _record(opened: Records, garbage: Garbage) -> None:
    """In entries of so many names each: they are lines that people read."""
    if not garbage.sizes:
        _append(opened, garbage)
    named = list(garbage.sizes.items())
    for start in range(0, len(named), PRUNED_AT_ONCE):
        part = dict(named[start : start + PRUNED_AT_ONCE])
        _append(opened, Garbage.named(garbage.kind, part, goes=True, why=garbage.why))


def _append(opened: Records, garbage: Garbage) -> None:
    names = list(garbage.sizes)
    facts = {"what": str(garbage.kind), "files": garbage.files, "bytes": garbage.size, "names": names}
    entry = opened.audit.entry("garbage_removed", facts)
    opened.store.append_audit(entry)
    opened.audit.accept(entry)


def _remove_copies(data_dir: Path, names: Sequence[str]) -> None:
    for name in names:
        with writing(f"removing {data_dir / name}"):
            (data_dir / name).unlink(missing_ok=True)
    try:
        sync_path(data_dir)
    except OSError as error:
        raise DurabilityUnknown(f"the copies in {data_dir} may be back after a crash: {error.strerror}") from error
