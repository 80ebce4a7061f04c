"""`consilo task try`: one round of one silo, on its own data, with nobody else.

It goes the way of a real round (the same process, seeds, files and checks) with the job's part made up: evaluate the
initial model, train from it, add the update to it as a federation of one would, evaluate again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from participant.tasks.contract import (
    EvaluationDone,
    EvaluationOutcome,
    Progress,
    RoundContext,
    TaskFailed,
    TaskReady,
    TrainingDone,
)
from participant.tasks.runner import TaskRunner
from shared.casts import narrow, widen
from shared.errors import TaskError
from shared.tensors import FileReader, TensorData, read_index, write_model_file
from shared.update import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMove:
    """How far training moved one tensor."""

    tensor: TensorSpec
    norm: float
    """Euclidean length of the difference."""
    largest: float
    """Largest absolute difference of one element; 0 for an empty tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What came of it."""

    ready: TaskReady
    before: EvaluationDone
    training: TrainingDone
    after: EvaluationDone
    moves: tuple[TensorMove, ...]


async def rehearse(
    runner: TaskRunner,
    *,
    context: RoundContext,
    model: Path | None,
    folder: Path,
    deadline_s: float,
    progress: Progress,
) -> Rehearsal:
    """Run it in `folder`, from `model` or from a new one. Raises TaskError: reason and message of what failed."""
    try:
        ready = await runner.start(deadline_s=deadline_s)
        if isinstance(ready, TaskFailed):
            raise _error(ready)
        if model is None:
            model = folder / "initial.safetensors"
            digest = await runner.init_model(out=model, deadline_s=deadline_s)
            if isinstance(digest, TaskFailed):
                raise _error(digest)
        evaluated = await runner.evaluate(context=context, model=model, state_in=None, deadline_s=deadline_s)
        before = _done(evaluated)
        training = await runner.train(
            context=context,
            model=model,
            state_in=None,
            update_out=folder / "update",
            state_out=folder / "state",
            deadline_s=deadline_s,
            progress=progress,
        )
        if isinstance(training, TaskFailed):
            raise _error(training)
        trained = folder / "trained.safetensors"
        moves = apply_update(model, training.update, trained)
        evaluated = await runner.evaluate(
            context=context, model=trained, state_in=training.state, deadline_s=deadline_s
        )
        return Rehearsal(ready=ready, before=before, training=training, after=_done(evaluated), moves=moves)
    finally:
        await runner.stop()


def apply_update(model: Path, update: Path, out: Path) -> tuple[TensorMove, ...]:
    """Write `model` plus `update` to `out`: what FedAvg makes of one participant."""
    moves: list[TensorMove] = []
    arrays: dict[str, TensorData] = {}
    with FileReader(model) as reader, update.open("rb") as deltas:
        index = read_index(reader)
        for tensor in index.manifest.tensors:
            data = bytes(reader.read_at(index.offset_of(tensor.name), tensor.data_bytes))
            if tensor.dtype.aggregated:
                delta = np.frombuffer(deltas.read(4 * tensor.elements), "<f4").astype("<f8")
                data = bytes(narrow(widen(data, tensor.dtype) + delta, tensor.dtype))
                largest = float(np.abs(delta).max(initial=0))
                moves.append(TensorMove(tensor=tensor, norm=float(np.linalg.norm(delta)), largest=largest))
            arrays[tensor.name] = data
    write_model_file(out, index.manifest, index.metadata, arrays)
    return tuple(moves)


def _done(outcome: EvaluationOutcome) -> EvaluationDone:
    if isinstance(outcome, TaskFailed):
        raise _error(outcome)
    return outcome


def _error(failed: TaskFailed) -> TaskError:
    return TaskError(f"{failed.reason}: {failed.message}")
