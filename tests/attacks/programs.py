"""The attacks: each is one program of a malicious coordinator, run unchanged against whatever silos it is given.

Each gives what it was after, or None when it could not be had. Whether what it gives is true is for the test to say:
an attacker that believes a mask to be missing computes something in any case.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.ids import Digest, JobId, ParticipantId
from shared.protocol.messages import AdvertiseKeys, Envelope, RoundResult, Sealed, attempt_digest
from shared.secagg.fixed_point import RANGE_MARGIN_BITS
from shared.secagg.sealing import NONCE_BYTES
from shared.secagg.transcript import ShareKind, share_context, share_key
from shared.update import RANGE_EXPONENT_MAX, RANGE_EXPONENT_MIN
from shared.wire.sealed import reopen, seal
from tests.attacks.attacker import Attacker, Scene, numbers
from tests.attacks.silos import Deltas
from tests.attacks.world import VICTIM
from tests.support.rounds import JOB, key_of, make_plan, result_of, start_of

OTHER_JOB = JobId("heart-2")
JOB_WITHOUT = JobId("heart-3")
NEXT_MODEL = Digest.of(b"the model after")


def _only(world: Attacker, scene: Scene, names: list[ParticipantId]) -> Deltas | None:
    return numbers(world.opened(scene, names), scene)


def honest_round(world: Attacker) -> Deltas | None:
    """No attack: the total over all who do not collude, as the coordinator may have it."""
    scene = world.run(world.plan())
    return _only(world, scene, world.honest)


# --- openings ---------------------------------------------------------------------------------------------------------


def equivocated_lists(world: Attacker) -> Deltas | None:
    """Seven honest silos, a legal list for each of them, and out comes the sum of two (n = 10, c = 3, t = 7).

    The two are in every list, each of the other five in three of seven at most: so four honest silos and the colluders
    give the self shares of the two, and as many the mask shares of each of the five.
    """
    start = world.announce(world.plan())
    scene = world.deliver(start, world.show_roster(start))
    first, second, *others = world.honest
    beside = {other: {other, after} for other, after in pairwise([*others, others[0]])}
    beside |= {first: set(others[:2]), second: set(others[2:4])}
    lists = {name: {first, second, *more, *world.colluders} for name, more in beside.items()}
    for name, survivors in lists.items():
        world.list_survivors(scene, survivors, [name, *world.colluders])
    for name, survivors in lists.items():
        world.bundle(scene, world.listing(scene, survivors)[1], [name])
    return _only(world, scene, [first, second])


def two_lists(world: Attacker) -> Deltas | None:
    """One attempt, in which the victim survived, and then did not: both kinds of share, its update alone."""
    scene = world.run(world.plan())
    without = [name for name in world.everybody if name != VICTIM]
    world.bundle(scene, world.list_survivors(scene, without), without)
    return _only(world, scene, [VICTIM])


def two_rosters(world: Attacker) -> Deltas | None:
    """Five members are shown to each other and to nobody else, and the other five likewise. Each half opens a
    total over three of its own; gives both, one after the other.
    """
    start = world.announce(world.plan())
    totals = []
    for half in (world.honest[:5], world.honest[5:]):
        known = world.adverts[attempt_digest(start)].values()
        theirs = [envelope for envelope in known if world.spec.members[envelope.signer - 1] in half]
        t1 = world.show_roster(start, half, adverts=theirs)
        scene = world.deliver(start, t1, half, threshold=3)
        three = half[:3]
        if not {world.spec.members.index(name) + 1 for name in three} <= world.uploads[scene.t2].keys():
            return None
        world.bundle(scene, world.list_survivors(scene, three), three)
        total = _only(world, scene, three)
        if total is None:
            return None
        totals.append(total)
    return np.concatenate(totals)


def downgraded_collusion(world: Attacker) -> Deltas | None:
    """The announcement says that nobody colludes: t = 6 instead of 7, so that two lists find six signatures each.

    One has the victim, one has not. Three honest silos and three colluders sign and open either.
    """
    start = world.announce(world.plan(), max_colluding=0)
    scene = world.deliver(start, world.show_roster(start), threshold=6)
    if len(world.uploads[scene.t2]) < len(world.everybody):
        return None
    _, *others = world.honest
    for group in ([VICTIM, *others[:2]], others[2:5]):
        survivors = [*group, *world.colluders]
        world.bundle(scene, world.list_survivors(scene, survivors), survivors)
    return _only(world, scene, [VICTIM])


def chosen_cohort(world: Attacker) -> Deltas | None:
    """An attempt for five of the ten members only: two honest ones and the colluders. t is 5 of 5."""
    pair = world.honest[:2]
    members = tuple(sorted([*pair, *world.colluders]))
    plan = world.plan(members)
    start = world.announce(plan, members, members=members)
    scene = world.deliver(start, world.show_roster(start, members), members, threshold=5)
    if len(world.uploads[scene.t2]) == len(members):
        world.bundle(scene, world.list_survivors(scene, members), members)
    return _only(world, scene, pair)


def everybody_else_is_played(world: Attacker) -> Deltas | None:
    """The victim among members whose keys are the coordinator's: the total is its update. Whether the others are
    invented (in no manifest) or real (in the manifest with other keys) is how the world was made.
    """
    scene = world.run(world.plan())
    return _only(world, scene, [VICTIM])


# --- rounds and attempts ----------------------------------------------------------------------------------------------


def past_round(world: Attacker) -> Deltas | None:
    """Everybody survives round 1. In round 5 the victim "drops out", its mask seed is opened, and fits round 1 too."""
    first = world.run(world.plan())
    ended = world.result(first, world.everybody, next_model=NEXT_MODEL)
    world.tell(world.everybody, ended)
    world.run(world.plan(number=5, previous=ended), dropped=[VICTIM])
    return _only(world, first, [VICTIM])


def replay(world: Attacker) -> Deltas | None:
    """Every silo's machine is set back by a snapshot, and the round is run again: the victim survives it, and does not.

    The attacker computes with the upload of the first time. (Of two totals over other members a difference can be
    taken; that is why snapshots of a silo are forbidden. See the package's table.)
    """
    first = world.run(world.plan())
    world.silos = {name: silo.rolled_back() for name, silo in world.silos.items()}
    world.run(world.plan(), number=2, dropped=[VICTIM])
    return _only(world, first, [VICTIM])


def second_attempt(world: Attacker) -> Deltas | None:
    """After a total was opened: another attempt without the victim, and the difference of the two totals."""
    plan = world.plan()
    return _difference(world, world.run(plan), world.run(plan, number=2, dropped=[VICTIM]))


def second_job(world: Attacker) -> Deltas | None:
    """Another job on the same model and task, its round without the victim, and the difference of the two totals."""
    return _difference(world, world.run(world.plan()), world.run(world.plan(job=OTHER_JOB), dropped=[VICTIM]))


def second_job_interleaved(world: Attacker) -> Deltas | None:
    """The same, but both lists are signed before either total is opened."""
    scenes = []
    for job in (JOB, OTHER_JOB):
        start = world.announce(world.plan(job=job))
        scenes.append(world.deliver(start, world.show_roster(start)))
    others = [name for name in world.everybody if name != VICTIM]
    lists = [world.list_survivors(scenes[0], world.everybody), world.list_survivors(scenes[1], others)]
    for scene, t3, names in zip(scenes, lists, (world.everybody, others), strict=True):
        world.bundle(scene, t3, names)
    return _difference(world, scenes[0], scenes[1])


def second_round(world: Attacker) -> Deltas | None:
    """The next round, on a model of the coordinator's choice, without the victim; the difference of the two totals.

    It is the victim's update if training on the other model gives what it gave on this one.
    """
    first = world.run(world.plan())
    ended = world.result(first, world.everybody, next_model=NEXT_MODEL)
    world.tell(world.everybody, ended)
    return _difference(world, first, world.run(world.plan(number=2, previous=ended), dropped=[VICTIM]))


def _difference(world: Attacker, of_all: Scene, of_others: Scene) -> Deltas | None:
    others = [name for name in world.honest if name != VICTIM]
    whole, rest = world.opened(of_all, world.honest), world.opened(of_others, others)
    return None if whole is None or rest is None else numbers(whole - rest, of_all)


# --- masks ------------------------------------------------------------------------------------------------------------


def late_upload(world: Attacker) -> Deltas | None:
    """The victim's upload is held back on the way and it is declared dropped: its pairwise masks are opened."""
    scene = world.run(world.plan(), dropped=[VICTIM])
    return numbers(world.opened(scene, [VICTIM], layers={ShareKind.MASK}), scene)


def listed_survivor(world: Attacker) -> Deltas | None:
    """The victim is on the list like everybody, and its self mask is opened."""
    scene = world.run(world.plan())
    return numbers(world.opened(scene, [VICTIM], layers={ShareKind.SELF}), scene)


def sent_again(world: Attacker) -> Deltas | None:
    """The upload "was lost", and is sent again after somebody emptied the spool: the masks are all that is in it."""
    start = world.announce(world.plan())
    scene = world.deliver(start, world.show_roster(start))
    victim = world.silos[VICTIM]
    upload = world.uploads[scene.t2].get(scene.members.index(VICTIM) + 1)
    victim.change_spool(np.zeros_like(victim.deltas))
    world.keep(VICTIM, victim.resend())
    again = world.uploads[scene.t2].get(scene.members.index(VICTIM) + 1)
    if upload is None or again is None or upload is again:
        return None
    sent, masks = (np.frombuffer(one.content, "<u8", count=victim.deltas.size) for one in (upload, again))
    return numbers(sent - masks, scene)


def unsound_key(world: Attacker, key: bytes) -> bytes | None:
    """A member advertises a key of low order; then whoever relays what is dealt to it reads it, without any secret.

    Gives the pair of shares that the victim dealt to that member.
    """
    start = world.announce(world.plan())
    h0, weak = attempt_digest(start), world.everybody[-1]
    index = world.spec.members.index(weak) + 1
    envelope = altered(world.adverts[h0][index], weak, share_key=key)
    world.adverts[h0][index] = envelope
    t1 = world.show_roster(start, [name for name in world.everybody if name != weak])
    victim = world.spec.members.index(VICTIM) + 1
    if victim not in world.words[t1]:
        return None
    (sealed,) = (share for share in world.words[t1][victim][1] if share.holder == index)
    box = sealed.ciphertext
    opens = AESGCM(share_key(bytes(32), t1, victim, index))
    try:
        return opens.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], share_context(t1, victim, index))
    except InvalidTag:
        return None


