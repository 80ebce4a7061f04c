"""Performing a fold: from committed spools and the base model to a published next model.

The new file is published under its digest before the round commits. That is harmless, since nothing names it yet, and
it makes the rule simple that a committed version always has its file. A restart folds again and finds the same digest.

Nothing is published before every update that was read is known to be the one that was committed, and the model the one
that its digest names: of a byte that a disk changed no sum is made. Such a round ends as `damaged`.

A masked round's roots are combined here, from what the survivors revealed, and are forgotten when the fold ends. What a
large sum costs is split over threads: reading, adding and encryption all release the interpreter's lock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial

import structlog

from coordinator.aggregation.checked import CheckedReader
from coordinator.aggregation.fold import WeightedSum, fold
from coordinator.aggregation.masked import Job, MaskedSum, MaskedUpdates, in_turn
from coordinator.aggregation.plain import PlainSum, PlainUpdate
from coordinator.aggregation.strategy import strategy_for
from coordinator.aggregation.unmask import Blame, remaining_masks
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.phases import Contribution, Opening
from coordinator.round.surroundings import FoldOrder
from coordinator.storage.interface import Blobs, Reader, Staged
from shared.errors import RoundAborted, WireError
from shared.hashing import tagged_hash
from shared.ids import Digest, ParticipantId
from shared.reasons import AbortReason, Purpose
from shared.secagg.fixed_point import range_exponents, scale_exponent
from shared.secagg.masking import Term
from shared.tensors import read_index
from shared.update import CHUNK_BYTES
from shared.wire.sealed import decode_upload_commit

STAGE_NAME_DIGITS = 32  # a staged name is a DNS label, which an attempt's own name need not fit
LANES_MAX = 4  # threads that add up one masked sum; the sessions' thread wants a core too
LANES_FROM_BYTES = 8 << 20  # of parameters; with fewer, a thread is not worth its start

_log = structlog.get_logger(__name__)


def run_fold(order: FoldOrder, blobs: Blobs) -> Folded | FoldFailed:
    """Fold and publish. Raises StorageError (fold again later) and DurabilityUnknown."""
    try:
        with ExitStack() as closing:
            return _run(order, blobs, closing)
    except RoundAborted as aborted:
        return FoldFailed(aborted.reason, str(aborted))


def _run(order: FoldOrder, blobs: Blobs, closing: ExitStack) -> Folded:
    readers = {name: _spool_reader(order, blobs, name, closing) for name in order.survivors}
    try:
        folded, staged = _combine(order, blobs, list(readers.values()), closing)
    except RoundAborted as aborted:
        if aborted.reason is not AbortReason.UNOPENABLE:  # what is wrong with a sum may be the disk's doing
            _require_sound(order, readers)
        raise
    try:
        _require_sound(order, readers)
    except RoundAborted:
        if staged is not None:
            staged.discard()
        raise
    if staged is not None:
        blobs.publish(staged, folded.next_model)
    return folded


def _require_sound(order: FoldOrder, readers: Mapping[ParticipantId, CheckedReader]) -> None:
    changed = [name for name, reader in readers.items() if not reader.sound()]
    if changed:
        raise RoundAborted(
            AbortReason.DAMAGED,
            f"the spools of attempt {order.attempt} do not hold the updates that were committed by {', '.join(changed)}"
            ": look at the disk of data_dir",
        )


def _combine(
    order: FoldOrder, blobs: Blobs, readers: Sequence[Reader], closing: ExitStack
) -> tuple[Folded, Staged | None]:
    """The result, and the next model as it is written; None in an evaluate round."""
    plan = order.frame.plan.value
    aggregate = tagged_hash("aggregate", *(kept.update.raw for kept in order.survivors.values()))
    if order.opening is None:
        updates: WeightedSum = _plain_sum(order, readers)
        top_cells: tuple[int, ...] = ()
    else:
        masked = _masked_sum(order, order.opening, readers, closing)
        updates, top_cells = masked, masked.top_cells()
    model, staged = plan.model, None
    if plan.purpose is Purpose.TRAIN:
        model, staged = _next_model(order, updates, blobs, closing)
    return Folded(model, updates.weight_total, aggregate, updates.totals.cells, top_cells), staged


def _spool_reader(order: FoldOrder, blobs: Blobs, participant: ParticipantId, closing: ExitStack) -> CheckedReader:
    spool = blobs.spool(order.attempt, participant)
    try:
        reader = spool.reader()  # it outlives the spool's handle: one open file for each survivor, not two
    finally:
        spool.close()
    closing.callback(reader.close)
    kept, layout = order.survivors[participant], order.frame.layout(order.encoding)
    header = decode_upload_commit(kept.commit.payload).header
    checked = CheckedReader(reader, layout=layout, header=header, update=kept.update)
    if reader.size != layout.total_bytes:
        _require_sound(order, {participant: checked})
    return checked


def _plain_sum(order: FoldOrder, readers: Sequence[Reader]) -> PlainSum:
    return PlainSum(
        updates=[
            PlainUpdate(participant=participant, weight=_plain_weight(kept), reader=reader)
            for (participant, kept), reader in zip(order.survivors.items(), readers, strict=True)
        ],
        layout=order.frame.layout(order.encoding),
        statistics=order.frame.statistics,
    )


def _plain_weight(kept: Contribution) -> float:
    if kept.header.weight is None:
        raise RuntimeError("an update without a weight is folded as a plain one")
    return kept.header.weight


def _masked_sum(order: FoldOrder, opening: Opening, readers: Sequence[Reader], closing: ExitStack) -> MaskedSum:
    frame, members = order.frame, order.frame.spec.members
    layout = frame.layout(order.encoding)
    lanes = min(LANES_MAX, os.cpu_count() or 1) if layout.parameter_bytes >= LANES_FROM_BYTES else 1
    pool = closing.enter_context(ThreadPoolExecutor(lanes - 1, "fold-lane")) if lanes > 1 else None
    trains = frame.plan.value.purpose is Purpose.TRAIN
    sizes = [tensor.elements for tensor in frame.index.manifest.aggregated()] if trains else []
    ranges = range_exponents(encoding=order.encoding, top_cells=frame.top_cells, tensors=len(sizes)) if trains else ()
    return MaskedSum(
        MaskedUpdates(
            readers=readers,
            masks=_masks(order, opening),
            layout=layout,
            statistics=frame.statistics,
            sizes=sizes,
            scale_exponents=[
                scale_exponent(encoding=order.encoding, members=len(members), range_exponent=exponent)
                for exponent in ranges
            ],
        ),
        frame.spec.masking,
        lanes=lanes,
        together=partial(run_together, pool) if pool is not None else in_turn,
    )


def run_together(pool: Executor, jobs: Sequence[Job]) -> None:
    """Do the first job here and the others in the pool. Returns when all are done; raises what one of them raised."""
    mine, *others = jobs
    futures = [pool.submit(job) for job in others]
    try:
        mine()
    finally:
        wait(futures)  # they write into what the caller owns
    for future in futures:
        future.result()


def _masks(order: FoldOrder, opening: Opening) -> Sequence[Term]:
    spec = order.frame.spec
    try:
        found = remaining_masks(opening, survivors=order.survivors, members=spec.members, threshold=spec.threshold)
    except WireError as error:
        raise RoundAborted(AbortReason.UNOPENABLE, str(error)) from None
    if isinstance(found, Blame):
        # From what it signed: evidence that anybody can check, and nothing of its data.
        _log.error("dealer_blamed", attempt=str(order.attempt), dealer=found.dealer, reason=found.reason)
        raise RoundAborted(AbortReason.UNOPENABLE, "a dealer's shares combine to something else than it committed to")
    return found


def _next_model(order: FoldOrder, updates: WeightedSum, blobs: Blobs, closing: ExitStack) -> tuple[Digest, Staged]:
    model = order.frame.plan.value.model
    base = blobs.model(model)
    closing.callback(base.close)
    if _digest_of(base) != model:
        raise RoundAborted(
            AbortReason.DAMAGED, f"the file of model {model} has other bytes: look at the disk of data_dir"
        )
    staged = blobs.stage("fold-" + str(Digest.of(str(order.attempt).encode()))[:STAGE_NAME_DIGITS])
    try:
        digest = fold(
            base=base,
            base_index=read_index(base),
            updates=updates,
            strategy=strategy_for(order.frame.spec.strategy),
            out=staged,
        )
    except RoundAborted:
        staged.discard()
        raise
    return digest, staged


def _digest_of(reader: Reader) -> Digest:
    whole = hashlib.sha256()
    for start in range(0, reader.size, CHUNK_BYTES):
        whole.update(reader.read_at(start, min(CHUNK_BYTES, reader.size - start)))
    return Digest(whole.digest())
