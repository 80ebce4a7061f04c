"""Range cells: how a round learns the largest |weight * delta| of each tensor, and nothing else of it.

Each tensor has RANGE_CELLS words in section 1, one for each power of two. A silo puts fresh uniform words into every
cell up to its own, and zeros above. In the sum, a cell is zero when nobody reached it and uniform otherwise: the
largest non-zero one is the maximum, and how many silos reached a cell, or which, does not show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.ids import Digest
from shared.secagg.masking import KeyStream
from shared.secagg.ring import STATISTICS_WORD
from shared.secagg.transcript import encoding_key
from shared.secret import Secret
from shared.update import RANGE_CELLS, RANGE_EXPONENT_MAX, RANGE_EXPONENT_MIN, RANGE_NONE, STATISTIC_BYTES

Cells = NDArray[np.uint64]


def range_words(encoding_seed: Secret, h0: Digest, tensors: int, *, first_tensor: int = 0) -> Cells:
    """The random words of an attempt for `fill_cells`: RANGE_CELLS for each of that many tensors, from `first_tensor`
    on. A tensor's are the same, whichever others they are asked with.
    """
    stream = KeyStream(Secret(encoding_key(encoding_seed.reveal(), h0, 1)))
    row_bytes = RANGE_CELLS * STATISTIC_BYTES
    return np.frombuffer(stream.raw(first_tensor * row_bytes, tensors * row_bytes), STATISTICS_WORD)


def fill_cells(top_cells: Sequence[int], random_words: Cells) -> Cells:
    """RANGE_CELLS words for each tensor: random up to and including its own cell (`fixed_point.range_cell`), 0 above.

    `random_words` has a word for each cell; a random zero becomes a one, since it would not show.
    """
    if any(not RANGE_NONE <= cell <= RANGE_EXPONENT_MAX for cell in top_cells):
        raise RuntimeError(f"a range cell is from {RANGE_NONE} to {RANGE_EXPONENT_MAX}, got {list(top_cells)}")
    if random_words.size != len(top_cells) * RANGE_CELLS:
        raise RuntimeError(f"expected {len(top_cells) * RANGE_CELLS} random words, got {random_words.size}")
    grid = random_words.reshape(-1, RANGE_CELLS)
    own = np.asarray(top_cells, np.int64)[:, np.newaxis] - RANGE_EXPONENT_MIN
    filled = np.where(np.arange(RANGE_CELLS) <= own, np.maximum(grid, 1), 0)
    return filled.astype(STATISTICS_WORD, copy=False).reshape(-1)


def read_top_cells(sums: Cells, tensors: int) -> tuple[int, ...]:
    """The largest non-zero cell of each tensor in the unmasked sum, RANGE_NONE where all are zero."""
    if sums.size != tensors * RANGE_CELLS:
        raise RuntimeError(f"expected {tensors * RANGE_CELLS} range cells, got {sums.size}")
    filled = sums.reshape(tensors, RANGE_CELLS) != 0
    highest = RANGE_CELLS - 1 - np.argmax(filled[:, ::-1], axis=1)
    found = np.where(filled.any(axis=1), highest + RANGE_EXPONENT_MIN, RANGE_NONE)
    return tuple(int(cell) for cell in found)
