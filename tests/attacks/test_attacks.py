"""Each attack succeeds where one defence is off, and fails against all of them and against the product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.ids import ParticipantId
from shared.secagg.fixed_point import RANGE_MARGIN_BITS
from shared.update import RANGE_EXPONENT_MAX
from tests.attacks import programs
from tests.attacks.attacker import Attacker
from tests.attacks.defences import Lives
from tests.attacks.silos import Deltas
from tests.attacks.world import NAMES, VICTIM, Make, federation, job, played, product, small, total_of

SYBILS = tuple(ParticipantId(f"sybil-{number}") for number in range(9))


def _ten(make: Make) -> Attacker:
    return federation(make)


def _nobody_colludes(make: Make) -> Attacker:
    return federation(make, colluders=(), spec=job(colluding=0))


def _among_sybils(make: Make) -> Attacker:
    members = sorted([VICTIM, *SYBILS])
    return federation(make, colluders=map(played, SYBILS), spec=job(members=members))


def _among_replaced_keys(make: Make) -> Attacker:
    return federation(make, colluders=[played(name, signs_as="coordinator") for name in NAMES[1:]])


def _the_victim(world: Attacker) -> Deltas:
    return total_of(world, [VICTIM])


def _the_first_two(world: Attacker) -> Deltas:
    return total_of(world, NAMES[:2])


def _both_threes(world: Attacker) -> Deltas:
    return np.concatenate([total_of(world, NAMES[:3]), total_of(world, NAMES[5:8])])


@dataclass(frozen=True, kw_only=True)
class Attack:
    program: Callable[[Attacker], Deltas | None]
    off: dict[str, Any]
    after: Callable[[Attacker], Deltas] = _the_victim
    """What the attack is after."""
    refusals: dict[str, int]
    """How many honest silos of the product give which first refusal."""
    world: Callable[[Make], Attacker] = _ten
    product: dict[str, Any] = field(default_factory=dict)
    snapshots: bool = False
    """Whether machines are set back: then one total in a round can no longer be held to."""


ATTACKS = {
    "no consistency round": Attack(
        program=programs.equivocated_lists,
        off={"consistency_round": False},
        after=_the_first_two,
        refusals={"ConflictError": 7},
    ),
    "two lists in an attempt": Attack(
        program=programs.two_lists, off={"one_list": False}, refusals={"ConflictError": 6}
    ),
    "threshold from the roster": Attack(
        program=programs.two_rosters,
        off={"threshold_of_the_job": False},
        after=_both_threes,
        refusals={"bad_roster": 5},
        world=_nobody_colludes,
        product={"allow_no_collusion": True},
    ),
    "collusion from the coordinator": Attack(
        program=programs.downgraded_collusion, off={"collusion_of_the_job": False}, refusals={"bad_attempt": 7}
    ),
    "free choice of cohort": Attack(
        program=programs.chosen_cohort,
        off={"members_of_the_job": False},
        after=_the_first_two,
        refusals={"bad_attempt": 2},
    ),
    "members outside the manifest": Attack(
        program=programs.everybody_else_is_played,
        off={"known_members": False},
        refusals={"not_in_consortium": 1},
        world=_among_sybils,
    ),
    "keys of the coordinator's own": Attack(
        program=programs.everybody_else_is_played,
        off={"signatures": False},
        refusals={"bad_roster": 1},
        world=_among_replaced_keys,
    ),
    "job-level keys": Attack(program=programs.past_round, off={"seeds": Lives.JOB}, refusals={}),
    "replay with per-round seeds": Attack(
        program=programs.replay, off={"seeds": Lives.ROUND}, refusals={}, snapshots=True
    ),
    "an attempt after an opening": Attack(
        program=programs.second_attempt, off={"one_opening": False}, refusals={"ConflictError": 7}
    ),
    "subtraction across jobs": Attack(
        program=programs.second_job, off={"totals_remembered": False}, refusals={"repeated_total": 6}
    ),
    "subtraction across jobs, at once": Attack(
        program=programs.second_job_interleaved, off={"totals_at_opening": False}, refusals={"ConflictError": 6}
    ),
    "late upload": Attack(program=programs.late_upload, off={"self_mask": False}, refusals={}),
    "survivor list": Attack(program=programs.listed_survivor, off={"pair_masks": False}, refusals={}),
    "chunk sent again with other bytes": Attack(
        program=programs.sent_again,
        off={"same_bytes": False},
        refusals={"resend_differs": 1},
        product={"acknowledges": False},
    ),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def gained(attack: Attack, world: Attacker) -> bool:
    got = attack.program(world)
    return got is not None and np.array_equal(got, attack.after(world))


def require_only_allowed_totals(world: Attacker, *, snapshots: bool = False) -> None:
    """Of everything that was said: one total in a round, over as many honest members as the threshold leaves."""
    totals = [(world.scenes[t2].start.value.key.round, total) for t2, total in world.all_totals()]
    least = world.spec.threshold - len(world.colluders)
    assert all(len(total) >= least for _, total in totals), totals
    if not snapshots:
        assert max(Counter(key for key, _ in totals).values(), default=0) <= 1, totals


@every_attack
def test_it_succeeds_where_one_defence_is_off(attack: Attack) -> None:
    assert gained(attack, attack.world(small(**attack.off))), "bit for bit"


@every_attack
def test_it_fails_where_none_is(attack: Attack) -> None:
    world = attack.world(small())
    assert not gained(attack, world)
    require_only_allowed_totals(world, snapshots=attack.snapshots)


@every_attack
def test_it_fails_against_the_product(attack: Attack, tmp_path: Path) -> None:
    world = attack.world(product(tmp_path, **attack.product))
    assert not gained(attack, world)
    require_only_allowed_totals(world, snapshots=attack.snapshots)
    firsts = Counter(str(world.answers[name][0]) for name in world.silos if world.answers.get(name))
    assert firsts == attack.refusals


def test_without_an_attack_both_open_the_total_over_all(tmp_path: Path) -> None:
    for make in (small(), product(tmp_path)):
        world = federation(make)
        assert np.array_equal(programs.honest_round(world), total_of(world, world.honest))  # type: ignore[arg-type]
        assert [total for _, total in world.all_totals()] == [frozenset(world.honest)]
        assert not world.answers


@pytest.mark.parametrize("name", ["no consistency round", "two lists in an attempt"])
def test_the_list_of_sums_that_can_be_computed_is_complete(name: str) -> None:
    """Every set of honest silos is tried: those whose sum comes out are the listed ones and their unions."""
    attack = ATTACKS[name]
    world = attack.world(small(**attack.off))
    attack.program(world)
    (scene,) = world.scenes.values()
    listed, silos = world.totals(scene), world.honest
    tried = [frozenset(some) for count in range(1, len(silos) + 1) for some in combinations(silos, count)]
    for some in tried:
        parts = [total for total in listed if total <= some]
        is_union = frozenset().union(*parts) == some
        assert (world.opened(scene, some) is not None) is is_union


@pytest.mark.parametrize(
    ("program", "layer", "opens"),
    [
        (programs.late_upload, {"self_mask": False}, True),
        (programs.late_upload, {"pair_masks": False}, False),
        (programs.listed_survivor, {"self_mask": False}, False),
        (programs.listed_survivor, {"pair_masks": False}, True),
    ],
)
def test_each_layer_of_masks_stops_the_attack_that_opens_the_other(
    program: Callable[[Attacker], Deltas | None],
    layer: dict[str, Any],
    opens: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    world = federation(small(**layer))
    assert np.array_equal(program(world), total_of(world, [VICTIM])) is opens  # type: ignore[arg-type]


def test_policy_may_give_one_job_by_name_the_second_total(tmp_path: Path) -> None:
    """What that key of the policy gives away is the update of whoever is in one of the totals only."""
    world = federation(product(tmp_path, allowed_repeats=(programs.OTHER_JOB,)))
    assert np.array_equal(programs.second_job(world), total_of(world, [VICTIM]))  # type: ignore[arg-type]
    other = federation(product(tmp_path, allowed_repeats=(programs.JOB_WITHOUT,)))
    assert programs.second_job(other) is None


def test_a_second_total_over_the_same_silos_is_no_other_one(tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    scenes = [world.run(world.plan()), world.run(world.plan(job=programs.OTHER_JOB))]
    assert [world.totals(scene) for scene in scenes] == [{frozenset(world.honest)}] * 2
    assert not world.answers


# --- keys -------------------------------------------------------------------------------------------------------------

FIELD = 2**255 - 19
LOW_ORDER = {
    "0": 0,
    "1": 1,
    "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "order 8, the other": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    "-1": FIELD - 1,
    "0 not canonical": FIELD,
    "1 not canonical": FIELD + 1,
    "0 with its top bit": 1 << 255,
}
NOT_CANONICAL = {"9 with its top bit": (1 << 255) + 9, "9 not canonical": FIELD + 9}


def _key(value: int) -> bytes:
    return value.to_bytes(32, "little")


@pytest.mark.parametrize("value", LOW_ORDER.values(), ids=LOW_ORDER.keys())
def test_with_a_key_of_low_order_everybody_agrees_on_the_same(value: int) -> None:
    assert programs.unsound_key(federation(small(sound_keys=False)), _key(value)) is not None


@pytest.mark.parametrize("value", (LOW_ORDER | NOT_CANONICAL).values(), ids=(LOW_ORDER | NOT_CANONICAL).keys())
def test_a_roster_with_an_unsound_key_is_refused(value: int, tmp_path: Path) -> None:
    for make, refusal in ((small(), "WireError"), (product(tmp_path), "bad_roster")):
        world = federation(make)
        assert programs.unsound_key(world, _key(value)) is None
        assert {name: world.answers[name] for name in world.silos} == {name: [refusal] for name in world.silos}
        require_only_allowed_totals(world)


# --- the range --------------------------------------------------------------------------------------------------------


def test_a_range_of_the_coordinators_choice_is_bisected_and_a_round_is_planned_once(tmp_path: Path) -> None:
    cell = played(VICTIM).range_cell
    in_u32 = job(encoding="u32")
    assert programs.bisected_range(federation(small(plan_is_fixed=False), spec=in_u32)) == cell
    for make in (small(), product(tmp_path)):
        world = federation(make, spec=in_u32)
        assert programs.bisected_range(world) is None
        assert (world.fits[VICTIM], world.answers[VICTIM]) == ([False], ["ConflictError"])


def test_a_survivor_that_is_told_a_smaller_range_than_its_own_stops_the_job(tmp_path: Path) -> None:
    world = federation(product(tmp_path), spec=job(encoding="u32"))
    scene = world.run(world.plan())
    own = played(VICTIM).range_cell
    false = world.result(scene, world.everybody, top_cells=(own - 1,))
    victim = world.silos[VICTIM]
    world.tell([VICTIM], false)
    assert victim.observer.alarms == ["range_understated"]  # type: ignore[attr-defined]  # of the product alone
    world.plan([VICTIM], number=2, previous=false)
    assert world.answers[VICTIM] == ["job_stopped"]
    assert world.fits[VICTIM] == [True], "of round 1; none after it"


def test_a_true_range_that_is_replaced_by_another_later_stops_the_job(tmp_path: Path) -> None:
    world = federation(product(tmp_path), spec=job(encoding="u32"))
    scene = world.run(world.plan())
    world.tell([VICTIM], world.result(scene, world.everybody, top_cells=(10,)))
    world.plan([VICTIM], number=2, previous=world.result(scene, world.everybody, top_cells=(32,)))
    assert world.answers[VICTIM] == ["ConflictError"]
    world.plan([VICTIM], number=3, previous=world.result(scene, world.everybody, top_cells=(10,)))
    assert world.answers[VICTIM] == ["ConflictError", "job_stopped"]


def test_a_range_that_the_coordinator_invents_tells_nothing(tmp_path: Path) -> None:
    """Nobody but the coordinator signs a result. Who believes the range of one that it was not in trains for nothing,
    round after round, and its answers change where its update lies: one miss is enough.
    """
    in_u32 = job(encoding="u32").model_copy(update={"rounds": 100})
    answers = programs.scanned_range(federation(small(), spec=in_u32), rounds=40)
    first_miss = answers.index(False)
    assert RANGE_EXPONENT_MAX + RANGE_MARGIN_BITS - first_miss + 1 == played(VICTIM).range_cell
    assert not any(answers[first_miss:]), "it is the only thing to be had: three misses, and then no answer says more"
    world = federation(product(tmp_path), spec=in_u32)
    assert programs.scanned_range(world, rounds=40) == [False] * 40
    assert not world.answers


# --- what remains -----------------------------------------------------------------------------------------------------


def test_what_remains_two_rounds_on_models_that_train_alike_are_subtracted(tmp_path: Path) -> None:
    """The total of a round with a silo and of one without it: nothing hides that, if the model hardly changed."""
    world = federation(product(tmp_path))
    assert np.array_equal(programs.second_round(world), total_of(world, [VICTIM]))  # type: ignore[arg-type]
    assert not world.answers


def test_what_remains_machines_that_were_all_set_back_open_a_second_total(tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    programs.replay(world)
    totals = {total for _, total in world.all_totals()}
    assert totals == {frozenset(world.honest), frozenset(world.honest) - {VICTIM}}
