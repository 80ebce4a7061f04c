"""A malicious coordinator: it says to each silo what it likes, keeps everything that it hears, and computes.

What it can compute is decided exactly. With the self masks of some silos (B) and the pairwise keys of some (M) known,
of the honest silos that dealt (H) it can open: each one that is in both, alone; and all of H outside M together, when
they are all in B and sent an update. Nothing else: two silos outside M share a mask that nobody knows, so that they are
in a sum together or not at all. `totals` lists these sums, `opened` computes one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.errors import WireError
from shared.ids import Digest, JobId, ParticipantId
from shared.job import JobSpec
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    AttemptStart,
    ConsistencyBundle,
    ConsistencySignature,
    Decline,
    DeliveredShare,
    Envelope,
    KeyRoster,
    Ready,
    RoundBroadcast,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UnmaskShares,
    Withdraw,
    attempt_digest,
)
from shared.secagg.fixed_point import WIDE_RANGE_EXPONENT, scale_exponent
from shared.secagg.keys import agree, public_of
from shared.secagg.masking import Masks, pair_sign
from shared.secagg.sealing import SealedShare, share_paths
from shared.secagg.sharing import combine
from shared.secagg.transcript import (
    ShareKind,
    delivery_digest,
    mask_private,
    pair_root,
    roster_digest,
    self_root,
    self_seed_commitment,
    survivors_digest,
)
from shared.secret import Secret
from shared.update import Encoding
from shared.wire.sealed import encode_envelope, reopen
from tests.attacks.silos import Deltas, Refused, Said, Silo, Upload
from tests.attacks.small_silo import SmallSilo
from tests.support.rounds import ELEMENTS, JOB, make_plan, result_of, start_of

Words: TypeAlias = NDArray[np.uint64]
LAYERS = frozenset(ShareKind)
"""Of masks that are assumed to be on an upload: its own (SELF), the pairwise ones (MASK)."""


@dataclass(frozen=True)
class Scene:
    """What some silos were shown of one attempt, up to who dealt."""

    h0: Digest
    t1: Digest
    t2: Digest
    members: tuple[ParticipantId, ...]
    threshold: int
    adverts: Mapping[int, AdvertiseKeys]
    dealers: Mapping[int, ShareKeys]
    """U2"""
    start: Sealed[AttemptStart]


@dataclass
class Attacker:
    """`spec` is the job; `silos` do not help, `colluders` do."""

    spec: JobSpec
    silos: Mapping[ParticipantId, Silo]
    colluders: Mapping[ParticipantId, SmallSilo]
    consortium: bytes
    adverts: dict[Digest, dict[int, Envelope]] = field(default_factory=lambda: defaultdict(dict))
    """By h0; the next by t1, t2, and h0 with the signer."""
    words: dict[Digest, dict[int, tuple[Envelope, tuple[SealedShare, ...]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    uploads: dict[Digest, dict[int, Upload]] = field(default_factory=lambda: defaultdict(dict))
    signatures: dict[Digest, list[Envelope]] = field(default_factory=lambda: defaultdict(list))
    scenes: dict[Digest, Scene] = field(default_factory=dict)
    """By t2."""
    lists: dict[Digest, Digest] = field(default_factory=dict)
    """t3 -> t2"""
    shares: dict[tuple[Digest, int, ShareKind], dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """By t2 and dealer: what holders said, and what colluders hold."""
    openings: dict[tuple[ParticipantId, Digest], list[UnmaskShares]] = field(default_factory=lambda: defaultdict(list))
    """By silo and h0: every word that gave shares."""
    answers: dict[ParticipantId, list[str]] = field(default_factory=lambda: defaultdict(list))
    """How each silo refused: the reason that it said, or the error that stayed with it."""
    details: list[str] = field(default_factory=list)
    """What the errors said."""
    fits: dict[ParticipantId, list[bool]] = field(default_factory=lambda: defaultdict(list))

    @property
    def honest(self) -> list[ParticipantId]:
        return sorted(self.silos)

    @property
    def everybody(self) -> list[ParticipantId]:
        return sorted([*self.silos, *self.colluders])

    # --- talking ------------------------------------------------------------------------------------------------------

    def tell(self, names: Iterable[ParticipantId], message: RoundBroadcast) -> None:
        if isinstance(message, SurvivorList):
            self._note(message)
        for name in names:
            silo: Silo = self.silos[name] if name in self.silos else self.colluders[name]
            self.keep(name, silo.hear(message))

    def _note(self, listed: SurvivorList) -> None:
        """What t3 the silos make of it, by what they were shown before."""
        commits = {commit.signer: commit.payload for commit in listed.commits}
        for scene in self.scenes.values():
            self.lists[survivors_digest(scene.t2, commits.items())] = scene.t2

    def keep(self, name: ParticipantId, said: Sequence[Said]) -> None:
        for word in said:
            match word:
                case Upload():
                    self.uploads[word.transcript][word.commit.signer] = word
                case Refused(error=error, detail=detail):
                    self.answers[name].append(error)
                    self.details.append(detail)
                case Decline(rule=rule):
                    self.answers[name].append(rule)
                case Withdraw(reason=reason):
                    self.answers[name].append(reason)
                case Ready(fits=fits):
                    self.fits[name].append(fits)
                case AttemptAnswer():
                    self._answered(name, word)
                case _:
                    pass

    def _answered(self, name: ParticipantId, answer: AttemptAnswer) -> None:
        envelope = answer.envelope
        match answer.kind:
            case AnswerKind.ADVERTISE_KEYS:
                self.adverts[reopen(AdvertiseKeys, envelope).value.attempt][envelope.signer] = envelope
            case AnswerKind.SHARE_KEYS:
                t1 = reopen(ShareKeys, envelope).value.roster
                self.words[t1][envelope.signer] = (envelope, answer.shares)
            case AnswerKind.CONSISTENCY_SIGNATURE:
                self.signatures[reopen(ConsistencySignature, envelope).value.survivors].append(envelope)
            case AnswerKind.UNMASK_SHARES:
                opened = reopen(UnmaskShares, envelope).value
                self.openings[name, opened.attempt].append(opened)
                self._take(self.lists[opened.survivors], opened)
            case AnswerKind.ATTEMPT_ABORT:
                self.answers[name].append(reopen(AttemptAbort, envelope).value.reason)

    def _take(self, t2: Digest, opened: UnmaskShares) -> None:
        for kind, shares in ((ShareKind.SELF, opened.self_shares), (ShareKind.MASK, opened.mask_shares)):
            for dealer, share in shares:
                self.shares[t2, dealer, kind][opened.index] = share

    def plan(
        self,
        names: Iterable[ParticipantId] | None = None,
        *,
        number: int = 1,
        job: JobId = JOB,
        previous: Sealed[RoundResult] | None = None,
        spec: JobSpec | None = None,
    ) -> Sealed[RoundPlan]:
        changed: dict[str, Any] = {} if previous is None else {"model": previous.value.next_model}
        carried = b"" if previous is None else encode_envelope(previous.envelope)
        plan = make_plan(spec or self.spec, number=number, job=job, previous_result=carried, **changed)
        self.tell(self.everybody if names is None else names, plan)
        return plan

    def announce(
        self,
        plan: Sealed[RoundPlan],
        names: Iterable[ParticipantId] | None = None,
        *,
        number: int = 1,
        **changed: Any,
    ) -> Sealed[AttemptStart]:
        fields = {"consortium": self.consortium} | changed
        start = start_of(plan, self.spec, attempt=number, **fields)
        self.tell(self.everybody if names is None else names, start)
        return start

    def show_roster(
        self,
        start: Sealed[AttemptStart],
        names: Iterable[ParticipantId] | None = None,
        *,
        adverts: Sequence[Envelope] | None = None,
    ) -> Digest:
        """Of all who advertised, unless told. Gives t1."""
        h0 = attempt_digest(start)
        shown = list(self.adverts[h0].values()) if adverts is None else list(adverts)
        self.tell(self.everybody if names is None else names, KeyRoster(start.value.key, tuple(shown)))
        return roster_digest(h0, [(envelope.signer, envelope.payload) for envelope in shown])

    def deliver(
        self,
        start: Sealed[AttemptStart],
        t1: Digest,
        names: Iterable[ParticipantId] | None = None,
        *,
        threshold: int | None = None,
    ) -> Scene:
        """The shares of all who dealt under this roster."""
        scene = self.scene(start, t1, threshold=threshold)
        for name in self.everybody if names is None else names:
            self.tell([name], self.delivery(start, t1, scene.members.index(name) + 1))
        for colluder in self.colluders.values():
            run = colluder.runs.get(scene.h0)
            if run is not None and run.t2 == scene.t2:
                for dealer, held in run.held.items():
                    self.shares[scene.t2, dealer, ShareKind.SELF][run.index] = held.self_share.reveal()
                    self.shares[scene.t2, dealer, ShareKind.MASK][run.index] = held.mask_share.reveal()
        return scene

    def scene(self, start: Sealed[AttemptStart], t1: Digest, *, threshold: int | None = None) -> Scene:
        h0, words = attempt_digest(start), self.words[t1]
        t2 = delivery_digest(t1, [(index, envelope.payload) for index, (envelope, _) in words.items()])
        scene = Scene(
            h0=h0,
            t1=t1,
            t2=t2,
            members=start.value.members,
            threshold=self.spec.threshold if threshold is None else threshold,
            adverts={i: reopen(AdvertiseKeys, envelope).value for i, envelope in self.adverts[h0].items()},
            dealers={index: reopen(ShareKeys, envelope).value for index, (envelope, _) in words.items()},
            start=start,
        )
        return self.scenes.setdefault(t2, scene)

    def delivery(self, start: Sealed[AttemptStart], t1: Digest, holder: int) -> ShareDelivery:
        delivered = [
            DeliveredShare(dealer, share, share_paths(shares)[holder])
            for dealer, (_, shares) in sorted(self.words[t1].items())
            for share in shares
            if share.holder == holder
        ]
        dealers = tuple(envelope for envelope, _ in self.words[t1].values())
        return ShareDelivery(start.value.key, dealers, tuple(delivered))

    def list_survivors(
        self, scene: Scene, survivors: Iterable[ParticipantId], names: Iterable[ParticipantId] | None = None
    ) -> Digest:
        """Shown to the survivors themselves, unless told. Gives t3."""
        survivors = sorted(survivors)
        listed, t3 = self.listing(scene, survivors)
        self.tell(survivors if names is None else names, listed)
        return t3

    def listing(self, scene: Scene, survivors: Iterable[ParticipantId]) -> tuple[SurvivorList, Digest]:
        commits = [self.uploads[scene.t2][scene.members.index(name) + 1].commit for name in sorted(survivors)]
        t3 = survivors_digest(scene.t2, [(commit.signer, commit.payload) for commit in commits])
        self.lists[t3] = scene.t2
        return SurvivorList(scene.start.value.key, tuple(commits)), t3

    def bundle(self, scene: Scene, t3: Digest, names: Iterable[ParticipantId]) -> None:
        """With every signature that there is."""
        by_signer = {envelope.signer: envelope for envelope in self.signatures[t3]}
        self.tell(names, ConsistencyBundle(scene.start.value.key, tuple(by_signer.values())))

    def result(self, scene: Scene, survivors: Sequence[ParticipantId], **changed: Any) -> Sealed[RoundResult]:
        _, t3 = self.listing(scene, survivors)
        fields: dict[str, Any] = {"transcript": t3, "top_cells": (32,)} | changed
        indexes = sorted(scene.members.index(name) + 1 for name in survivors)
        return result_of(scene.start, indexes, **fields)

    def run(
        self,
        plan: Sealed[RoundPlan],
        *,
        number: int = 1,
        dropped: Collection[ParticipantId] = (),
        **changed: Any,
    ) -> Scene:
        """An attempt as an honest coordinator runs it; the dropped ones are told nothing after their upload."""
        start = self.announce(plan, number=number, **changed)
        scene = self.deliver(start, self.show_roster(start))
        survivors = [name for name in self.everybody if name not in dropped]
        if any(scene.members.index(name) + 1 not in self.uploads[scene.t2] for name in survivors):
            return scene
        t3 = self.list_survivors(scene, survivors)
        self.bundle(scene, t3, survivors)
        return scene

    # --- computing ----------------------------------------------------------------------------------------------------

    def seeds(self, scene: Scene, kind: ShareKind) -> dict[int, bytes]:
        """Of honest silos: what the shares of any attempt combine to, as far as it is what was dealt in this one."""
        known: dict[int, bytes] = {}
        for (t2, dealer, shared), shares in self.shares.items():
            if shared is not kind or dealer not in scene.dealers or self._colludes(scene, dealer):
                continue
            try:
                seed = combine(shares, threshold=self.scenes[t2].threshold)
            except WireError:
                continue
            if self._is_of(scene, dealer, kind, seed):
                known[dealer] = seed
        return known

    def _is_of(self, scene: Scene, dealer: int, kind: ShareKind, seed: bytes) -> bool:
        if kind is ShareKind.SELF:
            return self_seed_commitment(scene.t1, dealer, seed) == scene.dealers[dealer].self_commitment
        return public_of(mask_private(seed, scene.h0)) == scene.adverts[dealer].mask_key

    def _colludes(self, scene: Scene, index: int) -> bool:
        return scene.members[index - 1] in self.colluders

    def _dealers(self, scene: Scene) -> set[int]:
        return {index for index in scene.dealers if not self._colludes(scene, index)}

    def totals(self, scene: Scene) -> set[frozenset[ParticipantId]]:
        """Over which silos a sum can be computed. Empty when none can."""
        own, pairs = self.seeds(scene, ShareKind.SELF).keys(), self.seeds(scene, ShareKind.MASK).keys()
        sent = self.uploads[scene.t2].keys()
        single = [{index} for index in own & pairs & sent]
        together = self._dealers(scene) - pairs
        if together and together <= own & sent:
            single.append(together)
        return {frozenset(scene.members[index - 1] for index in total) for total in single}

    def all_totals(self) -> set[tuple[Digest, frozenset[ParticipantId]]]:
        """Of everything that was ever said."""
        return {(scene.t2, total) for scene in self.scenes.values() for total in self.totals(scene)}

    def opened(
        self, scene: Scene, names: Collection[ParticipantId], *, layers: Collection[ShareKind] = LAYERS
    ) -> Words | None:
        """The sum of the updates of these honest silos, as integers: None when a mask on it is unknown. `layers`: the
        masks that the attacker believes to be on.
        """
        indexes = {scene.members.index(name) + 1 for name in names}
        if not indexes <= self.uploads[scene.t2].keys():
            return None
        own = self.seeds(scene, ShareKind.SELF)
        terms: list[tuple[Secret, int]] = []
        total = np.zeros(ELEMENTS, "<u8")
        for index in indexes:
            total += np.frombuffer(self.uploads[scene.t2][index].content, "<u8", count=ELEMENTS)
            if ShareKind.SELF in layers:
                if index not in own:
                    return None
                terms.append((Secret(self_root(own[index], scene.t2, index)), 1))
            for other in scene.dealers.keys() - indexes if ShareKind.MASK in layers else ():
                root = self._pair_root(scene, index, other)
                if root is None:
                    return None
                terms.append((root, pair_sign(index, other)))
        Masks(terms).remove(total, section=0, first_byte=0)
        return total

    def _pair_root(self, scene: Scene, one: int, other: int) -> Secret | None:
        privates = {index: mask_private(seed, scene.h0) for index, seed in self.seeds(scene, ShareKind.MASK).items()}
        for colluder in self.colluders.values():
            run = colluder.runs.get(scene.h0)
            if run is not None:
                privates[run.index] = mask_private(run.secrets.mask_seed.reveal(), scene.h0)
        for mine, theirs in ((one, other), (other, one)):
            if mine in privates:
                agreed = agree(privates[mine], scene.adverts[theirs].mask_key)
                return Secret(pair_root(agreed, scene.t2, one, other))
        return None


def numbers(words: Words | None, scene: Scene) -> Deltas | None:
    """The update that such integers stand for; every silo of these tests has one example."""
    if words is None:
        return None
    exponent = scale_exponent(encoding=Encoding.U64, members=len(scene.members), range_exponent=WIDE_RANGE_EXPONENT)
    return np.ldexp(words.view("<i8").astype(np.float64), -exponent).astype(np.float32)