def altered(envelope: Envelope, name: ParticipantId, **changed: object) -> Envelope:
    """A colluder's advert with something else in it, under its own signature."""
    value = replace(reopen(AdvertiseKeys, envelope).value, **changed)  # type: ignore[arg-type]  # fields by name
    return seal(value, signer=key_of(name), index=envelope.signer).envelope


# --- the range --------------------------------------------------------------------------------------------------------


def bisected_range(world: Attacker) -> int | None:
    """The same round is planned again and again, each time on a "result" with another range: does it fit?

    Gives the power of two of the victim's largest |weight * delta|.
    """
    low, high, asked = RANGE_EXPONENT_MIN, RANGE_EXPONENT_MAX, 0
    while low < high:
        middle = (low + high) // 2
        world.plan([VICTIM], number=2, previous=invented_result(world, number=1, top_cell=middle - RANGE_MARGIN_BITS))
        if len(world.fits[VICTIM]) == asked:
            return None
        asked += 1
        low, high = (low, middle) if world.fits[VICTIM][-1] else (middle + 1, high)
    return high


def invented_result(world: Attacker, *, number: int, top_cell: int) -> Sealed[RoundResult]:
    """Of a round that never was: nobody but the coordinator signs a result. The victim is in no such total."""
    start = start_of(make_plan(world.spec, number=number), world.spec, consortium=world.consortium)
    survivors = range(2, 2 + world.spec.floor)
    return result_of(start, survivors, top_cells=(top_cell,), next_model=world.spec.initial_model)


def scanned_range(world: Attacker, *, rounds: int) -> list[bool]:
    """Round after round on an invented result, each with a range that is half of the one before: what is answered.

    No other silo is asked, no attempt is ever announced.
    """
    for step in range(rounds):
        invented = invented_result(world, number=2 * step + 1, top_cell=RANGE_EXPONENT_MAX - step)
        world.plan([VICTIM], number=2 * step + 2, previous=invented)
    return world.fits[VICTIM]
