"""The phase table (PROTOCOL.md section 5): the full product of who speaks, in which phase, what."""

from __future__ import annotations

from itertools import product

import pytest

from shared.errors import PhaseError
from shared.protocol.phases import TABLE, Kind, Phase, Role, advance

# One row for each phase and speaker; `message>phase` leads there, a message alone stays. All else is refused. `plan`,
# `result` and `aborted` are the messages round_plan, round_result and round_aborted; a line that is indented goes on
# with the row above it. A reviewer reads this against PROTOCOL.md; a change of the table is a change of these lines.
RENDERED = """\
unplanned coordinator: plan>planned
unplanned participant: -
planned coordinator: plan plain_attempt attempt_start result>finished aborted>finished
planned participant: consent>training decline>out progress ready>ready withdraw>out
training coordinator: plan plain_attempt attempt_start key_roster share_delivery survivor_list consistency_bundle
  result>finished aborted>finished
training participant: consent decline>out progress ready>ready withdraw>out
ready coordinator: plan plain_attempt>uploading attempt_start>advertising key_roster share_delivery survivor_list
  consistency_bundle result>finished aborted>finished
ready participant: consent decline>out progress ready withdraw>out attempt_abort
advertising coordinator: plan attempt_start key_roster>sharing result>finished aborted>finished
advertising participant: consent decline>out progress ready withdraw>out advertise_keys share_keys
  consistency_signature attempt_abort>ready
sharing coordinator: plan attempt_start>advertising key_roster share_delivery>uploading result>finished
  aborted>finished
sharing participant: consent decline>out progress ready withdraw>out advertise_keys share_keys attempt_abort>ready
uploading coordinator: plan plain_attempt attempt_start>advertising share_delivery survivor_list>fixed
  result>finished aborted>finished
uploading participant: consent decline>out progress ready withdraw>out advertise_keys share_keys
  upload_commit>committed attempt_abort>ready
committed coordinator: plan plain_attempt>uploading attempt_start>advertising share_delivery survivor_list>fixed
  result>finished aborted>finished
committed participant: consent decline>out progress ready withdraw>out advertise_keys share_keys upload_commit
  attempt_abort
fixed coordinator: plan plain_attempt attempt_start>advertising survivor_list consistency_bundle>opening
  result>finished aborted>finished
fixed participant: consent decline progress ready withdraw advertise_keys share_keys upload_commit
  consistency_signature attempt_abort
opening coordinator: plan attempt_start survivor_list consistency_bundle result>finished aborted>finished
opening participant: consent decline progress ready withdraw advertise_keys share_keys upload_commit
  consistency_signature unmask_shares attempt_abort
out coordinator: plan plain_attempt attempt_start key_roster share_delivery survivor_list consistency_bundle
  result>finished aborted>finished
out participant: decline withdraw
finished coordinator: result aborted
finished participant: consent decline progress ready withdraw advertise_keys share_keys consistency_signature
  unmask_shares attempt_abort
"""

COORDINATOR_SAYS = {
    Kind.ROUND_PLAN,
    Kind.PLAIN_ATTEMPT,
    Kind.ATTEMPT_START,
    Kind.KEY_ROSTER,
    Kind.SHARE_DELIVERY,
    Kind.SURVIVOR_LIST,
    Kind.CONSISTENCY_BUNDLE,
    Kind.ROUND_RESULT,
    Kind.ROUND_ABORTED,
}


def rendered() -> str:
    lines = []
    for phase, role in product(Phase, Role):
        moves = [(kind, TABLE[role, phase, kind]) for kind in Kind if (role, phase, kind) in TABLE]
        names = [(kind.removeprefix("round_"), after) for kind, after in moves]
        words = [kind if after is phase else f"{kind}>{after}" for kind, after in names]
        lines.append(f"{phase} {role}: {' '.join(words) or '-'}\n")
    return "".join(lines)


def test_the_table_is_the_one_that_was_reviewed() -> None:
    assert rendered() == RENDERED.replace("\n  ", " ")


