"""The single false words of a coordinator, each said to one silo of the product in an otherwise good attempt.

It refuses each before its signature on the survivors by leaving the attempt, and after it by not moving. Nothing that
it said by then opens anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from shared.ids import Digest
from shared.protocol.messages import (
    AdvertiseKeys,
    Checkpoint,
    CheckpointKind,
    ConsistencyBundle,
    ConsistencySignature,
    Envelope,
    KeyRoster,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UploadCommit,
)
from shared.secagg.sealing import share_paths, shares_root
from shared.wire.sealed import SealedValue, reopen, seal
from tests.attacks.attacker import Scene
from tests.attacks.programs import altered
from tests.attacks.scenario import Scenario
from tests.attacks.world import NAMES
from tests.support.rounds import key_of

COLLUDER = NAMES[-1]
LAST = len(NAMES)
"""The colluder's place; the victim's is 1."""


def resealed(
    kind: type[SealedValue], envelope: Envelope, name: str, *, signer: int | None = None, **changed: Any
) -> Envelope:
    """A word with something else in it, signed by `name`."""
    value = replace(reopen(kind, envelope).value, **changed)
    return seal(value, signer=key_of(name), index=signer or envelope.signer).envelope


# --- rosters ----------------------------------------------------------------------------------------------------------

Adverts: TypeAlias = dict[int, Envelope]


def _two_histories(scenario: Scenario, adverts: Adverts) -> list[Envelope]:
    points = [Checkpoint(CheckpointKind.CHAIN, 3, Digest.of(root)) for root in (b"one", b"other")]
    for name, point in zip(NAMES[-2:], points, strict=True):
        index = NAMES.index(name) + 1
        adverts[index] = altered(adverts[index], name, checkpoint=point)
    return list(adverts.values())


def _of_another_attempt(scenario: Scenario, adverts: Adverts) -> list[Envelope]:
    return list((adverts | {LAST: altered(adverts[LAST], COLLUDER, attempt=Digest.of(b"another"))}).values())


def _own_of_another_attempt(scenario: Scenario, adverts: Adverts) -> list[Envelope]:
    before = scenario.adverts
    scenario.begin(2)
    return list((scenario.adverts | {1: before[1]}).values())


ROSTERS: dict[str, Callable[[Scenario, Adverts], Sequence[Envelope]]] = {
    "fewer than t": lambda _, known: list(known.values())[:6],
    "without my keys": lambda _, known: [known[index] for index in range(2, 11)],
    "keys twice": lambda _, known: [*known.values(), known[LAST]],
    "my mask key advertised by another": lambda _, known: list(
        (
            known | {LAST: altered(known[LAST], COLLUDER, mask_key=reopen(AdvertiseKeys, known[1]).value.mask_key)}
        ).values()
    ),
    "one key for both uses": lambda _, known: list(
        (
            known | {LAST: altered(known[LAST], COLLUDER, mask_key=reopen(AdvertiseKeys, known[LAST]).value.share_key)}
        ).values()
    ),
    "a place that is not the signer's": lambda _, known: list(
        (known | {LAST: altered(known[LAST], COLLUDER, index=2)}).values()
    ),
    "signed by the coordinator": lambda _, known: list(
        (known | {2: resealed(AdvertiseKeys, known[2], "coordinator")}).values()
    ),
    "signed by a colluder for another": lambda _, known: list(
        (known | {2: resealed(AdvertiseKeys, known[2], COLLUDER)}).values()
    ),
    "an eleventh member": lambda _, known: [*known.values(), resealed(AdvertiseKeys, known[LAST], COLLUDER, signer=11)],
    "keys of another attempt": _of_another_attempt,
    "my keys of another attempt": _own_of_another_attempt,
    "two histories": _two_histories,
}


WHY_NOT_THE_ROSTER = {
    "fewer than t": "6 members advertised keys, expected 7",
    "without my keys": "without this participant's own word",
    "keys twice": "two words of member 10",
    "my mask key advertised by another": "one public key is advertised twice",
    "one key for both uses": "one public key is advertised twice",
    "a place that is not the signer's": "says it is of member 2",
    "signed by the coordinator": "signature",
    "signed by a colluder for another": "signature",
    "an eleventh member": "member 11, but the job has 10",
    "keys of another attempt": "member 10 is about another attempt",
    "my keys of another attempt": "another word of this participant",
    "two histories": "two histories",
}


@pytest.mark.parametrize("name", ROSTERS)
def test_a_false_roster_is_refused_before_a_share_is_dealt(name: str, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    shown = ROSTERS[name](scenario, scenario.adverts)
    assert scenario.tell_victim(KeyRoster(scenario.start.value.key, tuple(shown))) == ["bad_roster"]
    assert WHY_NOT_THE_ROSTER[name] in scenario.why
    assert all(1 not in words for words in scenario.world.words.values())


def test_a_second_roster_with_other_content_ends_the_attempt(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.dealt()
    fewer = tuple(list(scenario.adverts.values())[:7])
    assert scenario.tell_victim(KeyRoster(scenario.start.value.key, fewer)) == ["equivocation"]


# --- deliveries -------------------------------------------------------------------------------------------------------


def _swapped(scenario: Scenario, t1: Digest) -> ShareDelivery:
    """Everything that was dealt to holder 2, as it is."""
    return scenario.world.delivery(scenario.start, t1, 2)


def _relabelled(scenario: Scenario, t1: Digest) -> ShareDelivery:
    """One ciphertext for holder 2 in the place of the victim's."""
    good, other = (scenario.world.delivery(scenario.start, t1, holder) for holder in (1, 2))
    foreign = replace(other.shares[4], share=replace(other.shares[4].share, holder=1))
    return replace(good, shares=(*good.shares[:4], foreign, *good.shares[5:]))


