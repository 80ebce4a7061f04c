"""`consilo task try`: one round of one silo, on its own data, with nobody else.

It goes the way of a real round (the same process, seeds, files and checks) with the job's part made up: evaluate the
initial model, train from it, add the update to it as a federation of one would, evaluate again. Asked for, it also
trains once more, kills the process when the task has saved for the first time, and lets the training go on from that.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from participant.tasks.contract import (
    CheckpointPlace,
    EvaluationDone,
    EvaluationOutcome,
    NoteKind,
    Progress,
    RoundContext,
    TaskFailed,
    TaskReady,
    TrainingDone,
    TrainingOutcome,
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
    interruption: Interruption | None = None
    """None when none was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """What came of a training that was killed after its first save and made to go on."""

    saved: bool
    """Whether the task saved anything; if not, it was never killed."""
    same_update: bool
    """Whether the update is that of the training which was not interrupted, bit for bit."""


async def rehearse(
    runner: TaskRunner,
    *,
    context: RoundContext,
    model: Path | None,
    folder: Path,
    deadline_s: float,
    progress: Progress,
    interrupt: bool = False,
) -> Rehearsal:
    """Run it in `folder`, from `model` or from a new one; `interrupt`: with an interruption.

    Raises TaskError: reason and message of what failed.
    """
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
        done = Rehearsal(ready=ready, before=before, training=training, after=_done(evaluated), moves=moves)
        if not interrupt:
            return done
        interruption = await _interrupted(
            runner, context=context, model=model, undisturbed=training, deadline_s=deadline_s
        )
        return replace(done, interruption=interruption)
    finally:
        await runner.stop()


async def _interrupted(
    runner: TaskRunner, *, context: RoundContext, model: Path, undisturbed: TrainingDone, deadline_s: float
) -> Interruption:
    folder = undisturbed.update.parent
    saved, update = False, folder / "update-interrupted"

    def noted(kind: NoteKind, _detail: str) -> None:
        nonlocal saved
        if kind is NoteKind.SAVED and not saved and runner.pid is not None:
            saved = True
            with suppress(ProcessLookupError):
                os.killpg(runner.pid, signal.SIGKILL)

    async def train() -> TrainingOutcome:
        return await runner.train(
            context=context,
            model=model,
            state_in=None,
            update_out=update,
            state_out=folder / "state-interrupted",
            deadline_s=deadline_s,
            checkpoint=CheckpointPlace(folder / "checkpoint", "this trial"),
            noted=noted,
        )

    outcome = await train()
    if saved:
        await runner.stop()  # it may have been quicker than the signal, and is dead now or will be
        outcome = await train()
    if isinstance(outcome, TaskFailed):
        raise _error(outcome)
    return Interruption(saved=saved, same_update=update.read_bytes() == undisturbed.update.read_bytes())


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
