"""Large files in the data folder.

    models/<digest>.safetensors                              published: complete, synced, never changed again
    spools/<job>/<round>/<attempt>/<participant>.update      growing; durable up to the last `sync`
    staging/<name>                                           being written; removed at the start of every process
    removed/<name>                                           erased by a thread of their own, or by the next process's
    audit log and others                                     append-only files, `AppendFile`

*Publishing* is: sync the file, rename it into `models`, sync that folder. The name is the digest, so a second publisher
of the same bytes finds its work done; the folder is synced all the same, since the first may have died before it did.

*A new spool* is on disk only when every folder above it is: `sync` syncs those of which this process does not know it.

*A failed sync* is never tried again: the kernel may have dropped the pages and report success the second time. That
handle answers `DurabilityUnknown` from then on.

*Reading* takes bytes at an offset, into memory that lives as long as the view of it. A buffer for each reader was
measured slower (4.0 against 7.1 GB/s for folding eight spools): the allocator hands out the same warm pages again,
and memory does not grow with the number of open readers.

*Removing a model* is renaming it out of `models` and syncing that folder: from then on nobody finds it. What takes
long, giving its bytes back, is `coordinator.storage.erasing`'s.

All calls that can fail halfway go through `FileCalls`, whose double in the tests fails on order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coordinator.storage.erasing import Eraser
from coordinator.storage.filecalls import Fate, FileCalls, describe, writing
from coordinator.storage.interface import Leftovers, Reader, Spool, Staged, StoredModel, StoredSpool
from coordinator.storage.listing import (
    MODELS,
    REMOVED,
    SPOOLS,
    STAGING,
    left_over_in,
    published_in,
    spooled_in,
)
from coordinator.storage.lock import LOCK_FILE, ProcessLock
from coordinator.storage.names import (
    MODEL_SUFFIX,
    SPOOL_SUFFIX,
    attempt_parts,
    round_parts,
    spool_parts,
    staged_name,
)
from shared.errors import StorageError, UnknownError
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class FileReader:
    """A `Reader` over one open file, whose size is taken when it is opened."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when it is absent, StorageError otherwise."""
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {describe(error)}") from error
        try:
            self._size = os.fstat(self._fd).st_size
        except OSError as error:
            self.close()
            raise StorageError(f"{path} cannot be read: {describe(error)}") from error

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> memoryview:
        if self._fd < 0:
            raise RuntimeError("this reader is closed")
        if offset < 0 or length < 0 or offset + length > self._size:
            raise StorageError(f"{self._path}: bytes {offset} to {offset + length} of a file of {self._size} bytes")
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length:  # a read stops early at 2 GiB, or at the end of a file that was cut
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    raise StorageError(f"{self._path} was {self._size} bytes long and now ends at {offset + len(data)}")
                data += more
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {describe(error)}") from error
        return memoryview(data)

    def close(self) -> None:
        """Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class AppendFile:
    """A file that only grows, durable after each `append`: a projection such as the audit log."""

    def __init__(self, *, path: Path, calls: FileCalls | None = None) -> None:
        self._path = path
        self._calls = calls if calls is not None else FileCalls()
        self._fate = Fate()
        with writing(f"opening {path}"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        self._fate.sync_folder(self._calls, path.parent)

    @property
    def size(self) -> int:
        """Raises StorageError."""
        with writing(f"looking at {self._path}"):
            return os.fstat(self._fd).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer at the end."""
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {describe(error)}") from error

    def append(self, data: bytes) -> None:
        """Write at the end and sync. StorageError: nothing was added. DurabilityUnknown: any part of it may be."""
        self._fate.check(f"appending to {self._path}")
        write_whole(self._calls, self._fate, self._fd, self.size, memoryview(data), path=self._path)
        with self._fate.syncing(f"syncing {self._path}"):
            self._calls.fdatasync(self._fd)

    def close(self) -> None:
        """Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileSpool:
    """A `Spool` in a file. One handle at a time; any thread."""

    def __init__(self, *, path: Path, fd: int, blobs: FileBlobs, calls: FileCalls, fate: Fate) -> None:
        self._path = path
        self._fd = fd
        self._blobs = blobs
        self._calls = calls
        self._fate = fate
        try:
            with writing(f"looking at {path}"):
                self._size = os.fstat(fd).st_size
        except StorageError:
            self.close()
            raise

    @property
    def size(self) -> int:
        return self._size

    def append(self, data: memoryview) -> None:
        write_whole(self._calls, self._fate, self._open(), self._size, data, path=self._path)
        self._size += data.nbytes

    def truncate(self, size: int) -> None:
        fd = self._open()
        if not 0 <= size <= self._size:
            raise RuntimeError(f"a spool of {self._size} bytes cannot be cut to {size}")
        with writing(f"cutting {self._path}"):
            self._calls.truncate(fd, size)
        self._size = size

    def sync(self) -> int:
        fd = self._open()
        size = self._size  # of now: another thread may append while the disk works
        with self._fate.syncing(f"syncing {self._path}"):
            self._calls.fdatasync(fd)
        self._blobs.sync_above(self._path)
        return size

    def reader(self) -> Reader:
        self._open()
        return _reader(self._path)

    def close(self) -> None:
        """Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            raise RuntimeError("this spool is closed")
        self._fate.check(str(self._path))
        return self._fd


