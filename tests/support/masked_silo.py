"""Masked rounds at the coordinator's real machine: silos whose cryptography is written out from `shared.secagg` by
hand, and a wire between them that loses what a test says.

A `MaskedSilo` is honest and knows nothing of `participant`: it answers what it hears, and says again what it said. It
opens each share that it is dealt, which checks it, and holds a few masked words, so that a test can see whether a total
opens. What a liar says is made from the same parts (`seal_as`).

A `MaskedRound` performs effects one by one, as the driver does, and can be killed after any durable record. Records are
kept as the journal's bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coordinator.aggregation.unmask import Blame, remaining_masks
from coordinator.replies import open_upload_commit
from coordinator.round.effects import (
    Abort,
    AcknowledgeUpload,
    Commit,
    Connected,
    Disconnected,
    Event,
    Folded,
    Journal,
    Replied,
    Send,
    StartFold,
    Tick,
    UploadOffered,
)
from coordinator.round.frame import RoundFrame
from coordinator.round.journal import decode_record, encode_record
from coordinator.round.machine import begin, next_deadline, step
from coordinator.round.phases import Aborted, Committed, Folding, RoundState, Uploading, phase_name
from coordinator.round.restore import restore
from coordinator.round.transition import Transition
from coordinator.storage.interface import JournalEntry
from shared.entropy import SeededEntropy
from shared.errors import PeerError, StorageError
from shared.ids import Digest, ParticipantId
from shared.protocol.messages import (
    NONCE_BYTES,
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    AttemptStart,
    Consent,
    ConsistencyBundle,
    ConsistencySignature,
    Envelope,
    Exchange,
    KeyRoster,
    Ready,
    RoundBroadcast,
    RoundPlan,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UnmaskShares,
    UploadCommit,
    attempt_digest,
    plan_digest,
)
from shared.reasons import AttemptAbortReason
from shared.secagg.keys import AttemptSecrets
from shared.secagg.masking import Masks, participant_terms
from shared.secagg.sealing import OpenedShare, SealedShare, deal, open_share, shares_root
from shared.secagg.transcript import delivery_digest, roster_digest, self_seed_commitment, survivors_digest
from shared.update import UpdateHeader
from shared.wire.sealed import encode_update_header, reopen, seal
from tests.support.rounds import coordinator_seal, key_of

WORDS = 3  # of a silo's masked vector, in each section
FOLDED = Folded(Digest.of(b"next model"), 3.0, Digest.of(b"aggregate"), {"train.weight": 3.0}, (0,))

Answer = TypeVar("Answer", AdvertiseKeys, ShareKeys, ConsistencySignature, UnmaskShares, AttemptAbort)
_KINDS = {
    AdvertiseKeys: AnswerKind.ADVERTISE_KEYS,
    ShareKeys: AnswerKind.SHARE_KEYS,
    ConsistencySignature: AnswerKind.CONSISTENCY_SIGNATURE,
    UnmaskShares: AnswerKind.UNMASK_SHARES,
    AttemptAbort: AnswerKind.ATTEMPT_ABORT,
}


class Point(IntEnum):
    """Where a silo may vanish: it says everything before this word, and not this word."""

    READY = 0
    KEYS = 1
    SHARES = 2
    UPLOAD = 3
    SIGNATURE = 4
    OPENING = 5
    NEVER = 6


@dataclass
class InAttempt:
    """What a silo holds of one attempt."""

    start: Sealed[AttemptStart]
    secrets: AttemptSecrets
    advert: AttemptAnswer
    lost: bool = False
    """It restarted: the secrets are not in memory any more."""
    roster: KeyRoster | None = None
    word: AttemptAnswer | None = None
    opened: Mapping[int, OpenedShare] = field(default_factory=dict)
    t2: Digest | None = None
    upload: UploadOffered | None = None
    masked: tuple[NDArray[np.uint64], NDArray[np.uint64]] | None = None
    survivors: tuple[int, ...] = ()
    t3: Digest | None = None

    @property
    def h0(self) -> Digest:
        return attempt_digest(self.start)


class MaskedSilo:
    """One honest silo."""

    def __init__(self, name: ParticipantId, frame: RoundFrame, *, fits: bool = True) -> None:
        self.name, self.frame, self.fits = name, frame, fits
        self.index = frame.index_of(name)
        self.draw = SeededEntropy(name.encode()).take
        self.attempt: InAttempt | None = None
        self.opened: AttemptAnswer | None = None
        """What it said to open the one total of this round; it never says another."""

    # --- what it hears ------------------------------------------------------------------------------------------------

    def hears(self, message: RoundBroadcast) -> Iterator[tuple[Point, Event]]:
        """What it says to that, and which word that is."""
        if not isinstance(message, Sealed) and not self._expects(message):
            return  # of an attempt that was given up, or before what it follows
        match message:
            case Sealed(RoundPlan()):
                plan = plan_digest(self.frame.plan)
                yield Point.READY, Replied(self.name, Consent(self.frame.key, plan))
                yield Point.READY, Replied(self.name, Ready(self.frame.key, plan, self.fits))
            case Sealed(AttemptStart(), envelope):
                start = reopen(AttemptStart, envelope)
                if self.attempt is not None and self.attempt.start.value.key.attempt > start.value.key.attempt:
                    return  # one that was given up
                if self.attempt is not None and self.attempt.lost and self.attempt.start.payload == start.payload:
                    yield Point.KEYS, self.leaves()
                elif self.opened is None:
                    yield Point.KEYS, self.says(self._advert(start))
                else:
                    assert self.now.start.payload == start.payload, "another attempt after a total was opened"
                    yield Point.OPENING, self.says(self.opened)
            case KeyRoster():
                yield Point.SHARES, self.says(self._deal(message))
            case ShareDelivery():
                yield Point.UPLOAD, self._upload(message)
            case SurvivorList():
                yield Point.SIGNATURE, self.says(self._sign(message))
            case ConsistencyBundle():
                self.opened = self.opened or self.opening()
                yield Point.OPENING, self.says(self.opened)
            case Sealed():
                pass

    def says(self, answer: AttemptAnswer) -> Replied:
        return Replied(self.name, answer)

    def _expects(self, message: Exchange) -> bool:
        now = self.attempt
        if now is None or now.lost or message.key != now.start.value.key:
            return False
        match message:
            case KeyRoster():
                return True
            case ShareDelivery():
                return now.word is not None
            case SurvivorList():
                return now.upload is not None
            case ConsistencyBundle():
                return now.t3 is not None

    def restarts(self) -> None:
        """Its process is new, and the secrets of its attempt are gone; what it opened is on its disk."""
        if self.attempt is not None and self.opened is None:
            self.attempt.lost = True

    # --- what it says -------------------------------------------------------------------------------------------------

    @property
    def now(self) -> InAttempt:
        assert self.attempt is not None
        return self.attempt

    def leaves(self, reason: AttemptAbortReason = AttemptAbortReason.GONE) -> Replied:
        return self.says(self.answer(AttemptAbort(self.now.h0, self.index, reason)))

    def answer(self, value: Answer, shares: tuple[SealedShare, ...] = ()) -> AttemptAnswer:
        """Any word about the attempt that it is in, under its own signature."""
        return answer_of(self.now.start, self.seal_as(value), value, shares)

    def seal_as(self, value: Answer) -> Envelope:
        return seal(value, signer=key_of(self.name), index=self.index).envelope

    def keys(self, start: Sealed[AttemptStart], secrets: AttemptSecrets, **changed: Any) -> AdvertiseKeys:
        h0 = attempt_digest(start)
        fields: dict[str, Any] = {
            "attempt": h0,
            "index": self.index,
            "mask_key": secrets.mask_public(h0),
            "share_key": secrets.share_public(),
            "nonce": self.draw(NONCE_BYTES),
            "checkpoint": None,
        }
        return AdvertiseKeys(**(fields | changed))

    def _advert(self, start: Sealed[AttemptStart]) -> AttemptAnswer:
        if self.attempt is None or self.attempt.start.payload != start.payload:
            secrets = AttemptSecrets.draw(self.draw)
            value = self.keys(start, secrets)
            self.attempt = InAttempt(start, secrets, answer_of(start, self.seal_as(value), value))
        return self.attempt.advert

    def _deal(self, roster: KeyRoster) -> AttemptAnswer:
        now = self.now
        if now.word is None:
            adverts = {kept.signer: reopen(AdvertiseKeys, kept).value for kept in roster.adverts}
            assert now.advert.envelope in roster.adverts
            t1 = roster_digest(now.h0, [(kept.signer, kept.payload) for kept in roster.adverts])
            shares = deal(
                secrets=now.secrets,
                index=self.index,
                t1=t1,
                threshold=self.frame.spec.threshold,
                members=len(self.frame.spec.members),
                holders={index: advert.share_key for index, advert in adverts.items()},
                draw=self.draw,
            )
            commitment = self_seed_commitment(t1, self.index, now.secrets.self_seed.reveal())
            now.roster = roster
            now.word = self.answer(ShareKeys(now.h0, t1, self.index, commitment, shares_root(shares)), shares)
        return now.word

    def _upload(self, delivery: ShareDelivery) -> UploadOffered:
        now = self.now
        if now.upload is None:
            assert now.roster is not None
            assert now.word is not None
            assert now.word.envelope in delivery.dealers
            adverts = {kept.signer: reopen(AdvertiseKeys, kept).value for kept in now.roster.adverts}
            words = {kept.signer: reopen(ShareKeys, kept).value for kept in delivery.dealers}
            t1 = words[self.index].roster
            holders = sorted(adverts)
            now.opened = {
                one.dealer: open_share(
                    secrets=now.secrets,
                    index=self.index,
                    dealer=one.dealer,
                    dealer_public=adverts[one.dealer].share_key,
                    t1=t1,
                    sealed=one.share,
                    root=words[one.dealer].shares_root,
                    position=holders.index(self.index),
                    count=len(holders),
                    path=one.path,
                )
                for one in delivery.shares
            }
            now.t2 = delivery_digest(t1, [(kept.signer, kept.payload) for kept in delivery.dealers])
            now.masked = self._mask({index: adverts[index].mask_key for index in words}, now.t2)
            now.upload = self._commit(now.t2)
        return now.upload

    def _mask(self, publics: Mapping[int, bytes], t2: Digest) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        terms = participant_terms(
            secrets=self.now.secrets, index=self.index, h0=self.now.h0, t2=t2, mask_publics=publics
        )
        sections = (self.plain_words(), self.plain_words())
        for section, words in enumerate(sections):
            Masks(terms).apply(words, section=section, first_byte=0)
        return sections

    def plain_words(self) -> NDArray[np.uint64]:
        """What it masks: a digit of its own, so that a sum says who is in it, and how often."""
        return np.full(WORDS, 10 ** (self.index - 1), np.uint64)

    def _commit(self, t2: Digest) -> UploadOffered:
        envelope, header, update = self.commitment(t2)
        return UploadOffered(self.name, self.now.start.value.key, envelope, header, update)

    def commitment(self, t2: Digest, **changed: Any) -> tuple[Envelope, UpdateHeader, Digest]:
        start = self.now.start
        header = UpdateHeader(start.value.encoding, None, 1)
        update = Digest.of(start.payload + self.name.encode())
        fields: dict[str, Any] = {
            "attempt": self.now.h0,
            "transcript": t2,
            "index": self.index,
            "header": encode_update_header(header),
            "update": update,
            "chunks": self.frame.layout(start.value.encoding).chunks,
        }
        commit = UploadCommit(**(fields | changed))
        return seal(commit, signer=key_of(self.name), index=self.index).envelope, header, update

    def _sign(self, listed: SurvivorList) -> AttemptAnswer:
        now = self.now
        assert now.t2 is not None
        assert now.upload is not None
        assert now.upload.commit in listed.commits
        t3 = survivors_digest(now.t2, [(kept.signer, kept.payload) for kept in listed.commits])
        assert now.t3 in {None, t3}, "two lists of survivors in one attempt"
        now.survivors, now.t3 = tuple(kept.signer for kept in listed.commits), t3
        return self.answer(ConsistencySignature(now.h0, now.t3, self.index))

    def opening(self, **changed: Any) -> AttemptAnswer:
        now = self.now
        fields: dict[str, Any] = {
            "attempt": now.h0,
            "survivors": now.t3,
            "index": self.index,
            "self_shares": tuple((of, now.opened[of].self_share.reveal()) for of in now.survivors),
            "mask_shares": tuple(
                (of, now.opened[of].mask_share.reveal()) for of in sorted(now.opened) if of not in now.survivors
            ),
        }
        return self.answer(UnmaskShares(**(fields | changed)))


def answer_of(
    start: Sealed[AttemptStart], envelope: Envelope, value: object, shares: tuple[SealedShare, ...] = ()
) -> AttemptAnswer:
    return AttemptAnswer(start.value.key, _KINDS[type(value)], envelope, shares)


class Killed(Exception):  # noqa: N818 - what happens to a process, not an error of it
    """The coordinator is gone, right after a record was durable."""


class MaskedRound:
    """One round of a masked job, with everybody's silo."""

    def __init__(
        self,
        frame: RoundFrame,
        *,
        vanish: Mapping[ParticipantId, Point] | None = None,
        silently: bool = True,
        killed_after: int | None = None,
        fails_at: int | None = None,
    ) -> None:
        """`vanish` says whose word never comes; `silently`: it keeps its session. `killed_after` counts records;
        `fails_at` is the one that is not written the first time.
        """
        self.frame = frame
        self.silos = {member: MaskedSilo(member, frame) for member in frame.spec.members}
        self.vanish = dict(vanish or {})
        self.silently = silently
        self.killed_after = killed_after
        self.fails_at = fails_at
        self.vanished: set[ParticipantId] = set()
        self.now = 0.0
        self.journal: list[JournalEntry] = []
        self.lines: list[str] = []
        """What was done in order: records, messages, folds and ends, by their names."""
        self.waiting: deque[tuple[ParticipantId, RoundBroadcast]] = deque()
        self.refused: list[tuple[ParticipantId, PeerError]] = []
        self.fold: StartFold | None = None
        self.end: Commit | Abort | None = None
        begun = begin(frame, frame.spec.members, self.now)
        self.state: RoundState = begun.state
        self.perform(begun)

    # --- events -------------------------------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        self.perform(step(self.state, event, self.now, coordinator_seal))

    def perform(self, transition: Transition) -> None:
        for effect in transition.effects:
            match effect:
                case Journal(record):
                    if len(self.journal) + 1 == self.fails_at:
                        self.fails_at = None
                        raise StorageError("the disk is full")
                    self.journal.append(encode_record(record))
                    self.lines.append(f"journal {self.journal[-1].kind}")
                    if len(self.journal) == self.killed_after:
                        raise Killed
                case Send(member, message):
                    kind = type(message.value if isinstance(message, Sealed) else message).__name__
                    self.lines.append(f"send {kind}")
                    self.waiting.append((member, message))
                case AcknowledgeUpload():
                    self.lines.append("acknowledge")
                case StartFold():
                    self.fold = effect
                    self.lines.append("fold")
                case Commit() | Abort():
                    assert self.end is None, "a round ends once"
                    self.end = effect
        self.state = transition.state

    def tell(self, member: ParticipantId, event: Event) -> None:
        """A silo's word, at the coordinator; what is refused is noted. A word that could not be put on record ends its
        session, and the silo comes back.
        """
        if isinstance(event, UploadOffered):
            self._check_upload(event)
        try:
            self.hear(event)
        except PeerError as error:
            self.refused.append((member, error))
        except StorageError:
            self.hear(Disconnected(member))
            self.hear(Connected(member))

    def _check_upload(self, offer: UploadOffered) -> None:
        if isinstance(self.state, Uploading) and offer.attempt == self.state.key:
            header = open_upload_commit(
                offer.commit,
                state=self.state,
                participant=offer.participant,
                verifier=self.frame.keys[offer.participant],
                update=offer.update,
            )
            assert header == offer.header

    # --- time and messages --------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Hand over every message that waits, and what is answered, until nothing does."""
        while self.waiting:
            member, message = self.waiting.popleft()
            if member in self.vanished:
                continue
            for point, event in self.silos[member].hears(message):
                if point >= self.vanish.get(member, Point.NEVER):
                    self.leave(member)
                    break
                self.tell(member, event)

    def leave(self, member: ParticipantId) -> None:
        self.vanished.add(member)
        if not self.silently:
            self.hear(Disconnected(member))

    def until(self, reached: str) -> None:
        """Deliver message by message until this phase is entered."""
        while phase_name(self.state) != reached:
            assert self.waiting, f"{reached} is not reached, {phase_name(self.state)} is"
            member, message = self.waiting.popleft()
            for _, event in self.silos[member].hears(message):
                self.tell(member, event)

    def wait(self) -> None:
        """Nobody says any more: time passes until the round does something."""
        self.now = next_deadline(self.state)
        self.hear(Tick())

    def restart(self, *, back: Collection[ParticipantId] | None = None) -> None:
        """A new process reads the journal, and these members come back."""
        self.killed_after = None
        self.waiting.clear()
        self.fold = None
        self.now += 1000.0
        restored = restore(self.frame, [decode_record(entry) for entry in self.journal], self.now, None)
        self.state = restored.state
        self.perform(restored)
        for member in self.frame.spec.members if back is None else back:
            if member not in self.vanished:
                self.hear(Connected(member))

    def run(self) -> Commit | Abort:
        """To the end, with a fold that goes well."""
        for _ in range(100):
            self.deliver()
            match self.state:
                case Committed() | Aborted():
                    assert self.end is not None
                    return self.end
                case Folding():
                    self.hear(FOLDED)
                case _:
                    self.wait()
        raise AssertionError(f"the round does not end: {phase_name(self.state)}")

    # --- what became of it --------------------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        return phase_name(self.state)

    def opened_sums(self) -> list[list[int]]:
        """Both sections of the survivors' sum, with the masks taken off by what the fold was given."""
        assert self.fold is not None
        assert self.fold.opening is not None
        terms = remaining_masks(
            self.fold.opening,
            survivors=self.fold.survivors,
            members=self.frame.spec.members,
            threshold=self.frame.spec.threshold,
        )
        assert not isinstance(terms, Blame)
        sums = []
        for section in (0, 1):
            total = np.zeros(WORDS, np.uint64)
            for member in self.fold.survivors:
                masked = self.silos[member].now.masked
                assert masked is not None
                total += masked[section]
            Masks(terms).remove(total, section=section, first_byte=0)
            sums.append([int(word) for word in total])
        return sums

    def plain_sums(self) -> list[list[int]]:
        """The same sums, of the words before the masks."""
        assert self.fold is not None
        total = sum(int(self.silos[member].plain_words()[0]) for member in self.fold.survivors)
        return [[total] * WORDS] * 2
