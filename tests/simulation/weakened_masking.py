"""Planted bugs of the masked half. As in `weakened`: what a tired engineer could have written.

Each takes away one of the rules that hold masking up: secrets that end with their process, openings that are never
forgotten, no attempt after a bundle, every mask taken off, one kind of share of each member, no secret in any log, and
ranges as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import structlog

from coordinator.aggregation.unmask import Blame, remaining_masks
from coordinator.conductor import Conductor
from coordinator.folding import run_fold
from coordinator.jobs import RunningJob
from coordinator.round.attempts import attempt_failed
from coordinator.round.driver import RoundDriver
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.phases import Aborted, Confirming, Unmasking
from coordinator.round.surroundings import FoldOrder
from coordinator.round.transition import Seal, Transition, V
from coordinator.storage.interface import Blobs, Reader, Spool
from coordinator.storage.memory_blobs import MemoryReader, MemorySpool
from participant.round.driver import Driver
from participant.round.effects import Effect, Say
from participant.round.phases import Confirmed
from participant.round.transition import Transition as ParticipantTransition
from shared.entropy import Entropy, SeededEntropy
from shared.errors import WireError
from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import AnswerKind, AttemptAnswer, RoundResult, Sealed, UnmaskShares
from shared.protocol.phases import Phase
from shared.reasons import AbortReason
from shared.secagg.masking import Masks, Term
from shared.secagg.ring import WORD
from shared.wire.sealed import reopen, seal
from tests.simulation.settings import Parts, PlantedBug
from tests.simulation.shown import as_shown
from tests.support.participant_journal import MemoryJournal

# --- kept secrets: what an attempt is masked with outlives the process, as in a machine that is set back --------------


def kept_secrets() -> Parts:
    def entropy(participant: ParticipantId, _life: int) -> Entropy:
        return SeededEntropy(participant.encode())

    return Parts(entropy=entropy)


# --- forgotten openings: whom a silo helped to open is kept with the open rounds, in memory ---------------------------


class ForgetfulJournal(MemoryJournal):
    def crash(self) -> MemoryJournal:
        left = super().crash()
        successor = ForgetfulJournal(faults=left.faults)
        rounds = {key: replace(record, opening=None) for key, record in left._kept.rounds.items()}
        successor._kept = replace(left._kept, rounds=rounds, openings={})
        return successor


def forgotten_openings() -> Parts:
    return Parts(journal=ForgetfulJournal)


# --- attempt after the bundle: opened shares that do not come are a failed attempt like any other ---------------------


class RetryingDriver(RoundDriver):
    def apply(self, transition: Transition) -> Digest | None:
        before, after = self.state, transition.state
        if isinstance(before, Unmasking) and isinstance(after, Aborted) and after.reason is AbortReason.UNOPENABLE:
            now = self._around.clock.monotonic()
            return super().apply(attempt_failed(_not_asked_yet(before, now), now, self._around.seal))
        return super().apply(transition)


class RetryingConductor(Conductor):
    def _advance(self, job: RunningJob) -> None:
        super()._advance(job)
        if job.driver is not None:
            job.driver.__class__ = RetryingDriver


def _not_asked_yet(state: Unmasking, now: float) -> Confirming:
    """As if nobody had been asked to open anything."""
    conversations = {
        member: replace(told, phase=Phase.FIXED) if told.phase is Phase.OPENING else told
        for member, told in state.conversations.items()
    }
    return Confirming(
        state.frame,
        conversations,
        state.outs,
        state.rules,
        state.fit,
        state.attempt,
        state.lefts,
        masking=state.masking,
        survivors=state.survivors,
        digest=state.digest,
        signatures={},
        deadline=now,
    )


def attempt_after_the_bundle() -> Parts:
    return Parts(conductor=RetryingConductor)


# --- mask left on: the first of the self masks is not taken off the parameters ----------------------------------------


class _MaskedSpool:
    """A spool whose parameters have one mask more."""

    def __init__(self, spool: Spool, extra: Term, word: np.dtype[np.unsignedinteger], parameter_bytes: int) -> None:
        self._spool, self._extra, self._word, self._parameter_bytes = spool, extra, word, parameter_bytes

    def reader(self) -> Reader:
        with_all = self._spool.reader()
        content = bytearray(with_all.read_at(0, with_all.size))
        with_all.close()
        words = np.frombuffer(content, self._word, count=self._parameter_bytes // self._word.itemsize)
        Masks([self._extra]).apply(words, section=0, first_byte=0)
        assert isinstance(self._spool, MemorySpool)
        return MemoryReader(bytes(content), self._spool._life)

    def close(self) -> None:
        self._spool.close()


class _View:
    """Blobs as a fold sees them that forgets this mask of this member."""

    def __init__(self, blobs: Blobs, order: FoldOrder, member: ParticipantId, extra: Term) -> None:
        self._blobs, self._order, self._member, self._extra = blobs, order, member, extra

    def __getattr__(self, name: str) -> object:
        return getattr(self._blobs, name)

    def spool(self, key: AttemptKey, participant: ParticipantId) -> object:
        spool, order = self._blobs.spool(key, participant), self._order
        if participant != self._member:
            return spool
        parameter_bytes = order.frame.layout(order.encoding).parameter_bytes
        return _MaskedSpool(spool, self._extra, np.dtype(WORD[order.encoding]), parameter_bytes)


def mask_left_on() -> Parts:
    def fold(order: FoldOrder, blobs: Blobs) -> Folded | FoldFailed:
        spec = order.frame.spec
        assert order.opening is not None
        try:
            found = remaining_masks(
                order.opening, survivors=order.survivors, members=spec.members, threshold=spec.threshold
            )
        except WireError:
            return run_fold(order, blobs)
        assert not isinstance(found, Blame)
        member, extra = _self_masks(order, found)[0]
        view = cast(Blobs, _View(blobs, order, member, extra))  # what it lacks it hands on
        return run_fold(as_shown(order, view), view)

    return Parts(fold=fold)


def _self_masks(order: FoldOrder, found: tuple[Term, ...]) -> list[tuple[ParticipantId, Term]]:
    """`remaining_masks` goes by dealer: one mask of a survivor, and of who dropped one with each survivor."""
    assert order.opening is not None
    terms, masks = iter(found), []
    for dealer in sorted(order.opening.masking.dealt):
        if dealer in order.survivors:
            masks.append((dealer, next(terms)))
        else:
            for _ in order.survivors:
                next(terms)
    return masks


# --- both kinds of share: a silo gives whatever it holds, and lets the coordinator take what it needs -----------------


class GenerousDriver(Driver):
    def _perform(self, effect: Effect) -> None:
        state = self._rounds.get(effect.message.key) if isinstance(effect, Say) else None
        super()._perform(effect)
        if isinstance(effect, Say) and isinstance(effect.message, AttemptAnswer) and isinstance(state, Confirmed):
            self._give_the_rest(state, effect.message)

    def _give_the_rest(self, state: Confirmed, message: AttemptAnswer) -> None:
        if message.kind is not AnswerKind.UNMASK_SHARES:
            return
        word = reopen(UnmaskShares, message.envelope).value
        masks = tuple((of, share.mask_share.reveal()) for of, share in sorted(state.dealt.held.items()))
        said = replace(word, self_shares=(), mask_shares=masks)
        envelope = seal(said, signer=self._around.signer, index=word.index).envelope
        super()._perform(Say(replace(message, envelope=envelope)))


def both_kinds_of_share() -> Parts:
    return Parts(driver=GenerousDriver)


# --- talkative: what helps to find a bug is logged --------------------------------------------------------------------


class TalkativeDriver(Driver):
    def _apply(self, transition: ParticipantTransition) -> None:
        super()._apply(transition)
        secrets = getattr(transition.state, "secrets", None)
        if secrets is not None:
            structlog.get_logger().debug("state_entered", seed=secrets.mask_seed.reveal().hex())


def talkative() -> Parts:
    return Parts(driver=TalkativeDriver)


# --- understated range: an off-by-one in what the next round's range is made of ---------------------------------------


def understated_range() -> Parts:
    def weaken(seal: Seal) -> Seal:
        def sealed(value: V) -> Sealed[V]:
            if isinstance(value, RoundResult):
                return seal(replace(value, top_cells=tuple(max(-32, cell - 1) for cell in value.top_cells)))
            return seal(value)

        return sealed

    return Parts(seal=weaken)


MASKED_BUGS: dict[str, PlantedBug] = {
    "kept secrets": PlantedBug(kept_secrets, frozenset({"fresh-keys"}), masked=True),
    "forgotten openings": PlantedBug(forgotten_openings, frozenset({"opened-once"}), masked=True),
    "attempt after the bundle": PlantedBug(
        attempt_after_the_bundle, frozenset({"opened-once", "honest-refused"}), masked=True, from_share=4
    ),
    "mask left on": PlantedBug(mask_left_on, frozenset({"sum-over-survivors"}), masked=True),
    "both kinds of share": PlantedBug(both_kinds_of_share, frozenset({"one-kind"}), masked=True),
    "talkative": PlantedBug(talkative, frozenset({"no-secret"}), masked=True),
    "understated range": PlantedBug(understated_range, frozenset({"range", "honest-refused"}), masked=True),
}
