"""What each silo adds in each round, so that every wrong sum shows.

A silo's delta depends on the silo and on the round, and is never zero where the silo has a say: a cell in which it is
alone is moved by its weight times its delta, over the weights of the survivors. With weights 1, 2, 3 and 4 and deltas
that are multiples of 2520, which every sum of these weights divides, the weighted mean is a whole number. So is
everything on the way: masked encodings hold it exactly, float32 does, and a model must be what is expected to the last
bit.

Of five cells each silo has one, and the fifth is everybody's. Somebody who is missing, who counts twice, or who comes
with the update of another round shows in its own cells, and a wrong weight in everybody's. What is everybody's grows by
the same with each round, so that no model comes twice: the silos would refuse a second total on it, and rightly.

This module is read by the task's process too: numpy and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

WEIGHTS = (1, 2, 3, 4)
MULTIPLE = 2520  # the least common multiple of 1 to 10
PERIOD = 14  # rounds and cells after which a silo's own factors repeat; over a period they add up to nothing

Whole = NDArray[np.int64]


def delta(silo: int, number: int, cells: int) -> Whole:
    """What silo 0, 1, 2 or 3 adds to a model in round `number`."""
    index = np.arange(cells)
    factor = (5 * number + 3 * silo + index) % PERIOD - PERIOD // 2
    factor[factor >= 0] += 1
    owner = index % 5
    factor[owner == len(WEIGHTS)] = 1
    return np.where((owner == silo) | (owner == len(WEIGHTS)), MULTIPLE * factor, 0)


def fold(silos: Collection[int], number: int, cells: int) -> Whole:
    """How the model changes when exactly these silos survive the round."""
    total = sum((WEIGHTS[silo] * delta(silo, number, cells) for silo in silos), np.zeros(cells, np.int64))
    mean, rest = np.divmod(total, sum(WEIGHTS[silo] for silo in silos))
    assert not rest.any()
    return mean
