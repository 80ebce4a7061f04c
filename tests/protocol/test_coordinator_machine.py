"""The coordinator's half of a round, alone: what it does about each word, and what it refuses."""

from __future__ import annotations

import pytest

from coordinator.round.effects import Abort, AbortAsked, Connected, Folded, FoldFailed, Revoked, Tick
from coordinator.round.gathering import RECONNECT_WINDOW_S
from coordinator.round.machine import next_deadline, step
from coordinator.round.phases import Aborted
from shared.errors import ConflictError, LateError, PhaseError, WireError
from shared.ids import Digest
from shared.protocol.phases import Phase
from shared.reasons import AbortReason, ConsentRule, DropReason
from tests.support.coordinator_transcript import FOLDED, Transcript
from tests.support.rounds import STRANGER, A, B, C, D, coordinator_seal

ALL = (A, B, C, D)


# --- the good round ---------------------------------------------------------------------------------------------------


def test_a_round_in_which_all_goes_well() -> None:
    seen = Transcript()
    assert seen.opening == ["to a: plan", "to b: plan", "to c: plan", "to d: plan"]
    assert seen.consents(*ALL) == []
    assert seen.ready(A, B) == []
    assert seen.ready(C) == []
    assert seen.phase == "gracing", "the quorum is Ready: the fourth is waited for a little"
    assert seen.ready(D) == [
        "journal attempt 1 with a b c d",
        "to a: attempt 1",
        "to b: attempt 1",
        "to c: attempt 1",
        "to d: attempt 1",
    ]
    assert seen.uploads(C) == ["journal update of c", "acknowledge c"]
    assert seen.uploads(A, B) == ["journal update of b", "acknowledge b"]
    assert seen.uploads(D) == [
        "journal update of d",
        "acknowledge d",
        "journal survivors a b c d",
        "to a: survivors of attempt 1 (4)",
        "to b: survivors of attempt 1 (4)",
        "to c: survivors of attempt 1 (4)",
        "to d: survivors of attempt 1 (4)",
        "fold attempt 1 of a b c d",
    ]
    assert seen.hear(FOLDED) == ["commit [1, 2, 3, 4]", "to a: result", "to b: result", "to c: result", "to d: result"]
    assert seen.phase == "committed"
    assert next_deadline(seen.state) == float("inf")


# --- quorum, grace, deadline ------------------------------------------------------------------------------------------


def test_after_the_grace_the_attempt_starts_with_who_is_ready() -> None:
    seen = Transcript()
    seen.consents(*ALL)
    seen.ready(A, B, C)
    assert next_deadline(seen.state) == 5.0
    assert seen.after(4.9) == []
    assert seen.after(0.1) == ["journal attempt 1 with a b c", "to a: attempt 1", "to b: attempt 1", "to c: attempt 1"]
    seen.uploads(A, B, C)
    assert seen.hear(FOLDED)[0] == "commit [1, 2, 3]; d not_ready"


def test_with_no_grace_the_quorum_is_enough() -> None:
    seen = Transcript(grace_s=0.0)
    seen.consents(*ALL)
    assert seen.ready(A, B, C)[0] == "journal attempt 1 with a b c"


def test_the_deadline_cuts_the_grace() -> None:
    seen = Transcript(deadline_s=10.0, grace_s=100.0)
    seen.consents(*ALL)
    seen.ready(A, B, C)
    assert next_deadline(seen.state) == 10.0
    assert seen.after(10.0)[0] == "journal attempt 1 with a b c"


def test_below_quorum_at_the_deadline_the_round_aborts() -> None:
    seen = Transcript(present=(A, B, C))
    seen.consents(A, B, C)
    seen.ready(A, B)
    assert seen.after(599.0) == []
    assert seen.after(1.0) == [
        "abort below_quorum; c not_ready; d absent",
        "to a: aborted",
        "to b: aborted",
        "to c: aborted",
    ], "d was never told of the round, so it is not told of its end"
    assert seen.state == Aborted(seen.frame, AbortReason.BELOW_QUORUM)


