"""Section 0 of a finished update on the silo's disk: its numbers, and a digest of each piece of them.

The digests lie in a file beside the numbers, and the journal has the root over them. So between the moment when an
update is finished and the one when it is sent, which may be days and a restart later, no byte of it changes unnoticed:
what is read for an upload is compared, piece by piece, before anything of that piece is handed on.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from shared.errors import StorageError
from shared.ids import DIGEST_BYTES, Digest
from shared.secagg.fixed_point import Float32s

PIECE_BYTES = 1 << 20  # what is read and hashed at a time


def digests_beside(deltas: Path) -> Path:
    """The file with the digests of the pieces, one after the other."""
    return deltas.with_name(deltas.name + ".sha256")


def root_of(digests: bytes) -> Digest:
    """The digest that the journal keeps."""
    return Digest.of(digests)


def digest_pieces(deltas: Path) -> bytes:
    """The digest of each piece, one after the other. Raises StorageError."""
    digests = bytearray()
    try:
        with deltas.open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                digests += Digest.of(piece).raw
    except OSError as error:
        raise StorageError(f"{deltas} cannot be read: {error.strerror}") from error
    return bytes(digests)


def spooled_deltas(path: Path, counts: Iterable[int], *, most: int, root: Digest | None = None) -> Iterator[Float32s]:
    """The numbers of section 0 from its beginning, so many at a time (`most` at most), each valid until the next.

    With `root`, every piece is what it was when the update was finished, or nothing of it is given out. Raises
    StorageError.
    """
    buffer = np.empty(most, "<f4")
    try:
        with path.open("rb", buffering=0) as file:
            source = _Pieces(path, file, root)
            for count in counts:
                values = buffer[:count]
                source.fill(values.data.cast("B"))
                yield values
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


class _Pieces:
    """The bytes of the file in order, each piece compared before it is given out."""

    def __init__(self, path: Path, file: io.RawIOBase, root: Digest | None) -> None:
        self._path = path
        self._file = file
        self._digests = None if root is None else _known_digests(path, root)
        self._piece = memoryview(bytearray(PIECE_BYTES if root is not None else 0))
        self._held = self._piece[:0]
        self._taken = 0

    def fill(self, out: memoryview) -> None:
        """Raises StorageError, and OSError."""
        if self._digests is None:
            if self._file.readinto(out) != len(out):
                raise self._cut()
            return
        while out:
            if not self._held:
                self._held = self._next(self._digests)
            count = min(len(out), len(self._held))
            out[:count] = self._held[:count]
            out, self._held = out[count:], self._held[count:]

    def _next(self, digests: memoryview) -> memoryview:
        known = digests[DIGEST_BYTES * self._taken :][:DIGEST_BYTES]
        length = self._file.readinto(self._piece)
        if not length or not known:
            raise self._cut()
        piece = self._piece[:length]
        if Digest.of(piece).raw != known:
            first = PIECE_BYTES * self._taken
            raise StorageError(
                f"{self._path} is not what was spooled: something changed it between bytes {first} and "
                f"{first + length}. It is not sent. Have the disk of {self._path.parent} checked"
            )
        self._taken += 1
        return piece

    def _cut(self) -> StorageError:
        return StorageError(f"{self._path} is cut short: more was spooled than it has now")


def _known_digests(path: Path, root: Digest) -> memoryview:
    beside = digests_beside(path)
    digests = beside.read_bytes()
    if root_of(digests) != root:
        raise StorageError(
            f"{beside} is not what the journal has on record: the update beside it cannot be checked, and is not sent. "
            f"Have the disk of {path.parent} checked"
        )
    return memoryview(digests)
