"""One round of a masked job in which members vanish for good, each at a point of its own, through the real machines.

Updates are dense here, and the oracle adds plain integers: what comes out of the spools without masks is compared with
it to the bit, and so is the committed model. Silos say nothing from their point on; half of the patterns take the
session away as well, in the others the coordinator has to find out by waiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

import numpy as np

from coordinator.aggregation.unmask import Blame, remaining_masks
from coordinator.folding import run_fold
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.surroundings import FoldOrder
from coordinator.storage.interface import Blobs
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from participant.round.phases import Offer
from shared.ids import ParticipantId, RoundKey, RoundNumber
from shared.protocol.messages import AnswerKind, AttemptAnswer, Ready
from shared.secagg.masking import Masks
from shared.wire.session import decode_participant_message
from tests.simulation.settings import JOB, Parts, Shape
from tests.simulation.silo import Silo
from tests.simulation.steps import Federation, Step
from tests.simulation.work import loss_of
from tests.support.rounds import model_values

STEPS_MAX = 20_000
WEIGHT_Q = 1 << 8
METRIC_SCALE = 1 << 12


class Point(IntEnum):
    """The word that a silo never says."""

    READY = 0
    KEYS = 1
    SHARES = 2
    UPLOAD = 3
    SIGNATURE = 4
    OPENING = 5
    NEVER = 6


_POINTS = {
    AnswerKind.ADVERTISE_KEYS: Point.KEYS,
    AnswerKind.SHARE_KEYS: Point.SHARES,
    AnswerKind.CONSISTENCY_SIGNATURE: Point.SIGNATURE,
    AnswerKind.UNMASK_SHARES: Point.OPENING,
}


@dataclass(frozen=True, slots=True)
class Ended:
    outcome: str
    survivors: tuple[int, ...]
    """By index; of a round that was folded."""


class Dropping(Federation):
    """A federation of dense updates. The invariants of one-hot ones are not asked here."""

    def __init__(self, shape: Shape, *, seed: int = 0, store: type[MemoryStore] = MemoryStore) -> None:
        self.folded: FoldOrder | None = None
        self.opened: tuple[list[int], list[int]] | None = None
        self.gone: set[ParticipantId] = set()
        super().__init__(shape, Parts(fold=self._fold, store=store))
        self._draw = np.random.default_rng(seed)
        self.updates = {silo.name: self._draw.uniform(-1, 1, shape.elements).astype("<f4") for silo in self.silos}
        for silo in self.silos:
            silo.trained = self._trained(silo)

    def check(self) -> None:
        """What is said is looked at by the witness; the rest by `ended` and the oracle."""

    def _trained(self, silo: Silo) -> Callable[[Offer], bytes]:
        def deltas(_: Offer) -> bytes:
            return self.updates[silo.name].tobytes()

        return deltas

    # --- the round ----------------------------------------------------------------------------------------------------

    def run(self, points: Mapping[ParticipantId, Point], *, number: int = 1, silently: bool = False) -> Ended:
        """Until that round has ended. Members vanish in it, and in no round before."""
        key = RoundKey(JOB, RoundNumber(number))
        records = self.host.store._records
        for taken in range(STEPS_MAX):
            record = records.rounds.get(key)
            if record is not None and record.outcome:
                survivors = (
                    [self.host.spec.members.index(name) + 1 for name in self.folded.survivors] if self.folded else []
                )
                return Ended(record.outcome, tuple(survivors))
            steps = self.steps()
            if not steps:
                self.clock.advance(max(0.0, self.host.up().conductor.next_deadline - self.clock.monotonic()))
                self.host.breathe()
                continue
            self._take(steps[taken % len(steps)])
            if record is not None:
                for silo in self.silos:
                    if silo.name not in self.gone and self._reached(silo, key, points[silo.name]):
                        self._vanish(silo, silently=silently)
        raise AssertionError("the round does not end")

    def _steps_of(self, silo: Silo) -> list[Step]:
        return [] if silo.name in self.gone else super()._steps_of(silo)

    def _reached(self, silo: Silo, key: RoundKey, point: Point) -> bool:
        if point is Point.UPLOAD:
            return key in silo.work.uploads and silo.work.uploads[key].sent > 0  # in the middle of it
        queue = silo.link.to_coordinator if silo.link is not None else ()
        return any(_point(frame, key) is point for frame in queue)

    def _vanish(self, silo: Silo, *, silently: bool) -> None:
        self.gone.add(silo.name)
        assert silo.link is not None
        silo.link.to_coordinator.clear()
        if not silently:
            link = silo.link
            silo.notice()
            self.host.close_session(link)

    # --- the sum ------------------------------------------------------------------------------------------------------

    def _fold(self, order: FoldOrder, blobs: Blobs) -> Folded | FoldFailed:
        assert isinstance(blobs, MemoryBlobs)
        self.folded = order
        self.opened = self._without_masks(order, blobs)
        return run_fold(order, blobs)

    def _without_masks(self, order: FoldOrder, blobs: MemoryBlobs) -> tuple[list[int], list[int]] | None:
        spec, layout = order.frame.spec, order.frame.layout(order.encoding)
        assert order.opening is not None
        terms = remaining_masks(
            order.opening, survivors=order.survivors, members=spec.members, threshold=spec.threshold
        )
        assert not isinstance(terms, Blame)
        sums: list[list[int]] = []
        words = (f"<u{layout.encoding.word_bytes}", "<u8")
        for section, word in enumerate(words):
            start, end = ((0, layout.parameter_bytes), (layout.parameter_bytes, layout.total_bytes))[section]
            contents = [bytes(blobs._spools[order.attempt, name].content[start:end]) for name in order.survivors]
            total = np.sum([np.frombuffer(content, word) for content in contents], axis=0, dtype=word)
            Masks(terms).remove(total, section=section, first_byte=0)
            sums.append([int(value) for value in total.view(word.replace("u", "i"))])
        return sums[0], sums[1]

    def expected_sums(self, *, top_cell: int | None = None) -> tuple[list[int], list[int]]:
        """The same of the survivors' encodings, in plain integers; of section 1 without the range cells."""
        assert self.folded is not None
        exponent = self.scale_exponent(top_cell)
        total = [0] * self.host.shape.elements
        losses = 0
        for name in self.folded.survivors:
            for cell, value in enumerate(self.updates[name]):
                total[cell] += round(Fraction(float(value)) * Fraction(2) ** exponent)
            losses += int(min(1024.0, loss_of(self.host.spec.members.index(name) + 1))) * WEIGHT_Q * METRIC_SCALE
        weights = len(self.folded.survivors) * WEIGHT_Q
        return total, [weights, losses, weights, losses]

    def scale_exponent(self, top_cell: int | None) -> int:
        members, bits = self.host.shape.members, 64 if top_cell is None else 32
        reach = 32 if top_cell is None else top_cell + 2
        most: int = ((1 << (bits - 1)) - 1 - members) // members
        return most.bit_length() - 1 - reach

    def models(self) -> tuple[list[float], list[float]]:
        """Of the last committed round: before, and after."""
        records, files = self.host.store._records, self.host.blobs._models
        assert self.folded is not None
        parent = self.folded.frame.plan.value.model
        (new,) = [digest for digest in files if digest not in {parent, self.host.spec.initial_model}][-1:]
        assert new in records.models
        return model_values(files[parent]).tolist(), model_values(files[new]).tolist()


