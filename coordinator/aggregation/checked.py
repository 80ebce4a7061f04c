"""Reading a committed update, and noticing when the disk does not give back what was committed.

A fold reads each update once, in whatever order its model asks for. So every byte that is handed out is hashed on its
way, chunk by chunk, and before anything is done with the sum `sound` says whether all of it was what the digest of the
UploadCommit covers. No byte is read a second time for that, but for what is skipped: the rest of a chunk when the fold
goes on elsewhere. Nothing is remembered but a digest for each chunk.

Whatever a fold found on the way there, a total that cannot be for example, may be the disk's doing as well: ask here
first.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right

from coordinator.storage.interface import Reader
from shared.ids import Digest
from shared.update import UpdateLayout, update_digest


class CheckedReader:
    """A `Reader` of one update. Used by one thread at a time."""

    def __init__(self, reader: Reader, *, layout: UpdateLayout, header: bytes, update: Digest) -> None:
        """`header` as it was signed, `update` the digest over it and the chunks of `layout`."""
        self._reader = reader
        self._ranges = tuple(layout.chunk_ranges())
        self._header, self._update = header, update
        self._digests: list[Digest | None] = [None] * len(self._ranges)
        self._changed = False  # a chunk that was read twice was another one the second time
        self._chunk = -1  # the one that is being hashed; as far as `_at`
        self._at = 0
        self._hash = hashlib.sha256()

    @property
    def size(self) -> int:
        return self._reader.size

    def read_at(self, offset: int, length: int) -> memoryview:
        """See `Reader`. What it gives out counts only once `sound` was asked."""
        if length and offset + length <= self._reader.size:
            self._go_to(offset)
        data = self._reader.read_at(offset, length)  # the last one: it is valid until the next
        self._take(data)
        return data

    def sound(self) -> bool:
        """Whether the file is the update, and all that was read of it was. Reads what was not read; raises
        StorageError.
        """
        if self._reader.size != self._ranges[-1][1]:
            return False
        self._leave()
        for chunk, (start, end) in enumerate(self._ranges):
            if self._digests[chunk] is None:
                self._enter(chunk)
                self._take(self._reader.read_at(start, end - start))
        digests = [digest for digest in self._digests if digest is not None]
        return not self._changed and update_digest(self._header, digests) == self._update

    def close(self) -> None:
        self._reader.close()

    def _go_to(self, offset: int) -> None:
        """Hash what lies between here and there, as far as their chunks ask for it."""
        if self._chunk < 0 or not self._at <= offset < self._ranges[self._chunk][1]:
            self._leave()
            self._enter(self._chunk_at(offset))
        if self._at < offset:
            self._take(self._reader.read_at(self._at, offset - self._at))

    def _take(self, data: memoryview) -> None:
        """The next bytes from `_at` on; they may reach into further chunks."""
        done = 0
        while done < len(data):
            end = self._ranges[self._chunk][1]
            piece = data[done : done + end - self._at]
            self._hash.update(piece)
            done += len(piece)
            self._at += len(piece)
            if self._at == end:
                self._note()
                if done < len(data):
                    self._enter(self._chunk + 1)

    def _enter(self, chunk: int) -> None:
        self._chunk, self._at, self._hash = chunk, self._ranges[chunk][0], hashlib.sha256()

    def _leave(self) -> None:
        """Hash the rest of the chunk at hand."""
        if self._chunk >= 0 and self._at < (end := self._ranges[self._chunk][1]):
            self._take(self._reader.read_at(self._at, end - self._at))

    def _note(self) -> None:
        digest, known = Digest(self._hash.digest()), self._digests[self._chunk]
        self._changed = self._changed or known not in {None, digest}
        self._digests[self._chunk] = digest

    def _chunk_at(self, offset: int) -> int:
        return bisect_right(self._ranges, offset, key=lambda bounds: bounds[0]) - 1
