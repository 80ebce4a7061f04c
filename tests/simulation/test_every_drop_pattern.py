"""Every way in which members of a small job can vanish, through the real machines; and some ways of large ones.

Each silo vanishes at one of six points, or never. The members are alike, so that in a normal run one of all patterns
that differ by names only is played; a long run plays them all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement, product

import pytest
import structlog

from tests.simulation.dropping import Dropping, Point, expected, few_drops
from tests.simulation.settings import Shape
from tests.simulation.steps import note

# (members, colluding): the threshold is 2, 3, 3, 3 and 4 of them.
SMALL = ((2, 0), (3, 1), (4, 1), (5, 0), (5, 1))
SLICES = 8  # of the patterns of a shape, so that the processes share them


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


def _play(shape: Shape, points: Sequence[Point], *, silently: bool, number: int = 1, seed: int = 0) -> None:
    federation = Dropping(shape, seed=seed)
    at = dict(zip(shape.names, points, strict=True))
    ended = federation.run(at, number=number, silently=silently)
    wanted = expected(shape, at)
    assert ended.outcome == wanted.outcome, (shape, points)
    if wanted.outcome != "committed":
        return
    assert ended.survivors == wanted.survivors, (shape, points)
    assert federation.opened is not None
    before, after = federation.models()
    top = None
    if number > 1:
        assert federation.folded is not None
        assert federation.folded.frame.top_cells is not None
        (top,) = federation.folded.frame.top_cells
    parameters, statistics = federation.expected_sums(top_cell=top)
    assert federation.opened[0] == parameters, (shape, points)
    assert federation.opened[1][: len(statistics)] == statistics, (shape, points)
    divisor = Fraction(2) ** federation.scale_exponent(top) * len(ended.survivors)
    mean = [float(Fraction(total) / divisor) for total in parameters]
    assert after == [old + delta for old, delta in zip(before, mean, strict=True)], (shape, points)


def _patterns(members: int) -> list[tuple[Point, ...]]:
    """One of each kind, given to members in an order that differs from pattern to pattern."""
    found = list(combinations_with_replacement(Point, members))
    return [tuple(random.Random(place).sample(points, members)) for place, points in enumerate(found)]


@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.parametrize(("members", "colluding"), SMALL)
def test_every_drop_pattern_of_a_small_job_opens_its_sum_or_aborts(members: int, colluding: int, part: int) -> None:
    shape = Shape(members=members, rounds=1, quorum=1, floor=1, attempts=1, masked=True, colluding=colluding)
    for place, points in list(enumerate(_patterns(members)))[part::SLICES]:
        _play(shape, points, silently=bool(place % 2), seed=place)


@pytest.mark.parametrize("members", [3, 4])
def test_the_same_in_a_round_whose_range_is_known(members: int) -> None:
    """In 32 bits, on top of the round before."""
    shape = Shape(members=members, rounds=2, quorum=1, floor=1, attempts=1, masked=True, colluding=1)
    for place, points in list(enumerate(_patterns(members)))[::3]:
        _play(shape, points, silently=bool(place % 2), seed=place, number=2)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize(("members", "colluding"), SMALL)
def test_every_drop_pattern_by_name(members: int, colluding: int) -> None:
    shape = Shape(members=members, rounds=1, quorum=1, floor=1, attempts=1, masked=True, colluding=colluding)
    for place, points in enumerate(product(Point, repeat=members)):
        _play(shape, points, silently=bool(place % 2), seed=place)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("seed", range(24))
def test_drops_of_a_large_job(seed: int) -> None:
    members = random.Random(seed).choice((6, 7, 9, 12, 20, 35, 60, 100))
    shape = Shape(
        members=members, rounds=1, quorum=1, floor=1, attempts=1, masked=True, colluding=max(1, (members - 1) // 3)
    )
    _play(shape, tuple(few_drops(shape, seed).values()), silently=bool(seed % 2), seed=seed)
