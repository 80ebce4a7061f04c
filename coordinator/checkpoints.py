"""Model versions: what a job can start from, and the lineage that is recorded beside each file.

A version's file holds numbers and nothing of its history, so that equal models are equal files. Where a version comes
from stands in its *description*: canonical JSON, kept as `ModelRecord.manifest`. It holds no time (the audit log does)
and nothing that depends on who asked first, so that a round which is folded again after a restart describes the same
version with the same bytes. A reader that finds other bytes than it would write refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from coordinator.aggregation.fold import Totals
from shared.casts import all_finite
from shared.complaints import first_complaint
from shared.errors import ModelError
from shared.ids import COUNTER_MAX, Digest, JobId, ParticipantId, RoundKey, RoundNumber, parse_job_id
from shared.job import Member, StrategySpec, Table, canonical_json
from shared.reasons import DropReason
from shared.tensors import ByteReader, ModelIndex, read_index
from shared.update import CHUNK_BYTES, TensorSpec

DISTRIBUTION = "consilo"
SURVIVOR: Literal["survivor"] = "survivor"

Outcome: TypeAlias = Literal["survivor"] | DropReason


def _parse_digest(value: object) -> Digest:
    return value if isinstance(value, Digest) else Digest.parse(str(value))


HexDigest = Annotated[Digest, PlainValidator(_parse_digest), PlainSerializer(str)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class InitialModel(Table):
    """A version that somebody brought: it has no parent."""

    format: Literal[1] = 1
    kind: Literal["initial"] = "initial"
    digest: HexDigest
    manifest: HexDigest
    """Of names, types and shapes: equal for all versions of one job."""
    parameters: int = Field(ge=1)
    code_version: str


class TrainedModel(Table):
    """A version that a round made of its parent."""

    format: Literal[1] = 1
    kind: Literal["trained"] = "trained"
    digest: HexDigest
    parent: HexDigest
    manifest: HexDigest
    parameters: int = Field(ge=1)
    job: Annotated[JobId, AfterValidator(parse_job_id)]
    round: int = Field(ge=1, le=COUNTER_MAX)
    purpose: Literal["train"] = "train"
    members: dict[Member, Outcome]
    """Every member of the job: `survivor`, or why it is not in this version."""
    weight_total: float = Field(gt=0, allow_inf_nan=False)
    """In examples; where a job weighs all silos the same, how many silos."""
    totals: dict[str, Finite]
    """The cells of section 1, added up; `means` divides."""
    strategy: StrategySpec
    code_version: str

    @model_validator(mode="after")
    def _somebody_survived(self) -> Self:
        if SURVIVOR not in self.members.values():
            raise ValueError("members must name at least one survivor")
        return self

    @property
    def key(self) -> RoundKey:
        """The round that made it."""
        return RoundKey(self.job, RoundNumber(self.round))

    @property
    def means(self) -> dict[str, float]:
        """Metric means over all survivors, by cell name."""
        return Totals(self.totals).means()


ModelDescription: TypeAlias = InitialModel | TrainedModel

_DESCRIPTION: TypeAdapter[ModelDescription] = TypeAdapter(
    Annotated[InitialModel | TrainedModel, Field(discriminator="kind")]
)


def describe_initial(*, digest: Digest, index: ModelIndex) -> bytes:
    """The description of an initial model."""
    return _to_bytes(
        InitialModel(
            digest=digest,
            manifest=index.manifest.digest,
            parameters=index.manifest.parameters,
            code_version=version(DISTRIBUTION),
        )
    )


def describe_version(
    *,
    digest: Digest,
    parent: Digest,
    index: ModelIndex,
    key: RoundKey,
    survivors: Iterable[ParticipantId],
    dropped: Mapping[ParticipantId, DropReason],
    weight_total: float,
    totals: Mapping[str, float],
    strategy: StrategySpec,
) -> bytes:
    """The description of the version that a train round makes. `index` is the parent's or its own: one manifest."""
    return _to_bytes(
        TrainedModel(
            digest=digest,
            parent=parent,
            manifest=index.manifest.digest,
            parameters=index.manifest.parameters,
            job=key.job,
            round=key.number,
            members={**dropped, **dict.fromkeys(survivors, SURVIVOR)},
            weight_total=weight_total,
            totals=dict(totals),
            strategy=strategy,
            code_version=version(DISTRIBUTION),
        )
    )


def parse_description(data: bytes) -> ModelDescription:
    """Read a description. Raises ModelError, also when the bytes are not in canonical form."""
    try:
        description = _DESCRIPTION.validate_json(data)
        canonical = _to_bytes(description)
    except ValidationError as error:
        raise ModelError(f"not a description of a model version: {first_complaint(error)}") from None
    except ValueError as error:
        raise ModelError(f"not a description of a model version: {error}") from None
    if canonical != data:
        raise ModelError("the description of a model version is not in canonical form (sorted keys, no white space)")
    return description


def _to_bytes(description: ModelDescription) -> bytes:
    return canonical_json(description.model_dump(mode="json"))


def accept_initial_model(reader: ByteReader) -> ModelIndex:
    """Check that a job can start from this file. Raises ModelError, naming the tensor and what is wrong with it."""
    index = read_index(reader)
    for tensor in index.in_file_order():
        if tensor.dtype.aggregated:
            _refuse_non_finite(reader, index.offset_of(tensor.name), tensor)
    return index


def _refuse_non_finite(reader: ByteReader, start: int, tensor: TensorSpec) -> None:
    for offset in range(0, tensor.data_bytes, CHUNK_BYTES):
        length = min(CHUNK_BYTES, tensor.data_bytes - offset)
        if not all_finite(reader.read_at(start + offset, length), tensor.dtype):
            raise ModelError(
                f"tensor {tensor.name!r} holds a NaN or an infinity: every sum with it would too. "
                "Initialise the model again"
            )
