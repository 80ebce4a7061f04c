"""One task and its one model, inside the task's own process: everything between a command and its reply.

Each call is made from nothing that an earlier one left behind: the global weights are loaded strictly, gradients are
dropped, the task's state is taken back from the last committed round, and the generators of python, numpy and torch
are seeded from the round. So a process that has lived for ten rounds and one that has just started do the same.

Two kinds of thing go wrong. What the user's code raises is caught in one place (`_user_code`), and its traceback is
printed, which in this process means: written to the silo's log. What breaks the task's contract is found by us. Both
become `CallFailed`, which says by what reason this silo is then missing from the round.
"""

from __future__ import annotations

import errno
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from participant.tasks.checkpoint import TaskCheckpoint
from participant.tasks.contract import CheckpointPlace, DeviceRequest, Noted, NoteKind, ignore_note
from participant.tasks.entry import import_task, parse_entry
from participant.tasks.generators import seed_generators
from participant.tasks.interface import EvaluateResult, Round, Task, TrainResult
from participant.tasks.messages import CallContext, Evaluate, InitModel, Load, Loaded, Measured, Train, Written
from participant.tasks.seeding import SeedPurpose, derive_seed
from participant.tasks.state_dict import NonFinite, UpdateWritten, describe, load_global, write_model, write_update
from participant.tasks.task_state import load_state, save_state
from shared.errors import FederationError, ModelError, StorageError, TaskError
from shared.reasons import DropReason
from shared.tensors import read_index_file
from shared.update import WEIGHT_MAX

Report = Callable[[float], None]
T = TypeVar("T")
_MESSAGE_MAX_CHARS = 500
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
ROOM_RETRY_S = 1.0  # a finished training waits for room to write its result, until the daemon's deadline ends it


