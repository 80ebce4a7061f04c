"""The phase table (PROTOCOL.md section 5): the full product of who speaks, in which phase, what."""

from __future__ import annotations

from itertools import product

import pytest

from shared.errors import PhaseError
from shared.protocol.phases import TABLE, Kind, Phase, Role, advance

# One row for each phase and speaker; `message>phase` leads there, a message alone stays. All else is refused. `plan`,
# `result` and `aborted` are the messages round_plan, round_result and round_aborted. A reviewer reads this against
# PROTOCOL.md; a change of the table is a change of these lines.
RENDERED = """\
unplanned coordinator: plan>planned
unplanned participant: -
planned coordinator: plan attempt_start result>finished aborted>finished
planned participant: consent>training decline>out progress ready>ready withdraw>out
training coordinator: plan attempt_start result>finished aborted>finished
training participant: consent decline>out progress ready>ready withdraw>out
ready coordinator: plan attempt_start>uploading result>finished aborted>finished
ready participant: consent decline>out progress ready withdraw>out
uploading coordinator: plan attempt_start survivor_list>fixed result>finished aborted>finished
uploading participant: consent decline>out progress ready withdraw>out upload_commit>committed
committed coordinator: plan attempt_start>uploading survivor_list>fixed result>finished aborted>finished
committed participant: consent decline>out progress ready withdraw>out upload_commit
fixed coordinator: plan attempt_start survivor_list result>finished aborted>finished
fixed participant: consent decline progress ready withdraw upload_commit
out coordinator: plan attempt_start survivor_list result>finished aborted>finished
out participant: decline withdraw
finished coordinator: result aborted
finished participant: consent decline progress ready withdraw
"""

COORDINATOR_SAYS = {
    Kind.ROUND_PLAN,
    Kind.ATTEMPT_START,
    Kind.SURVIVOR_LIST,
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
    assert rendered() == RENDERED


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
    assert reachable(Phase.FIXED) == {Phase.FIXED, Phase.FINISHED}, "a survivor can no longer drop out"
