"""What a data scientist writes: a `Task`, and the values that go in and come out of it.

A silo installs the task; no code ever comes from the coordinator. In `participant.toml`:

    [tasks.heart]
    entry = "my_package.heart:HeartTask"
    [tasks.heart.options]
    table = "/data/heart.csv"

and in `my_package/heart.py`:

    from consilo import EvaluateResult, Round, Task, TrainResult

    class HeartTask(Task):
        def __init__(self, options): ...
        def build_model(self): ...
        def train(self, model, round): ...
        def evaluate(self, model, round): ...

One process of its own holds one instance of the class and one model, and lives from round to round. It may be ended and
started again between any two calls: whatever must survive that goes through `Task.state_dict` and
`Task.load_state_dict`, and nothing else does. Standard output and error of the process go to a log file in the silo.

This module needs no torch, so that the daemon can import it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeVar

    ModelT = TypeVar("ModelT", bound=torch.nn.Module, default=torch.nn.Module)
else:
    from typing import TypeVar

    ModelT = TypeVar("ModelT")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What `Task.train` returns.

    A result that does not keep these rules takes the silo out of the round with the reason `task_invalid`.
    """

    weight: float
    """How much this silo's update counts in the mean: the number of examples trained on. Finite, above 0."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """A finite number for each name in the job's `metrics`, no more and no fewer: the mean per example of `weight`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """What `Task.evaluate` returns. The rules are those of `TrainResult`."""

    weight: float
    """The number of examples evaluated. Finite, above 0."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """A finite number for each name in the job's `metrics`, no more and no fewer: the mean per example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a task is told about the call that it is in."""

    job_id: str
    """The job's id, such as `heart-3f9a21c0`: unique."""
    job_name: str
    """The job's name, as in the job file."""
    number: int
    """The round's number. Rounds count from 1."""
    training: Mapping[str, Any]
    """The job file's [training] table as it is: text, numbers, booleans, lists and tables."""
    device: torch.device
    """The device that this silo trains on. The model is there already; move your batches with `.to(round.device)`."""
    seed: int
    """From 0 to 2**63 - 1. Python's, numpy's and torch's generators have been seeded with it for this call. It differs
    between jobs, rounds, silos, and between train and evaluate; the same call made again has the same one."""
    report: Callable[[float], None] = field(repr=False, default=lambda _fraction: None)
    """Where `progress` goes; set by Consilo."""
    keep: Callable[[Mapping[str, Any]], None] = field(repr=False, default=lambda _state: None)
    """Where `save` goes; set by Consilo."""
    kept: Callable[[], dict[str, Any] | None] = field(repr=False, default=lambda: None)
    """Where `restore` looks; set by Consilo."""

    def progress(self, done: float, total: float) -> None:
        """Say how far this call is, in any unit, as often as you like. Raises ValueError unless 0 <= done <= total.

        A percentage is shown in the silo, and elsewhere only if the silo's policy allows it.
        """
        if not 0 <= done <= total or total <= 0:
            raise ValueError(f"progress takes 0 <= done <= total and total > 0, got done={done} and total={total}")
        self.report(done / total)

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep what `train` needs to go on from here, in place of what was kept before: a *task checkpoint*.

        `state` is made of what `Task.state_dict` may have, and is on the silo's disk when this returns: after a crash,
        of the daemon or of the machine, the same training is started again and finds it with `restore`. Save what
        changes: the model's and the optimizer's `state_dict()`, and how far the loop is. Where the generators of
        python, numpy and torch are is kept with it.

        It takes as long as writing that much takes, and is yours to do as often as it is worth: about every ten
        minutes, or when a twentieth of the work is done, is good advice. On a disk that is full nothing is kept, the
        last one stays, and training goes on. It never leaves the silo, and is erased when the round is over. Only in
        `train`; raises TaskError for what cannot be kept (`task_invalid`).
        """
        self.keep(state)

    def restore(self) -> dict[str, Any] | None:
        """What this training saved last, before it was interrupted; None when it begins, or when that is damaged.

        Tensors come back on the CPU. The generators are put back to where they were at that `save`: a loop that goes
        on from there draws what it would have drawn, and its model becomes the same, bit for bit, if all that the loop
        depends on was saved. Call it before anything is drawn, once, and load what it returns. Only in `train`.
        """
        return self.kept()


class Task(ABC, Generic[ModelT]):
    """A model, and how this silo trains and evaluates it on its own data.

    `class HeartTask(Task)` works with any `torch.nn.Module`; `class HeartTask(Task[HeartNet])` says which one, for the
    sake of type checkers. An exception out of any method takes the silo out of the round (`task_crashed`), as does
    a call that outlasts the round's deadline (`task_deadline`); the traceback is written to the silo's log only.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Open the data. `options` is the [tasks.NAME.options] table of this silo's `participant.toml`.

        Called once in the life of the process. An exception here is reported as `task_unavailable`.
        """
        self.options = options

    @abstractmethod
    def build_model(self) -> ModelT:
        """Make the model. The values in it do not matter: the global ones are loaded before each call.

        Called once, after `__init__`, on the CPU; then the model is moved to the device. Every silo, and `consilo task
        init-model`, must get tensors with the same names, element types and shapes: this is the job's manifest.

        * float32, float16, bfloat16 and float64 tensors, of any shape, are averaged over the silos.
        * Integer and boolean buffers (BatchNorm's `num_batches_tracked` is one) keep their initial values.
        * Tied weights are found and stored once.
        * Refused, by name: lazy, sparse, complex, quantised, float8 and meta tensors, `_extra_state`, and tensors that
          overlap in memory without being the same.
        * DataParallel and torch.compile around the model, or inside it, stay local: names are those without them.
        """

    @abstractmethod
    def train(self, model: ModelT, round: Round, /) -> TrainResult:  # noqa: A002 - the word of the house
        """Train `model` in place on this silo's data, and say on how many examples.

        `model` holds the global weights, is in training mode, and its gradients are None. Its tensors must afterwards
        have the names, element types and shapes that they had before (else `manifest_mismatch`), and be finite (else
        `non_finite`).
        """

    @abstractmethod
    def evaluate(self, model: ModelT, round: Round, /) -> EvaluateResult:  # noqa: A002 - the word of the house
        """Measure `model` on this silo's held-out data. Metrics are means over examples.

        `model` holds the global weights and is in evaluation mode; gradients are recorded unless you switch them off
        with `torch.no_grad()`. What the call does to the weights is thrown away.
        """

    def state_dict(self) -> Mapping[str, Any] | None:
        """What this silo keeps from one round to the next: an optimizer's state, control variates, a local head.

        Called after `train`. Dictionaries (keys are text or integers), lists and tuples of tensors, numbers, text,
        booleans and None, nested up to 32 deep; anything else is refused by name with `task_invalid`. None: no state.
        It never leaves the silo. It is adopted when the round commits and dropped when it aborts.
        """
        return None

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take back what `state_dict` gave after the last committed round. Tensors come back on the CPU.

        Called before each `train` and `evaluate` once there is such a state; not before. A task that has
        `state_dict` needs this too.
        """
        raise NotImplementedError(f"{type(self).__name__} has state_dict, but no load_state_dict")
