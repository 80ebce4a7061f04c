"""The only path from a raw update to bytes that leave the silo (plain encoding; masking joins here).

`UpdateChunks` yields the update chunk by chunk in the layout's order, from its file in the spool; it never holds more
than one chunk. The same spool and layout give the same bytes each time, so that an upload can go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from participant.round.phases import SpooledUpdate
from shared.casts import all_finite
from shared.errors import StorageError, TaskError
from shared.update import DType, UpdateLayout


class UpdateChunks:
    """The chunks of one update in the plain encoding."""

    def __init__(self, *, deltas: Path, update: SpooledUpdate, layout: UpdateLayout) -> None:
        self._deltas = deltas
        self._layout = layout
        self._statistics = np.array(update.statistics, "<f8").data.cast("B")

    def __iter__(self) -> Iterator[memoryview]:
        """Chunks in order; each is valid until the next. Raises StorageError, or TaskError for a number not finite."""
        boundary = self._layout.parameter_bytes
        if boundary:
            yield from self._parameters(boundary)
        for start, end in self._layout.chunk_ranges():
            if start >= boundary:
                yield self._statistics[start - boundary : end - boundary]

    def _parameters(self, boundary: int) -> Iterator[memoryview]:
        try:
            with self._deltas.open("rb", buffering=0) as file:
                for start, end in self._layout.chunk_ranges():
                    if start >= boundary:
                        return
                    chunk = memoryview(file.read(end - start))
                    if len(chunk) != end - start:
                        raise StorageError(f"{self._deltas} is cut short: {boundary} bytes were spooled")
                    if not all_finite(chunk, DType.F32):
                        raise TaskError("the update holds a NaN or an infinity: nothing of it leaves this silo")
                    yield chunk
        except OSError as error:
            raise StorageError(f"{self._deltas} cannot be read: {error.strerror}") from error
