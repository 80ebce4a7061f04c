"""What a job's next round is made of: its earlier rounds as the store has them, and the frame of the one that is due.

Theory of operation. A job's `History` is all that its next round depends on. It is read from the store at a start, and
goes on with each round that ends (`after`), by the same function: a restart and a process that never ended plan the
same round. A frame is what is fixed for a round when it is planned. Its plan is durable before anyone hears of it; a
frame that is made again comes from that plan and the model's file. What a round's encoding depends on belongs here
too: into `History` what is remembered, into `_frame` what follows from it.

Nothing here is kept between two calls, and nothing is written.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

from coordinator.round.journal import decode_plan
from coordinator.round.phases import RoundFrame
from coordinator.scheduler import FinishedRound, RunRound
from coordinator.storage.interface import COMMITTED, Blobs, JobRecord, RoundRecord, Store
from shared.ids import Digest, JobId, RoundKey
from shared.job import JobSpec
from shared.protocol.messages import RoundPlan, RoundResult, Sealed
from shared.reasons import AbortReason, Purpose
from shared.tensors import ModelIndex, read_index
from shared.update import DType, Encoding, ModelManifest, StatisticsLayout, TensorSpec, UpdateLayout
from shared.wire.sealed import Signer, decode_envelope, reopen, seal

# Stands where the index of a model stands that is not there to be read.
_UNREAD = ModelIndex(
    manifest=ModelManifest.of([TensorSpec("unread", DType.F32, (1,))]), metadata={}, offsets={"unread": 0}, file_size=4
)


@dataclass(frozen=True, slots=True)
class History:
    """The finished rounds of a job, as far as the next one depends on them."""

    model: Digest
    """The job's model now."""
    finished: tuple[FinishedRound, ...] = ()
    previous_result: bytes = b""
    """The sealed result of the last committed round; empty before the first."""

    def after(self, record: RoundRecord) -> History:
        """The same with one more finished round."""
        if record.outcome != COMMITTED:
            ended = FinishedRound(record.key.number, record.purpose, AbortReason(record.outcome), self.model)
            return replace(self, finished=(*self.finished, ended))
        result = reopen(RoundResult, decode_envelope(record.result)).value
        ended = FinishedRound(record.key.number, record.purpose, None, result.next_model)
        return History(result.next_model, (*self.finished, ended), record.result)


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A job where the store has it."""

    history: History
    open: RoundFrame | None
    """The round that was begun and has no end."""


class Planning:
    """Makes frames; reads the store and models."""

    def __init__(self, *, store: Store, blobs: Blobs, signer: Signer) -> None:
        self._store = store
        self._blobs = blobs
        self._signer = signer

    def next_round(self, record: JobRecord, spec: JobSpec, history: History, upcoming: RunRound) -> RoundFrame:
        """The frame of a round that was not begun. Raises UnknownError, ModelError, StorageError."""
        with closing(self._blobs.model(upcoming.model)) as reader:
            model_bytes = reader.size
        plan = RoundPlan(
            key=RoundKey(record.job, upcoming.number),
            purpose=upcoming.purpose,
            jobspec=record.spec,
            model=upcoming.model,
            model_bytes=model_bytes,
            previous_result=history.previous_result,
            deadline_s=spec.round.deadline_s,
        )
        sealed = seal(plan, signer=self._signer, index=0)
        return _frame(spec, sealed, self._index_of(upcoming.model))

    def take_up(self, job: JobId, spec: JobSpec) -> TakenUp:
        """Read a job: after a start, and after a round that could not begin. Raises as `next_round`."""
        history, plan = self._read(job, spec)
        if plan is None:
            return TakenUp(history, None)
        return TakenUp(history, _frame(spec, plan, self._index_of(plan.value.model)))

    def take_up_to_abort(self, job: JobId, spec: JobSpec) -> TakenUp:
        """As `take_up`, but without the model, which may be what is missing. An open round can only abort with this
        frame, since nothing of an abort depends on the model's index or the layout. Raises StorageError, WireError.
        """
        history, plan = self._read(job, spec)
        return TakenUp(history, None if plan is None else _frame(spec, plan, _UNREAD))

    def _read(self, job: JobId, spec: JobSpec) -> tuple[History, Sealed[RoundPlan] | None]:
        history = History(spec.initial_model)
        for record in self._store.rounds(job):
            if not record.outcome:
                return history, decode_plan(self._store.journal_of(record.key)[0])
            history = history.after(record)
        return history, None

    def _index_of(self, model: Digest) -> ModelIndex:
        with closing(self._blobs.model(model)) as reader:
            return read_index(reader)


def _frame(spec: JobSpec, plan: Sealed[RoundPlan], index: ModelIndex) -> RoundFrame:
    statistics = StatisticsLayout(spec.metrics)
    parameters = index.manifest.parameters if plan.value.purpose is Purpose.TRAIN else 0
    layout = UpdateLayout(Encoding.PLAIN, parameters, statistics.cells)
    return RoundFrame(spec=spec, plan=plan, index=index, layout=layout, statistics=statistics)
