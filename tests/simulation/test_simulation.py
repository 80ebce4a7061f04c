"""Thousands of drawn histories of a whole federation, in each of which every invariant holds after every operation.

The real conductor, round drivers, machines, intake and fold, and the real participants' drivers; storage, journal and
wire are kept in memory, and fail and die when a history says so. `invariants` says what must hold, `reproductions`
keeps what was found, `test_planted_bugs` shows that this simulation convicts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given, seed

from shared.protocol.messages import RoundResult
from shared.reasons import JobState
from shared.wire.sealed import decode_envelope, reopen
from tests.simulation.histories import SEED, SHARES, drawn_in, histories_of, quick, steered_in
from tests.simulation.masked_invariants import occurrences
from tests.simulation.reproductions import FOUND
from tests.simulation.settings import JOB, Shape
from tests.simulation.steps import note
from tests.simulation.world import Operation, World, play

LONG_HISTORIES = 25_000  # of each kind
STEERED_HISTORIES = 15  # of each kind


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A history logs hundreds of refusals, each on purpose; they are kept, and searched for secrets."""
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(1, SHARES, 2))
def test_every_invariant_holds_in_every_history(share: int) -> None:
    @seed(SEED + share)
    @quick(histories_of(share))
    @given(*drawn_in(share))
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("share", range(2), ids=["masked", "plain"])
def test_every_invariant_holds_in_many_more_histories(share: int) -> None:
    @quick(LONG_HISTORIES)
    @given(*drawn_in(share))
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_every_invariant_holds_while_an_operator_steers_the_job(masked: bool) -> None:  # noqa: FBT001
    @seed(SEED + SHARES + masked)
    @quick(STEERED_HISTORIES)
    @given(*steered_in(masked=masked))
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_every_invariant_holds_while_an_operator_steers_many_more(masked: bool) -> None:  # noqa: FBT001
    @quick(LONG_HISTORIES // 5)
    @given(*steered_in(masked=masked))
    def history(shape: Shape, drawn: list[Operation]) -> None:
        play(shape, drawn)

    history()


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_before_does_not_come_back(name: str) -> None:
    shape, drawn = FOUND[name]
    play(shape, drawn)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
@pytest.mark.parametrize("members", [2, 3, 5])
def test_a_history_in_which_nothing_goes_wrong_completes(members: int, masked: bool) -> None:  # noqa: FBT001
    world = play(Shape(members=members, rounds=3, quorum=members, masked=masked), [])
    records = world.host.store._records
    assert records.jobs[JOB].state is JobState.COMPLETED
    assert [record.outcome for record in records.rounds.values()] == ["committed"] * 4
    assert len(records.models) == 4


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_a_history_replays_to_the_last_byte(masked: bool) -> None:  # noqa: FBT001
    drawn: list[Operation] = [
        ("go", 3, 40),
        ("crash", 7, 1),
        ("go", 5, 40),
        ("drop", 1, 1),
        ("wait", 3, 0),
        ("go", 9, 40),
    ]
    first, second = (play(Shape(masked=masked), drawn) for _ in range(2))
    assert bytes(first.host.audit_file.content) == bytes(second.host.audit_file.content)
    assert first.host.blobs._models == second.host.blobs._models
    assert first.seen.frames == second.seen.frames


def test_ranges_follow_the_updates_and_give_up_after_three_misses() -> None:
    """Each value but the last is beyond four times the one before."""
    values = {1: 1.0, 2: 8.0, 3: 64.0, 4: 1024.0, 5: 0.25, 6: 0.0}
    world = World(Shape(members=3, rounds=6, quorum=3, masked=True))
    records = world.host.store._records
    for number, value in values.items():
        world.silos[1].value = value
        while not any(record.outcome for key, record in records.rounds.items() if key.number == number):
            world.do_go(number, 1)
        world.check()
    world.rest()
    trained = [json.loads(record.summary) for record in records.rounds.values()][:6]
    assert [told["range_miss"] for told in trained] == [False, True, True, True, False, False]
    assert [told["encoding"] for told in trained] == ["u64"] * 6
    results = [reopen(RoundResult, decode_envelope(record.result)).value for record in records.rounds.values()][:6]
    assert [result.top_cells for result in results] == [(0,), (3,), (6,), (10,), (0,), (0,)]


@pytest.mark.parametrize("form", [bytes, lambda raw: raw.hex().encode(), base64.b64encode])
def test_a_secret_is_found_wherever_it_stands(form: Callable[[bytes], bytes]) -> None:
    secret = bytes(range(32))
    for offset in range(9):
        standing = form(bytes(offset) + secret)
        assert set(occurrences({secret}, b"some text, " + standing + b", and more"))
    assert not set(occurrences({secret}, b"some text, " + secret[:-1] + b"?"))
