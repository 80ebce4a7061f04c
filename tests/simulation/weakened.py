"""Planted bugs: real components, each weakened in one place. The simulation must convict every one of them.

A bug is a part that a tired engineer could have written, not a saboteur's: it does the right thing until something
comes twice, late, or at the wrong moment.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import numpy as np

from coordinator.conductor import Conductor
from coordinator.folding import run_fold
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.surroundings import FoldOrder
from coordinator.round.transition import Seal, V
from coordinator.storage.interface import Blobs, Reader, RoundCommit, Spool
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from coordinator.storage.memory_blobs import MemoryReader, MemorySpool
from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import Envelope, RoundResult, Sealed
from shared.update import Encoding, UpdateHeader
from tests.simulation.settings import Parts, PlantedBug
from tests.simulation.shown import as_shown
from tests.simulation.weakened_masking import MASKED_BUGS
from tests.simulation.weakened_restarts import RESTART_BUGS

# --- double count: what is committed twice is counted twice -----------------------------------------------------------


class _DoubledSpool:
    """A spool whose update was added to itself."""

    def __init__(self, spool: Spool, parameter_bytes: int) -> None:
        self._spool, self._parameter_bytes = spool, parameter_bytes

    def reader(self) -> Reader:
        with_all = self._spool.reader()
        content = bytes(with_all.read_at(0, with_all.size))
        with_all.close()
        deltas = np.frombuffer(content[: self._parameter_bytes], "<f4") * np.float32(2.0)
        assert isinstance(self._spool, MemorySpool)
        return MemoryReader(deltas.tobytes() + content[self._parameter_bytes :], self._spool._life)

    def close(self) -> None:
        self._spool.close()


class _DoublingView:
    """Blobs as a fold sees them when it adds again what was committed again."""

    def __init__(self, blobs: Blobs, twice: set[tuple[AttemptKey, ParticipantId]], parameter_bytes: int) -> None:
        self._blobs, self._twice, self._parameter_bytes = blobs, twice, parameter_bytes

    def __getattr__(self, name: str) -> object:
        return getattr(self._blobs, name)

    def spool(self, key: AttemptKey, participant: ParticipantId) -> object:
        spool = self._blobs.spool(key, participant)
        return _DoubledSpool(spool, self._parameter_bytes) if (key, participant) in self._twice else spool


def double_count() -> Parts:
    committed: set[tuple[AttemptKey, ParticipantId]] = set()
    twice: set[tuple[AttemptKey, ParticipantId]] = set()

    class Counting(Conductor):
        def offer_upload(
            self, participant: ParticipantId, key: AttemptKey, envelope: Envelope, update: Digest
        ) -> Digest:
            acknowledged = super().offer_upload(participant, key, envelope, update)
            (twice if (key, participant) in committed else committed).add((key, participant))
            return acknowledged

    def fold(order: FoldOrder, blobs: Blobs) -> Folded | FoldFailed:
        view = cast(Blobs, _DoublingView(blobs, twice, order.frame.layout(order.encoding).parameter_bytes))
        return run_fold(as_shown(order, view), view)

    return Parts(conductor=Counting, fold=fold)


# --- late update folded: the fold takes what lies in the spools, and not who is in time -------------------------------


def late_update_folded() -> Parts:
    def fold(order: FoldOrder, blobs: Blobs) -> Folded | FoldFailed:
        assert isinstance(blobs, MemoryBlobs)
        survivors = dict(order.survivors)
        sample = next(iter(survivors.values()))
        for member in order.frame.spec.members:
            file = blobs._spools.get((order.attempt, member))
            if (
                file is not None
                and len(file.content) == order.frame.layout(order.encoding).total_bytes
                and member not in survivors
            ):
                survivors[member] = replace(sample, header=UpdateHeader(Encoding.PLAIN, 1.0, 1))
        more = replace(order, survivors=dict(sorted(survivors.items())))
        folded = run_fold(as_shown(more, blobs), blobs)
        if isinstance(folded, Folded):
            return replace(folded, weight_total=float(len(order.survivors)))
        return folded

    return Parts(fold=fold)


# --- lost commit: the commit is written behind, and a crash comes first -----------------------------------------------


class WriteBehindStore(MemoryStore):
    """A commit is durable only with the write that follows it."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type] # as MemoryStore
        self._behind: object = None
        self._writes = self._count()

    def _count(self) -> int:
        records = self._records
        return len(records.audit) + len(records.rounds) + sum(map(len, records.journals.values()))

    def commit_round(self, commit: RoundCommit) -> bool:
        before = copy.deepcopy(self._records)
        stored = super().commit_round(commit)
        self._behind, self._writes = before, self._count()
        return stored

    def crash(self) -> MemoryStore:
        durable = super().crash()
        successor = WriteBehindStore(faults=self.faults)
        lost = self._behind is not None and self._writes == self._count()
        successor._records = self._behind if lost else durable._records  # type: ignore[assignment] # a copy of the same
        return successor


def lost_commit() -> Parts:
    return Parts(store=WriteBehindStore)


# --- forgotten fsync: the acknowledgement comes before the disk -------------------------------------------------------


class _UnsyncedSpool(MemorySpool):
    def sync(self) -> int:
        return self.size


class UnsyncedBlobs(MemoryBlobs):
    """Says that a spool is durable without seeing to it."""

    def spool(self, key: AttemptKey, participant: ParticipantId) -> Spool:
        super().spool(key, participant).close()
        return _UnsyncedSpool(self._spools[key, participant], self._life)

    def crash(self, *, keep_bytes: int = 0) -> MemoryBlobs:
        left = super().crash(keep_bytes=keep_bytes)
        successor = UnsyncedBlobs(faults=self.faults)
        successor._spools, successor._models = left._spools, left._models
        return successor


def forgotten_fsync() -> Parts:
    return Parts(blobs=UnsyncedBlobs)


# --- wrong survivor: a position among the survivors is taken for one among the members --------------------------------


def wrong_survivor() -> Parts:
    def weaken(seal: Seal) -> Seal:
        def sealed(value: V) -> Sealed[V]:
            if isinstance(value, RoundResult):
                return seal(replace(value, survivors=tuple(range(1, len(value.survivors) + 1))))
            return seal(value)

        return sealed

    return Parts(seal=weaken)


BUGS: dict[str, PlantedBug] = {
    "double count": PlantedBug(double_count, frozenset({"sum-over-survivors"})),
    "late update folded": PlantedBug(late_update_folded, frozenset({"sum-over-survivors"})),
    "lost commit": PlantedBug(lost_commit, frozenset({"audit", "finished-stays"})),
    "forgotten fsync": PlantedBug(forgotten_fsync, frozenset({"acknowledged-durable"})),
    "wrong survivor": PlantedBug(wrong_survivor, frozenset({"sum-over-survivors", "survivors"})),
    **MASKED_BUGS,
    **RESTART_BUGS,
}
