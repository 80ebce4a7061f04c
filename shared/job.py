"""The job: what a data scientist asks for, fixed when it is submitted.

A `JobSpec` is immutable. It travels, is hashed and is stored as the exact bytes that the submitter made, which are
canonical JSON: UTF-8, keys sorted, no white space, every default resolved. A parser that finds other bytes than it
would write itself refuses them, so that two readers can never take two meanings from one hash (PROTOCOL.md section 3).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from shared.complaints import first_complaint, shown
from shared.errors import WireError
from shared.hashing import tagged_hash
from shared.ids import Digest, ParticipantId, TaskName, parse_participant_id, parse_task_name
from shared.secagg.fixed_point import statistics_headroom
from shared.secagg.threshold import threshold
from shared.update import Encoding

MEMBERS_MAX = 1000  # the protocol is synchronous and meant for silos, not for phones
MASKED_MEMBERS_MAX = 200  # everybody deals a share to everybody: the messages of an attempt grow with the square
METRICS_MAX = 64  # each is one cell of an update and one column of a dashboard
JOBSPEC_MAX_BYTES = 256 * 1024  # it is kept whole in the journal of every member
DEADLINE_MAX_S = 30 * 24 * 3600.0
DEFAULT_MIN_SURVIVORS = 3  # a total over fewer says too much about each of them
TWO_PARTY = 2  # members of which each learns the other's update by subtraction: never by default
DEFAULT_MAX_WEIGHT = 2.0**24  # examples that one silo may count for; a liar within it owns the mean
MAX_WEIGHT_MAX = 2.0**32
DEFAULT_METRIC_BOUND = 1024.0
METRIC_BOUND_MAX = 2.0**20
NEEDS_EACH_UPDATE = frozenset({"krum", "multi_krum", "median", "trimmed_mean", "geomed", "centered_clip", "fltrust"})

_JOB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

Member = Annotated[ParticipantId, AfterValidator(parse_participant_id)]
Task = Annotated[TaskName, AfterValidator(parse_task_name)]


def _job_name(text: str) -> str:
    if not _JOB_NAME.fullmatch(text):
        raise ValueError(
            f"a job's name has 1 to 50 characters a-z, 0-9 and '-', none of them '-' at an end; got {shown(text)}"
        )
    return text


def _metric_name(text: str) -> str:
    if not _METRIC_NAME.fullmatch(text):
        raise ValueError(
            f"a metric's name has 1 to 63 characters a-z, 0-9 and '_', the first of them a letter; got {shown(text)}"
        )
    return text


def text_like(pattern: re.Pattern[str]) -> WithJsonSchema:
    """What an editor is told of a text whose validator explains itself better than a pattern does."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$"})


JobName = Annotated[str, AfterValidator(_job_name), text_like(_JOB_NAME)]
MetricName = Annotated[str, AfterValidator(_metric_name), text_like(_METRIC_NAME)]
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
    upload_deadline_s: Seconds = Field(default=600.0, description="Time for the upload, once it may begin.")
    exchange_deadline_s: Seconds = Field(
        default=30.0, description="Time for each short exchange of masking: keys, shares, and the survivors' word."
    )
    min_survivors: int = Field(ge=1, description="The floor: with fewer updates the model does not change.")
    attempts: int = Field(default=2, ge=1, le=10, description="How often one round's upload may be tried.")
    aborted_rounds_allowed: int = Field(default=3, ge=0, le=1000, description="Aborted rounds before the job gives up.")


class StrategySpec(Table):
    """How updates become the next model ([strategy] in a job file)."""

    name: str = Field(
        default="fedavg", pattern=r"^[a-z_]{1,32}$", description="`fedavg`: the weighted mean of the updates."
    )


class MaskingSpec(Table):
    """How updates are protected on the way ([masking] in a job file), with every default resolved."""

    mode: Literal["masked", "plain"] = Field(
        default="masked",
        description="`masked`: the coordinator sees totals only. `plain`: it sees each update, if every silo allows.",
    )
    max_colluding: int = Field(
        ge=0, description="c: how many members may pool what they know with the coordinator. 0 in a plain job."
    )
    encoding: Literal["u32", "u16", "u64"] = Field(
        default="u32", description="Bits of a masked parameter. `u16` halves the bytes and rounds at random."
    )
    weights: Literal["examples", "equal"] = Field(
        default="examples", description="`equal`: every silo counts the same, and not even the total count is sent."
    )
    max_weight: float = Field(
        default=DEFAULT_MAX_WEIGHT,
        ge=1.0,
        le=MAX_WEIGHT_MAX,
        allow_inf_nan=False,
        description="The most examples that one silo counts for; a larger count is cut to it.",
    )
    metric_bound: float = Field(
        default=DEFAULT_METRIC_BOUND,
        gt=0,
        le=METRIC_BOUND_MAX,
        allow_inf_nan=False,
        description="A silo's mean of a metric is cut to at most this, and to at least its negative.",
    )
    allow_two_party: bool = Field(
        default=False, description="Allow two members, of which each learns the other's update."
    )
    allow_no_collusion: bool = Field(default=False, description="Allow max_colluding = 0 with three members or more.")
    protocol: Literal["fedsecagg/v1"] = Field(default="fedsecagg/v1", description="The masking protocol.")
    suite: Literal[1] = Field(
        default=1, description="1: X25519, Ed25519, HKDF-SHA256, AES-256-GCM, AES-256-CTR, SHA-256."
    )

    @property
    def masked(self) -> bool:
        return self.mode == "masked"

    @property
    def profile(self) -> Encoding:
        """The encoding of a round whose range is known."""
        return Encoding[self.encoding.upper()] if self.masked else Encoding.PLAIN


