"""Curves as numbers: what is drawn, and what is said of it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shared.pages.chart import HEIGHT, MARKED_MAX, WIDTH, chart_of


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def test_a_falling_curve_falls_on_the_page() -> None:
    chart = chart_of("loss", {"loss in training": [(1, 3.0), (2, 2.0), (3, 1.0)]})
    assert chart is not None
    (curve,) = chart.curves
    across = [x for x, _ in places(curve.paths[0])]
    down = [y for _, y in places(curve.paths[0])]
    assert across == sorted(across)
    assert down == sorted(down), "the y of a screen grows downwards"
    assert (chart.low, chart.high, chart.first_round, chart.last_round) == (1.0, 3.0, 1, 3)
    assert chart.alternative == (
        "loss, rounds 1 to 3. loss in training went from 3.0000 to 1.0000, between 1.0000 and 3.0000."
    )


def test_the_second_curve_has_another_pattern() -> None:
    chart = chart_of("loss", {"a": [(1, 1.0), (2, 2.0)], "b": [(1, 2.0), (2, 1.0)]})
    assert chart is not None
    assert [curve.style for curve in chart.curves] == ["solid", "dashed"]


def test_nothing_to_draw() -> None:
    assert chart_of("loss", {"a": []}) is None
    assert chart_of("loss", {"a": [(1, float("nan"))]}) is None
    assert chart_of("loss", {"a": [(1, -1.7e308), (2, 1.7e308)]}) is None, "no scale holds both"


def test_values_that_are_no_numbers_are_a_gap_and_counted() -> None:
    nan = float("nan")
    chart = chart_of("loss", {"a": [(1, 1.0), (2, 2.0), (3, nan), (4, 3.0), (5, 4.0), (6, float("inf")), (7, 1.0)]})
    assert chart is not None
    assert [len(places(path)) for path in chart.curves[0].paths] == [2, 2]
    assert chart.missing == 2
    assert "2 values were not finite" in chart.alternative


def test_one_point_is_a_dot_and_many_have_none() -> None:
    one = chart_of("loss", {"a": [(4, 2.0)]})
    many = chart_of("loss", {"a": [(number, 1.0) for number in range(MARKED_MAX + 1)]})
    assert one is not None
    assert many is not None
    assert (one.curves[0].paths, one.curves[0].dots.count("M")) == ((), 1)
    assert (len(many.curves[0].paths), many.curves[0].dots) == (1, "")


@given(st.lists(st.floats(min_value=-1e100, max_value=1e100), min_size=1, max_size=80))
def test_everything_is_inside_the_picture(values: list[float]) -> None:
    chart = chart_of("loss", {"a": list(enumerate(values, start=1))})
    assert chart is not None
    for path in chart.curves[0].paths:
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places(path))