def test_a_quorum_that_is_reached_with_the_deadline_still_counts() -> None:
    seen = Transcript()
    seen.consents(*ALL)
    seen.ready(A, B)
    seen.now = 600.0
    assert seen.ready(C)[0] == "journal attempt 1 with a b c"


def test_members_that_come_late_are_told_and_can_join_while_ready_is_awaited() -> None:
    seen = Transcript(present=(A, B, C))
    assert seen.phases()["d"] is Phase.UNPLANNED
    assert seen.connects(D) == ["to d: plan"]
    seen.consents(A, B, D)
    assert seen.ready(D, A, B) == []
    assert seen.phase == "gracing"


def test_one_that_was_ready_may_withdraw_and_the_grace_ends_without_an_attempt() -> None:
    seen = Transcript()
    seen.consents(*ALL)
    seen.ready(A, B, C)
    seen.now = 3.0
    assert seen.hear(seen.withdraws(C, DropReason.DISK)) == ["journal c out: disk"]
    assert seen.phase == "recruiting"
    assert next_deadline(seen.state) == 600.0
    assert seen.ready(D)[0] == "journal attempt 1 with a b d", "now nobody is left to wait for"


# --- declining, withdrawing, revoking ---------------------------------------------------------------------------------


def test_a_round_whose_quorum_is_declined_away_aborts_at_once() -> None:
    seen = Transcript()
    seen.consents(A, B)
    assert seen.hear(seen.declines(C)) == ["journal c out: declined"]
    lines = seen.hear(seen.declines(D))
    assert lines[:2] == [
        "journal d out: declined",
        "abort below_quorum; a not_ready; b not_ready; c declined; d declined",
    ]


def test_the_end_names_the_rule_by_which_a_silo_declined_and_not_one_that_it_names_when_it_is_out() -> None:
    seen = Transcript()
    seen.hear(seen.withdraws(D))
    seen.ignores(seen.declines(D))
    last = step(seen.state, seen.declines(C), seen.now, coordinator_seal)
    (ended,) = (effect for effect in last.effects if isinstance(effect, Abort))
    assert (ended.dropped[D], ended.dropped[C]) == (DropReason.TASK_CRASHED, DropReason.DECLINED)
    assert ended.rules == {C: ConsentRule.JOB_NOT_ALLOWED}


def test_a_repeated_decline_or_withdrawal_changes_nothing() -> None:
    seen = Transcript()
    seen.hear(seen.declines(D))
    seen.ignores(seen.declines(D))
    seen.ignores(seen.withdraws(D))
    assert seen.connects(D) == [], "one that is out is not asked again"


def test_a_withdrawal_during_the_upload_leaves_the_others_to_it() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A, B)
    assert seen.hear(seen.withdraws(C, DropReason.DISK)) == ["journal c out: disk"]
    assert seen.uploads(D)[2] == "journal survivors a b d"
    assert seen.hear(FOLDED)[0] == "commit [1, 2, 4]; c disk"


def test_a_revoked_member_is_out_with_its_update() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A, B, C)
    assert seen.hear(Revoked(A)) == ["journal a out: revoked"]
    assert seen.uploads(D)[2] == "journal survivors b c d"
    assert seen.hear(FOLDED)[0] == "commit [2, 3, 4]; a revoked"


def test_once_survivors_are_fixed_a_revocation_comes_too_late() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(*ALL)
    seen.ignores(Revoked(A))
    assert seen.hear(FOLDED)[0] == "commit [1, 2, 3, 4]"


# --- the attempt: floor, patience, again ------------------------------------------------------------------------------


def test_at_the_upload_deadline_the_floor_decides() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(B, D)
    assert seen.after(59.0) == []
    assert seen.after(1.0)[0] == "journal survivors b d"
    assert seen.hear(FOLDED)[0] == "commit [2, 4]; a upload_late; c upload_late"