class JobSpec(Table):
    """One training campaign, with every default resolved."""

    version: Literal[1] = 1
    name: JobName
    task: Task
    members: tuple[Member, ...] = Field(min_length=1, max_length=MEMBERS_MAX)
    rounds: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, lt=2**63)
    initial: str = Field(pattern=r"^[0-9a-f]{64}$")
    metrics: tuple[MetricName, ...] = Field(default=(), max_length=METRICS_MAX)
    round: RoundPolicy
    strategy: StrategySpec = StrategySpec()
    masking: MaskingSpec
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
        _require_known_strategy(self.strategy.name, masked=self.masking.masked)
        if self.masking.masked:
            _require_sound_masking(self.masking, self.round, members)
        elif self.masking.max_colluding:
            raise ValueError("masking.max_colluding means nothing in a plain job: expected 0")
        return self

    @property
    def floor(self) -> int:
        """The fewest updates that a total may be over: in a masked job never fewer than the threshold."""
        least = self.round.min_survivors
        return max(self.threshold, least) if self.masking.masked else least

    @property
    def threshold(self) -> int:
        """t: how many members must help to open a total. From the members of the job, never from who is there."""
        return threshold(len(self.members), self.masking.max_colluding)

    @property
    def initial_model(self) -> Digest:
        """The SHA-256 of the safetensors file that round 1 starts from."""
        return Digest.parse(self.initial)

    def to_bytes(self) -> bytes:
        """The canonical JSON of this specification."""
        return canonical_json(self.model_dump(mode="json"))


def _require_known_strategy(name: str, *, masked: bool) -> None:
    if masked and name in NEEDS_EACH_UPDATE:
        raise ValueError(
            f"strategy.name {name!r} must see each update, and masking hides them: this version has 'fedavg'"
        )
    if name != "fedavg":
        raise ValueError(f"strategy.name: this version has 'fedavg', not {shown(name)}")


def _require_sound_masking(masking: MaskingSpec, policy: RoundPolicy, members: int) -> None:
    """The rules that make the threshold mean something (PROTOCOL.md section 7.2)."""
    colluding = masking.max_colluding
    if members < TWO_PARTY:
        raise ValueError("a masked job has at least 2 members: with one, the total is the update")
    if members > MASKED_MEMBERS_MAX:
        raise ValueError(f"a masked job has at most {MASKED_MEMBERS_MAX} members, got {members}: each shares with each")
    if members == TWO_PARTY and not masking.allow_two_party:
        raise ValueError(
            "with 2 members each learns the other's update from the total: more members, or masking.allow_two_party"
        )
    if members > TWO_PARTY and colluding == 0 and not masking.allow_no_collusion:
        raise ValueError(
            "masking.max_colluding is 0: one member could help the coordinator to another's update; "
            "leave the key out, or set masking.allow_no_collusion"
        )
    if colluding + 2 > members:
        raise ValueError(
            f"masking.max_colluding is {colluding} of {members} members: at least 2 must be left who do not collude"
        )
    needed = threshold(members, colluding)  # no more than the members, since two do not collude
    least = TWO_PARTY if masking.allow_two_party else DEFAULT_MIN_SURVIVORS
    if policy.min_survivors < least:
        raise ValueError(f"round.min_survivors is {policy.min_survivors}, a masked total is over at least {least}")
    if policy.quorum < needed:
        raise ValueError(
            f"round.quorum is {policy.quorum}, but {needed} of {members} members are needed to open a total "
            f"(masking.max_colluding is {colluding})"
        )
    if not statistics_headroom(members, masking.max_weight, masking.metric_bound):
        raise ValueError(
            f"the totals of metrics of {members} members could overflow: lower masking.max_weight "
            f"({masking.max_weight}) or masking.metric_bound ({masking.metric_bound})"
        )


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
