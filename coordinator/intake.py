"""Taking in updates: chunks into spools, each chunk hashed as it comes, the whole proven before it counts.

A spool holds whole chunks only, in the layout's order, so that what is durable is always a number of chunks and an
interrupted upload goes on at a chunk. The newest stream of an upload wins: an older one, left over from a broken
connection, is refused at its next chunk. Nothing here is on record: an update counts when the round's journal says so.

Called from transfer threads; one lock guards the table of open uploads, and each upload is only touched by its newest
stream.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from contextlib import closing
from dataclasses import dataclass

from coordinator.storage.interface import Blobs, Spool
from shared.casts import all_finite
from shared.errors import ConflictError, LateError, WireError
from shared.ids import AttemptKey, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.update import DType, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import decode_update_header

CELL_BYTES = 8  # float64


@dataclass(frozen=True, slots=True)
class UploadId:
    """One participant's upload in one attempt."""

    key: AttemptKey
    participant: ParticipantId


class Receiving:
    """One stream of chunks into one spool."""

    def __init__(self, *, upload: UploadId, layout: UpdateLayout, spool: Spool, digests: list[Digest]) -> None:
        self._upload = upload
        self._ranges = list(layout.chunk_ranges())
        self._parameter_bytes = layout.parameter_bytes
        self._total_bytes = layout.total_bytes
        self._spool = spool
        self.digests = digests
        self._durable = -1  # how many chunks the last sync covered; what a former process left is not known to be
        self._superseded = False
        self._lock = threading.Lock()

    @property
    def received_bytes(self) -> int:
        return self._ranges[len(self.digests)][0] if len(self.digests) < len(self._ranges) else self._total_bytes

    def append(self, chunk: memoryview) -> None:
        """Take the next chunk. Raises WireError for one that is not the next of this layout."""
        with self._lock:
            self._check_newest()
            if len(self.digests) == len(self._ranges):
                raise WireError(f"the update has {self._total_bytes} bytes, but more were sent")
            start, end = self._ranges[len(self.digests)]
            if len(chunk) != end - start:
                raise WireError(f"the chunk at byte {start} has {end - start} bytes, got {len(chunk)}")
            if start < self._parameter_bytes and not all_finite(chunk, DType.F32):
                raise WireError(f"the chunk at byte {start} holds a NaN or an infinity")
            digest = Digest(hashlib.sha256(chunk).digest())
            self._spool.append(chunk)
            self.digests.append(digest)

    def sync(self) -> int:
        """Make what came durable; returns the durable bytes."""
        with self._lock:
            self._check_newest()
            if self._durable != len(self.digests):
                self._spool.sync()
                self._durable = len(self.digests)
            return self.received_bytes

    def read_statistics(self) -> tuple[float, ...]:
        """Section 1, once it is complete."""
        with self._lock:
            self._check_newest()
            content = self._spool.reader()
        with closing(content) as reader:
            cells = reader.read_at(self._parameter_bytes, self._total_bytes - self._parameter_bytes)
            return struct.unpack(f"<{len(cells) // CELL_BYTES}d", cells)

    def _check_newest(self) -> None:
        if self._superseded:
            raise LateError(f"a newer stream of upload {self._upload.key} took over, or its round is over")

    def supersede(self) -> None:
        """Close the spool; a stream that still writes is refused from now on."""
        with self._lock:
            if not self._superseded:
                self._superseded = True
                self._spool.close()


class Intake:
    """All uploads on their way in."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._open: dict[UploadId, Receiving] = {}
        self._over: dict[JobId, RoundNumber] = {}  # the last round of each job that was forgotten here
        self._lock = threading.Lock()

    def durable_bytes(self, upload: UploadId, layout: UpdateLayout) -> int:
        """Where an upload goes on: whole chunks, durable on return."""
        return self._receiving(upload, layout).sync()

    def open(self, upload: UploadId, layout: UpdateLayout, offset: int) -> Receiving:
        """Start a stream at `offset`, which is where `durable_bytes` said. Raises ConflictError for another one."""
        with self._lock:
            current = self._open.pop(upload, None)
            if current is not None:
                current.supersede()
            receiving = self._resume(upload, layout)
            self._open[upload] = receiving
        if receiving.received_bytes != offset:
            raise ConflictError(f"the upload goes on at byte {receiving.received_bytes}, not {offset}: ask its status")
        return receiving

    def prove(self, upload: UploadId, layout: UpdateLayout, header: bytes) -> Digest:
        """The digest of a complete update, which is durable on return.

        Raises ConflictError for one with a gap, WireError for statistics that no honest update has.
        """
        receiving = self._receiving(upload, layout)
        durable = receiving.sync()
        if durable != layout.total_bytes:
            raise ConflictError(f"the update has {layout.total_bytes} bytes, of which {durable} arrived: send the rest")
        _check_statistics(receiving.read_statistics(), decode_update_header(header), layout)
        return update_digest(header, receiving.digests)

    def forget(self, key: RoundKey) -> None:
        """A round is over: close its streams and drop its spools."""
        with self._lock:
            self._over[key.job] = max(key.number, self._over.get(key.job, key.number))
            for upload in [upload for upload in self._open if upload.key.round == key]:
                self._open.pop(upload).supersede()
        self._blobs.drop_spools(key)

    def _receiving(self, upload: UploadId, layout: UpdateLayout) -> Receiving:
        with self._lock:
            if upload not in self._open:
                self._open[upload] = self._resume(upload, layout)
            return self._open[upload]

    def _resume(self, upload: UploadId, layout: UpdateLayout) -> Receiving:
        """Whole chunks that are in the spool are hashed again; a torn last one is forgotten.

        A round may end between the leave to upload and this: it gets no new spool, which nobody would remove.
        """
        if upload.key.round.number <= self._over.get(upload.key.round.job, 0):
            raise LateError(f"round {upload.key.round} is over")
        spool = self._blobs.spool(upload.key, upload.participant)
        digests: list[Digest] = []
        kept = 0
        with closing(spool.reader()) as reader:
            for start, end in layout.chunk_ranges():
                if end > reader.size:
                    break
                digests.append(Digest.of(reader.read_at(start, end - start)))
                kept = end
        if spool.size != kept:
            spool.truncate(kept)
        return Receiving(upload=upload, layout=layout, spool=spool, digests=digests)


def _check_statistics(cells: tuple[float, ...], header: UpdateHeader, layout: UpdateLayout) -> None:
    """Weights are counted once: the one in the header is the one that its half of section 1 is weighted with."""
    train_weight, evaluate_weight = cells[0], cells[len(cells) // 2]
    counted = train_weight if layout.parameters else evaluate_weight
    if not all(map(math.isfinite, cells)) or train_weight < 0 or evaluate_weight < 0:
        raise WireError("the statistics of an update are finite, and its weights are not negative")
    if counted != header.weight:
        raise WireError(f"the update's header has weight {header.weight}, its statistics {counted}")
