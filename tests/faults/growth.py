"""What a process and its data folder take, round after round, and whether any of it grows.

A quarter of the rounds is warm-up. Of those that follow the first quarter is compared with the last one, by their
medians, so that a round in which a silo was away decides nothing. What is bounded may differ by a stated slack; what is
on record for good may grow by so much for each round and no more.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.processes import Failure

KIB = 1024
MIB = 1024 * KIB

_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_THREADS = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bound:
    """What may be said of a series. `slack` is for noise, `a_round` for what stays on record."""

    slack: float
    a_round: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """A series in figures."""

    early: float
    """The median of the first quarter after the warm-up."""
    late: float
    most: float
    slope: float
    """Least squares over all that follows the warm-up, for each round."""


@dataclass(slots=True)
class Series:
    """Samples by name, each with the number of the round after which it was taken."""

    samples: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def take(self, number: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.samples.setdefault(name, []).append((number, value))

    def lines(self) -> dict[str, Line]:
        return {name: line_of(found) for name, found in sorted(self.samples.items())}

    def require(self, bounds: Mapping[str, Bound]) -> None:
        """Raises Failure for the series that grew. Every series has a bound."""
        grown = []
        for name, line in self.lines().items():
            bound, rounds = bounds[name], _distance(self.samples[name])
            allowed = bound.slack + bound.a_round * rounds
            if line.late - line.early > allowed:
                grown.append(
                    f"{name}: {line.early:.0f} became {line.late:.0f}, at most {allowed:.0f} more were allowed"
                )
        if grown:
            raise Failure("something grows: " + "; ".join(grown))

    def write(self, path: Path) -> None:
        """For a person who looks for the reason."""
        path.write_text(json.dumps(self.samples, indent=1))


def process_takes(pid: int, name: str) -> dict[str, float]:
    """Memory, files and threads of a process. It must be alive."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, threads = _RESIDENT.search(status), _THREADS.search(status)
    if resident is None or threads is None:
        raise Failure(f"{name} has no memory any more: it ended while it was looked at")
    return {
        f"{name} memory": float(resident[1]) * KIB,
        f"{name} files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        f"{name} threads": float(threads[1]),
    }


def line_of(samples: Sequence[tuple[int, float]]) -> Line:
    settled = _settled(samples)
    quarter = max(1, len(settled) // 4)
    values = [value for _, value in settled]
    numbers = [number for number, _ in settled]
    slope = statistics.linear_regression(numbers, values).slope if len(set(numbers)) > 1 else 0.0
    early, late = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    return Line(early, late, max(values), slope)


def _settled(samples: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    return samples[len(samples) // 4 :]


def _distance(samples: Sequence[tuple[int, float]]) -> float:
    """Rounds between the middles of the two quarters."""
    settled = _settled(samples)
    quarter = max(1, len(settled) // 4)
    numbers = [number for number, _ in settled]
    return statistics.median(numbers[-quarter:]) - statistics.median(numbers[:quarter])
