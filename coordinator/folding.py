"""Performing a fold: from committed spools and the base model to a published next model.

The new file is published under its digest before the round commits. That is harmless, since nothing names it yet, and
it makes the rule simple that a committed version always has its file. A restart folds again and finds the same digest.

A masked round's roots are combined here, from what the survivors revealed, and are forgotten when the fold ends. What a
large sum costs is split over threads: reading, adding and encryption all release the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial

import structlog

from coordinator.aggregation.fold import WeightedSum, fold
from coordinator.aggregation.masked import Job, MaskedSum, MaskedUpdates, in_turn
from coordinator.aggregation.plain import PlainSum, PlainUpdate
from coordinator.aggregation.strategy import strategy_for
from coordinator.aggregation.unmask import Blame, remaining_masks
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.phases import Contribution, Opening
from coordinator.round.surroundings import FoldOrder
from coordinator.storage.interface import Blobs, Reader
from shared.errors import RoundAborted, WireError
from shared.hashing import tagged_hash
from shared.ids import Digest, ParticipantId
from shared.reasons import AbortReason, Purpose
from shared.secagg.fixed_point import range_exponents, scale_exponent
from shared.secagg.masking import Term
from shared.tensors import read_index

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
        _log.warning("fold_refused", attempt=str(order.attempt), reason=aborted.reason, detail=str(aborted))
        return FoldFailed(aborted.reason)


def _run(order: FoldOrder, blobs: Blobs, closing: ExitStack) -> Folded:
    plan = order.frame.plan.value
    aggregate = tagged_hash("aggregate", *(kept.update.raw for kept in order.survivors.values()))
    readers = [_spool_reader(order, blobs, participant, closing) for participant in order.survivors]
    if order.opening is None:
        updates: WeightedSum = _plain_sum(order, readers)
        top_cells: tuple[int, ...] = ()
    else:
        masked = _masked_sum(order, order.opening, readers, closing)
        updates, top_cells = masked, masked.top_cells()
    model = plan.model if plan.purpose is Purpose.EVALUATE else _next_model(order, updates, blobs, closing)
    return Folded(model, updates.weight_total, aggregate, updates.totals.cells, top_cells)


def _spool_reader(order: FoldOrder, blobs: Blobs, participant: ParticipantId, closing: ExitStack) -> Reader:
    spool = blobs.spool(order.attempt, participant)
    try:
        reader = spool.reader()  # it outlives the spool's handle: one open file for each survivor, not two
    finally:
        spool.close()
    closing.callback(reader.close)
    return reader


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


def _next_model(order: FoldOrder, updates: WeightedSum, blobs: Blobs, closing: ExitStack) -> Digest:
    base = blobs.model(order.frame.plan.value.model)
    closing.callback(base.close)
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
    blobs.publish(staged, digest)
    return digest
