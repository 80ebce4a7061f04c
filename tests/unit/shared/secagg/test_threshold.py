from __future__ import annotations

import pytest

from shared.secagg.threshold import default_max_colluding, threshold

# The table of the design, section 2.2: n, default c, t, drops.
TABLE = [
    (2, 0, 2, 0), (3, 1, 3, 0), (4, 1, 3, 1), (5, 1, 4, 1), (6, 1, 4, 2), (7, 2, 5, 2), (8, 2, 6, 2), (10, 3, 7, 3),
    (12, 3, 8, 4), (20, 6, 14, 6), (50, 16, 34, 16), (100, 33, 67, 33),
]  # fmt: skip


@pytest.mark.parametrize(("members", "colluding", "shares", "drops"), TABLE)
def test_the_table(members: int, colluding: int, shares: int, drops: int) -> None:
    assert default_max_colluding(members) == colluding
    assert threshold(members, colluding) == shares
    assert members - shares == drops


def test_what_the_threshold_is_for() -> None:
    for members in range(2, 101):
        for colluding in range(members - 1):
            shares = threshold(members, colluding)
            assert 2 * (shares - colluding) > members - colluding, "two openings need more honest silos than there are"
            assert shares - colluding >= 2, "two honest silos in every sum"
            lower = shares - 1
            assert 2 * lower <= members + colluding or lower < colluding + 2, "and it is the least such number"


def test_the_default_can_always_run() -> None:
    assert all(threshold(members, default_max_colluding(members)) <= members for members in range(2, 500))


def test_no_such_job() -> None:
    with pytest.raises(RuntimeError, match="2 members or more"):
        default_max_colluding(1)
    for members, colluding in ((0, 0), (3, -1)):
        with pytest.raises(RuntimeError, match="expected members"):
            threshold(members, colluding)
