"""Curves as numbers that a template draws: no picture library, no script (pure).

The drawing is stretched to the width at hand, so nothing in it is text and no stroke scales: labels stand beside it in
HTML, where a reader's font size counts. Each curve has a pattern of its own, since colour alone tells some people
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000.0, 300.0
_MARGIN = 8.0  # a line at the very edge would be cut in half
MARKED_MAX = 60  # with more points than this, dots would hide the line


@dataclass(frozen=True, slots=True)
class Curve:
    """One line."""

    name: str
    style: str
    """`solid` or `dashed`."""
    paths: tuple[str, ...]
    """SVG path data: one for each stretch without a gap."""
    dots: str
    """Path data of the points by themselves; empty when there are many."""
    first: float
    last: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What one metric did over the rounds."""

    metric: str
    curves: tuple[Curve, ...]
    low: float
    high: float
    first_round: int
    last_round: int
    missing: int
    """Points that are no numbers (not finite), which no curve can show."""

    @property
    def alternative(self) -> str:
        """What the drawing says, in a sentence for each curve."""
        said = [
            f"{curve.name} went from {curve.first:.4f} to {curve.last:.4f}, between {curve.least:.4f} and "
            f"{curve.most:.4f}."
            for curve in self.curves
        ]
        lost = [f"{self.missing} values were not finite."] if self.missing else []
        return " ".join([f"{self.metric}, rounds {self.first_round} to {self.last_round}.", *said, *lost])


def chart_of(metric: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> Chart | None:
    """A chart of (round, value) by the name of the curve, rounds ascending; None where nothing can be drawn."""
    finite = {
        name: [(number, value) for number, value in points if math.isfinite(value)] for name, points in series.items()
    }
    shown = [point for points in finite.values() for point in points]
    if not shown:
        return None
    values, numbers = [value for _, value in shown], [number for number, _ in shown]
    low, high = min(values), max(values)
    if not math.isfinite(high - low):
        return None
    first, last = min(numbers), max(numbers)

    def place(number: int, value: float) -> tuple[float, float]:
        across = 0.5 if last == first else (number - first) / (last - first)
        up = 0.5 if high == low else (value - low) / (high - low)
        return _MARGIN + across * (WIDTH - 2 * _MARGIN), HEIGHT - _MARGIN - up * (HEIGHT - 2 * _MARGIN)

    curves = tuple(
        Curve(
            name=name,
            style="solid" if place_in_list == 0 else "dashed",
            paths=tuple(_path([place(*point) for point in stretch]) for stretch in _stretches(series[name])),
            dots="" if len(points) > MARKED_MAX else "".join(_dot(*place(*point)) for point in points),
            first=points[0][1],
            last=points[-1][1],
            least=min(value for _, value in points),
            most=max(value for _, value in points),
        )
        for place_in_list, (name, points) in enumerate(finite.items())
        if points
    )
    missing = sum(len(points) for points in series.values()) - len(shown)
    return Chart(metric, curves, low, high, first, last, missing)


def _stretches(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Runs of finite values."""
    runs: list[list[tuple[int, float]]] = [[]]
    for number, value in points:
        if math.isfinite(value):
            runs[-1].append((number, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _dot(x: float, y: float) -> str:
    """A line of no length with round ends: a dot that stays round however the drawing is stretched."""
    return f"M{x:.1f} {y:.1f}h0.01"
