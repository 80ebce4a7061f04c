"""A round that is bound to the members of a total that may have been opened: the coordinator's machine alone."""

from __future__ import annotations

from dataclasses import replace

from coordinator.round.effects import Abort, Connected, Revoked, Tick
from coordinator.round.machine import begin, step
from coordinator.round.phases import Advertising, Recruiting, Uploading
from coordinator.round.restore import restore
from shared.errors import PhaseError
from shared.protocol.phases import Phase
from shared.reasons import DropReason
from tests.support.coordinator_transcript import FOLDED, Transcript
from tests.support.masked_silo import MaskedRound
from tests.support.rounds import MEMBERS, A, B, C, D, coordinator_seal, make_frame, make_masked_frame

BOUND = (A, B, C)


def transcript() -> Transcript:
    """Of a plain job, whose words are fewer; four are its quorum."""
    return Transcript(frame=replace(make_frame(quorum=4, min_survivors=2), bound=BOUND))


def test_nobody_else_hears_of_it() -> None:
    seen = transcript()
    assert seen.opening == ["to a: plan", "to b: plan", "to c: plan"]
    assert seen.phases()["d"] is Phase.OUT
    assert seen.connects(D) == []
    seen.refuses(seen.says_ready(D), PhaseError)
    seen.consents(*BOUND)
    lines = seen.ready(*BOUND)
    assert lines == ["journal attempt 1 with a b c", "to a: attempt 1", "to b: attempt 1", "to c: attempt 1"], (
        "all of these are Ready: there is nobody to wait for, and the quorum of four is not asked"
    )
    seen.uploads(*BOUND)
    assert seen.hear(FOLDED) == ["commit [1, 2, 3]; d not_asked", "to a: result", "to b: result", "to c: result"]


def test_all_of_them_are_awaited_to_the_deadline() -> None:
    seen = transcript()
    seen.ready(A, B)
    assert seen.phase == "recruiting"
    assert seen.after(599.0) == []
    assert seen.after(1.0)[0] == "abort below_quorum; c not_ready; d not_asked"


def test_without_one_of_them_it_aborts_at_once() -> None:
    seen = transcript()
    assert seen.hear(Revoked(B))[:2] == [
        "journal b out: revoked",
        "abort below_quorum; a not_ready; b revoked; c not_ready; d not_asked",
    ]


def test_an_attempt_that_loses_one_fails() -> None:
    seen = transcript()
    seen.ready(*BOUND)
    seen.uploads(A, B)
    assert seen.hear(seen.withdraws(C))[1] == "abort below_floor; c task_crashed; d not_asked"


def test_one_that_is_away_is_awaited_to_the_deadline_of_the_upload() -> None:
    """With a floor that is reached without it, 15 s would have to do."""
    seen = transcript()
    seen.ready(*BOUND)
    seen.uploads(A, B)
    seen.disconnects(C)
    assert seen.after(59.0) == []
    assert isinstance(seen.state, Uploading)


def test_a_restart_asks_the_same_members() -> None:
    frame = replace(make_masked_frame(), bound=BOUND)
    state = restore(frame, [], 0.0, None).state
    assert isinstance(state, Recruiting)
    assert state.outs == {D: DropReason.NOT_ASKED}
    assert step(state, Connected(D), 0.0, coordinator_seal).effects == ()
    assert [effect.participant for effect in step(state, Connected(A), 0.0, coordinator_seal).effects] == [A]  # type: ignore[union-attr]


def test_a_masked_attempt_needs_every_one_at_every_step() -> None:
    played = MaskedRound(replace(make_masked_frame(members=MEMBERS, attempts=1), bound=BOUND))
    played.until("advertising")
    assert isinstance(played.state, Advertising)
    assert played.state.cohort == set(BOUND)
    played.leave(C)
    end = played.run()
    assert isinstance(end, Abort)
    assert end.dropped == {C: DropReason.EXCHANGE_LATE, D: DropReason.NOT_ASKED}
    assert end.opened == ()


def test_a_total_that_was_asked_for_is_on_record_whatever_ended_the_round() -> None:
    played = MaskedRound(replace(make_masked_frame(members=MEMBERS), bound=BOUND))
    played.until("unmasking")
    played.vanished.update(BOUND)
    played.wait()
    assert isinstance(played.end, Abort)
    assert played.end.opened == BOUND


def test_begin_gives_the_others_no_plan() -> None:
    frame = replace(make_masked_frame(), bound=BOUND)
    state = begin(frame, MEMBERS, 0.0).state
    assert step(state, Tick(), 1.0, coordinator_seal).effects == ()
