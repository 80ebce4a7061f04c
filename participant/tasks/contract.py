"""What the daemon and a task's process mean by one call, and what can come of it. No torch, no input or output.

Outcomes are values: a task that crashes, hangs or breaks its contract is something that happens to a round, not an
error of the daemon. `TaskHandle` is what the round's driver holds; `participant.tasks.runner` implements it, and so do
the fakes of tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from shared.ids import JobId, ParticipantId, RoundNumber, TaskName
from shared.reasons import DropReason


class DeviceRequest(StrEnum):
    """What participant.toml says under `training.device`."""

    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"
    AUTO = "auto"  # cuda, else mps, else cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """One installed task: [tasks.NAME] of participant.toml."""

    name: TaskName
    entry: str
    """`module:Class`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    """Threads that torch uses for one operation; None: its own choice. The last bit of a result may depend on it."""
    device: DeviceRequest = DeviceRequest.AUTO
    search_path: tuple[Path, ...] = ()
    """Folders in which the entry's module is looked for, before the installed packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundContext:
    """What a call needs to know about its round. The same context gives the same seeds."""

    job: JobId
    job_name: str
    number: RoundNumber
    participant: ParticipantId
    job_seed: int
    training: Mapping[str, Any]
    metrics: tuple[str, ...] | None
    """As declared in the job, in order. None (`consilo task try`): whatever the task returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReady:
    """The task is loaded and its model can be federated."""

    device: str
    device_note: str | None
    """What the operator should know about the choice of the device: `auto` that fell back to cpu."""
    keeps_state: bool
    tensors: int
    parameters: int
    """Elements of the tensors that updates carry."""
    manifest_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationDone:
    """`evaluate` came back, and what it said is in order."""

    weight: float
    metrics: Mapping[str, float]
    """In the job's order."""
    duration_s: float

    @property
    def values(self) -> tuple[float, ...]:
        """The metrics without their names."""
        return tuple(self.metrics.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDone:
    """`train` came back, what it said is in order, and the update is in its file."""

    weight: float
    metrics: Mapping[str, float]
    """In the job's order."""
    duration_s: float
    update: Path
    """Section 0 of an update, `4 * parameters` bytes. Not yet flushed to disk."""
    parameters: int
    state: Path | None
    """What the task keeps, to be given back once this round has committed; None for a task without state."""

    @property
    def values(self) -> tuple[float, ...]:
        """The metrics without their names."""
        return tuple(self.metrics.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed:
    """No result."""

    reason: DropReason
    message: str
    """One line for the silo's own log. It may quote the silo's data: never send it."""
    process_ended: bool = False
    """The process was gone, killed perhaps; nothing that the task's code raised."""


class NoteKind(StrEnum):
    """What a running call says beside how far it is. None of it ends the call."""

    SAVED = "saved"  # the task saved what it needs to go on from here
    RESTORED = "restored"  # it goes on from what it saved
    NOT_SAVED = "not_saved"  # the disk refused: the last one stays
    UNUSABLE = "unusable"  # what was saved is damaged, or of another call: training starts over
    NO_ROOM = "no_room"  # training is finished, and waits for room to write its result


Noted: TypeAlias = Callable[[NoteKind, str], None]
"""Called with what happened and, for the silo's own log, a detail."""


def ignore_note(_kind: NoteKind, _detail: str) -> None:
    """For callers that do not care."""


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """Where `Round.save` writes in a call of `train`, and `Round.restore` reads."""

    path: Path
    bound_to: str
    """Which call: what was saved in another one is never restored."""


EvaluationOutcome: TypeAlias = EvaluationDone | TaskFailed
TrainingOutcome: TypeAlias = TrainingDone | TaskFailed
Progress: TypeAlias = Callable[[float], None]
"""Called with the fraction done, from 0 to 1."""


def ignore_progress(_fraction: float) -> None:
    """For callers that do not care."""


class TaskHandle(Protocol):
    """One installed task, one call at a time. A second call while one is running is a RuntimeError.

    `deadline_s` is all the time that a call may take, the start of a process included. Cancelling a call ends the
    task's process, with everything that it started.
    """

    async def start(self, *, deadline_s: float) -> TaskReady | TaskFailed:
        """Load the task now, so that the first round does not wait for it. Loaded already: says so again."""
        ...

    async def evaluate(
        self,
        *,
        context: RoundContext,
        model: Path,
        state_in: Path | None,
        deadline_s: float,
        progress: Progress = ignore_progress,
    ) -> EvaluationOutcome:
        """Evaluate the global model in the file `model`. `state_in`: the task's state from the job's last committed
        round in which it trained; None if there is none.
        """
        ...

    async def train(
        self,
        *,
        context: RoundContext,
        model: Path,
        state_in: Path | None,
        update_out: Path,
        state_out: Path,
        deadline_s: float,
        progress: Progress = ignore_progress,
        checkpoint: CheckpointPlace | None = None,
        noted: Noted = ignore_note,
    ) -> TrainingOutcome:
        """Train from the global model in `model`; the update goes to `update_out`, the task's state to `state_out`.

        What is in these two files counts only when the outcome is TrainingDone. `update_out` may be there already, with
        room reserved for the update. `checkpoint`: None keeps nothing of what the task saves.
        """
        ...

    async def stop(self) -> None:
        """End the process. Nothing is lost: the next call starts another."""
        ...