def _foreign_box(scenario: Scenario, t1: Digest) -> ShareDelivery:
    """The same, and its dealer colludes: it signs for a tree in which that is so."""
    shares = list(scenario.world.words[t1][LAST][1])
    shares[0] = replace(shares[0], ciphertext=shares[1].ciphertext)
    return _dealt_by_colluder(scenario, t1, shares)


def _other_commitments(scenario: Scenario, t1: Digest) -> ShareDelivery:
    """A colluding dealer commits to other shares than it sealed: whom would be blamed at the opening?"""
    shares = list(scenario.world.words[t1][LAST][1])
    shares[0] = replace(shares[0], self_commitment=shares[1].self_commitment)
    return _dealt_by_colluder(scenario, t1, shares)


def _dealt_by_colluder(scenario: Scenario, t1: Digest, shares: list[Any]) -> ShareDelivery:
    good = scenario.world.delivery(scenario.start, t1, 1)
    word = resealed(ShareKeys, good.dealers[-1], COLLUDER, shares_root=shares_root(shares))
    delivered = replace(good.shares[-1], share=shares[0], path=share_paths(shares)[1])
    return replace(good, dealers=(*good.dealers[:-1], word), shares=(*good.shares[:-1], delivered))


def _of_earlier_attempt(scenario: Scenario, t1: Digest) -> ShareDelivery:
    """One dealer's share, with its path, as it was dealt in the attempt before."""
    before = scenario.world.delivery(scenario.start, t1, 1)
    scenario.begin(2)
    good = scenario.world.delivery(scenario.start, scenario.dealt(), 1)
    return replace(good, shares=(*good.shares[:4], before.shares[4], *good.shares[5:]))


def _word_of_earlier_attempt(scenario: Scenario, t1: Digest) -> ShareDelivery:
    """The same with its signed word."""
    before = scenario.world.delivery(scenario.start, t1, 1)
    scenario.begin(2)
    good = scenario.world.delivery(scenario.start, scenario.dealt(), 1)
    return replace(
        good,
        dealers=(*good.dealers[:4], before.dealers[4], *good.dealers[5:]),
        shares=(*good.shares[:4], before.shares[4], *good.shares[5:]),
    )


