"""The shapes of what travels: the model's manifest, and the layout and header of an update.

An update is a header and two sections, laid end to end:

* section 0, *parameters*: one cell for each element of each aggregated tensor, in manifest order;
* section 1, *statistics*: one cell for each total that the job collects (`StatisticsLayout`).

The header names the encoding of the sections. `PLAIN` is float32 deltas and float64 statistics, the weight in the
header. The ring encodings (secure aggregation) are words of integers modulo a power of two, masked; section 1 is always
of 64 bits there and ends with the range cells, and the header carries no weight, which is a cell of section 1.
PROTOCOL.md section 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from shared.errors import ModelError, WireError
from shared.hashing import tagged_hash
from shared.ids import Digest

CHUNK_BYTES = 1 << 20  # the unit of transfer, of hashing and (with masking) of the mask stream: measured best
TENSORS_MAX = 100_000
TENSOR_NAME_MAX_BYTES = 512
TENSOR_RANK_MAX = 16
WEIGHT_MAX = 2.0**40  # examples; keeps float64 sums of weights exact to the last unit
STATISTIC_BYTES = 8  # a cell of section 1: float64, or a word of 64 bits
RANGE_EXPONENT_MIN = -31  # a tensor's largest |weight * delta| is tracked by its power of two, clamped to these
RANGE_EXPONENT_MAX = 32
RANGE_CELLS = RANGE_EXPONENT_MAX - RANGE_EXPONENT_MIN + 1
RANGE_NONE = RANGE_EXPONENT_MIN - 1  # of a tensor that nobody changed: no cell is filled


class DType(StrEnum):
    """Element types that a model file may hold, by their safetensors names."""

    F64 = "F64"
    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    I64 = "I64"
    I32 = "I32"
    I16 = "I16"
    I8 = "I8"
    U64 = "U64"
    U32 = "U32"
    U16 = "U16"
    U8 = "U8"
    BOOL = "BOOL"

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return _ITEM_BYTES[self]

    @property
    def aggregated(self) -> bool:
        """Floating-point tensors are averaged; integer and boolean ones keep their initial values."""
        return self in {DType.F64, DType.F32, DType.F16, DType.BF16}


_ITEM_BYTES = {
    DType.F64: 8, DType.I64: 8, DType.U64: 8,
    DType.F32: 4, DType.I32: 4, DType.U32: 4,
    DType.F16: 2, DType.BF16: 2, DType.I16: 2, DType.U16: 2,
    DType.I8: 1, DType.U8: 1, DType.BOOL: 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of one tensor. Raises ModelError for what no update can carry."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        encoded = self.name.encode("utf-8", "surrogatepass")
        if not 0 < len(encoded) <= TENSOR_NAME_MAX_BYTES:
            raise ModelError(f"a tensor name has 1 to {TENSOR_NAME_MAX_BYTES} bytes, got {len(encoded)}")
        if len(self.shape) > TENSOR_RANK_MAX or any(extent < 0 for extent in self.shape):
            raise ModelError(f"tensor {self.name!r}: shape {self.shape} is beyond rank {TENSOR_RANK_MAX} or negative")

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def data_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.elements * self.dtype.item_bytes


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """A model's tensors in UTF-8 name order: what both sides must agree on before a number is exchanged."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name.encode("utf-8", "surrogatepass") for tensor in self.tensors]
        if len(names) > TENSORS_MAX:
            raise ModelError(f"a model has at most {TENSORS_MAX} tensors, got {len(names)}")
        if names != sorted(set(names)):
            raise ModelError("a manifest lists distinct tensor names in UTF-8 order")
        if not any(tensor.dtype.aggregated and tensor.elements for tensor in self.tensors):
            raise ModelError("the model has no floating-point tensor: there is nothing to train")

    @classmethod
    def of(cls, tensors: Iterable[TensorSpec]) -> ModelManifest:
        """Put tensors in order. Raises ModelError."""
        return cls(tuple(sorted(tensors, key=lambda tensor: tensor.name.encode("utf-8", "surrogatepass"))))

    def aggregated(self) -> Iterator[TensorSpec]:
        """The tensors that updates carry, in manifest order."""
        return (tensor for tensor in self.tensors if tensor.dtype.aggregated)

    @property
    def parameters(self) -> int:
        """Cells of section 0: elements of all aggregated tensors."""
        return sum(tensor.elements for tensor in self.aggregated())

    @property
    def digest(self) -> Digest:
        """Over names, types and shapes, not values."""
        parts = [
            f"{tensor.name}\0{tensor.dtype}\0{','.join(map(str, tensor.shape))}".encode("utf-8", "surrogatepass")
            for tensor in self.tensors
        ]
        return tagged_hash("manifest", *parts)


