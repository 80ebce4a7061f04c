"""The silo's files: fetched models, updates on their way out, and what tasks keep between rounds.

    models/<digest>.safetensors     verified, shared by all rounds that start from it
    models/<digest>.part            a fetch on its way
    spool/<job>/<round>/            one open round:
        deltas.f32                    the update's section 0; its room is reserved before training begins
        deltas.f32.sha256             the digest of each piece of it (`participant.spooled`)
        task.state                    the task's new state
        <plan>.checkpoint             what the task saved while it trained on that plan
    states/<job>/<round>.state      the task's state after that round

Names come from parsed ids, which are DNS labels and numbers. Everything is readable by the daemon's user alone. A
round's folder exists while the journal has the round; folders without one are left over from a crash and removed at
start. Beginning a round's work again keeps the checkpoint of its plan, and nothing else.

A write that failed, and of which nothing is relied on, is a StorageError, and is done again; where a sync failed nobody
knows what is on disk, and the process ends (DurabilityUnknown).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import structlog

from participant.spooled import digest_pieces, digests_beside, root_of
from shared.durable import sync_path
from shared.errors import DurabilityUnknown, StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber

log = structlog.get_logger()

MODELS, ROUNDS, STATES = "models", "spool", "states"  # folders of the data folder
ROOM_LEFT_BYTES = 64 * 1024 * 1024  # for the journal and the task's log, whatever a coordinator announces


class Spool:
    """The folders of one participant."""

    def __init__(self, root: Path) -> None:
        self._models = root / MODELS
        self._rounds = root / ROUNDS
        self._states = root / STATES
        for folder in (self._models, self._rounds, self._states):
            _make_folder(folder)

    def model(self, digest: Digest) -> Path:
        return self._models / f"{digest}.safetensors"

    def partial_model(self, digest: Digest) -> Path:
        return self._models / f"{digest}.part"

    def require_room(self, digest: Digest, size: int) -> None:
        """Raises StorageError when what is not there yet of a model of this size would leave the disk full."""
        partial = self.partial_model(digest)
        try:
            held = partial.stat().st_size if partial.exists() else 0
        except OSError as error:
            raise StorageError(f"{partial} cannot be read: {error.strerror}") from error
        _require_room(self._models, max(0, size - held), "the model")

    def has_model(self, digest: Digest) -> bool:
        """Whether a model is here, and is what it was: no round starts from bytes that a disk changed. Reads all of it.
        Raises StorageError.
        """
        path = self.model(digest)
        try:
            with path.open("rb", buffering=0) as file:
                if hashlib.file_digest(file, "sha256").digest() == digest.raw:
                    return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        log.warning("model_changed", model=str(digest), detail=f"{path} has other bytes: it is fetched again")
        return False

    def keep_model(self, digest: Digest) -> Path:
        """A fetched model was verified: give it its name, durably."""
        return _rename_durably(self.partial_model(digest), self.model(digest))

    def keep_only_models(self, wanted: Collection[Digest]) -> None:
        """Remove the models that no open round starts from. Raises StorageError."""
        _keep_only(self._models, {path(digest) for digest in wanted for path in (self.model, self.partial_model)})

    def deltas(self, key: RoundKey) -> Path:
        """Section 0 of a round's update."""
        return self._folder(key) / "deltas.f32"

    def new_state(self, key: RoundKey) -> Path:
        """What the task wants to keep, should the round commit."""
        return self._folder(key) / "task.state"

    def checkpoint(self, key: RoundKey, plan: Digest) -> Path:
        """What the task saved while it trained on this plan."""
        return self._folder(key) / f"{plan}.checkpoint"

    def begin(self, key: RoundKey, plan: Digest) -> None:
        """A folder for a round's work, with nothing in it but what the task saved on the same plan. Raises StorageError
        or DurabilityUnknown.
        """
        folder, kept = self._folder(key), self.checkpoint(key, plan)
        _make_folder(folder)
        _keep_only(folder, {kept})
        try:
            for path in (folder, folder.parent, self._rounds):  # what the task saves must be found again
                sync_path(path)
        except OSError as error:
            raise DurabilityUnknown(f"the folder {folder} may or may not be on disk: {error.strerror}") from error

    def reserve_update(self, key: RoundKey, parameters: int) -> None:
        """Make sure of the room for an update before hours of training go into it. Raises StorageError."""
        path, size = self.deltas(key), 4 * parameters
        _require_room(path.parent, size, "the update")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                if size:
                    os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError(f"no room for the {size} bytes of {path}: {error.strerror}") from error

    def seal_update(self, key: RoundKey) -> Digest:
        """Write the digests of a finished update beside it, and return their root. Raises StorageError."""
        deltas = self.deltas(key)
        digests = digest_pieces(deltas)
        try:
            digests_beside(deltas).write_bytes(digests)
        except OSError as error:
            raise StorageError(f"{digests_beside(deltas)} cannot be written: {error.strerror}") from error
        return root_of(digests)

    def make_durable(self, key: RoundKey) -> None:
        """What the task wrote is on disk on return. Raises DurabilityUnknown."""
        try:
            for path in self._folder(key).iterdir():
                sync_path(path)
            sync_path(self._folder(key))
            sync_path(self._folder(key).parent)
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
        """Raises StorageError."""
        _keep_only(self._states / job, {self.state(job, current)})

    def erase(self, key: RoundKey) -> None:
        """Remove a round's folder. What a disk that is read-only keeps of it is removed at the next start."""
        shutil.rmtree(self._folder(key), ignore_errors=True)

    def keep_only_rounds(self, wanted: Collection[RoundKey]) -> None:
        """Remove the folders of rounds that are not open, and of jobs without one."""
        kept = {self._folder(key) for key in wanted}
        for path in self._rounds.glob("*/*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for job in self._rounds.iterdir():
            with suppress(OSError):  # it has an open round, or is none of ours
                job.rmdir()

    def _folder(self, key: RoundKey) -> Path:
        return self._rounds / key.job / str(key.number)


def _require_room(folder: Path, size: int, what: str) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(f"{folder} cannot be looked at: {error.strerror}") from error
    if size + ROOM_LEFT_BYTES > free:
        raise StorageError(
            f"{what} needs {size} bytes, and {ROOM_LEFT_BYTES} are to be left: {folder} has {free} free; make room"
        )


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):  # `parents=True` would give the folders between the mode of the umask
            path.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
    except OSError as error:
        raise StorageError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _keep_only(folder: Path, wanted: Collection[Path]) -> None:
    try:
        for path in folder.iterdir() if folder.exists() else ():
            if path not in wanted:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"what is left over in {folder} cannot be removed: {error.strerror}") from error


def _rename_durably(source: Path, target: Path) -> Path:
    try:
        sync_path(source)
    except OSError as error:
        raise DurabilityUnknown(f"{source} may or may not be on disk: {error.strerror}") from error
    try:
        source.replace(target)
    except OSError as error:
        raise StorageError(f"{source} cannot be renamed to {target}: {error.strerror}") from error
    try:
        sync_path(target.parent)
    except OSError as error:
        raise DurabilityUnknown(f"{target} may or may not be on disk: {error.strerror}") from error
    return target