def _few(scenario: Scenario, t1: Digest) -> ShareDelivery:
    good = scenario.world.delivery(scenario.start, t1, 1)
    return replace(good, dealers=good.dealers[:6], shares=good.shares[:6])


def _without_mine(scenario: Scenario, t1: Digest) -> ShareDelivery:
    good = scenario.world.delivery(scenario.start, t1, 1)
    return replace(good, dealers=good.dealers[1:], shares=good.shares[1:])


def _one_share_short(scenario: Scenario, t1: Digest) -> ShareDelivery:
    good = scenario.world.delivery(scenario.start, t1, 1)
    return replace(good, shares=good.shares[:-1])


def _by_the_coordinator(scenario: Scenario, t1: Digest) -> ShareDelivery:
    good = scenario.world.delivery(scenario.start, t1, 1)
    word = resealed(ShareKeys, good.dealers[1], "coordinator")
    return replace(good, dealers=(good.dealers[0], word, *good.dealers[2:]))


DELIVERIES = {
    "of another holder": _swapped,
    "one ciphertext of another holder": _relabelled,
    "one ciphertext of another holder, signed for": _foreign_box,
    "other commitments than shares": _other_commitments,
    "a share of another attempt": _of_earlier_attempt,
    "a word and a share of another attempt": _word_of_earlier_attempt,
    "fewer than t": _few,
    "without my word": _without_mine,
    "one share short": _one_share_short,
    "signed by the coordinator": _by_the_coordinator,
}


