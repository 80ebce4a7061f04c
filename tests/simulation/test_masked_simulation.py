"""The masked half of the drawn histories, in a module of its own: two workers share them. See `test_simulation`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, seed

from tests.simulation.histories import SEED, SHARES, drawn_in, histories_of, quick
from tests.simulation.settings import Shape
from tests.simulation.steps import note
from tests.simulation.world import Operation, play


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A history logs hundreds of refusals, each on purpose; they are kept, and searched for secrets."""
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(0, SHARES, 2))
def test_every_invariant_holds_in_every_masked_history(share: int) -> None:
    @seed(SEED + share)
    @quick(histories_of(share))
    @given(*drawn_in(share))
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()
