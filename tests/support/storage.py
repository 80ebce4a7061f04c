"""Every kind of storage behind one handle, so that one suite holds the contract against all of them.

A *bench* owns one storage, can make a verb fail, and can end the process and start the next one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any, Protocol

from coordinator.storage.faults import Fault, FaultPlan
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.files import FileBlobs
from coordinator.storage.interface import Blobs, Store
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from coordinator.storage.sql import SqlStore


class StoreBench(Protocol):
    store: Store

    def fail_next(self, verb: str, fault: Fault) -> None: ...

    def restart(self) -> Store: ...

    def close(self) -> None: ...


class BlobsBench(Protocol):
    blobs: Blobs

    def fail_next(self, verb: str, fault: Fault) -> None: ...

    def restart(self) -> Blobs: ...

    def close(self) -> None: ...


class MemoryStoreBench:
    def __init__(self) -> None:
        self._plan = FaultPlan()
        self._memory = MemoryStore(faults=self._plan)
        self.store: Store = self._memory

    def fail_next(self, verb: str, fault: Fault) -> None:
        self._plan.inject(verb, fault)

    def restart(self) -> Store:
        self._memory = self._memory.crash()
        self.store = self._memory
        return self.store

    def close(self) -> None:
        pass


class FaultyConnection(sqlite3.Connection):
    """SQLite that fails on order: in the second statement of the next transaction, or around its commit."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fault: Fault | None = None
        self._statements = 0

    def order(self, fault: Fault) -> None:
        self.fault = fault
        self._statements = 0

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        if self.fault is Fault.FAILED_NOT_PERSISTED:
            self._statements += 1
            if self._statements == 2:
                self.fault = None
                raise sqlite3.OperationalError("disk I/O error")
        return super().cursor(*arguments, **options)

    def commit(self) -> None:
        fault, self.fault = self.fault, None
        if fault is None:
            super().commit()
            return
        if fault is Fault.FAILED_BUT_PERSISTED:
            super().commit()
        else:
            super().rollback()
        raise sqlite3.OperationalError("disk I/O error")


class SqlStoreBench:
    def __init__(self, folder: Path) -> None:
        self._url = f"sqlite:///{folder / 'consilo.db'}"
        self._made: list[FaultyConnection] = []
        self._sql = self._open()
        self.store: Store = self._sql

    def _open(self) -> SqlStore:
        made = self._made

        class Connection(FaultyConnection):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                made.append(self)

        return SqlStore(url=self._url, connection_factory=Connection)

    def fail_next(self, verb: str, fault: Fault) -> None:
        self._made[-1].order(fault)

    def restart(self) -> Store:
        self._sql.close()
        self._sql = self._open()
        self.store = self._sql
        return self.store

    def close(self) -> None:
        self._sql.close()


class MemoryBlobsBench:
    def __init__(self) -> None:
        self._plan = FaultPlan()
        self._memory = MemoryBlobs(faults=self._plan)
        self.blobs: Blobs = self._memory

    def fail_next(self, verb: str, fault: Fault) -> None:
        self._plan.inject(verb, fault)

    def restart(self) -> Blobs:
        self._memory = self._memory.crash()
        self.blobs = self._memory
        return self.blobs

    def close(self) -> None:
        pass


# Which system call decides the fate of a verb: (fails with StorageError, fails with DurabilityUnknown).
_DECIDING = {
    "spool": ("open", ""),
    "append": ("pwrite", ""),
    "truncate": ("truncate", ""),
    "sync": ("", "fdatasync"),
    "stage": ("open", ""),
    "allocate": ("allocate", ""),
    "write_at": ("pwrite", ""),
    "publish": ("replace", "sync_folder"),
    "drop_spools": ("remove_tree", "sync_folder"),
    "discard": ("unlink", ""),
    "published": ("find", ""),
    "spooled": ("find", ""),
    "remove_model": ("replace", "sync_folder"),
    "drop_attempt": ("remove_tree", "sync_folder"),
}


class FaultyCalls(FileCalls):
    """An operating system that fails on order. A sync that fails without effect loses what was not synced before."""

    def __init__(self) -> None:
        self._next: tuple[str, Fault] | None = None
        self._synced: dict[int, int] = {}
        self._renamed: tuple[Path, Path] | None = None

    def order(self, verb: str, fault: Fault) -> None:
        plain, unknown = _DECIDING[verb]
        call = plain if fault is Fault.FAILED_NOT_PERSISTED else unknown
        if verb == "publish" and fault is Fault.FAILED_UNKNOWN_NOT_PERSISTED:
            call = "fsync"
        assert call, f"{verb} cannot fail as {fault}"
        self._next = (call, fault)

    def _struck(self, call: str) -> Fault | None:
        if self._next is None or self._next[0] != call:
            return None
        fault = self._next[1]
        self._next = None
        return fault

    def open(self, path: Path, flags: int, mode: int) -> int:
        if self._struck("open"):
            raise OSError(errno.EROFS, "Read-only file system")
        return super().open(path, flags, mode)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if self._struck("pwrite"):
            self._next = ("second pwrite", Fault.FAILED_NOT_PERSISTED)
            return super().pwrite(fd, data[: len(data) // 2], offset)
        if self._struck("second pwrite"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        if self._struck("truncate"):
            raise OSError(errno.EIO, "Input/output error")
        super().truncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        if self._struck("allocate"):
            super().allocate(fd, size // 2)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().allocate(fd, size)

    def fsync(self, fd: int) -> None:
        if self._struck("fsync"):
            raise OSError(errno.EIO, "Input/output error")
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        fault = self._struck("fdatasync")
        if fault is Fault.FAILED_UNKNOWN_NOT_PERSISTED:
            os.ftruncate(fd, self._synced.get(inode, 0))
        else:
            super().fdatasync(fd)
            self._synced[inode] = os.fstat(fd).st_size
        if fault is not None:
            raise OSError(errno.EIO, "Input/output error")

    def sync_folder(self, fd: int) -> None:
        super().sync_folder(fd)
        fault = self._struck("sync_folder")
        if fault is Fault.FAILED_UNKNOWN_NOT_PERSISTED and self._renamed is not None:
            source, target = self._renamed
            target.replace(source)
        if fault:
            raise OSError(errno.EIO, "Input/output error")

    def replace(self, source: Path, target: Path) -> None:
        if self._struck("replace"):
            raise OSError(errno.EROFS, "Read-only file system")
        super().replace(source, target)
        self._renamed = source, target

    def unlink(self, path: Path) -> None:
        if self._struck("unlink"):
            raise OSError(errno.EROFS, "Read-only file system")
        super().unlink(path)

    def find(self, folder: Path, pattern: str) -> list[Path]:
        if self._struck("find"):
            raise OSError(errno.EIO, "Input/output error")
        return super().find(folder, pattern)

    def remove_tree(self, folder: Path) -> None:
        if self._struck("remove_tree"):
            raise OSError(errno.EROFS, "Read-only file system")
        super().remove_tree(folder)


class FileBlobsBench:
    def __init__(self, folder: Path) -> None:
        self._root = folder / "data"
        self._calls = FaultyCalls()
        self._files = FileBlobs(root=self._root, calls=self._calls)
        self.blobs: Blobs = self._files

    def fail_next(self, verb: str, fault: Fault) -> None:
        self._calls.order(verb, fault)

    def restart(self) -> Blobs:
        self._files.close()
        self._files = FileBlobs(root=self._root, calls=self._calls)
        self.blobs = self._files
        return self.blobs

    def close(self) -> None:
        self._files.close()
