"""A masked round among real participant machines, with the test for a coordinator: it passes on what it likes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from participant.consent import VerifiedResult
from participant.round.checks import verified_result
from participant.round.effects import (
    AttemptAnnounced,
    BundleCame,
    DeliveryCame,
    Event,
    ResultCame,
    RosterCame,
    SurvivorsListed,
    UploadAcknowledged,
    WorkDone,
)
from participant.round.machine import accept
from participant.round.phases import Masked, Offer, Ready, SpooledUpdate, Total, Uploading
from participant.round.transition import Transition
from shared.ids import AttemptKey, AttemptNumber, Digest, ParticipantId, RoundNumber
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    AttemptStart,
    ConsistencyBundle,
    ConsistencySignature,
    DeliveredShare,
    Envelope,
    KeyRoster,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UnmaskShares,
    UploadCommit,
    attempt_digest,
)
from shared.protocol.phases import Phase
from shared.reasons import AttemptAbortReason, Purpose
from shared.secagg.sealing import share_paths
from shared.wire.sealed import encode_envelope, reopen, seal
from tests.support.participant_transcript import Silo
from tests.support.rounds import (
    MEMBERS,
    commit_of,
    key_of,
    make_masked_spec,
    make_plan,
    offer_of,
    result_of,
    spooled,
    start_of,
)

ME = 1  # the silo that a test looks at
CELLS = (3,)  # of the one tensor that the model has

_KINDS: Mapping[type, AnswerKind] = {
    AdvertiseKeys: AnswerKind.ADVERTISE_KEYS,
    ShareKeys: AnswerKind.SHARE_KEYS,
    ConsistencySignature: AnswerKind.CONSISTENCY_SIGNATURE,
    UnmaskShares: AnswerKind.UNMASK_SHARES,
    AttemptAbort: AnswerKind.ATTEMPT_ABORT,
}


class MaskedSilo(Silo):
    """One member. `answers` has the last of each kind that it said."""

    def __init__(self, offer: Offer, participant: ParticipantId, opening: Transition | None = None) -> None:
        self.answers: dict[AnswerKind, AttemptAnswer] = {}
        self.transition: Transition
        self.lines: list[str] = []
        self.name = participant
        super().__init__(participant=participant, opening=opening or accept(offer))

    def _take(self, transition: Transition) -> list[str]:
        self.transition = transition
        for effect in transition.effects:
            message = getattr(effect, "message", None)
            if isinstance(message, AttemptAnswer):
                self.answers[message.kind] = message
        self.lines = super()._take(transition)
        return self.lines

    def announced_to(self, cohort: Cohort, number: int = 1) -> list[str]:
        return self.hear(AttemptAnnounced(cohort.start(number)))


def sealed_result(
    spec_plan: Sealed[RoundPlan], number: int, *, top_cells: tuple[int, ...] = CELLS, **changed: Any
) -> Sealed[RoundResult]:
    """The result of an earlier round, as a plan carries it: it leads to the model of `spec_plan`."""
    key = replace(spec_plan.value.key, number=RoundNumber(number))
    start = start_of(spec_plan, make_masked_spec())
    return result_of(start, ALL, key=key, next_model=spec_plan.value.model, top_cells=top_cells, **changed)


class Cohort:
    """All members of a masked job in one round, each a machine of its own."""

    def __init__(
        self,
        *,
        number: int = 1,
        purpose: Purpose = Purpose.TRAIN,
        after: tuple[int, ...] | None = None,
        misses: int = 0,
        update: SpooledUpdate | None = None,
        **spec: Any,
    ) -> None:
        """`after`: the top cells of the round before, in which all were, as the plan carries them; None in the first
        round of a job.
        """
        self.spec = make_masked_spec(**spec)
        self.members = self.spec.members
        self.update = update or spooled(cells=CELLS if purpose is Purpose.TRAIN else ())
        carried: Sealed[RoundResult] | None = None
        verified: VerifiedResult | None = None
        if after is not None:
            carried = sealed_result(make_plan(self.spec, number=number), number - 1, top_cells=after)
            verified = verified_result(carried.value, carried.envelope)
        self.plan = make_plan(
            self.spec,
            number=number,
            purpose=purpose,
            previous_result=b"" if carried is None else encode_envelope(carried.envelope),
        )
        self.silos = {
            index: MaskedSilo(
                offer_of(
                    self.spec,
                    member,
                    plan=self.plan,
                    previous=None if carried is None else carried.value,
                    verified=verified,
                    misses=misses,
                ),
                member,
            )
            for index, member in enumerate(self.members, start=1)
        }
        self.commits: dict[int, Envelope] = {}

    @property
    def me(self) -> MaskedSilo:
        return self.silos[ME]

    # --- what a coordinator says --------------------------------------------------------------------------------------

    def key(self, number: int = 1) -> AttemptKey:
        return AttemptKey(self.plan.value.key, AttemptNumber(number))

    def start(self, number: int = 1, **changed: Any) -> Sealed[AttemptStart]:
        encoding = changed.pop("encoding", self.me.offer.encoding)
        return start_of(self.plan, self.spec, attempt=number, encoding=encoding, **changed)

    def roster(self, *indexes: int, number: int = 1) -> RosterCame:
        return RosterCame(KeyRoster(self.key(number), self.said(AdvertiseKeys, indexes)))

    def delivery(self, *indexes: int, to: int = ME, number: int = 1) -> DeliveryCame:
        dealers = indexes or tuple(self.silos)
        shares = tuple(self.share(dealer, to) for dealer in dealers)
        return DeliveryCame(ShareDelivery(self.key(number), self.said(ShareKeys, dealers), shares))

    def share(self, dealer: int, to: int = ME) -> DeliveredShare:
        dealt = self.silos[dealer].answers[AnswerKind.SHARE_KEYS].shares
        mine = next(share for share in dealt if share.holder == to)
        return DeliveredShare(dealer, mine, share_paths(dealt)[to])

    def listing(
        self,
        *indexes: int,
        number: int = 1,
        opened_before: Collection[Total] = (),
        repeats_allowed: bool = False,
    ) -> SurvivorsListed:
        commits = tuple(self.commits[index] for index in indexes or self.commits)
        return SurvivorsListed(SurvivorList(self.key(number), commits), opened_before, repeats_allowed)

    def bundle(
        self,
        *indexes: int,
        number: int = 1,
        opened_before: Collection[Total] = (),
        repeats_allowed: bool = False,
    ) -> BundleCame:
        bundle = ConsistencyBundle(self.key(number), self.said(ConsistencySignature, indexes))
        return BundleCame(bundle, opened_before, repeats_allowed)

    def result(self, *survivors: int, number: int = 1, **changed: Any) -> ResultCame:
        start = self.start(number)
        fields = {"purpose": self.plan.value.purpose, "top_cells": self.update.cells, **changed}
        return ResultCame(result_of(start, survivors or tuple(self.silos), **fields))

    # --- what members said, and what they might have ------------------------------------------------------------------

    def said(self, kind: type[Any], indexes: Iterable[int] = ()) -> tuple[Envelope, ...]:
        chosen = tuple(indexes) or tuple(self.silos)
        return tuple(self.silos[index].answers[_KINDS[kind]].envelope for index in chosen)

    def advert(self, index: int) -> AdvertiseKeys:
        return reopen(AdvertiseKeys, self.said(AdvertiseKeys, [index])[0]).value

    def resealed(self, kind: type[Any], index: int, /, **changed: Any) -> Envelope:
        """The word of a member with something changed, signed by it."""
        said = self.commits[index] if kind is UploadCommit else self.said(kind, [index])[0]
        value = replace(reopen(kind, said).value, **changed)
        return seal(value, signer=key_of(self.members[index - 1]), index=index).envelope

    # --- the way of a good round --------------------------------------------------------------------------------------

    def to(self, phase: Phase, number: int = 1) -> Cohort:
        """Everybody, as far as this phase."""
        way = (
            (Phase.TRAINING, None),
            (Phase.READY, self.all_trained),
            (Phase.ADVERTISING, self.all_announced),
            (Phase.SHARING, self.all_rostered),
            (Phase.UPLOADING, self.all_delivered),
            (Phase.COMMITTED, self.all_acknowledged),
            (Phase.FIXED, self.all_listed),
            (Phase.OPENING, self.all_bundled),
        )
        phases = [reached for reached, _ in way]
        for reached, go in way[phases.index(self.me.phase) + 1 : phases.index(phase) + 1]:
            assert go is not None
            go(number)
            assert self.me.phase is reached
        return self

    def all_trained(self, number: int = 1) -> None:
        for silo in self.silos.values():
            silo.hear(WorkDone(self.update))

    def all_announced(self, number: int = 1) -> None:
        for silo in self.silos.values():
            silo.hear(AttemptAnnounced(self.start(number)))

    def all_rostered(self, number: int = 1) -> None:
        roster = self.roster(number=number)
        for silo in self.silos.values():
            silo.hear(roster)

    def all_delivered(self, number: int = 1) -> None:
        for index, silo in self.silos.items():
            silo.hear(self.delivery(to=index, number=number))
            self.commit(index, number)

    def commit(self, index: int, number: int = 1) -> Envelope:
        """What this member signs of its upload; noted for lists."""
        silo = self.silos[index]
        assert isinstance(silo.state, Uploading)
        assert isinstance(silo.state.protection, Masked)
        envelope, _, _ = commit_of(silo.name, self.start(number), transcript=silo.state.protection.transcript)
        self.commits[index] = envelope
        return envelope

    def all_acknowledged(self, number: int = 1) -> None:
        for index, silo in self.silos.items():
            silo.hear(UploadAcknowledged(attempt_digest(self.start(number)), self.commits[index]))

    def all_listed(self, number: int = 1) -> None:
        for silo in self.silos.values():
            silo.hear(self.listing(number=number))

    def all_bundled(self, number: int = 1) -> None:
        bundle = self.bundle(number=number)
        for silo in self.silos.values():
            silo.hear(bundle)


ALL = tuple(range(1, len(MEMBERS) + 1))
NOBODY = Digest.of(b"nobody said this")


T = TypeVar("T")


def changed(event: T, **fields: Any) -> T:
    """The event with something changed in the message that it carries."""
    carrier: Any = event
    name = next(iter(carrier.__dataclass_fields__))
    made: T = replace(carrier, **{name: replace(getattr(carrier, name), **fields)})
    return made


def leaves(cohort: Cohort, event: Event, reason: AttemptAbortReason, why: str) -> None:
    """The silo is out of the attempt, says why, and raises an alarm at home; its next attempt has new secrets."""
    silo = cohort.me
    stop = ["stop"] if silo.phase is Phase.UPLOADING else []
    before = silo.state
    lines = silo.hear(event)
    assert lines == [*stop, f"alarm {reason}", f"say abort: {reason}"]
    details = [effect.detail for effect in silo.transition.effects if hasattr(effect, "detail")]
    assert why in details[0]
    assert isinstance(silo.state, Ready)
    assert not isinstance(before, Ready)
    assert silo.state.last == before.attempt  # type: ignore[union-attr] # in an attempt
    assert silo.hear(AttemptAnnounced(cohort.start(2))) == ["record attempt 2", "say advertise_keys"]
