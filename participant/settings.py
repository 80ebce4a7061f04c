"""`participant.toml` as the participant reads it. `deploy/samples/participant.full.toml` shows every key.

The file belongs to the silo. What is in [policy] is this silo's own word, which no job and no coordinator can change.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from shared.config import Address, LocalPath, LogTable, MetricsTable, SigningTable, TlsTable, metrics_table
from shared.job import DEADLINE_MAX_S, MEMBERS_MAX, Member, Table, Task

DEFAULT_METRICS = "127.0.0.1:9465"
DEFAULT_MINIMUM_MEMBERS = 3  # of two, each can compute the other's part from the total
DEFAULT_MAX_DEADLINE_S = 24 * 3600.0
THREADS_MAX = 1024


class ParticipantTable(Table):
    """[participant]: who this is and whom it dials."""

    id: Member = Field(description="This participant's name, as in its certificates.")
    coordinators: tuple[Address, ...] = Field(
        min_length=1, max_length=8, description="host:port of the coordinator; more are tried in order."
    )
    data_dir: LocalPath = Field(description="The folder of the journal, fetched models and updates on their way out.")


class TaskTable(Table):
    """[tasks.<name>]: code that the silo installed and is willing to run."""

    entry: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="The task's class, as package.module:ClassName.",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Handed to the class as it is: paths to data, for one."
    )
    threads: int = Field(
        default=0, ge=0, le=THREADS_MAX, description="CPU threads of PyTorch; 0 leaves the choice to PyTorch."
    )


class TrainingTable(Table):
    """[training]: on what hardware tasks run."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Where models are put. `auto` takes cuda, then mps, then cpu, and says which."
    )


class PolicyTable(Table):
    """[policy]: what this silo takes part in. Asked before any data is read."""

    minimum_members: int = Field(
        default=DEFAULT_MINIMUM_MEMBERS,
        ge=1,
        le=MEMBERS_MAX,
        description="Members that a job must have at least, this silo among them.",
    )
    allow_plain: bool = Field(
        default=False, description="Take part in jobs without masking, where the coordinator sees this silo's update."
    )
    allowed_jobs: tuple[Annotated[str, Field(pattern=r"^[a-z0-9*?-]{1,63}$")], ...] = Field(
        default=("*",), description="Names of jobs, with * and ? for parts of a name; anything else is declined."
    )
    max_deadline_s: float = Field(
        default=DEFAULT_MAX_DEADLINE_S,
        gt=0,
        le=DEADLINE_MAX_S,
        allow_inf_nan=False,
        description="The longest training deadline that is accepted, in seconds.",
    )
    share_progress: bool = Field(
        default=True, description="Tell the coordinator how far training is, as a percentage and nothing else."
    )


class ParticipantSettings(Table):
    """The whole file."""

    participant: ParticipantTable = Field(description="Who this is and whom it dials.")
    tls: TlsTable = Field(description="Credentials for connections.")
    signing: SigningTable = Field(description="Credentials for messages.")
    tasks: dict[Task, TaskTable] = Field(default_factory=dict, description="What this silo is willing to run.")
    training: TrainingTable = Field(default=TrainingTable(), description="On what hardware.")
    policy: PolicyTable = Field(default=PolicyTable(), description="What this silo takes part in.")
    metrics: MetricsTable = metrics_table(DEFAULT_METRICS)
    log: LogTable = Field(default=LogTable(), description="Lines on standard error.")

    @field_validator("tasks")
    @classmethod
    def _entries_do_not_hide_ours(cls, tasks: dict[Task, TaskTable]) -> dict[Task, TaskTable]:
        for name, task in tasks.items():
            package = task.entry.partition(":")[0].partition(".")[0]
            if package in {"shared", "coordinator", "participant"}:
                raise ValueError(
                    f"{name}.entry: a package named {package!r} is part of Consilo, and a silo's own of that name "
                    "would never be found: rename it"
                )
        return tasks
