"""The smallest in-memory forms of `coordinator.storage.interface.Reader` and `Staged`, for tests of pure code.

`MemoryReader` hands out one buffer again and again, as a file reader may: a view kept past the next call shows other
bytes, and the test that does so fails.
"""

from __future__ import annotations

from shared.errors import StorageError


class MemoryReader:
    """Random access to bytes."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> memoryview:
        if offset < 0 or length < 0 or offset + length > len(self._data):
            raise StorageError(f"{length} bytes at {offset} of {len(self._data)}")
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view = memoryview(self._buffer)[:length]
        view[:] = self._data[offset : offset + length]
        return view

    def close(self) -> None:
        """Nothing to close."""


class MemoryStaged:
    """A file being written. Every byte must be written once; `content` checks it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._written = 0
        self.discarded = False

    def allocate(self, size: int) -> None:
        self._data = bytearray(size)

    def write_at(self, offset: int, data: memoryview) -> None:
        if data.format != "B" or offset + len(data) > len(self._data):
            raise StorageError(f"{len(data)} bytes at {offset} of {len(self._data)}")
        self._data[offset : offset + len(data)] = data
        self._written += len(data)

    def reader(self) -> MemoryReader:
        return MemoryReader(self._data)

    def discard(self) -> None:
        self.discarded = True

    def content(self) -> bytes:
        """Everything, once it is all there."""
        assert self._written == len(self._data)
        return bytes(self._data)