WHY_NOT_THE_DELIVERY = {
    "of another holder": "is for holder 2, expected 1",
    "one ciphertext of another holder": "dealer 5",
    "one ciphertext of another holder, signed for": "dealer 10 does not decrypt",
    "other commitments than shares": "dealer 10 at holder 1 does not match its commitment",
    "a share of another attempt": "dealer 5",
    "a word and a share of another attempt": "member 5 is about another attempt",
    "fewer than t": "6 members dealt shares, expected 7",
    "without my word": "without this participant's own word",
    "one share short": "other shares than one of each dealer",
    "signed by the coordinator": "signature",
}


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_false_delivery_is_refused_before_a_byte_is_sent(name: str, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    delivery = DELIVERIES[name](scenario, scenario.dealt())
    assert scenario.tell_victim(delivery) == ["bad_shares"]
    assert WHY_NOT_THE_DELIVERY[name] in scenario.why
    assert not scenario.world.uploads


def test_a_second_delivery_with_other_dealers_ends_the_attempt(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    t1 = scenario.dealt()
    scenario.world.deliver(scenario.start, t1)
    fewer = scenario.world.delivery(scenario.start, t1, 1)
    fewer = replace(fewer, dealers=fewer.dealers[:8], shares=fewer.shares[:8])
    assert scenario.tell_victim(fewer) == ["equivocation"]


# --- survivors --------------------------------------------------------------------------------------------------------

Commits: TypeAlias = list[Envelope]
LISTS: dict[str, Callable[[Commits], Commits]] = {
    "below t": lambda known: known[:6],
    "of the victim and a colluder": lambda known: [known[0], known[-1]],
    "without the victim": lambda known: known[1:],
    "one twice": lambda known: [*known, known[-1]],
    "invented": lambda known: [known[0], resealed(UploadCommit, known[1], "coordinator"), *known[2:]],
    "in the name of another": lambda known: [known[0], resealed(UploadCommit, known[1], COLLUDER), *known[2:]],
    "masked for other dealers": lambda known: [
        *known[:-1],
        resealed(UploadCommit, known[-1], COLLUDER, transcript=Digest.of(b"t2")),
    ],
    "of another attempt": lambda known: [
        *known[:-1],
        resealed(UploadCommit, known[-1], COLLUDER, attempt=Digest.of(b"h0")),
    ],
    "my commitment altered": lambda known: [resealed(UploadCommit, known[0], COLLUDER), *known[1:]],
}


WHY_NOT_THE_LIST = {
    "below t": "over 6 members, expected 7",
    "of the victim and a colluder": "over 2 members, expected 7",
    "without the victim": "without this participant's commitment",
    "one twice": "two words of member 10",
    "invented": "signature",
    "in the name of another": "signature",
    "masked for other dealers": "member 10 masked its update for other dealers",
    "of another attempt": "member 10 is about another attempt",
    "my commitment altered": "signature",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_false_list_of_survivors_is_refused_before_it_is_signed(name: str, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scene, world = scenario.masked(), scenario.world
    listed, _ = world.listing(scene, world.everybody)
    false = SurvivorList(listed.key, tuple(LISTS[name](list(listed.commits))))
    assert scenario.tell_victim(false) == ["bad_survivors"]
    assert WHY_NOT_THE_LIST[name] in scenario.why
    assert not world.signatures
    assert not world.openings
    assert scenario.tell_victim(listed) == [], "the good one comes too late for this attempt"
    assert not world.signatures


def test_a_survivor_who_dealt_nothing_is_refused(tmp_path: Path) -> None:
    scenario, seven = Scenario(tmp_path), NAMES[:7]
    world = scenario.world
    t1 = world.show_roster(scenario.start, seven)
    scene = world.deliver(scenario.start, t1, seven)
    listed, _ = world.listing(scene, seven)
    outsider = resealed(UploadCommit, listed.commits[-1], COLLUDER, signer=LAST, index=LAST)
    assert scenario.tell_victim(replace(listed, commits=(*listed.commits, outsider))) == ["bad_survivors"]


def test_a_second_list_is_refused_and_the_first_one_still_opens(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scene, world = scenario.masked(), scenario.world
    t3 = world.list_survivors(scene, world.everybody)
    fewer, _ = world.listing(scene, NAMES[:8])
    assert scenario.tell_victim(fewer) == ["ConflictError"]
    world.bundle(scene, t3, world.everybody)
    assert world.totals(scene) == {frozenset(world.honest)}


# --- bundles ----------------------------------------------------------------------------------------------------------


def _signature(scene: Scene, name: str, index: int, survivors: Digest) -> Envelope:
    return seal(ConsistencySignature(scene.h0, survivors, index), signer=key_of(name), index=index).envelope


BUNDLES: dict[str, tuple[str, Callable[[Scene, list[Envelope]], list[Envelope]]]] = {
    "fewer than t": ("ConflictError", lambda _, signed: signed[:6]),
    "one counted twice": ("ConflictError", lambda _, signed: [*signed[:6], signed[5]]),
    "one for other survivors": (
        "ConflictError",
        lambda scene, signed: [*signed[:6], _signature(scene, COLLUDER, LAST, Digest.of(b"other survivors"))],
    ),
    "one by the coordinator": (
        "IdentityError",
        lambda scene, signed: [*signed[:6], resealed(ConsistencySignature, signed[7], "coordinator")],
    ),
}


@pytest.mark.parametrize(("error", "change"), BUNDLES.values(), ids=BUNDLES.keys())
def test_a_false_bundle_opens_nothing_and_changes_nothing(
    error: str, change: Callable[[Scene, list[Envelope]], list[Envelope]], tmp_path: Path
) -> None:
    scenario = Scenario(tmp_path)
    scene, world = scenario.masked(), scenario.world
    t3 = world.list_survivors(scene, world.everybody)
    signed = sorted(world.signatures[t3], key=lambda envelope: envelope.signer)
    bundle = ConsistencyBundle(scenario.start.value.key, tuple(change(scene, signed)))
    assert scenario.tell_victim(bundle) == [error]
    assert not world.openings
    assert scenario.tell_victim(replace(bundle, signatures=tuple(signed[:7]))) == [], "the good one is heard"
    assert len(world.openings) == 1


def test_a_signature_of_one_who_is_no_survivor_does_not_count(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scene, world = scenario.masked(), scenario.world
    seven = NAMES[:7]
    t3 = world.list_survivors(scene, seven)
    bundle = [*world.signatures[t3][:6], _signature(scene, COLLUDER, LAST, t3)]
    assert scenario.tell_victim(ConsistencyBundle(scenario.start.value.key, tuple(bundle))) == ["ConflictError"]
    assert not world.openings
