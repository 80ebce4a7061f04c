"""Thousands of drawn histories of a whole federation, in each of which every invariant holds after every operation.

The real conductor, round drivers, machines, intake and fold, and the real participants' drivers; storage, journal and
wire are kept in memory, and fail and die when a history says so. `invariants` says what must hold, `reproductions`
keeps what was found, `test_planted_bugs` shows that this simulation convicts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings

from shared.reasons import JobState
from tests.simulation.histories import operations, shapes
from tests.simulation.reproductions import FOUND
from tests.simulation.settings import JOB, Shape
from tests.simulation.world import Operation, play

SEED = 20261122  # one number for every machine: the histories of a run are the histories of every run
HISTORIES = 500
SHARES = 4  # of so many histories each; together 2,000
LONG_HISTORIES = 50_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A history logs hundreds of refusals, each on purpose."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def _quick(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(SHARES))
def test_every_invariant_holds_in_every_history(share: int) -> None:
    @seed(SEED + share)
    @_quick(HISTORIES)
    @given(shapes, operations)
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_every_invariant_holds_in_many_more_histories() -> None:
    @_quick(LONG_HISTORIES)
    @given(shapes, operations)
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_before_does_not_come_back(name: str) -> None:
    shape, drawn = FOUND[name]
    play(shape, drawn)


@pytest.mark.parametrize("members", [3, 4])
def test_a_history_in_which_nothing_goes_wrong_completes(members: int) -> None:
    world = play(Shape(members=members, rounds=3, quorum=members), [])
    records = world.host.store._records
    assert records.jobs[JOB].state is JobState.COMPLETED
    assert [record.outcome for record in records.rounds.values()] == ["committed"] * 4
    assert len(records.models) == 4


def test_a_history_replays_to_the_last_byte() -> None:
    drawn: list[Operation] = [
        ("go", 3, 40),
        ("crash", 7, 1),
        ("go", 5, 40),
        ("drop", 1, 1),
        ("wait", 3, 0),
        ("go", 9, 40),
    ]
    first, second = (play(Shape(), drawn).host for _ in range(2))
    assert bytes(first.audit_file.content) == bytes(second.audit_file.content)
    assert first.blobs._models == second.blobs._models
