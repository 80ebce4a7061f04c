"""What the daemon and a task's process say to each other, each one frame.

The daemon sends a command and waits for its one reply; `progress` and `noted` may come before a reply, any number of
times. The first command is `load`. After a reply `failed` the process is of no more use, and the daemon ends it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from participant.tasks.contract import DeviceRequest, NoteKind
from participant.tasks.framing import FrameError
from participant.tasks.seeding import SEED_MAX
from shared.complaints import first_complaint
from shared.ids import COUNTER_MAX
from shared.reasons import DropReason


class Message(BaseModel):
    """Exactly these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Load(Message):
    """Import the class, make the one instance and its one model."""

    kind: Literal["load"] = "load"
    entry: str
    options: dict[str, JsonValue]
    device: DeviceRequest
    threads: int | None = Field(ge=1)
    search_path: list[str]
    seed: int = Field(ge=0, le=SEED_MAX)


class CallContext(Message):
    """`participant.tasks.contract.RoundContext` as it travels."""

    job: str
    job_name: str
    number: int = Field(ge=1, le=COUNTER_MAX)
    participant: str
    job_seed: int = Field(ge=0, le=SEED_MAX)
    training: dict[str, JsonValue]
    metrics: list[str] | None


class InitModel(Message):
    """Write the model as it was built."""

    kind: Literal["init_model"] = "init_model"
    out: str


class Evaluate(Message):
    """Load the model (and the state), call `evaluate`."""

    kind: Literal["evaluate"] = "evaluate"
    context: CallContext
    model: str
    state_in: str | None


class Train(Message):
    """Load the model (and the state), call `train`, write the update (and the state)."""

    kind: Literal["train"] = "train"
    context: CallContext
    model: str
    state_in: str | None
    update_out: str
    state_out: str
    checkpoint: str | None = None
    """Where `round.save` writes; None: nothing is kept."""
    bound_to: str = ""
    """Which call it is, for the checkpoint."""


class Shutdown(Message):
    """End with exit code 0. Has no reply."""

    kind: Literal["shutdown"] = "shutdown"


class Loaded(Message):
    """Reply to `load`."""

    kind: Literal["loaded"] = "loaded"
    device: str
    device_note: str | None
    keeps_state: bool
    tensors: int
    parameters: int
    manifest_digest: str


class Written(Message):
    """Reply to `init_model`."""

    kind: Literal["written"] = "written"
    digest: str


class Measured(Message):
    """Reply to `evaluate` and `train`."""

    kind: Literal["measured"] = "measured"
    weight: float = Field(allow_inf_nan=False)
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    duration_s: float
    parameters: int
    """Cells in the update's file; 0 after `evaluate`."""
    has_state: bool
    """Whether the state's file was written."""


class Failed(Message):
    """Reply to any command. The traceback is in the log already."""

    kind: Literal["failed"] = "failed"
    reason: DropReason
    message: str


class Advanced(Message):
    """How far the running call is."""

    kind: Literal["progress"] = "progress"
    fraction: float = Field(ge=0, le=1)


class Noted(Message):
    """Something that the daemon's log should have."""

    kind: Literal["noted"] = "noted"
    what: NoteKind
    detail: str


Command: TypeAlias = Load | InitModel | Evaluate | Train | Shutdown
Reply: TypeAlias = Loaded | Written | Measured | Failed | Advanced | Noted

_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="kind")])
_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])


def parse_command(frame: dict[str, Any]) -> Command:
    """Raises FrameError."""
    try:
        return _COMMAND.validate_python(frame)
    except ValidationError as error:
        raise FrameError(f"not a command: {first_complaint(error)}") from None


def parse_reply(frame: dict[str, Any]) -> Reply:
    """Raises FrameError."""
    try:
        return _REPLY.validate_python(frame)
    except ValidationError as error:
        raise FrameError(f"not a reply: {first_complaint(error)}") from None
