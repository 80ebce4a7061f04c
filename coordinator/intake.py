"""Taking in updates: chunks into spools, each chunk hashed as it comes, the whole proven before it counts.

A spool holds whole chunks only, in the layout's order, so that what is durable is always a number of chunks and an
interrupted upload goes on at a chunk. The newest stream of an upload wins: an older one, left over from a broken
connection, is refused at its next chunk. Nothing here is on record: an update counts when the round's journal says so.

Of a plain update the numbers are checked too: finite, and one weight throughout. A masked one is noise to this side, of
which nothing can be said before the total opens.

Called from transfer threads, and `forget` from the conductor's. Each upload has a lock, held while its bytes are
hashed, written or synced; the lock of the table is only held for moments (opening a file at most), so that no upload
waits for another's disk. Where both are held, the upload's was taken first. A newer stream, and whoever asks where the
upload goes on, takes over the spool and its digests as they are: only a new process hashes what it finds.

What it finds is bytes that may have been through a loss of power: there, of the right length, and others than were
sent. Nothing says so until the participant names the digest of the whole. Then such a spool is emptied (`start_over`)
and sent again; one whose bytes all came to this process is the participant's own mistake.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from coordinator.storage.interface import Blobs, Spool
from shared.casts import all_finite
from shared.errors import ConflictError, LateError, WireError
from shared.ids import AttemptKey, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.update import STATISTIC_BYTES, DType, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import decode_update_header


@dataclass(frozen=True, slots=True)
class UploadId:
    """One participant's upload in one attempt."""

    key: AttemptKey
    participant: ParticipantId


class _Held:
    """One upload: its spool and the digests of what is in it. Whoever touches either holds `lock`."""

    def __init__(self, upload: UploadId, layout: UpdateLayout) -> None:
        self.upload = upload
        self.ranges = list(layout.chunk_ranges())
        self.layout = layout
        self.lock = threading.Lock()
        self.spool: Spool | None = None
        self.digests: list[Digest] | None = None  # None: what a former process left was not read yet
        self.inherited = False  # whether a part of it is what a former process left
        self.durable = -1  # how many chunks the last sync covered; what a former process left is not known to be
        self.newest: Receiving | None = None

    def checks_numbers_at(self, start: int) -> bool:
        """Whether the chunk there is numbers that can be looked at; those of section 1 are when all are there."""
        return not self.layout.encoding.masked and start < self.layout.parameter_bytes

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()
            self.spool = None


class _Open:
    """An upload whose lock is held, with its spool open and its digests known."""

    def __init__(self, held: _Held, spool: Spool, digests: list[Digest]) -> None:
        self.held, self.spool, self.digests = held, spool, digests

    @property
    def received_bytes(self) -> int:
        ranges = self.held.ranges
        return ranges[len(self.digests)][0] if len(self.digests) < len(ranges) else self.held.layout.total_bytes

    def append(self, chunk: memoryview) -> None:
        held = self.held
        if len(self.digests) == len(held.ranges):
            raise WireError(f"the update has {held.layout.total_bytes} bytes, but more were sent")
        start, end = held.ranges[len(self.digests)]
        if len(chunk) != end - start:
            raise WireError(f"the chunk at byte {start} has {end - start} bytes, got {len(chunk)}")
        if held.checks_numbers_at(start) and not all_finite(chunk, DType.F32):
            raise WireError(f"the chunk at byte {start} holds a NaN or an infinity")
        digest = Digest(hashlib.sha256(chunk).digest())
        self.spool.append(chunk)
        self.digests.append(digest)

    def sync(self) -> int:
        if self.held.durable != len(self.digests):
            self.spool.sync()
            self.held.durable = len(self.digests)
        return self.received_bytes

    def start_over(self) -> bool:
        held = self.held
        if not held.inherited:
            return False
        self.spool.truncate(0)
        self.digests.clear()
        held.inherited, held.durable, held.newest = False, -1, None
        return True

    def read_statistics(self) -> tuple[float, ...]:
        """Section 1 of a plain update, once it is complete."""
        start = self.held.layout.parameter_bytes
        with closing(self.spool.reader()) as reader:
            cells = reader.read_at(start, self.held.layout.total_bytes - start)
            return struct.unpack(f"<{len(cells) // STATISTIC_BYTES}d", cells)


class Receiving:
    """One stream of chunks into one upload."""

    def __init__(self, intake: Intake, held: _Held) -> None:
        self._intake = intake
        self._held = held

    @property
    def received_chunks(self) -> int:
        """How many chunks of this upload came, on whatever stream."""
        return len(self._held.digests or ())

    def append(self, chunk: memoryview) -> None:
        """Take the next chunk. Raises WireError for one that is not the next of this layout, LateError when a newer
        stream took over.
        """
        with self._newest() as upload:
            upload.append(chunk)

    def sync(self) -> int:
        """Make what came durable; returns the durable bytes. Raises LateError as `append` does."""
        with self._newest() as upload:
            return upload.sync()

    @contextmanager
    def _newest(self) -> Iterator[_Open]:
        with self._intake.using(self._held) as upload:
            if self._held.newest is not self:
                raise LateError(f"a newer stream of upload {self._held.upload.key} took over")
            yield upload