def expected(shape: Shape, points: Mapping[ParticipantId, Point]) -> Ended:
    """What the rules say of such a round."""
    spec = shape.spec()
    least = {Point.READY: spec.round.quorum, **dict.fromkeys((Point.KEYS, Point.SHARES, Point.UPLOAD), spec.floor)}
    for point, needed in least.items():
        if sum(own > point for own in points.values()) < needed:
            return Ended("below_quorum" if point is Point.READY else "below_floor", ())
    if sum(own > Point.SIGNATURE for own in points.values()) < spec.threshold:
        return Ended("below_floor", ())
    if sum(own > Point.OPENING for own in points.values()) < spec.threshold:
        return Ended("unopenable", ())
    survivors = (index for index, name in enumerate(spec.members, 1) if points[name] > Point.UPLOAD)
    return Ended("committed", tuple(survivors))


def few_drops(shape: Shape, seed: int) -> dict[ParticipantId, Point]:
    """About as many as a job may lose, anywhere."""
    draw = random.Random(seed)
    allowed = shape.members - shape.spec().floor
    dropping = draw.sample(shape.names, min(shape.members, draw.randint(0, allowed + 1)))
    return {name: Point(draw.randrange(6)) if name in dropping else Point.NEVER for name in shape.names}


def _point(frame: bytes, key: RoundKey) -> Point | None:
    message = decode_participant_message(frame)
    if isinstance(message, Ready) and message.key == key:
        return Point.READY
    return _POINTS.get(message.kind) if isinstance(message, AttemptAnswer) and message.key == key else None
