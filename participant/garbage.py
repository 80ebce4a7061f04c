"""What may go from a silo's data folder, and why: `consilo participant gc`. The daemon must not run meanwhile.

The journal is never touched: what was promised is never forgotten. A start removes the folders of rounds that are over,
and a round's start the models that no open round needs; both are done here too. What only a person may say:

* **copies** of the journal that a newer version made before it brought it up to date. They are as secret as it is;
* **what a task keeps of a job** (its state). Nobody tells a silo that a job is over, so nothing removes the last one.
  In a job that goes on, a task whose state is gone takes part in no further round (`lost`): so it goes by the job's
  name;
* **logs of tasks that the configuration does not have any more.** They can contain data.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from participant.disk_use import COPY_PREFIX, TASK_LOGS
from participant.journal import OpenRound
from participant.spool import MODELS, ROUNDS, STATES
from shared.errors import ConfigError, StorageError
from shared.garbage import Garbage
from shared.ids import JobId, TaskName


class GarbageKind(StrEnum):
    """The order of a table."""

    MODELS = "models"
    SPOOLS = "spools"
    COPIES = "journal_copies"
    STATES = "states"
    TASK_LOGS = "task_logs"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is needed."""

    rounds: Sequence[OpenRound]
    tasks: Collection[TaskName]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person said."""

    copies_before: datetime
    states_of: Collection[JobId]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, or a folder with all that is in it."""

    kind: GarbageKind
    path: Path
    goes: bool
    why: str


def look_for_garbage(data_dir: Path, kept: Kept, asked: Asked) -> list[Garbage]:
    """What is there of each kind, in order: files, and folders with all that is in them. Nothing is changed.

    Raises StorageError, and ConfigError for a job whose state is asked for and that has none here, or an open round.
    """
    _require_over(data_dir, kept, asked)
    try:
        found = [
            *_models(data_dir / MODELS, kept),
            *_spools(data_dir / ROUNDS, kept),
            *_copies(data_dir, asked),
            *_states(data_dir / STATES, asked),
            *_task_logs(data_dir / TASK_LOGS, kept),
        ]
        return [
            Garbage.named(
                each.kind, {str(each.path.relative_to(data_dir)): _size(each.path)}, goes=each.goes, why=each.why
            )
            for each in found
        ]
    except OSError as error:
        raise StorageError(f"{data_dir} cannot be looked through: {error.strerror}") from error


def remove(data_dir: Path, found: Iterable[Garbage]) -> None:
    """Of these what goes. Raises StorageError; asked again, what is left goes."""
    for path in (data_dir / name for garbage in found if garbage.goes for name in garbage.sizes):
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path} cannot be removed: {error.strerror}") from error


def _require_over(data_dir: Path, kept: Kept, asked: Asked) -> None:
    going_on = {known.plan.value.key.job for known in kept.rounds}
    for job in asked.states_of:
        if job in going_on:
            raise ConfigError(f"job {job} has an open round here: its task's state is needed, and nothing was removed")
        if not (data_dir / STATES / job).is_dir():
            known = ", ".join(sorted(path.name for path in (data_dir / STATES).glob("*"))) or "none"
            raise ConfigError(f"no task keeps a state of a job {job} here; there are states of: {known}")


def _models(folder: Path, kept: Kept) -> Iterable[_Found]:
    needed = {str(known.plan.value.model) for known in kept.rounds}
    for path in sorted(folder.glob("*")):
        if path.name.partition(".")[0] not in needed:
            yield _Found(GarbageKind.MODELS, path, goes=True, why="no open round starts from it")


def _spools(folder: Path, kept: Kept) -> Iterable[_Found]:
    keys = {(known.plan.value.key.job, str(known.plan.value.key.number)) for known in kept.rounds}
    for path in sorted(folder.glob("*/*")):
        if (path.parent.name, path.name) not in keys:
            yield _Found(GarbageKind.SPOOLS, path, goes=True, why="its round is over")


def _copies(data_dir: Path, asked: Asked) -> Iterable[_Found]:
    for path in sorted(data_dir.glob(f"{COPY_PREFIX}*")):
        old = path.stat().st_mtime < asked.copies_before.timestamp()
        why = f"made {'before' if old else 'after'} {asked.copies_before:%Y-%m-%d}"
        yield _Found(GarbageKind.COPIES, path, goes=old, why=why)


def _states(folder: Path, asked: Asked) -> Iterable[_Found]:
    for path in sorted(folder.glob("*")):
        goes = path.name in asked.states_of
        why = "asked for" if goes else f"whether the job is over is not known here: --states-of {path.name} removes it"
        yield _Found(GarbageKind.STATES, path, goes=goes, why=why)


def _task_logs(folder: Path, kept: Kept) -> Iterable[_Found]:
    for path in sorted(folder.glob("*.log*")):
        task = path.name.partition(".log")[0]
        if task not in kept.tasks:
            yield _Found(GarbageKind.TASK_LOGS, path, goes=True, why=f"[tasks] has no {task!r}")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
    return path.stat().st_size
