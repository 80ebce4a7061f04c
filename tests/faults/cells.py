"""What is drawn: a fault, at a phase of a round, on a side. A *cell* is one such combination in one mode.

The draw is stratified: every cell comes once before any comes twice, so that a campaign with as many faults as there
are cells has no empty one. What makes no sense has no cell, and a reason in NOT_DRAWN.

Small models make rounds of well below a second; every fourth federation has a model that is large enough for its
transfers to have a middle, in which a link can be cut.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What happens. The value is what the table calls it."""

    KILL = "kill -9"
    TERMINATE = "SIGTERM"
    STOP = "SIGSTOP"
    CUT = "link cut"
    STALL = "link silent"
    DELAY = "link slow to answer"
    THROTTLE = "link throttled"
    DISK_FULL = "disk full"
    CLOCK_FORWARD = "clock forward"
    CLOCK_BACK = "clock back"
    CORRUPT = "corrupt byte"


class Side(StrEnum):
    COORDINATOR = "coordinator"
    PARTICIPANT = "participant"


class Mode(StrEnum):
    MASKED = "masked"
    PLAIN = "plain"


# Names of coordinator.round.phases and participant.round.phases, as the processes report them, and three moments that
# have no state of their own: *Training* is Working in the middle of the task's training, *Received* is Uploading with
# an update in, *Decided* is when the end of a round is on record and nobody has been told.
PHASES: dict[tuple[Mode, Side], tuple[str, ...]] = {
    (Mode.MASKED, Side.COORDINATOR): (
        *("Recruiting", "Gracing", "Advertising", "Sharing", "Uploading", "Received", "Confirming", "Unmasking"),
        *("Folding", "Decided", "Committed"),
    ),
    (Mode.MASKED, Side.PARTICIPANT): (
        *("Working", "Training", "Ready", "Advertised", "Shared", "Uploading", "Committed", "Confirmed", "Opened"),
        "Finished",
    ),
    (Mode.PLAIN, Side.COORDINATOR): (
        *("Recruiting", "Gracing", "Uploading", "Received", "Folding", "Decided", "Committed"),
    ),
    (Mode.PLAIN, Side.PARTICIPANT): ("Working", "Training", "Ready", "Uploading", "Committed", "Fixed", "Finished"),
}

# Where a spool lies on that side that somebody will still read.
WITH_SPOOL: dict[tuple[Mode, Side], frozenset[str]] = {
    (Mode.MASKED, Side.COORDINATOR): frozenset({"Received", "Confirming", "Unmasking"}),
    (Mode.MASKED, Side.PARTICIPANT): frozenset({"Ready", "Advertised", "Shared", "Uploading"}),
    (Mode.PLAIN, Side.COORDINATOR): frozenset({"Received"}),
    (Mode.PLAIN, Side.PARTICIPANT): frozenset({"Ready", "Uploading"}),
}

NOT_DRAWN = """\
* A corrupt byte is drawn where a spool lies that will be read again: at the coordinator from the first update until the
  fold begins, at a silo from the end of training until its update is taken. Before and after there is no byte to
  corrupt, or nobody reads it.
* Advertising, Sharing, Confirming and Unmasking (at a silo Advertised, Shared, Confirmed and Opened) are phases of
  masked rounds only, Fixed is one of plain rounds only.
* Aborted, and Out at a silo, are ends of a round that faults lead to. They are not drawn as moments of their own: what
  follows them is the next round, which is.
"""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    mode: Mode
    side: Side
    phase: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault} of the {self.side} in {self.phase} ({self.mode})"


@dataclass(frozen=True, slots=True)
class Draw:
    """One fault of a campaign. `seed` is for what is drawn within it: whom it meets, for how long, which byte."""

    number: int
    cell: Cell
    seed: int


@dataclass(frozen=True, slots=True)
class Block:
    """Draws that one federation is for: first those on its masked job, then those on its plain one."""

    parameters: int
    draws: tuple[Draw, ...]

    def of(self, mode: Mode) -> tuple[Draw, ...]:
        return tuple(draw for draw in self.draws if draw.cell.mode is mode)


SMALL, LARGE = 80, 600_000  # parameters; the large model has 2.4 MB, three chunks
BLOCK_DRAWS = 50
LARGE_EVERY = 4  # blocks


def all_cells() -> list[Cell]:
    return [
        Cell(mode, side, phase, fault)
        for (mode, side), phases in PHASES.items()
        for phase in phases
        for fault in Fault
        if fault is not Fault.CORRUPT or phase in WITH_SPOOL[mode, side]
    ]


def drawn(count: int, seed: int) -> list[Draw]:
    """The faults of a campaign, in order."""
    source, order = random.Random(seed), all_cells()
    found: list[Cell] = []
    while len(found) < count:
        source.shuffle(order)
        found += order
    return [Draw(number, cell, source.getrandbits(48)) for number, cell in enumerate(found[:count], start=1)]


def one_of_each(seed: int) -> list[Draw]:
    """Each fault once, in a cell of its own: the short campaign."""
    source, cells = random.Random(seed), all_cells()
    found = [source.choice([cell for cell in cells if cell.fault is fault]) for fault in Fault]
    return [Draw(number, cell, source.getrandbits(48)) for number, cell in enumerate(found, start=1)]


def blocks(draws: Sequence[Draw]) -> list[Block]:
    """A fresh federation for each BLOCK_DRAWS."""
    found: list[Block] = []
    for start in range(0, len(draws), BLOCK_DRAWS):
        large = len(found) % LARGE_EVERY == LARGE_EVERY - 1
        found.append(Block(LARGE if large else SMALL, tuple(draws[start : start + BLOCK_DRAWS])))
    return found
