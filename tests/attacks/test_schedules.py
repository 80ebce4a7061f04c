"""Whole conversations with honest silos of the product: three promises hold in each. `schedules` has the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.attacks.attacker import Attacker
from tests.attacks.schedules import Broken, Operation, operations, play, sizes
from tests.attacks.world import product, small

SEED = 20261123
SCHEDULES = 150
LONG_SCHEDULES = 10_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A schedule logs dozens of refusals, each on purpose."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def _run(schedules: int, folder: Path) -> list[Attacker]:
    """Every conversation that was had."""
    had: list[Attacker] = []
    make = product(folder, acknowledges=False)

    @seed(SEED)
    @settings(
        max_examples=schedules,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(sizes, operations)
    def conversation(members: int, drawn: list[Operation]) -> None:
        had.append(play(make, members, drawn))

    conversation()
    return had


@pytest.mark.timeout(600)
def test_the_promises_hold_in_every_conversation(tmp_path: Path) -> None:
    had = _run(SCHEDULES, tmp_path)
    opened = sum(bool(world.all_totals()) for world in had)
    assert opened > len(had) / 10, "conversations in which nothing opens prove nothing"


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_the_promises_hold_in_ten_thousand_conversations(tmp_path: Path) -> None:
    assert len(_run(LONG_SCHEDULES, tmp_path)) >= LONG_SCHEDULES


GO: Operation = ("go", 0, 0)
CONVICTED: dict[str, tuple[dict[str, Any], list[Operation]]] = {
    "both kinds": ({"one_list": False}, [GO] * 7),
    "two totals in round": (
        {"one_opening": False},
        [GO, GO, GO, GO, ("bundle", 0, 0), ("go", 155, 0), GO, GO, GO, GO],
    ),
    "two totals on model": (
        {"totals_remembered": False},
        [GO, GO, GO, ("go", 181, 0), GO, ("plan", 0, 0), GO, GO, GO, GO, GO],
    ),
    "a pad used twice": ({"same_bytes": False}, [GO, GO, GO, ("empty_spool", 0, 0)]),
}
"""Found by drawing, and made as short as they go."""


@pytest.mark.parametrize("name", CONVICTED)
def test_a_silo_with_one_defence_off_breaks_a_promise(name: str, tmp_path: Path) -> None:
    """And with none off it does not in the same conversation, nor does the product."""
    off, drawn = CONVICTED[name]
    with pytest.raises(Broken, match=name):
        play(small(**off), 4, drawn)
    play(small(), 4, drawn)
    play(product(tmp_path, acknowledges=False), 4, drawn)
