"""The members' shares are in the coordinator's journal for as long as their round is open, and no longer."""

from __future__ import annotations

from coordinator.round.recording import SHARES
from tests.simulation.settings import Shape
from tests.simulation.world import play
from tests.support.masked_silo import MaskedRound
from tests.support.rounds import make_masked_frame


def test_a_round_that_is_over_has_no_shares_on_record() -> None:
    world = play(Shape(members=3, rounds=2, quorum=3, masked=True), [])
    journals = world.host.store._records.journals
    assert len(journals) == 3, "two rounds and the evaluation that closes the job"
    for journal in journals.values():
        assert {entry.kind for entry in journal} >= {"plan", "attempt_begun", "roster_fixed", "bundle_made"}
        assert not {entry.kind for entry in journal} & SHARES


def test_what_is_forgotten_is_written_under_these_names() -> None:
    played = MaskedRound(make_masked_frame())
    played.run()
    assert {entry.kind for entry in played.journal} > SHARES
