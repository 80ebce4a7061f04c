"""How large a trained update is, tensor by tensor, before it is promised: one pass over its file.

With masking, numbers become integers of a fixed range, and one that leaves it would spoil the total without anybody
seeing why: so the silo looks first. What it finds decides whether there is an update at all, whether it fits the
encoding of the round, and which range cells are filled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import structlog

from participant.protect import masked_weight
from participant.round.checks import ranges_hold
from participant.round.phases import Measured, Offer
from participant.spooled import spooled_deltas
from shared.errors import ModelError, StorageError, TaskError, WireError
from shared.reasons import DropReason
from shared.secagg.fixed_point import (
    WIDE_RANGE_EXPONENT,
    fits,
    largest_products,
    range_cell,
    range_exponents,
)
from shared.tensors import read_index_file

log = structlog.get_logger()

_PIECE_CELLS = 1 << 18  # read at a time: 1 MiB


class NoUpdate(Exception):  # noqa: N818 - an outcome on its way to becoming a value
    """Work that ends without an update. The detail is for this silo's log alone."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Fit:
    """What a masked round needs to know of an update's size."""

    cells: tuple[int, ...]
    fits: bool
    """Whether it is within the ranges of the round; true, unlooked at, where they are not this silo's own knowledge."""


def tensor_sizes(model: Path) -> tuple[int, ...]:
    """Elements of each tensor that updates carry, in manifest order. Raises StorageError or ModelError."""
    return tuple(tensor.elements for tensor in read_index_file(model).manifest.aggregated())


def fit_of(offer: Offer, measured: Measured, *, deltas: Path, parameters: int, model: Path) -> Fit:
    """Look an update of a masked round over. Raises NoUpdate."""
    try:
        sizes = tensor_sizes(model)
        if sum(sizes) != parameters:
            raise NoUpdate(
                DropReason.MANIFEST_MISMATCH, f"an update of {parameters} numbers for a model of {sum(sizes)}"
            )
        largest = largest_of(deltas, sizes, masked_weight(measured, offer.spec.masking))
    except StorageError as error:
        raise NoUpdate(DropReason.DISK, str(error)) from None
    except ModelError as error:
        raise NoUpdate(DropReason.MODEL_UNAVAILABLE, str(error)) from None
    except TaskError as error:
        raise NoUpdate(DropReason.TASK_INVALID, str(error)) from None
    for tensor, value in enumerate(largest):
        if not math.isfinite(value):
            raise NoUpdate(DropReason.NON_FINITE, f"tensor {tensor} of the update holds a NaN or an infinity")
        if value > 2**WIDE_RANGE_EXPONENT:
            raise NoUpdate(
                DropReason.OUT_OF_RANGE,
                f"weight times delta is {value:.3g} in tensor {tensor}, at most 2^{WIDE_RANGE_EXPONENT} can be masked: "
                "smaller weights, or a smaller learning rate, keep it below",
            )
    return Fit(tuple(map(range_cell, largest)), not ranges_hold(offer) or _fits(offer, largest))


def _fits(offer: Offer, largest: Sequence[float]) -> bool:
    top_cells = None if offer.previous is None else offer.previous.top_cells
    try:
        ranges = range_exponents(encoding=offer.encoding, top_cells=top_cells, tensors=len(largest))
    except WireError as error:  # a result of another model than this: nothing is known to fit it
        log.warning("range_unknown", job=offer.key.job, round=offer.key.number, detail=str(error))
        return False
    return fits(largest, ranges)


def largest_of(deltas: Path, sizes: Sequence[int], weight_q: int) -> list[float]:
    """The largest |weight * delta| of each tensor, not finite where one of its numbers is not. Raises StorageError."""
    largest = [0.0] * len(sizes)
    tensors = [tensor for tensor, size in enumerate(sizes) for _ in repeat(None, -(-size // _PIECE_CELLS))]
    pieces = spooled_deltas(deltas, _counts(sizes), most=_PIECE_CELLS)
    for tensor, values in zip(tensors, pieces, strict=True):
        (value,) = largest_products(values, weight_q, (values.size,))
        if not value <= largest[tensor]:  # a NaN is not, and nothing is above it
            largest[tensor] = value if not math.isnan(largest[tensor]) else math.nan
    return largest


def _counts(sizes: Sequence[int]) -> Iterator[int]:
    for size in sizes:
        for start in range(0, size, _PIECE_CELLS):
            yield min(_PIECE_CELLS, size - start)
