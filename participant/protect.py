"""The only path from a raw update to bytes that leave the silo.

An update is on disk as float32 deltas (section 0), with its weights and means beside it (section 1). Here both become
chunks in the layout's order, one at a time and in buffers that are used again: memory does not depend on the model.
Either the coordinator may read them (`PlainChunks`), or each becomes integers and gets its masks before it is handed
out (`MaskedChunks`).

The bytes are a function of the spool, the attempt's secrets and the layout: passed over again, they are the same, so
that an upload can go on where it stopped. Under a mask that is no convenience but the rule that everything hangs on: of
two different chunks under one mask the coordinator learns the difference. So `SentDigests` remembers each chunk that
was handed out, and one that differs is not handed out. And that the spool is what it was is not taken on trust: each
piece of it is compared with the digest that was taken when the update was finished (`participant.spooled`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from participant.round.phases import Masked, Measured, SpooledUpdate
from participant.spooled import spooled_deltas
from shared.errors import ConflictError, StorageError, TaskError
from shared.ids import Digest
from shared.job import JobSpec, MaskingSpec
from shared.secagg.fixed_point import (
    WEIGHT_SCALE_BITS,
    Encoder,
    encode_metric,
    quantise_weight,
    scale_exponent,
)
from shared.secagg.ranges import fill_cells, range_words
from shared.secagg.ring import WORD, Words, to_words
from shared.update import RANGE_CELLS, STATISTIC_BYTES, UpdateLayout


class ResendDiffers(ConflictError):  # noqa: N818 - named as the reason that it becomes
    """A chunk that was handed out before would be handed out again with other bytes."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of an update on its way out."""

    data: memoryview
    """Valid until the next chunk is asked for."""
    digest: Digest


class UpdateChunks(Protocol):
    """The chunks of an update, in order; the same ones each time."""

    def __iter__(self) -> Iterator[Chunk]:
        """Raises StorageError for a spool that cannot be read or is not what it was, TaskError for a number that no
        update may have, and ResendDiffers.
        """
        ...


class SentDigests:
    """The digest of each chunk that was handed out under one transcript, for as long as its masks exist."""

    def __init__(self, transcript: Digest) -> None:
        self.transcript = transcript
        self._digests: dict[int, Digest] = {}

    def admit(self, position: int, digest: Digest) -> None:
        """The chunk at this position may go. Raises ResendDiffers."""
        if self._digests.setdefault(position, digest) != digest:
            raise ResendDiffers(
                f"chunk {position} of a masked update is not what was sent before: the spool or the model's file was "
                "changed by somebody else, and it is not sent a second time"
            )


# --- weights ----------------------------------------------------------------------------------------------------------


def masked_weight(measured: Measured, masking: MaskingSpec) -> int:
    """w_q: the weight in 1/256 of an example, as it enters everything that is masked. Raises TaskError."""
    if masking.weights == "equal":
        return 1 << WEIGHT_SCALE_BITS
    return quantise_weight(measured.weight, masking.max_weight)


def plain_weight(measured: Measured, masking: MaskingSpec) -> float:
    """The weight of an update that the coordinator may read."""
    return 1.0 if masking.weights == "equal" else measured.weight


# --- plain ------------------------------------------------------------------------------------------------------------


class PlainChunks:
    """Float32 deltas as they are, and float64 sums."""

    def __init__(self, *, deltas: Path, update: SpooledUpdate, layout: UpdateLayout, masking: MaskingSpec) -> None:
        self._deltas = deltas
        self._root = update.root
        self._layout = layout
        self._statistics = np.array(_plain_statistics(update, masking), "<f8")

    def __iter__(self) -> Iterator[Chunk]:
        for values in self._values():
            if not np.isfinite(values).all():
                raise TaskError("the update holds a NaN or an infinity: nothing of it leaves this silo")
            data = values.data.cast("B")
            yield Chunk(data, Digest.of(data))

    def _values(self) -> Iterator[NDArray[np.floating[Any]]]:
        counts = _counts(self._layout)
        if counts:
            yield from spooled_deltas(self._deltas, counts, most=max(counts), root=self._root)
        for first, end in _statistics_ranges(self._layout):
            yield self._statistics[first:end]


def _plain_statistics(update: SpooledUpdate, masking: MaskingSpec) -> list[float]:
    cells: list[float] = []
    for half in (update.train, update.evaluate):
        if half is None:
            cells += [0.0] * (1 + len(update.evaluate.means))
        else:
            weight = plain_weight(half, masking)
            cells += [weight, *(weight * mean for mean in half.means)]
    return cells


# --- masked -----------------------------------------------------------------------------------------------------------


