"""A simulation that finds nothing proves nothing until it is shown to find: planted bugs, all convicted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.simulation.histories import SEED, SHARES, drawn_in, histories_of
from tests.simulation.settings import Convicted, Shape
from tests.simulation.steps import note
from tests.simulation.weakened import BUGS
from tests.simulation.world import Operation, play


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_convicted(name: str) -> None:
    """By the very histories of `test_simulation`, share after share, and by an invariant that is about it."""
    bug = BUGS[name]
    played = 0

    def search(share: int) -> None:
        @seed(SEED + share)
        @settings(
            max_examples=histories_of(share),
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),
        )
        @given(*drawn_in(share))
        def history(shape: Shape, drawn: list[Operation]) -> None:
            nonlocal played
            played += 1
            play(shape, drawn, bug.parts())

        history()

    def search_all() -> None:
        shares = list(range(0 if bug.masked else 1, SHARES, 2))
        begins = shares.index(bug.from_share) if bug.from_share else 0
        for share in (*shares[begins:], *shares[:begins]):
            search(share)

    with pytest.raises(Convicted) as conviction:
        search_all()
    assert conviction.value.invariant in bug.invariants
    assert played