def test_below_the_floor_there_is_another_attempt_and_then_an_abort() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(B)
    lines = seen.after(60.0)
    assert lines[0] == "journal attempt 2 with a b c d", "what B sent in attempt 1 counts no more"
    assert seen.phase == "uploading"
    assert seen.contributions == {}
    assert seen.after(60.0)[0] == "abort below_floor; a upload_late; b upload_late; c upload_late; d upload_late"


def test_the_next_attempt_takes_in_who_became_ready_meanwhile() -> None:
    seen = Transcript()
    seen.to_uploading(A, B, C)
    assert seen.phase == "uploading"
    assert seen.cohort == {A, B, C}
    seen.consents(D)
    assert seen.ready(D) == []
    assert seen.after(60.0)[0] == "journal attempt 2 with a b c d"


def test_an_attempt_that_can_no_longer_reach_the_floor_fails_at_once() -> None:
    seen = Transcript(quorum=2)
    seen.to_uploading(A, B, C)
    seen.hear(seen.withdraws(A))
    lines = seen.hear(seen.withdraws(B))
    assert lines[:2] == [
        "journal b out: task_crashed",
        "abort below_floor; a task_crashed; b task_crashed; d not_ready",
    ]


def test_when_only_absent_members_owe_they_are_waited_for_a_little() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A, B, C)
    seen.now += 1.0
    assert seen.disconnects(D) == []
    assert next_deadline(seen.state) == 1.0 + RECONNECT_WINDOW_S
    assert seen.after(RECONNECT_WINDOW_S - 0.1) == []
    assert seen.after(0.1)[0] == "journal survivors a b c"
    assert seen.hear(FOLDED)[0] == "commit [1, 2, 3]; d disconnected"


def test_one_that_is_back_in_time_is_told_again_and_counts() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A, B, C)
    seen.disconnects(D)
    seen.now += RECONNECT_WINDOW_S - 1
    assert seen.connects(D) == ["to d: plan", "to d: attempt 1"]
    assert seen.after(2.0) == []
    assert seen.uploads(D)[2] == "journal survivors a b c d"


def test_below_the_floor_absent_members_have_until_the_deadline() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A)
    for absent in (B, C, D):
        seen.disconnects(absent)
    assert next_deadline(seen.state) == 60.0
    assert seen.after(RECONNECT_WINDOW_S) == []


# --- again and late ---------------------------------------------------------------------------------------------------


def test_the_same_update_again_is_acknowledged_again_and_not_journaled_twice() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A)
    assert seen.uploads(A) == ["acknowledge a"]


def test_another_update_in_the_same_attempt_is_a_conflict() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A)
    seen.refuses(seen.offer(A, content=b"other"), ConflictError, "another update")


def test_updates_come_late_before_between_and_after() -> None:
    seen = Transcript()
    early = Transcript()
    early.to_uploading(*ALL)
    first = early.attempt
    seen.refuses(seen.offer(A, start=first), LateError)
    seen.to_uploading(*ALL)
    seen.refuses(seen.offer(A, attempt=2), LateError)
    seen.after(60.0)
    seen.refuses(seen.offer(A, start=first), LateError, "takes no uploads now")
    seen.uploads(*ALL)
    assert seen.phase == "folding"
    seen.refuses(seen.offer(A, start=first, attempt=2), LateError)
    seen.hear(FOLDED)
    seen.refuses(seen.offer(A, start=first), LateError, "is over")


def test_who_is_not_in_the_cohort_does_not_upload() -> None:
    seen = Transcript()
    seen.to_uploading(A, B, C)
    seen.refuses(seen.offer(D), PhaseError, "not in the cohort")
    seen.hear(seen.withdraws(C))
    seen.refuses(seen.offer(C), PhaseError, "not in the cohort")


def test_a_ready_that_comes_again_is_answered_with_the_attempt() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    assert seen.ready(B) == ["to b: attempt 1"]
    seen.uploads(B)
    assert seen.ready(B) == [], "its update is in"