class MaskedChunks:
    """Integers of a ring, with the masks of one attempt on them."""

    def __init__(
        self,
        *,
        deltas: Path,
        update: SpooledUpdate,
        layout: UpdateLayout,
        spec: JobSpec,
        sizes: Sequence[int],
        protection: Masked,
        sent: SentDigests,
    ) -> None:
        """`sizes`: elements of each aggregated tensor, in manifest order; none in a round that only evaluates.

        Raises StorageError when they are not those of the update, and TaskError for a weight or a mean that no update
        may have.
        """
        self._deltas = deltas
        self._root = update.root
        self._layout = layout
        self._sent = sent
        self._encoder = None if update.train is None else _encoder(update.train, layout, spec, sizes, protection)
        self._totals = to_words(_masked_statistics(update, spec.masking))
        self._cells = update.cells
        self._protection = protection
        if layout.statistics != self._totals.size + RANGE_CELLS * len(update.cells):
            raise RuntimeError(f"{len(update.cells)} tensors do not fill the {layout.statistics} cells of section 1")

    def __iter__(self) -> Iterator[Chunk]:
        for position, words in enumerate(self._masked()):
            data = words.view(np.uint8).data
            digest = Digest.of(data)
            self._sent.admit(position, digest)
            yield Chunk(data, digest)

    def _masked(self) -> Iterator[Words]:
        yield from self._parameters()
        for first, end in _statistics_ranges(self._layout):
            words = self._statistics(first, end)
            self._protection.masks.apply(words, section=1, first_byte=STATISTIC_BYTES * first)
            yield words

    def _parameters(self) -> Iterator[Words]:
        counts = _counts(self._layout)
        if self._encoder is None or not counts:
            return
        word = WORD[self._layout.encoding]
        buffer = np.empty(max(counts), word)
        first_cell = 0
        for values in spooled_deltas(self._deltas, counts, most=buffer.size, root=self._root):
            words = self._encoder.encode(values, first_cell=first_cell, out=buffer[: values.size])
            self._protection.masks.apply(words, section=0, first_byte=word.itemsize * first_cell)
            yield words
            first_cell += values.size

    def _statistics(self, first: int, end: int) -> NDArray[np.uint64]:
        """Words `first` to `end` of section 1, not yet masked: totals, then the range cells of each tensor."""
        totals = self._totals[first:end]
        begin, last = max(0, first - self._totals.size), max(0, end - self._totals.size)
        tensor, tensors = begin // RANGE_CELLS, -(-last // RANGE_CELLS)
        seed, h0 = self._protection.encoding_seed, self._protection.h0
        random = range_words(seed, h0, tensors - tensor, first_tensor=tensor)
        cells = fill_cells(self._cells[tensor:tensors], random)
        skipped = tensor * RANGE_CELLS
        return np.concatenate((totals, cells[begin - skipped : last - skipped]))


def _encoder(
    measured: Measured, layout: UpdateLayout, spec: JobSpec, sizes: Sequence[int], protection: Masked
) -> Encoder:
    members, encoding = len(spec.members), layout.encoding
    if sum(sizes) != layout.parameters:
        raise StorageError(
            f"the model's tensors have {sum(sizes)} elements, but {layout.parameters} were spooled: was a file changed?"
        )
    unscaled = scale_exponent(encoding=encoding, members=members, range_exponent=0)
    return Encoder(
        encoding=encoding,
        members=members,
        weight_q=masked_weight(measured, spec.masking),
        sizes=sizes,
        range_exponents=tuple(unscaled - exponent for exponent in protection.scale_exponents),
        encoding_seed=protection.encoding_seed,
        h0=protection.h0,
    )


def _masked_statistics(update: SpooledUpdate, masking: MaskingSpec) -> list[int]:
    cells: list[int] = []
    for half in (update.train, update.evaluate):
        if half is None:
            cells += [0] * (1 + len(update.evaluate.means))
        else:
            weight = masked_weight(half, masking)
            cells += [weight, *(encode_metric(mean, weight, masking.metric_bound) for mean in half.means)]
    return cells


# --- where the chunks are ---------------------------------------------------------------------------------------------


def _counts(layout: UpdateLayout) -> list[int]:
    """Cells of each chunk of section 0."""
    word, boundary = layout.encoding.word_bytes, layout.parameter_bytes
    return [(end - start) // word for start, end in layout.chunk_ranges() if start < boundary]


def _statistics_ranges(layout: UpdateLayout) -> list[tuple[int, int]]:
    """First and last cell of each chunk of section 1."""
    boundary = layout.parameter_bytes
    return [
        ((start - boundary) // STATISTIC_BYTES, (end - boundary) // STATISTIC_BYTES)
        for start, end in layout.chunk_ranges()
        if start >= boundary
    ]
