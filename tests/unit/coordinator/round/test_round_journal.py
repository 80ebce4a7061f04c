"""The journal of a round: whatever happened, the records bring back what was promised, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.round.effects import Connected, Disconnected, Event, Replied, Revoked, StartFold, Tick
from coordinator.round.journal import decode_plan, decode_record, encode_plan, encode_record
from coordinator.round.machine import next_deadline
from coordinator.round.phases import Away, Folding, OpenState, Uploading, phase_name
from coordinator.round.restore import restore
from coordinator.storage.interface import JournalEntry
from shared.errors import PeerError, WireError
from shared.protocol.messages import Consent, Decline, Progress, Ready, Withdraw
from shared.protocol.phases import Phase
from shared.reasons import ConsentRule, DropReason
from tests.support.coordinator_transcript import Transcript
from tests.support.rounds import MEMBERS, make_frame

WORDS = ("consent", "decline", "progress", "ready", "withdraw", "upload", "connect", "disconnect", "revoke", "wait")
HISTORIES = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 3)), max_size=40)


def event_of(seen: Transcript, word: str, index: int) -> Event:
    member = MEMBERS[index]
    key, plan = seen.frame.key, seen.plan
    match word:
        case "consent":
            return Replied(member, Consent(key, plan))
        case "decline":
            return Replied(member, Decline(key, plan, ConsentRule.JOB_NOT_ALLOWED))
        case "progress":
            return Replied(member, Progress(key, plan, 50))
        case "ready":
            return Replied(member, Ready(key, plan, fits=True))
        case "withdraw":
            return Replied(member, Withdraw(key, plan, DropReason.DISK))
        case "upload" if isinstance(seen.state, Uploading):
            return seen.offer(member)
        case "connect":
            return Connected(member)
        case "disconnect":
            return Disconnected(member)
        case "revoke":
            return Revoked(member)
        case _:
            seen.now += (1.0, 6.0, 20.0, 61.0)[index]
            return Tick()


def play(history: list[tuple[str, int]]) -> Transcript:
    """Everybody is Ready at the start of half of the histories; then what was drawn."""
    seen = Transcript(quorum=2, min_survivors=2)
    if len(history) % 2:
        seen.consents(*MEMBERS)
        seen.ready(MEMBERS[0])
    for word, index in history:
        try:
            seen.hear(event_of(seen, word, index))
        except PeerError:
            continue
    return seen


def promised(state: OpenState) -> tuple[object, ...]:
    """What of a state may not be lost."""
    match state:
        case Uploading(attempt=attempt, cohort=cohort, contributions=contributions):
            return ("uploading", dict(state.outs), attempt, cohort, dict(contributions))
        case Folding(attempt=attempt, survivors=survivors):
            return ("folding", dict(state.outs), attempt, dict(survivors))
        case _:
            return ("recruiting", dict(state.outs))


@settings(max_examples=300)
@given(HISTORIES)
def test_a_restart_finds_what_was_promised(history: list[tuple[str, int]]) -> None:
    seen = play(history)
    entries = [encode_record(record) for record in seen.records]
    read = [decode_record(entry) for entry in entries]
    assert read == seen.records
    assert [encode_record(record) for record in read] == entries
    restored = restore(seen.frame, read, now=1000.0, note=None)
    state = restored.state
    assert isinstance(state, OpenState)
    if isinstance(seen.state, OpenState):
        assert promised(state) == promised(seen.state)
        assert list(getattr(state, "survivors", ())) == list(getattr(seen.state, "survivors", ()))
    folds = [effect for effect in restored.effects if isinstance(effect, StartFold)]
    assert len(folds) == len(restored.effects) == (1 if isinstance(state, Folding) else 0)
    assert all(told.link == Away(1000.0) for told in state.conversations.values())
    assert {member for member, told in state.conversations.items() if told.phase is Phase.OUT} <= set(state.outs)


@settings(max_examples=100)
@given(HISTORIES)
def test_a_restored_round_still_ends(history: list[tuple[str, int]]) -> None:
    seen = play(history)
    restored = restore(seen.frame, seen.records, now=1000.0, note=None)
    seen.state, seen.now = restored.state, 1000.0
    for _ in range(4):  # the deadline of the round, and of each attempt
        if phase_name(seen.state) in {"folding", "aborted"}:
            return
        assert next_deadline(seen.state) < float("inf")
        seen.after(next_deadline(seen.state) - seen.now)
    assert phase_name(seen.state) in {"folding", "aborted"}


def test_a_plan_survives_byte_for_byte() -> None:
    frame = make_frame()
    assert decode_plan(encode_plan(frame.plan)) == frame.plan


def test_a_kind_that_this_version_does_not_write_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="'unmasked'"):
        decode_record(JournalEntry("unmasked", b"{}"))


def test_a_journal_that_cannot_be_is_a_bug() -> None:
    seen = Transcript()
    seen.to_uploading(*MEMBERS)
    seen.uploads(*MEMBERS)
    begun, *contributed, fixed = seen.records
    for records in ([contributed[0]], [fixed], [begun, *contributed, fixed, seen.records[1]]):
        with pytest.raises(RuntimeError, match="the journal"):
            restore(seen.frame, records, 0.0, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"[]", b"null", b"7", b"{}", b'{"participant": 7, "reason": 1}', b'{"participant": "hospital-a"}'],
)
def test_a_record_that_a_disk_changed_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(WireError, match="member_out"):
        decode_record(JournalEntry("member_out", body))