def test_a_survivor_that_reconnects_during_the_fold_is_sent_the_list() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A, B, C)
    seen.after(60.0)
    seen.disconnects(A)
    assert seen.connects(A) == ["to a: survivors of attempt 1 (3)"]
    assert seen.connects(D) == [], "what it is left with is the result"


def test_words_that_cross_the_end_are_ignored() -> None:
    seen = Transcript()
    seen.hear(AbortAsked())
    for event in (seen.says_ready(A), seen.withdraws(B), seen.declines(C), Connected(D), Tick(), AbortAsked(), FOLDED):
        seen.ignores(event)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["recruiting", "gracing", "uploading", "folding"])
def test_an_operator_can_abort_in_every_phase(reached: str) -> None:
    seen = Transcript()
    if reached != "recruiting":
        seen.consents(*ALL)
        seen.ready(A, B, C)
    if reached in {"uploading", "folding"}:
        seen.ready(D)
    if reached == "folding":
        seen.uploads(*ALL)
    assert seen.phase == reached
    assert seen.hear(AbortAsked())[0].startswith("abort operator")
    assert seen.phase == "aborted"


def test_a_fold_that_failed_aborts() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(*ALL)
    assert seen.hear(FoldFailed(AbortReason.FOLD_FAILED))[0] == "abort fold_failed"


def test_a_fold_that_nobody_asked_for_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="a fold ended in phase Recruiting"):
        Transcript().hear(Folded(Digest.of(b"m"), 1.0, Digest.of(b"a"), {}))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_stranger_is_refused() -> None:
    seen = Transcript()
    seen.refuses(seen.says_consent(STRANGER), PhaseError, "not a member")


def test_a_reply_to_another_plan_is_refused() -> None:
    seen = Transcript()
    seen.refuses(seen.says_consent(A, Digest.of(b"another plan")), ConflictError, "another plan")


def test_an_update_that_does_not_fit_does_not_exist_in_the_plain_mode() -> None:
    seen = Transcript()
    seen.consents(A)
    seen.refuses(seen.says_ready(A, fits=False), WireError, "fits")


def test_words_out_of_order_are_refused() -> None:
    seen = Transcript(present=(A, B, C))
    seen.refuses(seen.says_ready(D), PhaseError, "ready in phase unplanned")
    seen.refuses(seen.says_progress(D), PhaseError, "progress in phase unplanned")
    seen.refuses(seen.says_consent(D), PhaseError, "consent in phase unplanned")
    seen.hear(seen.declines(B))
    seen.refuses(seen.says_consent(B), PhaseError, "consent in phase out")
    seen.refuses(seen.says_ready(B), PhaseError, "ready in phase out")


def test_a_survivor_that_withdraws_comes_too_late() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(*ALL)
    seen.ignores(seen.withdraws(A))
    seen.ignores(seen.declines(B))
    assert seen.hear(FOLDED)[0] == "commit [1, 2, 3, 4]"


def test_one_whose_update_is_in_may_still_withdraw_it_until_survivors_are_fixed() -> None:
    seen = Transcript()
    seen.to_uploading(*ALL)
    seen.uploads(A, B, C)
    assert seen.hear(seen.withdraws(A, DropReason.LOST)) == ["journal a out: lost"]
    assert seen.uploads(D)[2] == "journal survivors b c d"


def test_a_ready_says_that_the_silo_consented_when_its_consent_was_lost() -> None:
    seen = Transcript()
    assert seen.ready(A) == []
    assert seen.phases()["a"] is Phase.READY
    seen.ignores(seen.says_consent(A))


def test_a_silo_that_consented_and_left_unheard_may_decline_later() -> None:
    seen = Transcript()
    seen.consents(A)
    assert seen.hear(seen.declines(A)) == ["journal a out: declined"]


def test_progress_is_heard_and_changes_nothing() -> None:
    seen = Transcript()
    seen.consents(A)
    seen.ignores(seen.says_progress(A))
    seen.ready(A)
    seen.ignores(seen.says_progress(A, 100))
