"""For planted bugs in a fold: what lies on the disk is taken for what was committed, so that the sum is judged."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from coordinator.round.surroundings import FoldOrder
from coordinator.storage.interface import Blobs
from shared.ids import Digest, ParticipantId
from shared.update import update_digest
from shared.wire.sealed import decode_upload_commit


def as_shown(order: FoldOrder, blobs: Blobs) -> FoldOrder:
    """The same order, with the digest of what these blobs show of each survivor."""
    survivors = {member: replace(kept, update=_shown(order, blobs, member)) for member, kept in order.survivors.items()}
    return replace(order, survivors=survivors)


def _shown(order: FoldOrder, blobs: Blobs, member: ParticipantId) -> Digest:
    layout, kept = order.frame.layout(order.encoding), order.survivors[member]
    spool = blobs.spool(order.attempt, member)
    with closing(spool), closing(spool.reader()) as reader:
        if reader.size != layout.total_bytes:
            return kept.update
        digests = [Digest.of(reader.read_at(start, end - start)) for start, end in layout.chunk_ranges()]
    return update_digest(decode_upload_commit(kept.commit.payload).header, digests)
