"""Large files in memory, with the durability of real ones: see `coordinator.storage.memory`.

Every file has two contents, what the process sees and what a crash leaves. A crash may leave more than was synced;
`crash(keep_bytes=n)` leaves that many volatile bytes of every spool, as a page cache that was partly written back does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.storage.faults import FaultPlan, ProcessLife
from coordinator.storage.interface import Leftovers, Reader, Spool, Staged, StoredModel, StoredSpool
from coordinator.storage.names import attempt_parts, round_parts, spool_parts, staged_name
from shared.errors import StorageError, UnknownError
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey


@dataclass(slots=True)
class _SpoolFile:
    content: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None
    """None: not even the name would survive a crash."""

    def after_crash(self, keep_bytes: int) -> bytes | None:
        kept = self.durable if self.durable is not None else b""
        if keep_bytes and self.content[: len(kept)] == kept:
            return bytes(self.content[: len(kept) + keep_bytes])
        return self.durable


class MemoryReader:
    """A `Reader` over bytes."""

    def __init__(self, data: bytes, life: ProcessLife) -> None:
        self._data: bytes | None = data
        self._life = life

    @property
    def size(self) -> int:
        return len(self._open())

    def read_at(self, offset: int, length: int) -> memoryview:
        self._life.read("read_at")
        data = self._open()
        if offset < 0 or length < 0 or offset + length > len(data):
            raise StorageError(f"bytes {offset} to {offset + length} of a file of {len(data)} bytes")
        return memoryview(data)[offset : offset + length]

    def close(self) -> None:
        self._data = None

    def _open(self) -> bytes:
        if self._data is None:
            raise RuntimeError("this reader is closed")
        return self._data


class MemorySpool:
    """A `Spool` in memory."""

    def __init__(self, file: _SpoolFile, life: ProcessLife) -> None:
        self._file = file
        self._life = life
        self._closed = False

    @property
    def size(self) -> int:
        return len(self._file.content)

    def append(self, data: memoryview) -> None:
        self._check_open()
        self._life.write("append", lambda: self._file.content.extend(data))

    def truncate(self, size: int) -> None:
        self._check_open()
        if not 0 <= size <= self.size:
            raise RuntimeError(f"a spool of {self.size} bytes cannot be cut to {size}")
        self._life.write("truncate", lambda: self._file.content.__delitem__(slice(size, None)))

    def sync(self) -> int:
        self._check_open()

        def apply() -> int:
            self._file.durable = bytes(self._file.content)
            return len(self._file.durable)

        return self._life.write("sync", apply)

    def reader(self) -> Reader:
        self._check_open()
        return MemoryReader(bytes(self._file.content), self._life)

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this spool is closed")


class MemoryStaged:
    """A `Staged` file in memory."""

    def __init__(self, life: ProcessLife) -> None:
        self._content: bytearray | None = bytearray()
        self._life = life

    def allocate(self, size: int) -> None:
        content = self.content()

        def apply() -> None:
            content[:] = bytes(size)

        self._life.write("allocate", apply)

    def write_at(self, offset: int, data: memoryview) -> None:
        content = self.content()
        if offset < 0 or offset + len(data) > len(content):
            raise RuntimeError(f"bytes {offset} to {offset + len(data)} of a file allocated at {len(content)} bytes")

        def apply() -> None:
            content[offset : offset + len(data)] = data

        self._life.write("write_at", apply)

    def reader(self) -> Reader:
        return MemoryReader(bytes(self.content()), self._life)

    def discard(self) -> None:
        self._life.write("discard", self.forget)

    def forget(self) -> None:
        self._content = None

    @property
    def left(self) -> int | None:
        """How many bytes of it a crash leaves lying about."""
        return None if self._content is None else len(self._content)

    def content(self) -> bytearray:
        if self._content is None:
            raise RuntimeError("this staged file was published, discarded or replaced")
        return self._content


class MemoryBlobs:
    """`Blobs` that live as long as their references."""

    def __init__(self, *, faults: FaultPlan | None = None) -> None:
        self._life = ProcessLife(faults if faults is not None else FaultPlan())
        self._spools: dict[tuple[AttemptKey, ParticipantId], _SpoolFile] = {}
        self._models: dict[Digest, bytes] = {}
        self._staged: dict[str, MemoryStaged] = {}
        self._leftovers = Leftovers(0, 0)

    @property
    def faults(self) -> FaultPlan:
        """Where failures are ordered."""
        return self._life.faults

    def crash(self, *, keep_bytes: int = 0) -> MemoryBlobs:
        """End this process; the files as the next one finds them. It shares the fault plan."""
        self._life.end()
        successor = MemoryBlobs(faults=self._life.faults)
        successor._models = self._models
        staged = [file.left for file in self._staged.values() if file.left is not None]
        successor._leftovers = Leftovers(len(staged), sum(staged))
        for key, file in self._spools.items():
            left = file.after_crash(keep_bytes)
            if left is not None:
                successor._spools[key] = _SpoolFile(bytearray(left), left)
        return successor

    def spool(self, key: AttemptKey, participant: ParticipantId) -> Spool:
        spool_parts(key, participant)
        return MemorySpool(
            self._life.write("spool", lambda: self._spools.setdefault((key, participant), _SpoolFile())), self._life
        )

    @property
    def leftovers(self) -> Leftovers:
        return self._leftovers

    def spooled(self) -> Sequence[StoredSpool]:
        self._life.read("spooled")
        found = sorted(self._spools.items(), key=lambda item: item[0])
        return [StoredSpool(key, participant, len(file.content)) for (key, participant), file in found]

    def drop_spools(self, key: RoundKey) -> None:
        round_parts(key)

        def apply() -> None:
            self._spools = {spool: file for spool, file in self._spools.items() if spool[0].round != key}

        self._life.write("drop_spools", apply)

    def drop_attempt(self, key: AttemptKey) -> None:
        attempt_parts(key)

        def apply() -> None:
            self._spools = {spool: file for spool, file in self._spools.items() if spool[0] != key}

        self._life.write("drop_attempt", apply)

    def stage(self, name: str) -> Staged:
        staged_name(name)

        def apply() -> Staged:
            if name in self._staged:
                self._staged[name].forget()
            self._staged[name] = MemoryStaged(self._life)
            return self._staged[name]

        return self._life.write("stage", apply)

    def publish(self, staged: Staged, digest: Digest) -> None:
        if not isinstance(staged, MemoryStaged):
            raise TypeError(f"a file staged elsewhere: {staged!r}")
        content = staged.content()

        def apply() -> None:
            self._models.setdefault(digest, bytes(content))
            staged.forget()

        self._life.write("publish", apply)

    def published(self) -> Sequence[StoredModel]:
        self._life.read("published")
        found = sorted(self._models.items(), key=lambda item: str(item[0]))
        return [StoredModel(digest, len(content)) for digest, content in found]

    def remove_model(self, digest: Digest) -> None:
        def apply() -> None:
            self._models.pop(digest, None)

        self._life.write("remove_model", apply)

    def model(self, digest: Digest) -> Reader:
        self._life.read("model")
        return MemoryReader(self._known(digest), self._life)

    def model_location(self, digest: Digest) -> str:
        self._life.read("model_location")
        self._known(digest)
        return f"memory:{digest}"

    def _known(self, digest: Digest) -> bytes:
        if digest not in self._models:
            raise UnknownError(f"there is no model {digest}")
        return self._models[digest]
