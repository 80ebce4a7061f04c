"""A masked round at the coordinator's machine with real keys, shares and masks: it opens exactly the survivors' total,
or ends for the reason that holds, wherever silos vanish and whenever the coordinator is killed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import pytest

from coordinator.aggregation.unmask import Blame, remaining_masks
from coordinator.round.effects import Abort, Commit, Connected, Disconnected, Revoked, StartFold, Tick
from coordinator.round.frame import RoundFrame
from coordinator.round.journal import decode_record, encode_record
from coordinator.round.machine import next_deadline
from coordinator.round.phases import Unmasking
from shared.errors import LateError
from shared.ids import ParticipantId
from shared.protocol.messages import AnswerKind, AttemptAnswer
from shared.protocol.phases import Phase
from shared.reasons import AbortReason, AttemptAbortReason, DropReason
from shared.update import Encoding
from shared.wire.sealed import encode_envelope
from tests.support.masked_silo import FOLDED, Killed, MaskedRound, Point
from tests.support.rounds import make_masked_frame, make_plan, result_of, start_of

A, B, C, D, E = (ParticipantId(f"hospital-{letter}") for letter in "abcde")
LATE_IN = {
    Point.READY: DropReason.NOT_READY,
    Point.KEYS: DropReason.EXCHANGE_LATE,
    Point.SHARES: DropReason.EXCHANGE_LATE,
    Point.UPLOAD: DropReason.UPLOAD_LATE,
}


def frame_of(members: int, **policy: Any) -> RoundFrame:
    names = tuple(ParticipantId(f"hospital-{letter}") for letter in "abcde"[:members])
    masking = {"allow_two_party": True} if members == 2 else {}
    return make_masked_frame(members=names, masking=masking, **policy)


def patterns(members: int) -> Iterator[tuple[Point, ...]]:
    """Every way in which silos may vanish, up to renaming them; who is who is then drawn."""
    for number, points in enumerate(combinations_with_replacement(Point, members)):
        mixed = list(points)
        random.Random(number).shuffle(mixed)
        yield tuple(mixed)


def expected(frame: RoundFrame, points: Sequence[Point]) -> AbortReason | None:
    """Why this round must end without a total; None when it must not."""
    spec = frame.spec

    def say(point: Point) -> int:
        return sum(vanishes > point for vanishes in points)

    if say(Point.READY) < spec.round.quorum:
        return AbortReason.BELOW_QUORUM
    if min(say(Point.KEYS), say(Point.SHARES), say(Point.UPLOAD)) < spec.floor or say(Point.SIGNATURE) < spec.threshold:
        return AbortReason.BELOW_FLOOR
    return AbortReason.UNOPENABLE if say(Point.OPENING) < spec.threshold else None


def check_pattern(frame: RoundFrame, points: Sequence[Point], *, silently: bool) -> None:
    members = frame.spec.members
    vanish = dict(zip(members, points, strict=True))
    played = MaskedRound(frame, vanish=vanish, silently=silently)
    end = played.run()
    reason = expected(frame, points)
    assert played.refused == []
    if reason is None:
        assert isinstance(end, Commit)
        survivors = [member for member in members if vanish[member] > Point.UPLOAD]
        missing = {member: vanish[member] for member in members if member not in survivors}
        assert end.result.value.survivors == tuple(frame.index_of(member) for member in survivors)
        assert end.dropped == {
            member: LATE_IN[point] if silently else DropReason.DISCONNECTED for member, point in missing.items()
        }
        assert played.opened_sums() == played.plain_sums()
    else:
        assert isinstance(end, Abort)
        assert end.aborted.value.reason is reason
        assert ("fold" in played.lines) is False
        # Who stopped before the step that failed, or in it, is why the round ended; nobody else is named.
        stopped = {member for member in members if vanish[member] <= _failed_at(frame, points)}
        assert end.dropped.keys() == stopped


def _failed_at(frame: RoundFrame, points: Sequence[Point]) -> Point:
    needed = {Point.READY: frame.spec.round.quorum, Point.SIGNATURE: frame.spec.threshold}
    needed[Point.OPENING] = frame.spec.threshold
    return next(
        point for point in Point if sum(vanishes > point for vanishes in points) < needed.get(point, frame.spec.floor)
    )


@pytest.mark.parametrize("members", [2, 3, 4])
@pytest.mark.parametrize("silently", [True, False])
def test_every_pattern_of_drops_opens_the_survivors_total_or_nothing(members: int, silently: bool) -> None:  # noqa: FBT001 - a parameter
    frame = frame_of(members, attempts=1)
    for points in patterns(members):
        check_pattern(frame, points, silently=silently)


def test_five_members_in_every_pattern_in_which_enough_are_ready() -> None:
    frame = frame_of(5, attempts=1)
    for points in patterns(5):
        if sum(point > Point.READY for point in points) >= frame.spec.round.quorum:
            check_pattern(frame, points, silently=True)


# --- the order of things ----------------------------------------------------------------------------------------------


def test_what_is_fixed_is_durable_before_anybody_hears_of_it() -> None:
    played = MaskedRound(frame_of(3))
    played.run()
    assert played.lines[3:] == [
        "journal attempt_begun",
        *["send AttemptStart"] * 3,
        "journal roster_fixed",
        *["send KeyRoster"] * 3,
        "journal shares_fixed",
        *["send ShareDelivery"] * 3,
        *["journal contributed", "acknowledge"] * 3,
        "journal survivors_fixed",
        *["send SurvivorList"] * 3,
        "journal bundle_made",
        *["send ConsistencyBundle"] * 3,
        *["journal shares_revealed"] * 3,
        "fold",
        *["send RoundResult"] * 3,
    ]


def test_every_record_comes_back_from_its_bytes() -> None:
    played = MaskedRound(frame_of(4, attempts=2), vanish={D: Point.UPLOAD})
    played.silos[C].fits = False
    played.frame = played.frame
    played.run()
    kinds = set()
    for entry in played.journal:
        record = decode_record(entry)
        assert encode_record(record) == entry
        assert decode_record(encode_record(record)) == record
        kinds.add(entry.kind)
    assert kinds == {
        "attempt_begun",
        "roster_fixed",
        "shares_fixed",
        "contributed",
        "survivors_fixed",
        "bundle_made",
        "shares_revealed",
    }


# --- restarts ---------------------------------------------------------------------------------------------------------

SCENES: Mapping[str, Mapping[ParticipantId, Point]] = {
    "all": {},
    "one drops after its shares": {B: Point.UPLOAD},
    "one drops after its upload": {D: Point.SIGNATURE},
}


@pytest.mark.parametrize("scene", SCENES)
def test_killed_after_any_record_the_same_attempt_goes_on_to_the_same_total(scene: str) -> None:
    frame = frame_of(4, attempts=1)
    whole = MaskedRound(frame, vanish=SCENES[scene])
    assert isinstance(whole.run(), Commit)
    for killed_after in range(1, len(whole.journal) + 1):
        played = MaskedRound(frame, vanish=SCENES[scene], killed_after=killed_after)
        with pytest.raises(Killed):
            played.run()
        assert len(played.journal) == killed_after
        played.restart()
        end = played.run()
        assert isinstance(end, Commit), f"killed after {killed_after}"
        assert end.result.value.attempt == whole.silos[A].now.h0
        assert {type(error) for _, error in played.refused} <= {LateError}, "an upload that is offered again"
        assert played.opened_sums() == played.plain_sums()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_record_that_could_not_be_written_is_written_later(restarted: bool) -> None:  # noqa: FBT001 - a parameter
    frame = frame_of(4, attempts=1)
    whole = MaskedRound(frame)
    whole.run()
    for fails_at in range(1, len(whole.journal) + 1):
        played = MaskedRound(frame, fails_at=fails_at)
        played.deliver()
        assert played.fails_at is None
        if restarted:
            played.restart()
        end = played.run()
        assert isinstance(end, Commit)
        assert end.result.value.survivors == (1, 2, 3, 4)
        assert played.opened_sums() == played.plain_sums()
        assert {type(error) for _, error in played.refused} <= {LateError}


def test_what_was_not_on_record_is_asked_for_again_and_answered_alike() -> None:
    played = MaskedRound(frame_of(4))
    played.until("confirming")
    said = {member: silo.now for member, silo in played.silos.items()}
    played.restart()
    assert isinstance(played.run(), Commit)
    assert {member: silo.now for member, silo in played.silos.items()} == said
    assert played.lines.count("journal attempt_begun") == 1


def test_a_restart_with_enough_opened_shares_folds_at_once() -> None:
    played = MaskedRound(frame_of(4))
    played.until("folding")
    played.restart(back=())
    assert played.phase == "folding"
    assert isinstance(played.fold, StartFold)
    assert played.opened_sums() == played.plain_sums()


# --- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["advertising", "sharing"])
def test_one_that_lost_its_secrets_before_shares_are_out_starts_the_next_attempt(reached: str) -> None:
    played = MaskedRound(frame_of(4, attempts=2))
    played.until(reached)
    if reached == "advertising":
        _answer_next(played)
    first = played.silos[A].now.start.value.key
    played.tell(A, played.silos[A].leaves())
    assert played.phase == "advertising"
    assert played.lines.count("journal attempt_begun") == 2
    assert isinstance(played.run(), Commit)
    assert played.silos[A].now.start.value.key.attempt == first.attempt + 1
    assert played.opened_sums() == played.plain_sums()


def _answer_next(played: MaskedRound) -> None:
    """The announcements are heard, but for the last one."""
    while len(played.waiting) > 1:
        member, message = played.waiting.popleft()
        for _, event in played.silos[member].hears(message):
            played.tell(member, event)


@pytest.mark.parametrize("reached", ["sharing", "uploading"])
def test_without_attempts_left_or_after_the_shares_it_goes_on_without_that_one(reached: str) -> None:
    played = MaskedRound(frame_of(4, attempts=1 if reached == "sharing" else 2))
    played.until(reached)
    played.tell(A, played.silos[A].leaves())
    played.vanished.add(A)
    end = played.run()
    assert isinstance(end, Commit)
    assert end.result.value.survivors == (2, 3, 4)
    assert end.dropped == {A: DropReason.ATTEMPT_LEFT}
    assert played.lines.count("journal attempt_begun") == 1
    assert played.opened_sums() == played.plain_sums()


def test_one_that_left_and_says_so_again_costs_no_attempt() -> None:
    played = MaskedRound(frame_of(4, attempts=2))
    played.until("sharing")
    played.tell(A, played.silos[A].leaves(AttemptAbortReason.BAD_ROSTER))
    played.tell(A, played.silos[A].leaves(AttemptAbortReason.GONE))
    assert played.phase == "sharing"
    played.vanished.add(A)
    end = played.run()
    assert isinstance(end, Commit)
    assert (end.dropped, end.left) == ({A: DropReason.ATTEMPT_LEFT}, {A: AttemptAbortReason.BAD_ROSTER})
    assert played.lines.count("journal attempt_begun") == 1


def test_who_left_the_last_attempt_is_named_with_the_check_where_it_ends_below_the_floor() -> None:
    played = MaskedRound(frame_of(4, attempts=2))
    played.until("sharing")
    for member in (A, B):
        played.tell(member, played.silos[member].leaves(AttemptAbortReason.BAD_ROSTER))
    assert played.lines.count("journal attempt_begun") == 2
    played.until("confirming")
    said = {C: AttemptAbortReason.REPEATED_TOTAL, D: AttemptAbortReason.BAD_SURVIVORS}
    for member, reason in said.items():
        assert played.phase == "confirming"
        played.tell(member, played.silos[member].leaves(reason))
    assert isinstance(played.end, Abort)
    assert played.end.aborted.value.reason is AbortReason.BELOW_FLOOR
    assert played.end.left == said, "those of the attempt before are not in it"
    assert played.end.dropped == dict.fromkeys(said, DropReason.ATTEMPT_LEFT)


def test_one_that_left_takes_no_part_even_if_it_thinks_better_of_it() -> None:
    played = MaskedRound(frame_of(4, attempts=1))
    played.until("sharing")
    silo = played.silos[A]
    played.tell(A, silo.leaves())
    played.deliver()
    assert [(member, type(error).__name__) for member, error in played.refused] == [(A, "PhaseError")]
    assert played.fold is not None
    assert played.fold.survivors.keys() == {B, C, D}


def test_one_that_leaves_with_its_update_in_counts_and_is_not_waited_for() -> None:
    played = MaskedRound(frame_of(4))
    played.until("confirming")
    played.tell(A, played.silos[A].leaves())
    played.vanished.add(A)
    end = played.run()
    assert isinstance(end, Commit)
    assert end.result.value.survivors == (1, 2, 3, 4)
    assert (end.dropped, end.left) == ({}, {A: AttemptAbortReason.GONE})
    assert played.opened_sums() == played.plain_sums()


def test_one_that_withdraws_or_is_revoked_among_survivors_counts_but_in_no_later_attempt() -> None:
    frame = frame_of(5, attempts=2, quorum=4)
    played = MaskedRound(frame)
    played.until("confirming")
    played.hear(Revoked(A))
    played.vanished.add(A)
    assert played.journal[-1].kind == "member_out"
    played.waiting.clear()  # nobody hears the list
    played.wait()
    assert played.lines.count("journal attempt_begun") == 2
    end = played.run()
    assert isinstance(end, Commit)
    assert end.result.value.survivors == (2, 3, 4, 5)
    assert end.dropped == {A: DropReason.REVOKED}

    counted = MaskedRound(frame)
    counted.until("confirming")
    counted.hear(Revoked(A))
    counted.vanished.add(A)
    counted.restart()
    end = counted.run()
    assert isinstance(end, Commit)
    assert end.result.value.survivors == (1, 2, 3, 4, 5)
    assert end.dropped == {}


# --- the point of no return -------------------------------------------------------------------------------------------


def test_before_the_bundle_another_attempt_may_be_and_after_it_none() -> None:
    played = MaskedRound(frame_of(4, attempts=3))
    played.until("confirming")
    played.waiting.clear()
    played.wait()
    assert played.phase == "advertising"
    played.until("unmasking")
    played.waiting.clear()
    played.hear(Disconnected(A))
    played.wait()
    assert isinstance(played.end, Abort)
    assert played.end.aborted.value.reason is AbortReason.UNOPENABLE
    assert played.end.dropped == {A: DropReason.DISCONNECTED, **dict.fromkeys((B, C, D), DropReason.EXCHANGE_LATE)}


def test_opening_waits_as_long_as_an_upload_may_take() -> None:
    frame = frame_of(4, upload_deadline_s=200.0, exchange_deadline_s=10.0)
    played = MaskedRound(frame)
    played.until("unmasking")
    assert next_deadline(played.state) == played.now + 200.0
    played.waiting.clear()
    played.hear(Disconnected(A))
    played.hear(Tick())
    assert played.phase == "unmasking"


def test_a_round_that_can_no_longer_open_ends_at_once() -> None:
    played = MaskedRound(frame_of(4))
    played.until("unmasking")
    for member in (A, B):
        assert played.phase == "unmasking"
        played.tell(member, played.silos[member].leaves(AttemptAbortReason.BAD_SURVIVORS))
    assert isinstance(played.end, Abort)
    assert played.end.aborted.value.reason is AbortReason.UNOPENABLE
    assert played.end.dropped == {A: DropReason.ATTEMPT_LEFT, B: DropReason.ATTEMPT_LEFT}


def test_any_threshold_of_survivors_opens_the_same_total() -> None:
    played = MaskedRound(frame_of(5), vanish={C: Point.UPLOAD})
    played.run()
    assert played.fold is not None
    assert played.fold.opening is not None
    spec = played.frame.spec
    assert len(played.fold.opening.revealed) == spec.threshold == len(played.fold.survivors)
    assert not isinstance(
        remaining_masks(
            played.fold.opening, survivors=played.fold.survivors, members=spec.members, threshold=spec.threshold
        ),
        Blame,
    )


# --- words that say again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["advertising", "sharing", "uploading", "confirming", "unmasking"])
def test_everybody_may_lose_everything_that_was_said_and_come_back(reached: str) -> None:
    played = MaskedRound(frame_of(4, attempts=1))
    played.until(reached)
    played.waiting.clear()
    for member in played.frame.spec.members:
        played.hear(Disconnected(member))
    for member in played.frame.spec.members:
        played.hear(Connected(member))
    assert isinstance(played.run(), Commit)
    assert played.refused == []
    assert played.opened_sums() == played.plain_sums()


@pytest.mark.parametrize("reached", ["sharing", "uploading", "confirming", "unmasking", "folding"])
def test_what_is_said_again_changes_nothing_and_is_not_recorded_twice(reached: str) -> None:
    played = MaskedRound(frame_of(4, attempts=1))
    played.until(reached)
    before, recorded = played.state, list(played.journal)
    for silo in played.silos.values():
        for answer in (silo.now.advert, silo.now.word):
            if answer is not None:
                played.tell(silo.name, silo.says(answer))
    if isinstance(played.state, Unmasking):
        for signature in played.state.bundle:
            silo = played.silos[played.frame.spec.members[signature.signer - 1]]
            word = AttemptAnswer(silo.now.advert.attempt, AnswerKind.CONSISTENCY_SIGNATURE, signature)
            played.tell(silo.name, silo.says(word))
    assert played.state == before
    assert played.journal == recorded
    late = {type(error).__name__ for _, error in played.refused}
    assert late <= {"LateError"}


# --- the range --------------------------------------------------------------------------------------------------------


def ranged(*, survivors: tuple[int, ...] = (1, 2, 3, 4), **changed: Any) -> RoundFrame:
    """A second round, after a result over these survivors."""
    first = make_masked_frame(members=(A, B, C, D), **changed)
    result = result_of(start_of(first.plan, first.spec), survivors, top_cells=(3,))
    previous = encode_envelope(result.envelope)
    frame = make_masked_frame(members=(A, B, C, D), number=2, top_cells=(3,), **changed)
    return replace(frame, plan=make_plan(frame.spec, number=2, previous_result=previous))


def test_an_update_that_does_not_fit_turns_the_round_to_the_widest_encoding() -> None:
    played = MaskedRound(ranged())
    assert played.frame.encoding is Encoding.U32
    played.silos[C].fits = False
    end = played.run()
    assert isinstance(end, Commit)
    assert played.lines.count("journal range_missed") == 1
    assert played.silos[A].now.start.value.encoding is Encoding.U64
    assert (end.protection.encoding, end.protection.missed) == (Encoding.U64, True)


def test_one_that_was_not_in_the_last_result_knows_no_range_and_that_is_no_miss() -> None:
    played = MaskedRound(ranged(survivors=(1, 2, 4)))
    played.silos[C].fits = False
    end = played.run()
    assert isinstance(end, Commit)
    assert (end.protection.encoding, end.protection.missed) == (Encoding.U64, False)


def test_a_miss_is_not_forgotten_by_a_restart() -> None:
    played = MaskedRound(ranged(), killed_after=1)
    played.silos[C].fits = False
    with pytest.raises(Killed):
        played.run()
    assert [entry.kind for entry in played.journal] == ["range_missed"]
    played.silos[C].fits = True
    played.restart()
    end = played.run()
    assert isinstance(end, Commit)
    assert played.silos[A].now.start.value.encoding is Encoding.U64
    assert end.protection.missed


def test_a_miss_that_comes_while_an_attempt_runs_counts_for_the_next_one() -> None:
    played = MaskedRound(ranged(attempts=2), vanish={D: Point.READY})
    played.deliver()
    played.wait()
    assert played.phase == "advertising"
    del played.vanish[D]
    played.vanished.discard(D)
    played.silos[D].fits = False
    played.hear(Connected(D))
    end = played.run()
    assert isinstance(end, Commit)
    assert (end.protection.encoding, end.protection.missed) == (Encoding.U32, True), "as it was really sent"
    assert end.dropped == {D: DropReason.NOT_READY}


def test_all_conversations_end() -> None:
    played = MaskedRound(frame_of(4))
    played.until("folding")
    phases = {told.phase for told in getattr(played.state, "conversations", {}).values()}
    assert phases == {Phase.OPENING}
    played.hear(FOLDED)
    assert played.phase == "committed"