class Intake:
    """All uploads on their way in."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._held: dict[UploadId, _Held] = {}
        self._over: dict[JobId, RoundNumber] = {}  # the last round of each job that was forgotten here
        self._lock = threading.Lock()

    def durable_bytes(self, upload: UploadId, layout: UpdateLayout) -> int:
        """Where an upload goes on: whole chunks, durable on return. An older stream is refused from now on, so that
        the answer stays true.
        """
        held = self._of(upload, layout)
        with self.using(held) as opened:
            held.newest = None
            return opened.sync()

    def open(self, upload: UploadId, layout: UpdateLayout, offset: int) -> Receiving:
        """Start a stream at `offset`, which is where `durable_bytes` said. Raises ConflictError for another one."""
        held = self._of(upload, layout)
        with self.using(held) as opened:
            if opened.received_bytes != offset:
                raise ConflictError(f"the upload goes on at byte {opened.received_bytes}, not {offset}: ask its status")
            held.newest = Receiving(self, held)
            return held.newest

    def prove(self, upload: UploadId, layout: UpdateLayout, header: bytes) -> Digest:
        """The digest of a complete update, which is durable on return.

        Raises ConflictError for one with a gap, WireError for plain statistics that no honest update has.
        """
        with self.using(self._of(upload, layout)) as opened:
            durable = opened.sync()
            if durable != layout.total_bytes:
                raise ConflictError(
                    f"the update has {layout.total_bytes} bytes, of which {durable} arrived: send the rest"
                )
            if not layout.encoding.masked:
                _check_statistics(opened.read_statistics(), decode_update_header(header), layout)
            return update_digest(header, opened.digests)

    def start_over(self, upload: UploadId, layout: UpdateLayout) -> bool:
        """Forget an upload that is not what its participant says it is, if a former process left any of it. Whether it
        was so: the participant may send it again then, once.
        """
        with self.using(self._of(upload, layout)) as opened:
            return opened.start_over()

    def rest(self, upload: UploadId) -> None:
        """An update is in: its file is closed until somebody asks for it again. What is in it stays known."""
        with self._lock:
            held = self._held.get(upload)
        if held is not None:
            with held.lock:
                held.close()

    def forget(self, key: RoundKey) -> None:
        """A round is over: close its streams and drop its spools.

        This waits for what its own uploads are doing (a folder is not removed below a running sync), never for another
        round's.
        """
        with self._lock:
            self._over[key.job] = max(key.number, self._over.get(key.job, key.number))
            ended = [self._held.pop(upload) for upload in list(self._held) if upload.key.round == key]
        for held in ended:
            with held.lock:
                held.close()
        self._blobs.drop_spools(key)

    def _of(self, upload: UploadId, layout: UpdateLayout) -> _Held:
        with self._lock:
            self._check_open(upload)
            return self._held.setdefault(upload, _Held(upload, layout))

    @contextmanager
    def using(self, held: _Held) -> Iterator[_Open]:
        """Hold one upload. Raises LateError when its round is over, StorageError."""
        with held.lock:
            with self._lock:
                # A round may end between the leave to upload and this: it gets no new spool, which nobody would remove.
                self._check_open(held.upload)
                if held.spool is None:
                    held.spool = self._blobs.spool(held.upload.key, held.upload.participant)
            if held.digests is None:
                held.digests = _digests(held.spool, held.ranges)
                held.inherited = bool(held.digests)
            yield _Open(held, held.spool, held.digests)

    def _check_open(self, upload: UploadId) -> None:
        if upload.key.round.number <= self._over.get(upload.key.round.job, 0):
            raise LateError(f"round {upload.key.round} is over")


def _digests(spool: Spool, ranges: Sequence[tuple[int, int]]) -> list[Digest]:
    """Whole chunks that are in the spool are hashed again; a torn last one is forgotten."""
    digests: list[Digest] = []
    kept = 0
    with closing(spool.reader()) as reader:
        for start, end in ranges:
            if end > reader.size:
                break
            digests.append(Digest.of(reader.read_at(start, end - start)))
            kept = end
    if spool.size != kept:
        spool.truncate(kept)
    return digests


def _check_statistics(cells: tuple[float, ...], header: UpdateHeader, layout: UpdateLayout) -> None:
    """Weights are counted once: the one in the header is the one that its half of section 1 is weighted with."""
    train_weight, evaluate_weight = cells[0], cells[len(cells) // 2]
    counted = train_weight if layout.parameters else evaluate_weight
    if not all(map(math.isfinite, cells)) or train_weight < 0 or evaluate_weight < 0:
        raise WireError("the statistics of an update are finite, and its weights are not negative")
    if counted != header.weight:
        raise WireError(f"the update's header has weight {header.weight}, its statistics {counted}")
