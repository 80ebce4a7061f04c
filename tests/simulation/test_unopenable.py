"""After a total that some silos may have opened: the next round on that model asks exactly its survivors, with the real
machines on both sides. The silos accept that, and no other set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import structlog

from coordinator.storage.interface import RoundRecord
from coordinator.storage.memory import MemoryStore
from shared.ids import JobId, ParticipantId, RoundKey, RoundNumber
from shared.reasons import AbortReason, AttemptAbortReason, DropReason
from tests.simulation.dropping import Dropping, Ended, Point
from tests.simulation.settings import JOB, Shape
from tests.simulation.steps import LINES, note

SHAPE = Shape(members=5, rounds=2, quorum=4, floor=4, attempts=2, masked=True)  # t = 4
FIRST, SECOND, THIRD, FOURTH, LAST = SHAPE.names
SURVIVORS = (FIRST, SECOND, THIRD, FOURTH)
STAYS: Mapping[ParticipantId, Point] = dict.fromkeys(SHAPE.names, Point.NEVER)
UNOPENABLE = {**STAYS, THIRD: Point.OPENING, FOURTH: Point.OPENING, LAST: Point.READY}
"""One trains too long; two open nothing of the total of the others."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


class _Forgetful(MemoryStore):
    """Summaries that do not say whose total may have been opened."""

    def round(self, key: RoundKey) -> RoundRecord:
        return _without(super().round(key))

    def rounds(self, job: JobId) -> Sequence[RoundRecord]:
        return [_without(record) for record in super().rounds(job)]


def _without(record: RoundRecord) -> RoundRecord:
    if not record.summary:
        return record
    said = json.loads(record.summary)
    said.pop("opened", None)
    return replace(record, summary=json.dumps(said).encode())


def _summary(federation: Dropping, number: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(federation.host.store._records.rounds[_key(number)].summary)
    return found


def _key(number: int) -> RoundKey:
    return RoundKey(JOB, RoundNumber(number))


def _after_unopenable(federation: Dropping) -> Dropping:
    """The first round is over, and everybody is back."""
    assert federation.run(UNOPENABLE) == Ended(AbortReason.UNOPENABLE, ())
    assert _summary(federation, 1)["opened"] == list(SURVIVORS)
    federation.gone.clear()
    return federation


@pytest.mark.parametrize("restarted", [False, True])
def test_the_next_round_asks_the_survivors_alone_and_commits(*, restarted: bool) -> None:
    federation = _after_unopenable(Dropping(SHAPE))
    if restarted:
        federation.host.crash()
        federation.host.start()
    assert federation.run(STAYS, number=2) == Ended("committed", (1, 2, 3, 4))
    assert _summary(federation, 2)["dropped"] == {LAST: DropReason.NOT_ASKED}
    assert federation.opened is not None
    assert federation.opened[0] == federation.expected_sums()[0]
    # The next model is another one, of which nothing was opened.
    assert federation.run(STAYS, number=3) == Ended("committed", (1, 2, 3, 4, 5))


def test_the_aim_holds_in_a_round_that_a_restart_takes_up() -> None:
    federation = _after_unopenable(Dropping(SHAPE))
    while (driver := federation.host.up().driver) is None or driver.frame.key != _key(2):
        federation._take(federation.steps()[0])
    federation.host.crash()
    federation.host.start()
    assert federation.run(STAYS, number=2) == Ended("committed", (1, 2, 3, 4))


def test_fewer_of_them_do_not_do() -> None:
    """A second total over three of the four would tell of the fourth: no silo would sign it. It stays so as long as the
    model does.
    """
    federation = _after_unopenable(Dropping(SHAPE))
    away = {**STAYS, FOURTH: Point.READY}
    assert federation.run(away, number=2) == Ended(AbortReason.BELOW_QUORUM, ())
    assert _summary(federation, 2)["dropped"] == {FOURTH: DropReason.DISCONNECTED, LAST: DropReason.NOT_ASKED}
    assert "opened" not in _summary(federation, 2)
    federation.gone.clear()
    assert federation.run(STAYS, number=3) == Ended("committed", (1, 2, 3, 4))


def test_who_is_lost_in_an_attempt_fails_it() -> None:
    federation = _after_unopenable(Dropping(SHAPE))
    away = {**STAYS, FOURTH: Point.UPLOAD}
    assert federation.run(away, number=2).outcome == AbortReason.BELOW_FLOOR


def test_the_silos_refuse_any_other_set() -> None:
    """What the rule is for: a coordinator that asks everybody gets nowhere, with any number of attempts."""
    federation = Dropping(SHAPE, store=_Forgetful)
    federation.run(UNOPENABLE)
    federation.gone.clear()
    assert federation.run(STAYS, number=2).outcome == AbortReason.BELOW_FLOOR
    left = [line for line in LINES if "attempt_left" in line]
    assert any(AttemptAbortReason.REPEATED_TOTAL in line for line in left)
    refused = _summary(federation, 2)["left"]
    assert isinstance(refused, dict)
    assert set(refused) < set(SURVIVORS)
    assert set(refused.values()) == {AttemptAbortReason.REPEATED_TOTAL}
    assert _summary(federation, 2)["dropped"] == dict.fromkeys(refused, DropReason.ATTEMPT_LEFT)