class CallFailed(Exception):  # noqa: N818 - an outcome, not a fault; never leaves the process
    """Why a command has no result. What is worth a traceback has been printed."""

    def __init__(self, reason: DropReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TaskHost:
    """The loaded task. Made by `load`."""

    def __init__(self, *, task: Task[Any], model: torch.nn.Module, device: torch.device) -> None:
        self._task = task
        self._model = model
        self._device = device
        self._keeps_state = type(task).state_dict is not Task.state_dict

    @classmethod
    def load(cls, command: Load) -> tuple[TaskHost, Loaded]:
        """Import the class, make its instance and its model, and put the model on the device. Raises CallFailed."""
        device, note = resolve_device(command.device)
        if command.threads is not None:
            torch.set_num_threads(command.threads)
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        seed_generators(command.seed)
        with _user_code(DropReason.TASK_UNAVAILABLE):
            task_class = import_task(parse_entry(command.entry), [Path(folder) for folder in command.search_path])
            task = task_class(command.options)
            model = task.build_model()
        if not isinstance(model, torch.nn.Module):
            raise CallFailed(
                DropReason.TASK_INVALID, f"build_model returns a torch.nn.Module, got {type(model).__name__}"
            )
        with _blaming(DropReason.TASK_INVALID, ModelError):
            manifest = describe(model).manifest
        with _user_code(DropReason.TASK_UNAVAILABLE):
            model.to(device)
        host = cls(task=task, model=model, device=device)
        return host, Loaded(
            device=str(device),
            device_note=note,
            keeps_state=host._keeps_state,
            tensors=len(manifest.tensors),
            parameters=manifest.parameters,
            manifest_digest=str(manifest.digest),
        )

    def init_model(self, command: InitModel) -> Written:
        """Write the model as it was built. Raises CallFailed."""
        with _blaming(DropReason.TASK_INVALID, ModelError), _blaming(DropReason.DISK, StorageError):
            return Written(digest=str(write_model(self._model, Path(command.out))))

    def evaluate(self, command: Evaluate, report: Report) -> Measured:
        """Raises CallFailed."""
        current = self._prepare(command, SeedPurpose.EVALUATE, report)
        self._model.eval()
        started = time.monotonic()
        with _user_code(DropReason.TASK_CRASHED), _blaming(DropReason.TASK_INVALID, TaskError):
            result = self._task.evaluate(self._model, current)
        weight, metrics = checked_result(result, EvaluateResult, command.context.metrics)
        return Measured(
            weight=weight, metrics=metrics, duration_s=time.monotonic() - started, parameters=0, has_state=False
        )

    def train(self, command: Train, report: Report, note: Noted = ignore_note) -> Measured:
        """Raises CallFailed."""
        current = self._prepare(command, SeedPurpose.TRAIN, report)
        if command.checkpoint is not None:
            saved = TaskCheckpoint(CheckpointPlace(Path(command.checkpoint), command.bound_to), note)
            current = replace(current, keep=saved.save, kept=saved.restore)
        else:
            current = replace(current, keep=_keep_nothing, kept=_nothing_kept)
        self._model.train()
        started = time.monotonic()
        with _user_code(DropReason.TASK_CRASHED), _blaming(DropReason.TASK_INVALID, TaskError):
            result = self._task.train(self._model, current)
        duration_s = time.monotonic() - started
        # Weights first: when training has diverged, a loss of NaN is the consequence and not the news.
        written = _with_room(lambda: self._write_update(Path(command.model), Path(command.update_out)), note)
        weight, metrics = checked_result(result, TrainResult, command.context.metrics)
        return Measured(
            weight=weight,
            metrics=metrics,
            duration_s=duration_s,
            parameters=written.parameters,
            has_state=self._write_state(Path(command.state_out), note),
        )

    def _prepare(self, command: Evaluate | Train, purpose: SeedPurpose, report: Report) -> Round:
        """Bring model, state and generators to where this call starts."""
        path = Path(command.model)
        with _blaming(DropReason.MODEL_UNAVAILABLE, ModelError, StorageError):
            read_index_file(path)
        with _user_code(DropReason.TASK_CRASHED):
            self._model.to(self._device)  # the task may have moved it
        with _blaming(DropReason.MANIFEST_MISMATCH, ModelError), _blaming(DropReason.MODEL_UNAVAILABLE, StorageError):
            load_global(self._model, path)
        self._model.zero_grad(set_to_none=True)
        torch.set_grad_enabled(True)
        seed = _seed_of(command.context, purpose)
        if command.state_in is not None:
            self._take_back(Path(command.state_in), seed)
        seed_generators(seed)
        context = command.context
        return Round(
            job_id=context.job,
            job_name=context.job_name,
            number=context.number,
            training=context.training,
            device=self._device,
            seed=seed,
            report=report,
            keep=_not_in_evaluate,
            kept=_not_in_evaluate,
        )

    def _take_back(self, path: Path, seed: int) -> None:
        with _blaming(DropReason.LOST, StorageError):
            state = load_state(path)
        seed_generators(seed)
        with _user_code(DropReason.TASK_CRASHED):
            self._task.load_state_dict(state)

    def _write_update(self, model: Path, out: Path) -> UpdateWritten:
        with (
            _blaming(DropReason.MANIFEST_MISMATCH, ModelError),
            _blaming(DropReason.MODEL_UNAVAILABLE, StorageError),
        ):
            written = write_update(self._model, model, out)
        if isinstance(written, NonFinite):
            raise CallFailed(
                DropReason.NON_FINITE, f"after training, tensor {written.tensor!r} holds a NaN or an infinity"
            )
        return written

    def _write_state(self, out: Path, note: Noted) -> bool:
        with _user_code(DropReason.TASK_CRASHED):
            state = self._task.state_dict()
        if state is None:
            return False
        with _blaming(DropReason.TASK_INVALID, TaskError):
            _with_room(lambda: save_state(state, out), note)
        return True


def _keep_nothing(_state: Mapping[str, Any]) -> None:
    """Nobody asked for a checkpoint."""


def _nothing_kept() -> None:
    """As above."""


def _not_in_evaluate(*_: object) -> None:
    raise TaskError("round.save and round.restore are for train: an evaluation that is interrupted is made again")


def _with_room(write: Callable[[], T], note: Noted) -> T:
    """Write what came of a training, again and again while the disk is full. Raises CallFailed for what else the disk
    says.
    """
    while True:
        try:
            return write()
        except (OSError, StorageError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _FULL:
                raise CallFailed(DropReason.DISK, str(error)[:_MESSAGE_MAX_CHARS]) from None
            note(NoteKind.NO_ROOM, str(error)[:_MESSAGE_MAX_CHARS])
        time.sleep(ROOM_RETRY_S)


def resolve_device(request: DeviceRequest) -> tuple[torch.device, str | None]:
    """The device, and what is to be said about it. Raises CallFailed when what was asked for is not here."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if request is DeviceRequest.AUTO:
        if cuda or mps:
            found = "cuda" if cuda else "mps"
            return torch.device(found), f"training.device is auto: {found} is here and is used"
        return torch.device("cpu"), "training.device is auto: neither cuda nor mps is here, training on the cpu"
    if (request is DeviceRequest.CUDA and not cuda) or (request is DeviceRequest.MPS and not mps):
        raise CallFailed(
            DropReason.TASK_UNAVAILABLE,
            f"training.device is {request}, but this PyTorch ({torch.__version__}) sees no such device; install a "
            'build with it and its driver, or set device = "auto" or "cpu"',
        )
    return torch.device(request.value), None


def checked_result(
    result: object, expected: type[TrainResult | EvaluateResult], declared: list[str] | None
) -> tuple[float, dict[str, float]]:
    """Weight and metrics in the job's order. Raises CallFailed for what breaks the task's contract."""
    if not isinstance(result, expected):
        raise _invalid(f"expected a {expected.__name__}, the task returned {type(result).__name__}")
    weight = _number("weight", result.weight)
    if not 0 < weight <= WEIGHT_MAX:
        raise _invalid(f"weight is a number of examples, above 0 and at most {WEIGHT_MAX:.0f}; got {weight}")
    if not isinstance(result.metrics, Mapping):
        raise _invalid(f"metrics is a dictionary, got {type(result.metrics).__name__}")
    names = list(result.metrics) if declared is None else declared
    if set(names) != set(result.metrics):
        raise _invalid(f"the job declares the metrics {sorted(names)}, the task returned {sorted(result.metrics)}")
    return weight, {name: _number(f"metric {name!r}", result.metrics[name]) for name in names}


def _number(what: str, value: Any) -> float:
    """A finite float from a number, or from an array or tensor of one."""
    given = value
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        with _user_code(DropReason.TASK_INVALID):
            value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(f"{what} is a finite number, got {str(given)[:80]} ({type(given).__name__})")
    return float(value)


def _invalid(message: str) -> CallFailed:
    return CallFailed(DropReason.TASK_INVALID, message)


def _seed_of(context: CallContext, purpose: SeedPurpose) -> int:
    return derive_seed(
        job_seed=context.job_seed,
        round_number=context.number,
        participant=context.participant,
        purpose=purpose,
    )


@contextmanager
def _user_code(reason: DropReason) -> Iterator[None]:
    """The boundary to code that is not ours: it may raise anything."""
    try:
        yield
    except CallFailed:
        raise
    except FederationError as error:
        raise CallFailed(reason, str(error)) from None
    except Exception as error:  # noqa: BLE001 - the one place where the user's code ends and ours begins
        traceback.print_exc(file=sys.stderr)
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CallFailed(reason, text[:_MESSAGE_MAX_CHARS]) from None


@contextmanager
def _blaming(reason: DropReason, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds end the call for this reason."""
    try:
        yield
    except kinds as error:
        raise CallFailed(reason, str(error)[:_MESSAGE_MAX_CHARS]) from None
