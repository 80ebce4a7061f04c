"""The job file: what a data scientist writes, made into a JobSpec with every default resolved.

    name = "heart"
    task = "heart"
    members = ["hospital-a", "hospital-b", "hospital-c", "hospital-d"]   # in any order
    rounds = 10
    seed = 42
    initial = "initial.safetensors"      # beside this file; or "model:<digest>" to go on from a version
    metrics = ["loss", "accuracy"]

    [round]                              # quorum: all members; min_survivors: 3, or all of fewer members
    deadline_s = 600

    [masking]                            # masked unless mode = "plain"; max_colluding: from the number of members
    encoding = "u32"

    [training]                           # handed to the task as it is
    learning_rate = 0.05

Defaults are resolved here, by the submitter, so that the bytes that everybody hashes leave nothing to be filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from coordinator.checkpoints import accept_initial_model
from coordinator.client.operations import Progress, digest_of
from shared.complaints import first_complaint
from shared.config import load_config
from shared.errors import ConfigError, ModelError
from shared.ids import Digest
from shared.job import (
    DEFAULT_MIN_SURVIVORS,
    MEMBERS_MAX,
    METRICS_MAX,
    JobName,
    JobSpec,
    MaskingSpec,
    Member,
    MetricName,
    RoundPolicy,
    StrategySpec,
    Table,
    Task,
)
from shared.secagg.threshold import default_max_colluding
from shared.tensors import FileReader
from shared.wire.operations import PutModelOpen

MODEL_PREFIX = "model:"


class RoundTable(Table):
    """[round]: what is left out depends on the members or is RoundPolicy's default; bounds are RoundPolicy's."""

    quorum: int | None = Field(default=None, description="Default: all members.")
    deadline_s: float | None = None
    grace_s: float | None = None
    upload_deadline_s: float | None = None
    min_survivors: int | None = Field(default=None, description="Default: 3, or all of fewer members.")
    exchange_deadline_s: float | None = None
    attempts: int | None = None
    aborted_rounds_allowed: int | None = None

    def resolve(self, members: int) -> RoundPolicy:
        """Raises ValueError."""
        said = self.model_dump(exclude_none=True)
        resolved = {"quorum": members, "min_survivors": min(DEFAULT_MIN_SURVIVORS, members), **said}
        if "min_survivors" not in said and 1 <= resolved["quorum"] < resolved["min_survivors"]:
            raise ValueError(
                f"round.quorum: {resolved['quorum']} is below the {resolved['min_survivors']} updates without which "
                "the model does not change: raise it, or set round.min_survivors if a total over fewer may be seen"
            )
        try:
            return RoundPolicy(**resolved)
        except ValidationError as error:
            raise ValueError(f"round.{first_complaint(error)}") from None


class MaskingTable(Table):
    """[masking]: what is left out is MaskingSpec's default, or depends on the members; bounds are MaskingSpec's."""

    mode: Literal["masked", "plain"] = "masked"
    max_colluding: int | None = Field(
        default=None,
        description="Default: a third of the other members, at least 1; 0 of 2 members and in a plain job.",
    )
    encoding: str | None = None
    weights: str | None = None
    max_weight: float | None = None
    metric_bound: float | None = None
    allow_two_party: bool | None = None
    allow_no_collusion: bool | None = None

    def resolve(self, members: int) -> MaskingSpec:
        """Raises ValueError."""
        said: dict[str, Any] = self.model_dump(exclude_none=True)
        colluding = default_max_colluding(members) if self.mode == "masked" and members > 1 else 0
        try:
            return MaskingSpec(**{"max_colluding": colluding, **said})
        except ValidationError as error:
            raise ValueError(f"masking.{first_complaint(error)}") from None


class JobFile(Table):
    """The whole file."""

    name: JobName = Field(description="The job's name.")
    task: Task = Field(description="The task that every member has installed under this name.")
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=MEMBERS_MAX)] = Field(
        description="The participants, in any order."
    )
    rounds: int = Field(ge=1, le=1_000_000, description="How many rounds are to be committed.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Everything random is drawn from it.")
    initial: str = Field(
        min_length=1, description='A safetensors file, counted from the folder of this one, or "model:<digest>".'
    )
    metrics: tuple[MetricName, ...] = Field(
        default=(), max_length=METRICS_MAX, description="What the task reports, in this order."
    )
    round: RoundTable = Field(default=RoundTable(), description="The rules of a round.")
    strategy: StrategySpec = Field(default=StrategySpec(), description="How updates become the next model.")
    masking: MaskingTable = Field(default=MaskingTable(), description="How updates are protected on the way.")
    training: dict[str, JsonValue] = Field(default_factory=dict, description="Handed to the task as it is.")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        for key, names in (("members", self.members), ("metrics", self.metrics)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{key}: {twice[0]!r} is there twice")
        return self


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that is ready to be submitted."""

    spec: JobSpec
    initial: Path | None
    """The initial model's file; None when the job starts from a version that the coordinator has."""
    opening: PutModelOpen | None
    """Digest and size of that file."""


def load_job_file(path: Path, *, progress: Progress = lambda _count: None) -> JobRequest:
    """Read a job file and hash its initial model. Raises ConfigError with the key, what was expected and what came."""
    job = load_config(path, JobFile, environment={})
    if job.initial.startswith(MODEL_PREFIX):
        return JobRequest(_spec(path, job, _digest(path, job.initial)), None, None)
    initial = path.parent / Path(job.initial).expanduser()
    try:
        with initial.open("rb") as file:
            opening = digest_of(file, progress=progress)
    except OSError as error:
        raise ConfigError(
            f"{path}: initial: expected a safetensors file, {initial} cannot be read ({error.strerror}): "
            "`consilo task init-model` makes one"
        ) from None
    if not opening.model_bytes:
        raise ConfigError(f"{path}: initial: expected a safetensors file, {initial} is empty")
    return JobRequest(_spec(path, job, opening.model), initial, opening)


def check_initial(path: Path) -> None:
    """What the coordinator will look at, before all of it was sent. Raises ModelError or StorageError."""
    try:
        with FileReader(path) as reader:
            accept_initial_model(reader)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _digest(path: Path, initial: str) -> Digest:
    try:
        return Digest.parse(initial.removeprefix(MODEL_PREFIX))
    except ValueError as error:
        raise ConfigError(f"{path}: initial: {error}. `consilo model list --json` prints whole digests") from None


def _spec(path: Path, job: JobFile, initial: Digest) -> JobSpec:
    try:
        spec = JobSpec(
            name=job.name,
            task=job.task,
            members=tuple(sorted(job.members)),
            rounds=job.rounds,
            seed=job.seed,
            initial=str(initial),
            metrics=job.metrics,
            round=job.round.resolve(len(job.members)),
            strategy=job.strategy,
            masking=job.masking.resolve(len(job.members)),
            training=job.training,
        )
        _refuse_unwritable(spec)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_complaint(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return spec


def _refuse_unwritable(spec: JobSpec) -> None:
    try:
        spec.to_bytes()
    except ValueError as error:
        raise ValueError(f"training: expected numbers that JSON can hold, got NaN or infinity ({error})") from None
