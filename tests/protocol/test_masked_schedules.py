"""Any schedule of a masked round: messages lost, doubled and late, members away, gone and revoked, silos and the
coordinator killed. Whatever happens, what was promised is on record, a round ends once, nothing begins after a bundle,
and a total that opens is that of its survivors.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.round.effects import Commit, Connected, Disconnected, Replied, Revoked
from coordinator.round.frame import RoundFrame
from coordinator.round.journal import decode_record
from coordinator.round.machine import next_deadline
from coordinator.round.phases import (
    Advertising,
    Confirming,
    Folding,
    Gracing,
    OpenState,
    Recruiting,
    Sharing,
    Unmasking,
    Uploading,
)
from coordinator.round.restore import restore
from shared.ids import ParticipantId
from shared.protocol.messages import Ready, RoundBroadcast, Withdraw, plan_digest
from shared.reasons import AttemptAbortReason, DropReason
from tests.support.masked_silo import MaskedRound
from tests.support.rounds import make_masked_frame

MEMBERS = tuple(ParticipantId(f"hospital-{letter}") for letter in "abcde")
FRAME = make_masked_frame(members=MEMBERS, attempts=3, quorum=4, top_cells=(3,))
OPERATIONS = (
    ("deliver",) * 12
    + ("deliver all",) * 2
    + (
        "lose",
        "again",
        "disconnect",
        "connect",
        "restart",
        "silo restarts",
        "leave",
        "withdraw",
        "revoke",
        "wait",
        "miss",
    )
)
SCHEDULES = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 4)), max_size=60)


class Schedule:
    """A round, and what was said in it so far."""

    def __init__(self, frame: RoundFrame) -> None:
        self.played = MaskedRound(frame)
        self.delivered: list[tuple[ParticipantId, RoundBroadcast]] = []

    def do(self, operation: str, number: int) -> None:
        played, member = self.played, MEMBERS[number]
        match operation:
            case "deliver":
                self._deliver(number)
            case "deliver all":
                while played.waiting:
                    self._deliver(0)
            case "lose" if played.waiting:
                del played.waiting[number % len(played.waiting)]
            case "again" if self.delivered:
                played.waiting.append(self.delivered[-1 - number % len(self.delivered)])
            case "disconnect":
                played.tell(member, Disconnected(member))
            case "connect" if member not in played.vanished:
                played.tell(member, Connected(member))
            case "restart" if isinstance(played.state, OpenState):  # of one that is over the store has the end
                played.restart(back=MEMBERS[:number])
            case "wait" if next_deadline(played.state) < float("inf"):
                played.wait()
            case _:
                self._member(operation, number)

    def _member(self, operation: str, number: int) -> None:
        played, member = self.played, MEMBERS[number]
        silo = played.silos[member]
        match operation:
            case "silo restarts":
                silo.restarts()
            case "leave" if silo.attempt is not None:
                played.tell(member, silo.leaves(list(AttemptAbortReason)[number]))
            case "withdraw":
                word = Withdraw(played.frame.key, plan_digest(played.frame.plan), DropReason.DISK)
                played.tell(member, Replied(member, word))
                played.vanished.add(member)
            case "revoke":
                played.tell(member, Revoked(member))
                played.vanished.add(member)
            case "miss":
                said = Ready(played.frame.key, plan_digest(played.frame.plan), fits=False)
                played.tell(member, Replied(member, said))
            case _:
                pass  # there is nothing to do it with

    def _deliver(self, number: int) -> None:
        if not self.played.waiting:
            return
        self.played.waiting.rotate(-number)
        member, message = self.played.waiting.popleft()
        self.delivered.append((member, message))
        if member not in self.played.vanished:
            for _, event in self.played.silos[member].hears(message):
                self.played.tell(member, event)


def promised(state: OpenState) -> tuple[object, ...]:
    """What of a state no restart may lose."""
    common = (dict(state.outs), state.encoding)
    match state:
        case Recruiting() | Gracing():
            return ("recruiting", *common)
        case Advertising(attempt=attempt, cohort=cohort):
            return ("advertising", *common, attempt, cohort)
        case Sharing(attempt=attempt, roster=roster):
            return ("sharing", *common, attempt, roster)
        case Uploading(attempt=attempt, masking=masking, contributions=contributions, cohort=cohort):
            return ("uploading", *common, attempt, masking, dict(contributions), cohort)
        case Confirming(attempt=attempt, masking=masking, survivors=survivors, digest=digest):
            return ("confirming", *common, attempt, masking, dict(survivors), digest)
        case Unmasking(attempt=attempt, survivors=survivors, bundle=bundle, revealed=revealed):
            return ("unmasking", *common, attempt, dict(survivors), bundle, dict(revealed))
        case Folding(attempt=attempt, survivors=survivors, opening=opening):
            return ("folding", *common, attempt, list(survivors.items()), opening)


def check(played: MaskedRound) -> None:
    if isinstance(played.state, OpenState):
        restored = restore(FRAME, [decode_record(entry) for entry in played.journal], played.now, None).state
        assert isinstance(restored, OpenState)
        assert promised(restored) == promised(played.state)
    kinds = [entry.kind for entry in played.journal]
    if "bundle_made" in kinds:
        after = kinds[kinds.index("bundle_made") :]
        assert set(after) <= {"bundle_made", "shares_revealed", "member_out", "range_missed"}
        assert kinds.count("bundle_made") == 1
    for line, record in (
        ("send AttemptStart", "journal attempt_begun"),
        ("send KeyRoster", "journal roster_fixed"),
        ("send ShareDelivery", "journal shares_fixed"),
        ("acknowledge", "journal contributed"),
        ("send SurvivorList", "journal survivors_fixed"),
        ("send ConsistencyBundle", "journal bundle_made"),
        ("fold", "journal shares_revealed"),
    ):
        if line in played.lines:
            assert record in played.lines[: played.lines.index(line)]


@settings(max_examples=150, deadline=None)
@given(SCHEDULES)
def test_any_schedule(operations: list[tuple[str, int]]) -> None:
    schedule = Schedule(FRAME)
    played = schedule.played
    for operation, number in operations:
        schedule.do(operation, number)
        check(played)
    for member in MEMBERS:
        if member not in played.vanished and isinstance(played.state, OpenState):
            played.hear(Connected(member))
    end = played.run()
    check(played)
    named = set(end.dropped)
    if isinstance(end, Commit):
        survivors = {MEMBERS[index - 1] for index in end.result.value.survivors}
        assert survivors | named == set(MEMBERS)
        assert not survivors & named
        assert len(survivors) >= FRAME.spec.floor
        assert played.opened_sums() == played.plain_sums()
    assert named <= set(MEMBERS)
    assert all(isinstance(reason, DropReason) for reason in end.dropped.values())