@pytest.mark.parametrize(("role", "phase", "kind"), list(product(Role, Phase, Kind)))
def test_every_combination_moves_as_stated_or_is_refused(role: Role, phase: Phase, kind: Kind) -> None:
    before = dict(TABLE)
    if (role, phase, kind) in TABLE:
        assert advance(role, phase, kind) is TABLE[role, phase, kind]
    else:
        with pytest.raises(PhaseError, match=f"{role} may not send {kind} in phase {phase}"):
            advance(role, phase, kind)
    assert before == TABLE


def test_each_side_says_only_its_own_messages() -> None:
    assert {kind for role, _, kind in TABLE if role is Role.COORDINATOR} == COORDINATOR_SAYS
    assert {kind for role, _, kind in TABLE if role is Role.PARTICIPANT} == set(Kind) - COORDINATOR_SAYS


def reachable(start: Phase) -> set[Phase]:
    seen, waiting = {start}, [start]
    while waiting:
        phase = waiting.pop()
        found = {after for (_, before, _), after in TABLE.items() if before is phase} - seen
        seen |= found
        waiting += found
    return seen


def test_every_phase_is_reached() -> None:
    assert reachable(Phase.UNPLANNED) == set(Phase)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_conversation_can_end(phase: Phase) -> None:
    assert Phase.FINISHED in reachable(phase)


@pytest.mark.parametrize("kind", [Kind.ROUND_RESULT, Kind.ROUND_ABORTED])
def test_an_outcome_ends_every_planned_conversation_at_once(kind: Kind) -> None:
    for phase in set(Phase) - {Phase.UNPLANNED}:
        assert advance(Role.COORDINATOR, phase, kind) is Phase.FINISHED


def test_nothing_leads_out_of_finished_and_only_the_end_out_of_out() -> None:
    assert reachable(Phase.FINISHED) == {Phase.FINISHED}
    assert reachable(Phase.OUT) == {Phase.OUT, Phase.FINISHED}


def test_a_survivor_can_no_longer_drop_out_and_an_opened_total_is_the_last() -> None:
    for kind in (Kind.DECLINE, Kind.WITHDRAW, Kind.ATTEMPT_ABORT):
        for phase in (Phase.FIXED, Phase.OPENING):
            assert advance(Role.PARTICIPANT, phase, kind) is phase
    assert reachable(Phase.OPENING) == {Phase.OPENING, Phase.FINISHED}, "no other attempt after the bundle"
    plain = {key: after for key, after in TABLE.items() if key[2] not in MASKING}
    assert {after for (_, phase, _), after in plain.items() if phase is Phase.FIXED} == {Phase.FIXED, Phase.FINISHED}


# --- masking ----------------------------------------------------------------------------------------------------------

MASKING = {
    Kind.ATTEMPT_START,
    Kind.ADVERTISE_KEYS,
    Kind.KEY_ROSTER,
    Kind.SHARE_KEYS,
    Kind.SHARE_DELIVERY,
    Kind.CONSISTENCY_SIGNATURE,
    Kind.CONSISTENCY_BUNDLE,
    Kind.UNMASK_SHARES,
    Kind.ATTEMPT_ABORT,
}
PARTICIPANT, COORDINATOR = Role.PARTICIPANT, Role.COORDINATOR


def walked(*said: tuple[Role, Kind], start: Phase = Phase.READY) -> list[Phase]:
    """The phases that a conversation goes through."""
    phases, phase = [], start
    for role, kind in said:
        phase = advance(role, phase, kind)
        phases.append(phase)
    return phases


def test_a_masked_round_goes_through_its_phases() -> None:
    assert walked(
        (COORDINATOR, Kind.ATTEMPT_START),
        (PARTICIPANT, Kind.ADVERTISE_KEYS),
        (COORDINATOR, Kind.KEY_ROSTER),
        (PARTICIPANT, Kind.SHARE_KEYS),
        (COORDINATOR, Kind.SHARE_DELIVERY),
        (PARTICIPANT, Kind.UPLOAD_COMMIT),
        (COORDINATOR, Kind.SURVIVOR_LIST),
        (PARTICIPANT, Kind.CONSISTENCY_SIGNATURE),
        (COORDINATOR, Kind.CONSISTENCY_BUNDLE),
        (PARTICIPANT, Kind.UNMASK_SHARES),
        (COORDINATOR, Kind.ROUND_RESULT),
    ) == [
        Phase.ADVERTISING,
        Phase.ADVERTISING,
        Phase.SHARING,
        Phase.SHARING,
        Phase.UPLOADING,
        Phase.COMMITTED,
        Phase.FIXED,
        Phase.FIXED,
        Phase.OPENING,
        Phase.OPENING,
        Phase.FINISHED,
    ]