class FileStaged:
    """A `Staged` file."""

    def __init__(self, *, path: Path, fd: int, calls: FileCalls, fate: Fate) -> None:
        self._path = path
        self._fd = fd
        self._calls = calls
        self._fate = fate
        self._size = 0

    @property
    def path(self) -> Path:
        """Where it is until it is published or discarded. Raises RuntimeError afterwards."""
        self._open()
        return self._path

    def allocate(self, size: int) -> None:
        fd = self._open()
        try:
            with writing(f"allocating {self._path}", needed=size, folder=self._path.parent):
                self._calls.truncate(fd, 0)
                self._calls.allocate(fd, size)
        except StorageError:
            self._size = 0
            with suppress(OSError):  # give back what a full disk granted; what stays is removed with the file
                self._calls.truncate(fd, 0)
            raise
        self._size = size

    def write_at(self, offset: int, data: memoryview) -> None:
        fd = self._open()
        if offset < 0 or offset + data.nbytes > self._size:
            raise RuntimeError(f"bytes {offset} to {offset + data.nbytes} of a file allocated at {self._size} bytes")
        with writing(f"writing {self._path}", needed=data.nbytes, folder=self._path.parent):
            _pwrite_all(self._calls, fd, offset, data)

    def reader(self) -> Reader:
        self._open()
        return _reader(self._path)

    def sync(self) -> None:
        """Make the content durable. Raises DurabilityUnknown."""
        with self._fate.syncing(f"syncing {self._path}"):
            self._calls.fsync(self._open())

    def discard(self) -> None:
        if self._fd < 0:
            return
        with writing(f"removing {self._path}"):
            self._calls.unlink(self._path)
        self.forget()

    def forget(self) -> None:
        """The file is somebody else's now, or gone."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            raise RuntimeError("this staged file was published, discarded or replaced")
        self._fate.check(str(self._path))
        return self._fd


class FileBlobs:
    """`Blobs` in a data folder, which belongs to this process until `close`."""

    def __init__(self, *, root: Path, calls: FileCalls | None = None) -> None:
        """Make the folders, and clear what former processes left. Raises ConfigError when another coordinator uses the
        data folder.
        """
        self._calls = calls if calls is not None else FileCalls()
        self._root = root
        self._models = root / MODELS
        self._spools = root / SPOOLS
        self._staging = root / STAGING
        self._removed = root / REMOVED
        self._fate = Fate()
        self._durable: set[Path] = set()
        self._durable_guard = threading.Lock()  # spools are synced from several threads
        self._staged: dict[str, FileStaged] = {}
        with writing(f"making the data folder {root}"):
            root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = ProcessLock(path=root / LOCK_FILE, guards=f"the data folder {root}")
        with writing(f"preparing the data folder {root}"):
            for folder in (self._models, self._spools, self._staging, self._removed):
                folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._leftovers = left_over_in(root, self._calls)
            for path in self._staging.iterdir():
                path.replace(self._removed / path.name)
        for job in self._spools.iterdir():
            with suppress(OSError):  # it has an open round
                job.rmdir()
        self._fate.sync_folder(self._calls, root)
        self._eraser = Eraser(self._calls)
        for path in sorted(self._removed.iterdir()):
            self._eraser.erase(path)

    def finish_erasing(self) -> None:
        """Wait until the bytes of all that was removed are given back. Nothing can be removed after it."""
        self._eraser.finish()

    def close(self) -> None:
        """Give the data folder back. Calling it again does nothing."""
        self._eraser.close()
        self._lock.close()

    def require_in_place(self) -> None:
        """Raises DurabilityUnknown when the data folder is not the one that was opened."""
        self._lock.require_in_place()

    @property
    def leftovers(self) -> Leftovers:
        return self._leftovers

    def spool(self, key: AttemptKey, participant: ParticipantId) -> Spool:
        self._fate.check(str(self._root))
        *folders, stem = spool_parts(key, participant)
        path = self._spools.joinpath(*folders, stem + SPOOL_SUFFIX)
        with writing(f"opening {path}"):
            folder = self._spools
            for name in folders:
                folder = folder / name
                folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            fd = self._calls.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        return FileSpool(path=path, fd=fd, blobs=self, calls=self._calls, fate=self._fate)

    def sync_above(self, path: Path) -> None:
        """Make the name of a spool durable, once. Raises DurabilityUnknown."""
        for entry in (path, *path.parents):
            if entry == self._spools:
                return
            with self._durable_guard:
                known = entry in self._durable
            if not known:
                self._fate.sync_folder(self._calls, entry.parent)
                with self._durable_guard:
                    self._durable.add(entry)

    def spooled(self) -> Sequence[StoredSpool]:
        return spooled_in(self._root, self._calls)

    def drop_spools(self, key: RoundKey) -> None:
        self._drop(self._spools.joinpath(*round_parts(key)))

    def drop_attempt(self, key: AttemptKey) -> None:
        self._drop(self._spools.joinpath(*attempt_parts(key)))

    def _drop(self, folder: Path) -> None:
        self._fate.check(str(self._root))
        if folder.exists():
            with writing(f"removing {folder}"):
                self._calls.remove_tree(folder)
        if folder.parent.exists():
            self._fate.sync_folder(self._calls, folder.parent)
        with self._durable_guard:
            self._durable = {entry for entry in self._durable if not entry.is_relative_to(folder)}

    def stage(self, name: str) -> Staged:
        self._fate.check(str(self._root))
        path = self._staging / staged_name(name)
        with writing(f"opening {path}"):
            path.unlink(missing_ok=True)
            fd = self._calls.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        if name in self._staged:
            self._staged[name].forget()
        self._staged[name] = FileStaged(path=path, fd=fd, calls=self._calls, fate=self._fate)
        return self._staged[name]

    def publish(self, staged: Staged, digest: Digest) -> None:
        self._fate.check(str(self._root))
        if not isinstance(staged, FileStaged):
            raise TypeError(f"a file staged elsewhere: {staged!r}")
        source = staged.path
        path = self._model_path(digest)
        if path.exists():
            staged.discard()
        else:
            staged.sync()
            with writing(f"publishing {path}"):
                self._calls.replace(source, path)
            staged.forget()
        self._fate.sync_folder(self._calls, self._models)

    def published(self) -> Sequence[StoredModel]:
        return published_in(self._root, self._calls)

    def remove_model(self, digest: Digest) -> None:
        self._fate.check(str(self._root))
        path = self._model_path(digest)
        aside = self._removed / path.name
        if path.exists():
            with writing(f"removing {path}"):
                self._calls.replace(path, aside)
        self._fate.sync_folder(self._calls, self._models)
        self._eraser.erase(aside)

    def model(self, digest: Digest) -> Reader:
        try:
            return FileReader(self._model_path(digest))
        except FileNotFoundError:
            raise UnknownError(f"there is no model {digest}") from None

    def model_location(self, digest: Digest) -> str:
        path = self._model_path(digest)
        if not path.is_file():
            raise UnknownError(f"there is no model {digest}")
        return str(path)

    def _model_path(self, digest: Digest) -> Path:
        return self._models / f"{digest}{MODEL_SUFFIX}"


def write_whole(calls: FileCalls, fate: Fate, fd: int, offset: int, data: memoryview, *, path: Path) -> None:
    """Write all of `data` at the end of a file, or leave the file as it was: StorageError.

    DurabilityUnknown: any part of it may be there.
    """
    try:
        with writing(f"writing {path}", needed=data.nbytes, folder=path.parent):
            _pwrite_all(calls, fd, offset, data)
    except StorageError:
        with fate.syncing(f"cutting off what a failed write left of {path}"):
            if os.fstat(fd).st_size > offset:  # a disk that became read-only took nothing, and would not be cut
                calls.truncate(fd, offset)
        raise


def _pwrite_all(calls: FileCalls, fd: int, offset: int, data: memoryview) -> None:
    """One write, and another only when the kernel took a part."""
    rest = data.cast("B") if data.format != "B" or data.ndim != 1 else data
    while rest:
        taken = calls.pwrite(fd, rest, offset)
        rest, offset = rest[taken:], offset + taken


def _reader(path: Path) -> Reader:
    try:
        return FileReader(path)
    except FileNotFoundError as error:
        raise StorageError(f"{path} is gone") from error
