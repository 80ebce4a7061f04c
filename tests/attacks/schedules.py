"""Random conversations of a malicious coordinator with honest silos, and what must hold in each of them.

A schedule is a list of operations with small numbers. `go` does the next thing that an honest coordinator would do, for
all silos; the others say it to some of them only, with other content, out of order, or a second time, or let a silo
restart, send again, or lose its file. One member colludes: it signs and deals whatever it is told to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from hypothesis import strategies as st

from shared.ids import Digest, JobId, ParticipantId, RoundKey
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    ConsistencyBundle,
    ConsistencySignature,
    Envelope,
    KeyRoster,
    RoundBroadcast,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UploadCommit,
    attempt_digest,
)
from shared.secagg.threshold import default_max_colluding
from shared.wire.sealed import reopen, seal
from tests.attacks.attacker import Attacker, Scene
from tests.attacks.silos import Said, Silo
from tests.attacks.world import NAMES, Make, federation, job, played
from tests.support.rounds import COORDINATOR_KEY, JOB, key_of

One = TypeVar("One")
Operation: TypeAlias = tuple[str, int, int]
"""A name and two numbers: the first mostly says what, the second to whom."""

WEIGHTS = {
    "go": 24,
    "attempt": 1,
    "roster": 1,
    "deliver": 1,
    "survivors": 4,
    "bundle": 4,
    "again": 4,
    "mutated": 4,
    "plan": 1,
    "result": 1,
    "restart": 2,
    "resend": 2,
    "empty_spool": 1,
    "acknowledge": 2,
}
NAMED = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
OPERATIONS_MAX = 32

operations: st.SearchStrategy[list[Operation]] = st.lists(
    st.tuples(st.sampled_from(NAMED), st.integers(0, 255), st.integers(0, 255)), min_size=6, max_size=OPERATIONS_MAX
)
sizes: st.SearchStrategy[int] = st.sampled_from((4, 4, 5, 6))

CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"max_colluding": 0},
    {"members": NAMES[:3]},
    {"exchange_deadline_s": 29.0},
    {"model": Digest.of(b"crafted")},
)
JOBS = (JOB, JOB, JOB, JobId("heart-2"))
EMPTY = np.zeros(8, np.float32)


class Broken(AssertionError):  # noqa: N818 - says what happened to the promise
    """One of the three promises does not hold."""


@dataclass
class Lately:
    """Where `go` is."""

    plan: Sealed[RoundPlan]
    start: Sealed[AttemptStart] | None = None
    t1: Digest | None = None
    scene: Scene | None = None
    t3: Digest | None = None
    opened: bool = False


class Schedule:
    """One conversation."""

    def __init__(self, make: Make, members: int) -> None:
        names = NAMES[:members]
        spec = job(members=names, colluding=default_max_colluding(members))
        self.world: Attacker = federation(make, colluders=[played(names[-1])], spec=spec)
        self.said: list[RoundBroadcast] = []
        """Everything that the coordinator said to anybody."""
        self._scenes: list[Scene] = []
        self._lists: list[tuple[Scene, Digest]] = []
        self._listed: SurvivorList
        self._rounds: Counter[JobId] = Counter()
        self._numbers: Counter[RoundKey] = Counter()
        self._lately = Lately(self._planned(JOB))

    def play(self, drawn: Sequence[Operation]) -> None:
        for name, what, whom in drawn:
            getattr(self, f"_{name}")(what, whom)

    # --- who and what -------------------------------------------------------------------------------------------------

    def _most(self, number: int) -> list[ParticipantId]:
        """All, half the time; else all but one or two."""
        everybody = self.world.everybody
        out = {everybody[place] for place in _left_out(number, len(everybody))}
        return [name for name in everybody if name not in out]

    def _one(self, number: int) -> list[ParticipantId]:
        """An honest one."""
        return [self.world.honest[number % len(self.world.honest)]]

    def _tell(self, names: Sequence[ParticipantId], message: RoundBroadcast) -> None:
        self.said.append(message)
        self.world.tell(names, message)

    def _planned(self, job: JobId, previous: Sealed[RoundResult] | None = None) -> Sealed[RoundPlan]:
        self._rounds[job] += 1
        plan = self.world.plan(number=self._rounds[job], job=job, previous=previous)
        self.said.append(plan)
        return plan

    # --- the honest way -----------------------------------------------------------------------------------------------

    def _go(self, what: int, whom: int) -> None:
        """What comes next, and after a total was opened what pays: another list, another attempt, another round."""
        lately = self._lately
        if lately.start is None:
            self._attempt(0, 0)
        elif lately.t1 is None:
            self._roster(0, 0)
        elif lately.scene is None:
            self._deliver(0, 0)
        elif lately.t3 is None:
            self._survivors(what, 0)
        elif not lately.opened:
            self._bundle(0, 0)
        elif what < 96:
            self._survivors(128 + whom // 2, 0)
        elif what < 160:
            self._attempt(0, 0)
        else:
            self._result(what, 0)

    # --- single words -------------------------------------------------------------------------------------------------

    def _plan(self, what: int, whom: int) -> None:
        self._lately = Lately(self._planned(JOBS[what % len(JOBS)]))

    def _attempt(self, what: int, whom: int) -> None:
        plan, changed = self._lately.plan, CHANGES[what % len(CHANGES)]
        if what < 192:
            self._numbers[plan.value.key] += 1
        number = max(1, self._numbers[plan.value.key])
        start = self.world.announce(plan, self._most(whom), number=number, **changed)
        self.said.append(start)
        if not changed:
            self._lately = Lately(plan, start)

    def _roster(self, what: int, whom: int) -> None:
        start = self._lately.start
        if start is None or not self.world.adverts[attempt_digest(start)]:
            self._lately = Lately(self._lately.plan)
            return
        adverts = _without(sorted(self.world.adverts[attempt_digest(start)].items()), what)
        self.said.append(KeyRoster(start.value.key, tuple(adverts)))
        t1 = self.world.show_roster(start, self._most(whom), adverts=adverts)
        self._lately = Lately(self._lately.plan, start, t1)

    def _deliver(self, what: int, whom: int) -> None:
        start, t1 = self._lately.start, self._lately.t1
        if start is None or t1 is None or not self.world.words[t1]:
            self._lately = Lately(self._lately.plan)
            return
        if what >= 128:  # what is for one is delivered to others
            self._tell(self._one(whom), self.world.delivery(start, t1, 1 + what % len(self.world.everybody)))
            return
        scene = self.world.deliver(start, t1, self._most(whom))
        self._scenes.append(scene)
        self._lately = replace(self._lately, scene=scene, t3=None, opened=False)

    def _survivors(self, what: int, whom: int) -> None:
        """Of the scene, or of one before it."""
        if not self._scenes:
            return
        scene = self._scenes[-1 - whom % len(self._scenes)] if whom >= 128 else self._scenes[-1]
        sent = [(index, scene.members[index - 1]) for index in self.world.uploads[scene.t2]]
        listed, t3 = self.world.listing(scene, _without(sorted(sent), what))
        self._tell(self._most(whom), listed)
        self._lists.append((scene, t3))
        self._listed = listed
        self._lately = replace(self._lately, t3=t3, opened=False)
        if not listed.commits:
            self._lately = Lately(self._lately.plan)

    def _bundle(self, what: int, whom: int) -> None:
        if not self._lists:
            return
        scene, t3 = self._lists[-1 - what % len(self._lists)] if what >= 128 else self._lists[-1]
        by_signer = {one.signer: one for one in self.world.signatures[t3]}
        self._tell(self._most(whom), ConsistencyBundle(scene.start.value.key, tuple(by_signer.values())))
        self._lately = replace(self._lately, opened=True)

    def _result(self, what: int, whom: int) -> None:
        if not self._lists:
            return
        scene, _ = self._lists[-1]
        names = [scene.members[commit.signer - 1] for commit in self._listed.commits]
        next_model = Digest.of(b"model" + bytes([what % 2, self._rounds[JOB]]))
        result = self.world.result(scene, names, next_model=next_model)
        self._tell(self._most(whom), result)
        job = self._lately.plan.value.key.job
        if job == scene.start.value.key.round.job:
            self._lately = Lately(self._planned(job, result))

    def _again(self, what: int, whom: int) -> None:
        """What was said to some is said to another, or once more."""
        self.world.tell(self._one(whom), self.said[-1 - what % min(len(self.said), 12)])

    # --- what happens at a silo ---------------------------------------------------------------------------------------

    def _restart(self, what: int, whom: int) -> None:
        self._happens(whom, lambda silo: silo.restart())

    def _resend(self, what: int, whom: int) -> None:
        self._happens(whom, lambda silo: silo.resend())

    def _empty_spool(self, what: int, whom: int) -> None:
        for name in self._one(whom):
            self.world.silos[name].change_spool(EMPTY)
        self._resend(what, whom)

    def _happens(self, whom: int, happens: Callable[[Silo], list[Said]]) -> None:
        for name in self._one(whom):
            self.world.keep(name, happens(self.world.silos[name]))

    def _acknowledge(self, what: int, whom: int) -> None:
        for uploads in list(self.world.uploads.values())[-1:]:
            for index, upload in list(uploads.items()):
                name = self.world.spec.members[index - 1]
                if name in self._most(whom) and name in self.world.silos:
                    self.world.keep(name, self.world.silos[name].acknowledge(upload))

    # --- mutated words ------------------------------------------------------------------------------------------------

    def _mutated(self, what: int, whom: int) -> None:
        exchanges = [
            message
            for message in self.said[-8:]
            if isinstance(message, KeyRoster | ShareDelivery | SurvivorList | ConsistencyBundle)
        ]
        if exchanges:
            self._tell(self._one(whom), self._changed(exchanges[what % len(exchanges)], what // 4))

    def _changed(
        self, message: KeyRoster | ShareDelivery | SurvivorList | ConsistencyBundle, what: int
    ) -> KeyRoster | ShareDelivery | SurvivorList | ConsistencyBundle:
        match message:
            case KeyRoster():
                return replace(message, adverts=self._other(AdvertiseKeys, message.adverts, what))
            case ShareDelivery():
                return replace(message, dealers=self._other(ShareKeys, message.dealers, what))
            case SurvivorList():
                return replace(message, commits=self._other(UploadCommit, message.commits, what))
            case ConsistencyBundle():
                return replace(message, signatures=self._other(ConsistencySignature, message.signatures, what))

    def _other(self, kind: type[Any], words: tuple[Envelope, ...], what: int) -> tuple[Envelope, ...]:
        if not words:
            return words
        place = what % len(words)
        before, chosen, after = words[:place], words[place], words[place + 1 :]
        match what % 5:
            case 0:
                return (*before, *after)
            case 1:
                return (*words, chosen)
            case 2:
                return (*before, _signed(kind, chosen, COORDINATOR_KEY), *after)
            case 3:
                mine = len(self.world.everybody)
                return tuple(self._by_colluder(kind, word, what) if word.signer == mine else word for word in words)
            case _:
                return tuple(self._before(kind, word) for word in words)

    def _by_colluder(self, kind: type[Any], word: Envelope, what: int) -> Envelope:
        """What the colluding member signs as well: its word with another content."""
        known = reopen(kind, word).value
        honest = (
            next(iter(self.world.adverts[attempt_digest(self._lately.start)].values()), None)
            if (self._lately.start)
            else None
        )
        fields: dict[type[Any], dict[str, Any]] = {
            AdvertiseKeys: {"mask_key": reopen(AdvertiseKeys, honest).value.mask_key} if honest else {"index": 1},
            ShareKeys: {"self_commitment": Digest.of(b"another seed")},
            UploadCommit: {"update": Digest.of(bytes([what % 3]))},
            ConsistencySignature: {"survivors": self._lists[0][1] if self._lists else Digest.of(b"nobody")},
        }
        changed = replace(known, **fields[kind])
        return seal(changed, signer=key_of(self.world.everybody[-1]), index=word.signer).envelope

    def _before(self, kind: type[Any], word: Envelope) -> Envelope:
        """The word that the same member said first of this kind, in whatever attempt."""
        found: dict[type[Any], list[Envelope]] = {
            AdvertiseKeys: [one for known in self.world.adverts.values() for one in known.values()],
            ShareKeys: [one for known in self.world.words.values() for one, _ in known.values()],
            UploadCommit: [one.commit for known in self.world.uploads.values() for one in known.values()],
            ConsistencySignature: [one for known in self.world.signatures.values() for one in known],
        }
        return next((one for one in found[kind] if one.signer == word.signer), word)


def _left_out(number: int, count: int) -> set[int]:
    """Nobody below 128; then one or two of so many."""
    if number < 128:
        return set()
    return {number % count} if number < 224 else {number % count, number // 8 % count}


def _without(listed: Sequence[tuple[int, One]], number: int) -> list[One]:
    out = _left_out(number, len(listed)) if listed else set()
    return [one for place, (_, one) in enumerate(listed) if place not in out]


def _signed(kind: type[Any], word: Envelope, key: Any) -> Envelope:
    return seal(reopen(kind, word).value, signer=key, index=word.signer).envelope


# --- what must hold ---------------------------------------------------------------------------------------------------


def require_one_kind_of_share(world: Attacker) -> None:
    """Of no member did one silo give both kinds in one attempt."""
    for (name, _), openings in world.openings.items():
        if name in world.colluders:
            continue
        of_self = {dealer for opened in openings for dealer, _ in opened.self_shares}
        of_mask = {dealer for opened in openings for dealer, _ in opened.mask_shares}
        if of_self & of_mask:
            raise Broken(f"both kinds: {name} gave both shares of {sorted(of_self & of_mask)}")


def require_one_total(world: Attacker) -> None:
    """One in a round, over as many honest members as the threshold leaves; over the same members on one model."""
    by_round: dict[RoundKey, list[frozenset[ParticipantId]]] = defaultdict(list)
    by_model: dict[Digest, set[frozenset[ParticipantId]]] = defaultdict(set)
    for t2, total in world.all_totals():
        start = world.scenes[t2].start.value
        by_round[start.key.round].append(total)
        by_model[start.model].add(total)
        if len(total) < world.spec.threshold - len(world.colluders):
            raise Broken(f"too few: a total over {sorted(total)}")
    for key, totals in by_round.items():
        if len(totals) > 1:
            raise Broken(f"two totals in round {key}: {totals}")
    for model, over in by_model.items():
        if len(over) > 1:
            raise Broken(f"two totals on model {model}: {over}")


def require_one_content_for_a_mask(world: Attacker) -> None:
    """No key and IV of a silo's masks were used for two contents."""
    for name, silo in world.silos.items():
        for (_, section, chunk), contents in silo.pads.items():
            if len(contents) > 1:
                raise Broken(f"a pad used twice: {name}, section {section}, chunk {chunk}")


def play(make: Make, members: int, drawn: Sequence[Operation]) -> Attacker:
    """Raises Broken."""
    schedule = Schedule(make, members)
    schedule.play(drawn)
    for promise in (require_one_kind_of_share, require_one_total, require_one_content_for_a_mask):
        promise(schedule.world)
    return schedule.world
