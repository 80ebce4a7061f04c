"""Which jobs and attempts a silo of the product takes part in, and that it opens once, also when it restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.ids import Digest
from shared.job import JobSpec
from shared.protocol.messages import AdvertiseKeys, attempt_digest
from shared.reasons import Purpose
from shared.update import Encoding
from shared.wire.sealed import reopen
from tests.attacks.scenario import Scenario
from tests.attacks.silos import Said, Upload
from tests.attacks.world import NAMES, VICTIM, federation, job, product
from tests.support.rounds import make_spec

ATTEMPTS: dict[str, dict[str, Any]] = {
    "fewer members": {"members": NAMES[:5]},
    "others": {"members": (*NAMES[:9], "hospital-z")},
    "nobody colludes": {"max_colluding": 0},
    "another model": {"model": Digest.of(b"crafted")},
    "another manifest": {"consortium": Digest.of(b"manifest").raw},
    "another job": {"jobspec": Digest.of(b"job")},
    "another result before": {"previous_result": Digest.of(b"result")},
    "another purpose": {"purpose": Purpose.EVALUATE},
    "in the clear": {"encoding": Encoding.PLAIN},
    "in an encoding of the coordinator's choice": {"encoding": Encoding.U16},
}


@pytest.mark.parametrize("changed", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_an_attempt_that_does_not_follow_from_the_job_gets_no_keys(changed: dict[str, Any], tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    world.announce(world.plan([VICTIM]), [VICTIM], **changed)
    assert world.answers[VICTIM] == ["bad_attempt"]
    assert not world.adverts


JOBS: dict[str, tuple[str, JobSpec]] = {
    "in the clear": ("masking_required", make_spec(members=NAMES)),
    "with nobody who colludes": ("no_collusion", job(colluding=0)),
    "with fewer who collude": ("collusion_too_low", job(colluding=1)),
    "with two members": ("cohort_too_small", job(members=NAMES[:2], colluding=0, allow_two_party=True)),
    "without the silo": ("not_a_member", job(members=NAMES[1:], colluding=2)),
}


@pytest.mark.parametrize(("rule", "spec"), JOBS.values(), ids=JOBS.keys())
def test_a_job_that_protects_less_is_declined_before_anything_is_trained(
    rule: str, spec: JobSpec, tmp_path: Path
) -> None:
    world = federation(product(tmp_path))
    world.plan([VICTIM], spec=spec)
    assert world.answers[VICTIM] == [rule]
    assert not world.fits


def test_a_job_that_is_known_keeps_its_specification(tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    world.plan([VICTIM])
    world.plan([VICTIM], number=2, spec=job(members=NAMES[:8], colluding=3))
    assert world.answers[VICTIM] == ["jobspec_changed"]


def test_an_attempt_that_is_announced_again_has_the_same_keys(tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    plan = world.plan([VICTIM])
    start = world.announce(plan, [VICTIM])
    before = dict(world.adverts[attempt_digest(start)])
    world.announce(plan, [VICTIM])
    assert world.adverts == {attempt_digest(start): before}
    world.announce(plan, [VICTIM], exchange_deadline_s=29.0)
    assert world.answers[VICTIM] == ["equivocation"], "the same number with other content"
    world.announce(plan, [VICTIM])
    assert world.answers[VICTIM] == ["equivocation", "gone"], "its secrets went with the attempt"
    world.announce(plan, [VICTIM], number=2)
    after = [advert for known in world.adverts.values() for advert in known.values()]
    assert len({reopen(AdvertiseKeys, advert).value.mask_key for advert in after}) == 2


def test_a_silo_that_opened_says_the_same_shares_again_and_no_others(tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    plan = world.plan()
    scene = world.run(plan)
    t3 = next(iter(world.lists))
    world.bundle(scene, t3, [VICTIM])
    first, second = world.openings[VICTIM, scene.h0]
    assert first == second
    world.announce(plan, [VICTIM], number=2)
    assert world.answers[VICTIM] == ["ConflictError"]


def test_what_a_silo_opened_is_remembered_when_it_restarts(tmp_path: Path) -> None:
    world = federation(product(tmp_path))
    plan = world.plan()
    scene = world.run(plan)
    victim: Any = world.silos[VICTIM]
    said: list[Said] = victim.restart()
    assert not [word for word in said if isinstance(word, Upload)]
    world.bundle(scene, next(iter(world.lists)), [VICTIM])
    first, second = world.openings[VICTIM, scene.h0]
    assert first == second
    world.announce(plan, [VICTIM], number=2)
    assert world.answers[VICTIM] == ["ConflictError"]


def test_a_silo_that_restarts_before_it_opened_never_takes_part_in_that_attempt_again(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scene, world = scenario.masked(), scenario.world
    victim: Any = world.silos[VICTIM]
    victim.restart()
    listed, _ = world.listing(scene, world.everybody)
    assert scenario.tell_victim(listed) == [], "no word about survivors without the secrets"
    assert scenario.tell_victim(scenario.start) == ["gone"]
    assert not world.signatures
    assert not world.openings
