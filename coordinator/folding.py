"""Performing a fold: from committed spools and the base model to a published next model.

The new file is published under its digest before the round commits. That is harmless, since nothing names it yet, and
it makes the rule simple that a committed version always has its file. A restart folds again and finds the same digest.
"""

from __future__ import annotations

from contextlib import ExitStack

from coordinator.aggregation.fold import FoldInput, fold, fold_statistics
from coordinator.aggregation.strategy import strategy_for
from coordinator.round.driver import FoldOrder
from coordinator.round.effects import Folded, FoldFailed
from coordinator.storage.interface import Blobs, Reader
from shared.errors import RoundAborted
from shared.hashing import tagged_hash
from shared.ids import Digest, ParticipantId
from shared.reasons import Purpose
from shared.tensors import read_index

STAGE_NAME_DIGITS = 32  # a staged name is a DNS label, which an attempt's own name need not fit


def run_fold(order: FoldOrder, blobs: Blobs) -> Folded | FoldFailed:
    """Fold and publish. Raises StorageError (fold again later) and DurabilityUnknown."""
    try:
        return _run(order, blobs)
    except RoundAborted as aborted:
        return FoldFailed(aborted.reason)


def _run(order: FoldOrder, blobs: Blobs) -> Folded:
    frame = order.frame
    with ExitStack() as closing:

        def spool_reader(participant: ParticipantId) -> Reader:
            spool = blobs.spool(order.attempt, participant)
            try:
                reader = spool.reader()  # it outlives the spool's handle: one open file for each survivor, not two
            finally:
                spool.close()
            closing.callback(reader.close)
            return reader

        inputs = [
            FoldInput(participant=participant, weight=kept.header.weight, reader=spool_reader(participant))
            for participant, kept in order.survivors.items()
        ]
        aggregate = tagged_hash("aggregate", *(kept.update.raw for kept in order.survivors.values()))
        plan = frame.plan.value
        if plan.purpose is Purpose.EVALUATE:
            totals = fold_statistics(updates=inputs, layout=frame.layout, statistics=frame.statistics)
            weight = totals.cells["evaluate.weight"]
            return Folded(plan.model, weight, aggregate, totals.cells)
        base = blobs.model(plan.model)
        closing.callback(base.close)
        staged = blobs.stage("fold-" + str(Digest.of(str(order.attempt).encode()))[:STAGE_NAME_DIGITS])
        try:
            result = fold(
                base=base,
                base_index=read_index(base),
                updates=inputs,
                layout=frame.layout,
                statistics=frame.statistics,
                strategy=strategy_for(frame.spec.strategy),
                out=staged,
            )
        except RoundAborted:
            staged.discard()
            raise
        blobs.publish(staged, result.model_digest)
        return Folded(result.model_digest, result.weight_total, aggregate, result.totals.cells)