def test_a_plain_round_has_none_of_the_phases_of_masking() -> None:
    plain = [(role, kind) for role, kind in product(Role, Kind) if kind not in MASKING]
    seen, waiting = {Phase.UNPLANNED}, [Phase.UNPLANNED]
    while waiting:
        phase = waiting.pop()
        found = {TABLE[role, phase, kind] for role, kind in plain if (role, phase, kind) in TABLE} - seen
        seen |= found
        waiting += found
    assert set(Phase) - seen == {Phase.ADVERTISING, Phase.SHARING, Phase.OPENING}


def test_shares_are_opened_after_a_bundle_and_never_before() -> None:
    """An early opening is refused by the table itself, whatever a machine forgot; the table is the silo's as well."""
    opens = {phase for role, phase, kind in TABLE if kind is Kind.UNMASK_SHARES}
    assert opens == {Phase.OPENING, Phase.FINISHED}
    leads = {
        (phase, kind)
        for (_, phase, kind), after in TABLE.items()
        if after is Phase.OPENING and phase is not Phase.OPENING
    }
    assert leads == {(Phase.FIXED, Kind.CONSISTENCY_BUNDLE)}


@pytest.mark.parametrize("phase", [Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING])
def test_one_that_leaves_the_attempt_is_there_for_a_higher_one(phase: Phase) -> None:
    left = advance(PARTICIPANT, phase, Kind.ATTEMPT_ABORT)
    assert left is Phase.READY
    for kind in (Kind.KEY_ROSTER, Kind.SHARE_DELIVERY, Kind.SURVIVOR_LIST, Kind.CONSISTENCY_BUNDLE):
        assert advance(COORDINATOR, left, kind) is left, "it is told how the attempt goes on without it"
    assert advance(COORDINATOR, left, Kind.ATTEMPT_START) is Phase.ADVERTISING
    with pytest.raises(PhaseError):
        advance(PARTICIPANT, left, Kind.UPLOAD_COMMIT)


@pytest.mark.parametrize("phase", [Phase.COMMITTED, Phase.FIXED, Phase.OPENING])
def test_one_whose_update_is_in_leaves_without_taking_it_along(phase: Phase) -> None:
    assert advance(PARTICIPANT, phase, Kind.ATTEMPT_ABORT) is phase


@pytest.mark.parametrize("phase", [Phase.READY, Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED])
def test_until_the_bundle_a_higher_attempt_begins_again(phase: Phase) -> None:
    assert advance(COORDINATOR, phase, Kind.ATTEMPT_START) is Phase.ADVERTISING
    assert advance(COORDINATOR, Phase.FIXED, Kind.ATTEMPT_START) is Phase.ADVERTISING
    assert advance(COORDINATOR, Phase.OPENING, Kind.ATTEMPT_START) is Phase.OPENING


# What a coordinator says again on a new session, and where the participant can be that missed some of it.
AGAIN = {
    "advertising": ((Kind.ATTEMPT_START,), (Phase.READY, Phase.ADVERTISING)),
    "sharing": ((Kind.KEY_ROSTER,), (Phase.READY, Phase.ADVERTISING, Phase.SHARING)),
    "uploading": ((Kind.SHARE_DELIVERY,), (Phase.READY, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED)),
    "confirming": ((Kind.SURVIVOR_LIST,), (Phase.READY, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED)),
    "unmasking": (
        (Kind.SURVIVOR_LIST, Kind.CONSISTENCY_BUNDLE),
        (Phase.READY, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED, Phase.OPENING),
    ),
}


@pytest.mark.parametrize("step", AGAIN)
def test_what_is_said_again_is_taken_wherever_the_participant_got_to(step: str) -> None:
    kinds, phases = AGAIN[step]
    for start in (*phases, Phase.TRAINING, Phase.OUT):
        walked((COORDINATOR, Kind.ROUND_PLAN), *((COORDINATOR, kind) for kind in kinds), start=start)
