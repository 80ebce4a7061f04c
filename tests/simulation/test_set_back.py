"""A coordinator that is set back to any earlier moment of a history finds it, exactly when silos know more than it.

Its records are kept at one moment, the federation goes on, and then a new process starts on what was kept. What silos
verified since decides: with it the job ends, before any round is planned; without it nothing happened.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import structlog

from coordinator.audit import HeldFile, verify_lines
from coordinator.older_copy import own_heads
from coordinator.storage.interface import COMMITTED
from shared.reasons import AbortReason, JobState
from shared.wire.sealed import decode_envelope
from tests.simulation.settings import JOB, Shape
from tests.simulation.steps import note
from tests.simulation.world import World
from tests.support.rounds import COORDINATOR_KEY

VERIFIER = COORDINATOR_KEY.verifying_key
HISTORIES = 40


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


def set_back(seed: int, *, before: int, after: int, masked: bool) -> tuple[bool, list[str]]:
    """Whether silos knew a result that the older records lack, and the outcomes of rounds once all were heard."""
    world = World(Shape(rounds=4, masked=masked))
    host = world.host
    world.do_go(seed, before)
    kept, log = copy.deepcopy(host.store._records), bytes(host.audit_file.content)
    world.do_go(seed + 1, after)
    host.crash()
    host.store._records = kept
    host.audit_file = HeldFile(log)
    planned = len(kept.rounds)
    on_record = {
        decode_envelope(record.result).payload for record in kept.rounds.values() if record.outcome == COMMITTED
    }
    shown = {head.payload for silo in world.silos for head in silo.driver.heads}
    host.start()
    process = host.up()
    found = 0
    for silo in world.silos:
        heads = own_heads(silo.driver.heads, verifier=VERIFIER)
        found += process.conductor.heads_shown(silo.name, heads)
        found += process.conductor.heads_shown(silo.name, heads)  # a session that was opened twice
    host.breathe()
    assert found == len(shown - on_record), "each lost result is found, once"
    assert len(host.store.rounds(JOB)) == planned, "no round was planned from older records"
    verify_lines(bytes(host.audit_file.content), verifying_key=VERIFIER, head=None)
    assert all(record.ended for record in host.store.set_backs())
    ended = host.store.job(JOB)
    if found:
        assert ended.state is JobState.ABORTED or kept.jobs[JOB].state is JobState.COMPLETED
    else:
        assert ended == kept.jobs[JOB], "nobody knows more than the records: nothing is ended"
    return found > 0, [record.outcome for record in host.store.rounds(JOB)]


@pytest.mark.parametrize("masked", [False, True])
def test_records_that_were_set_back_are_found_by_what_silos_verified(*, masked: bool) -> None:
    """Over all moments: of an open round, between two, before the first and after the last."""
    knew: list[bool] = []
    outcomes: list[str] = []
    for seed in range(HISTORIES):
        lost, ended = set_back(seed, before=seed * 17 % 300, after=40 + seed * 31 % 300, masked=masked)
        knew.append(lost)
        outcomes += ended
    assert set(knew) == {True, False}
    assert AbortReason.RESTORED in outcomes
