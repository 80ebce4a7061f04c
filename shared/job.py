"""The job: what a data scientist asks for, fixed when it is submitted.

A `JobSpec` is immutable. It travels, is hashed and is stored as the exact bytes that the submitter made, which are
canonical JSON: UTF-8, keys sorted, no white space, every default resolved. A parser that finds other bytes than it
would write itself refuses them, so that two readers can never take two meanings from one hash (PROTOCOL.md section 3).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from shared.errors import WireError
from shared.hashing import tagged_hash
from shared.ids import Digest, ParticipantId, TaskName, parse_participant_id, parse_task_name

MEMBERS_MAX = 1000  # the protocol is synchronous and meant for silos, not for phones
METRICS_MAX = 64  # each is one cell of an update and one column of a dashboard
JOBSPEC_MAX_BYTES = 256 * 1024  # it is kept whole in the journal of every member
DEADLINE_MAX_S = 30 * 24 * 3600.0
DEFAULT_MIN_SURVIVORS = 3  # a total over fewer says too much about each of them

Member = Annotated[ParticipantId, AfterValidator(parse_participant_id)]
Task = Annotated[TaskName, AfterValidator(parse_task_name)]
MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Seconds = Annotated[float, Field(gt=0, le=DEADLINE_MAX_S, allow_inf_nan=False)]


class Table(BaseModel):
    """A table with a fixed set of keys; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RoundPolicy(Table):
    """The rules of a round ([round] in a job file). Durations are in seconds."""

    quorum: int = Field(ge=1, description="How many members must be Ready before an attempt starts.")
    deadline_s: Seconds = Field(default=3600.0, description="Time for fetch, evaluation and training, from the plan.")
    grace_s: float = Field(
        default=5.0, ge=0, le=DEADLINE_MAX_S, description="How long to wait for the rest once the quorum is Ready."
    )
    upload_deadline_s: Seconds = Field(default=600.0, description="Time for the upload, from the start of the attempt.")
    min_survivors: int = Field(ge=1, description="The floor: with fewer updates the model does not change.")
    attempts: int = Field(default=2, ge=1, le=10, description="How often one round's upload may be tried.")
    aborted_rounds_allowed: int = Field(default=3, ge=0, le=1000, description="Aborted rounds before the job gives up.")


class StrategySpec(Table):
    """How updates become the next model ([strategy] in a job file)."""

    name: Literal["fedavg"] = Field(default="fedavg", description="`fedavg`: the weighted mean of the updates.")


class MaskingSpec(Table):
    """How updates are protected on the way ([masking] in a job file)."""

    mode: Literal["plain"] = Field(default="plain", description="`plain`: the coordinator sees each update.")


class JobSpec(Table):
    """One training campaign, with every default resolved."""

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$")
    task: Task
    members: tuple[Member, ...] = Field(min_length=1, max_length=MEMBERS_MAX)
    rounds: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, lt=2**63)
    initial: str = Field(pattern=r"^[0-9a-f]{64}$")
    metrics: tuple[MetricName, ...] = Field(default=(), max_length=METRICS_MAX)
    round: RoundPolicy
    strategy: StrategySpec = StrategySpec()
    masking: MaskingSpec = MaskingSpec()
    training: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        members = len(self.members)
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members must be sorted and distinct")
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics must be distinct")
        if self.round.quorum > members:
            raise ValueError(f"round.quorum is {self.round.quorum}, but the job has {members} members")
        if self.round.min_survivors > self.round.quorum:
            raise ValueError(
                f"round.min_survivors is {self.round.min_survivors}, above round.quorum {self.round.quorum}: "
                "an attempt could start that can never end"
            )
        return self

    @property
    def initial_model(self) -> Digest:
        """The SHA-256 of the safetensors file that round 1 starts from."""
        return Digest.parse(self.initial)

    def to_bytes(self) -> bytes:
        """The canonical JSON of this specification."""
        return canonical_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> bytes:
    """UTF-8, keys sorted, no white space, no NaN: one value has one form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_jobspec(data: bytes) -> JobSpec:
    """Read a specification from its bytes. Raises WireError, also when the bytes are not the canonical form."""
    if len(data) > JOBSPEC_MAX_BYTES:
        raise WireError(f"a job specification has at most {JOBSPEC_MAX_BYTES} bytes, got {len(data)}")
    try:
        spec = JobSpec.model_validate_json(data)
        canonical = spec.to_bytes()
    except ValidationError as error:
        raise WireError(f"not a job specification: {first_complaint(error)}") from None
    except ValueError as error:
        raise WireError(f"not a job specification: {error}") from None
    if canonical != data:
        raise WireError("the job specification is not in canonical form (sorted keys, no white space, all defaults)")
    return spec


def jobspec_digest(data: bytes) -> Digest:
    """The hash by which every message names the specification: over the bytes as received."""
    return tagged_hash("jobspec", data)


def first_complaint(error: ValidationError) -> str:
    """The first thing wrong, as `key.path: what was expected (got ...)`, and how many more there are."""
    complaints = error.errors(include_url=False)
    first = complaints[0]
    path = ".".join(str(part) for part in first["loc"]) or "the document"
    got = "" if first["type"] in {"missing", "extra_forbidden", "value_error"} else f" (got {_shown(first['input'])})"
    said = first["msg"].removeprefix("Value error, ")
    more = f"; and {len(complaints) - 1} more" if len(complaints) > 1 else ""
    return f"{path}: {said}{got}{more}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
