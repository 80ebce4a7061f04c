"""The silo's files: fetched models, updates on their way out, and what tasks keep between rounds.

    models/<digest>.safetensors     verified, shared by all rounds that start from it
    models/<digest>.part            a fetch on its way
    spool/<job>/<round>/            one open round: the update's section 0, the task's new state
    states/<job>/<round>.state      the task's state after that round

Names come from parsed ids, which are DNS labels and numbers. Everything is readable by the daemon's user alone. A
round's folder exists while the journal has the round; folders without one are left over from a crash and removed at
start.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from shared.errors import DurabilityUnknown, StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber

ROOM_LEFT_BYTES = 64 * 1024 * 1024  # for the journal and the task's log, whatever a coordinator announces


class Spool:
    """The folders of one participant."""

    def __init__(self, root: Path) -> None:
        self._models = root / "models"
        self._rounds = root / "spool"
        self._states = root / "states"
        for folder in (self._models, self._rounds, self._states):
            _make_folder(folder)

    def model(self, digest: Digest) -> Path:
        return self._models / f"{digest}.safetensors"

    def partial_model(self, digest: Digest) -> Path:
        return self._models / f"{digest}.part"

    def require_room(self, size: int) -> None:
        """Raises StorageError when a file of this size would leave the disk full."""
        free = shutil.disk_usage(self._models).free
        if size + ROOM_LEFT_BYTES > free:
            raise StorageError(f"the model has {size} bytes, and {self._models} has {free} free: make room for it")

    def keep_model(self, digest: Digest) -> Path:
        """A fetched model was verified: give it its name, durably."""
        return _rename_durably(self.partial_model(digest), self.model(digest))

    def keep_only_models(self, wanted: Collection[Digest]) -> None:
        """Remove the models that no open round starts from."""
        names = {f"{digest}.{ending}" for digest in wanted for ending in ("safetensors", "part")}
        for path in self._models.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)

    def deltas(self, key: RoundKey) -> Path:
        """Section 0 of a round's update."""
        return self._folder(key) / "deltas.f32"

    def new_state(self, key: RoundKey) -> Path:
        """What the task wants to keep, should the round commit."""
        return self._folder(key) / "task.state"

    def begin(self, key: RoundKey) -> None:
        """An empty folder for a round's work."""
        shutil.rmtree(self._folder(key), ignore_errors=True)
        _make_folder(self._folder(key))

    def make_durable(self, key: RoundKey) -> None:
        """What the task wrote is on disk on return. Raises DurabilityUnknown."""
        try:
            for path in self._folder(key).iterdir():
                _sync(path)
            _sync(self._folder(key))
            _sync(self._folder(key).parent)
        except OSError as error:
            raise DurabilityUnknown(f"the update of {key} may or may not be on disk: {error.strerror}") from error

    def state(self, job: JobId, number: RoundNumber) -> Path:
        """The task's state after a committed round."""
        return self._states / job / f"{number}.state"

    def keep_state(self, key: RoundKey) -> bool:
        """Move a round's new state to where the next round finds it. Whether there was one; asked again, the same."""
        if not self.new_state(key).exists():
            return self.state(key.job, key.number).exists()  # a crash came between the move and its record
        _make_folder(self._states / key.job)
        _rename_durably(self.new_state(key), self.state(key.job, key.number))
        return True

    def drop_older_states(self, job: JobId, current: RoundNumber) -> None:
        folder = self._states / job
        for path in folder.iterdir() if folder.exists() else ():
            if path != self.state(job, current):
                path.unlink(missing_ok=True)

    def erase(self, key: RoundKey) -> None:
        """Remove a round's folder."""
        shutil.rmtree(self._folder(key), ignore_errors=True)

    def keep_only_rounds(self, wanted: Collection[RoundKey]) -> None:
        """Remove the folders of rounds that are not open."""
        kept = {self._folder(key) for key in wanted}
        for path in self._rounds.glob("*/*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _folder(self, key: RoundKey) -> Path:
        return self._rounds / key.job / str(key.number)


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):  # `parents=True` would give the folders between the mode of the umask
            path.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
    except OSError as error:
        raise StorageError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _rename_durably(source: Path, target: Path) -> Path:
    try:
        _sync(source)
        source.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise DurabilityUnknown(f"{target} may or may not be on disk: {error.strerror}") from error
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