class Encoding(IntEnum):
    """How the cells of an update are written. The number is the wire's."""

    PLAIN = 1
    U32 = 2
    U16 = 3
    U64 = 4

    @property
    def masked(self) -> bool:
        """Whether the cells are masked integers; else the coordinator reads them."""
        return self is not Encoding.PLAIN

    @property
    def word_bytes(self) -> int:
        """Bytes of one cell of section 0."""
        return _WORD_BYTES[self]


_WORD_BYTES = {Encoding.PLAIN: 4, Encoding.U32: 4, Encoding.U16: 2, Encoding.U64: 8}


@dataclass(frozen=True, slots=True)
class StatisticsLayout:
    """The cells of section 1: for training and for evaluation, a total weight and one weighted sum per metric.

    A cell holds `weight * mean`; the coordinator adds cells and divides totals: it never needs one silo's value. In the
    masked encodings the range cells follow these (`UpdateLayout.of_round`).
    """

    metrics: tuple[str, ...]

    @property
    def cells(self) -> int:
        return 2 * (1 + len(self.metrics))

    @property
    def names(self) -> tuple[str, ...]:
        """Cell names in wire order: `train.weight`, `train.<metric>`.., `evaluate.weight`, `evaluate.<metric>`.."""
        return tuple(f"{half}.{name}" for half in ("train", "evaluate") for name in ("weight", *self.metrics))


@dataclass(frozen=True, slots=True)
class UpdateLayout:
    """Where the bytes of an update are. Both sides derive it; it is never accepted from the other one."""

    encoding: Encoding
    parameters: int
    statistics: int
    """Number of cells of section 1."""

    @classmethod
    def of_round(
        cls, *, encoding: Encoding, parameters: int, tensors: int, statistics: StatisticsLayout
    ) -> UpdateLayout:
        """The layout of a round with that many parameters in that many aggregated tensors; none of either when it is
        there to evaluate.
        """
        ranges = RANGE_CELLS * tensors if encoding.masked else 0
        return cls(encoding, parameters, statistics.cells + ranges)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of section 0."""
        return self.encoding.word_bytes * self.parameters

    @property
    def total_bytes(self) -> int:
        """Bytes of both sections."""
        return self.parameter_bytes + STATISTIC_BYTES * self.statistics

    @property
    def chunks(self) -> int:
        """Number of digests in an update: each section is cut into chunks of CHUNK_BYTES, the last one shorter."""
        return -(-self.parameter_bytes // CHUNK_BYTES) + -(-STATISTIC_BYTES * self.statistics // CHUNK_BYTES)

    @property
    def digest(self) -> Digest:
        """The `layout_hash` of an AttemptStart."""
        parts = (self.encoding, self.parameters, self.statistics)
        return tagged_hash("layout", *(part.to_bytes(8, "big") for part in parts))

    def chunk_ranges(self) -> Iterator[tuple[int, int]]:
        """(start, end) byte offsets of each chunk, in order. A chunk never spans two sections."""
        for start, end in ((0, self.parameter_bytes), (self.parameter_bytes, self.total_bytes)):
            for offset in range(start, end, CHUNK_BYTES):
                yield offset, min(offset + CHUNK_BYTES, end)


@dataclass(frozen=True, slots=True)
class UpdateHeader:
    """What is said about an update before its sections. Raises WireError for a weight that no update may have."""

    encoding: Encoding
    weight: float | None
    """Weight of this update in the mean, in examples: of the plain encoding, and of no other."""
    contributors: int
    """How many participants the update stands for: 1, until relays exist."""

    def __post_init__(self) -> None:
        if (self.weight is None) is not self.encoding.masked:
            raise WireError("the header of a plain update has its weight, that of a masked one has none")
        if self.weight is not None and not (math.isfinite(self.weight) and 0 < self.weight <= WEIGHT_MAX):
            raise WireError(f"an update's weight is a finite number in (0, {WEIGHT_MAX:.0f}], got {self.weight}")
        if self.contributors != 1:
            raise WireError(f"an update stands for 1 contributor, got {self.contributors}")


def update_digest(header: bytes, chunk_digests: Iterable[Digest]) -> Digest:
    """`vec_hash`: over the header's bytes and the digests of all chunks in order (PROTOCOL.md section 6)."""
    return tagged_hash("update", header, *(digest.raw for digest in chunk_digests))
