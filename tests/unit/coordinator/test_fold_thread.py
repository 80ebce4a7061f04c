"""Folds elsewhere: tried again, given up with a reason, left alone when the process ends."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from coordinator.fold_thread import SAID_EVERY, FoldThread
from coordinator.folding import run_fold
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.frame import RoundFrame
from coordinator.round.phases import Contribution
from coordinator.round.surroundings import FoldOrder
from coordinator.storage.faults import Fault
from coordinator.storage.interface import Reader, Spool
from coordinator.storage.memory_blobs import MemoryBlobs, MemorySpool
from shared.errors import DurabilityUnknown, StorageError, UnknownError
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber, TaskName
from shared.job import JobSpec, MaskingSpec, RoundPolicy
from shared.protocol.messages import Envelope, RoundPlan, Sealed, UploadCommit
from shared.reasons import AbortReason, Purpose
from shared.tensors import read_index
from shared.update import (
    DType,
    Encoding,
    ModelManifest,
    StatisticsLayout,
    TensorSpec,
    UpdateHeader,
    update_digest,
)
from shared.wire.sealed import encode_update_header, seal
from tests.support.models import model_bytes, random_tensors
from tests.support.rounds import key_of

MEMBER = ParticipantId("hospital-a")
PATIENCE_S = 0.1
TRIES = 100  # a millisecond apart
KEY = AttemptKey(RoundKey(JobId("heart-1"), RoundNumber(1)), AttemptNumber(1))


class _FlakyBlobs(MemoryBlobs):
    """Reading a model fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        self.asked = threading.Event()

    def model(self, digest: Digest) -> Reader:
        self.asked.set()
        if self.errors:
            raise self.errors.pop()
        return super().model(digest)


class _Reports:
    def __init__(self) -> None:
        self.outcomes: list[Folded | FoldFailed] = []
        self.unknown: list[DurabilityUnknown] = []
        self.came = threading.Event()

    def report(self, key: RoundKey, outcome: Folded | FoldFailed) -> None:
        assert key == KEY.round
        self.outcomes.append(outcome)
        self.came.set()


def _order(blobs: MemoryBlobs) -> FoldOrder:
    manifest = ModelManifest.of([TensorSpec("weights", DType.F32, (10,))])
    file = model_bytes(manifest, random_tensors(manifest, 1))
    model = Digest.of(file)
    staged = blobs.stage("initial")
    staged.allocate(len(file))
    staged.write_at(0, memoryview(file))
    index = read_index(staged.reader())
    blobs.publish(staged, model)
    content = np.ones(10, "<f4").tobytes() + np.array([2.0, 2.0], "<f8").tobytes()
    spool = blobs.spool(KEY, MEMBER)
    spool.append(memoryview(content))
    spool.sync()
    spool.close()
    policy = RoundPolicy(quorum=1, min_survivors=1)
    spec = JobSpec(
        name="heart",
        task=TaskName("heart"),
        members=(MEMBER,),
        rounds=1,
        seed=1,
        initial=str(model),
        round=policy,
        masking=MaskingSpec(mode="plain", max_colluding=0),
    )
    plan = RoundPlan(KEY.round, Purpose.TRAIN, spec.to_bytes(), model, len(file), b"", 60.0)
    sealed = Sealed(plan, Envelope(b"", b"", 0))
    frame = RoundFrame(
        spec=spec,
        plan=sealed,
        index=index,
        statistics=StatisticsLayout(()),
        encoding=Encoding.PLAIN,
        consortium=b"",
        keys={},
        top_cells=None,
    )
    header, layout = UpdateHeader(Encoding.PLAIN, 2.0, 1), frame.layout(Encoding.PLAIN)
    said = encode_update_header(header)
    update = update_digest(said, [Digest.of(content[start:end]) for start, end in layout.chunk_ranges()])
    nothing = Digest(bytes(32))
    commit = seal(UploadCommit(nothing, nothing, 1, said, update, layout.chunks), signer=key_of(MEMBER), index=1)
    return FoldOrder(frame, KEY, Encoding.PLAIN, {MEMBER: Contribution(commit.envelope, header, update)}, None)


def test_a_fold_is_work() -> None:
    blobs, reports = _SlowBlobs(), _Reports()
    folds = FoldThread(blobs=blobs, report=reports.report, on_unknown=reports.unknown.append)
    assert folds.busy_s == 0
    folds.start(_order(blobs))
    while folds.busy_s == 0:
        pass  # it is seen while the fold goes on
    blobs.go_on.set()
    assert reports.came.wait(5)
    assert folds.close(wait_s=5)
    assert folds.busy_s > 0


def _fold(errors: list[Exception]) -> _Reports:
    blobs, reports = _FlakyBlobs(), _Reports()
    order = _order(blobs)
    blobs.errors = errors
    folds = FoldThread(
        blobs=blobs, report=reports.report, on_unknown=reports.unknown.append, retry_s=0.001, patience_s=PATIENCE_S
    )
    folds.start(order)
    if not any(isinstance(error, DurabilityUnknown) for error in errors):
        assert reports.came.wait(5)
    assert blobs.asked.wait(5)
    assert folds.close(wait_s=5)
    return reports


def test_a_fold_is_reported() -> None:
    (outcome,) = _fold([]).outcomes
    assert isinstance(outcome, Folded)
    assert outcome.weight_total == 2


def test_a_disk_that_refuses_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    (outcome,) = _fold([StorageError("full") for _ in range(TRIES - 1)]).outcomes
    assert isinstance(outcome, Folded)
    said = capfd.readouterr().err.count("fold_storage_failed")
    assert said == -(-(TRIES - 1) // SAID_EVERY), "not once for each try"


def test_a_fold_that_waits_for_its_disk_is_passed_by_others() -> None:
    blobs, heard = _SlowBlobs(), threading.Semaphore(0)
    blobs.go_on.set()
    first = _order(blobs)
    second_key = AttemptKey(RoundKey(JobId("lung-1"), RoundNumber(1)), AttemptNumber(1))
    with closing(blobs.spool(KEY, MEMBER)) as spool, closing(spool.reader()) as reader:
        content = bytes(reader.read_at(0, reader.size))
    with closing(blobs.spool(second_key, MEMBER)) as other:
        other.append(memoryview(content))
    outcomes: list[RoundKey] = []

    def report(key: RoundKey, outcome: Folded | FoldFailed) -> None:
        assert isinstance(outcome, Folded)
        outcomes.append(key)
        heard.release()

    blobs.faults.inject("spool", Fault.FAILED_NOT_PERSISTED)
    folds = FoldThread(blobs=blobs, report=report, on_unknown=lambda _: None, retry_s=0.05)
    folds.start(first)
    folds.start(replace(first, attempt=second_key))
    assert heard.acquire(timeout=5)
    assert heard.acquire(timeout=5)
    assert folds.close(wait_s=5)
    assert outcomes == [second_key.round, KEY.round]


@pytest.mark.parametrize(
    "errors", [[StorageError("full") for _ in range(TRIES)], [ZeroDivisionError()]], ids=["full", "bug"]
)
def test_what_does_not_fold_ends_the_round_with_a_reason(errors: list[Exception]) -> None:
    assert _fold(errors).outcomes == [FoldFailed(AbortReason.FOLD_FAILED)]


def test_what_nobody_can_know_is_reported_to_nobody_but_the_process() -> None:
    reports = _fold([DurabilityUnknown("who knows")])
    assert reports.outcomes == []
    assert len(reports.unknown) == 1


def test_an_unpublished_fold_is_told_to_the_process_too() -> None:
    blobs, reports = MemoryBlobs(), _Reports()
    order = _order(blobs)
    blobs.faults.inject("publish", Fault.FAILED_BUT_PERSISTED)
    heard = threading.Event()

    def unknown(error: DurabilityUnknown) -> None:
        reports.unknown.append(error)
        heard.set()

    folds = FoldThread(blobs=blobs, report=reports.report, on_unknown=unknown)
    folds.start(order)
    assert heard.wait(5)
    assert folds.close(wait_s=5)
    assert reports.outcomes == []


def test_closing_does_not_wait_for_a_disk_that_somebody_may_clear() -> None:
    blobs, reports = _FlakyBlobs(), _Reports()
    order = _order(blobs)
    blobs.errors = [StorageError("full")]
    folds = FoldThread(blobs=blobs, report=reports.report, on_unknown=reports.unknown.append, retry_s=1000)
    folds.start(order)
    assert blobs.asked.wait(5)
    assert folds.close(wait_s=5)
    assert reports.outcomes == []


class _OneOpenFile(MemoryBlobs):
    """Knows which spools are open."""

    def __init__(self) -> None:
        super().__init__()
        self.spools: list[MemorySpool] = []

    def spool(self, key: AttemptKey, participant: ParticipantId) -> Spool:
        spool = super().spool(key, participant)
        assert isinstance(spool, MemorySpool)
        self.spools.append(spool)
        return spool

    def model(self, digest: Digest) -> Reader:
        assert all(spool._closed for spool in self.spools), "a fold reads its survivors with one open file for each"
        return super().model(digest)


def test_a_fold_keeps_one_file_open_for_each_survivor() -> None:
    blobs = _OneOpenFile()
    order = _order(blobs)
    blobs.spools.clear()
    assert isinstance(run_fold(order, blobs), Folded)
    assert blobs.spools


class _SlowBlobs(_FlakyBlobs):
    """A fold that has opened its updates waits for the test before it reads the model."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def model(self, digest: Digest) -> Reader:
        self.asked.set()
        assert self.go_on.wait(5)
        return super().model(digest)


def test_an_order_that_is_dropped_before_its_turn_is_not_begun(capfd: pytest.CaptureFixture[str]) -> None:
    blobs, heard = _SlowBlobs(), threading.Semaphore(0)
    first = _order(blobs)
    second_key = AttemptKey(RoundKey(JobId("lung-1"), RoundNumber(1)), AttemptNumber(1))
    outcomes: list[tuple[RoundKey, Folded | FoldFailed]] = []

    def report(key: RoundKey, outcome: Folded | FoldFailed) -> None:
        outcomes.append((key, outcome))
        heard.release()

    folds = FoldThread(blobs=blobs, report=report, on_unknown=lambda _: None)
    folds.start(first)
    folds.start(replace(first, attempt=second_key))
    assert blobs.asked.wait(5)  # the first one is under way, the second one waits
    folds.drop(second_key.round)
    blobs.drop_spools(second_key.round)
    blobs.go_on.set()
    assert heard.acquire(timeout=5)
    folds.start(first)  # what comes after the dropped one has its turn
    assert heard.acquire(timeout=5)
    assert folds.close(wait_s=5)
    assert [key for key, _ in outcomes] == [KEY.round, KEY.round]
    assert not [spool for spool in blobs._spools if spool[0] == second_key]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [StorageError("gone"), UnknownError("gone"), RuntimeError("gone")])
def test_what_a_dropped_fold_stumbles_over_is_no_trouble(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    blobs, reports = _SlowBlobs(), _Reports()
    order = _order(blobs)
    blobs.errors = [error]
    folds = FoldThread(blobs=blobs, report=reports.report, on_unknown=reports.unknown.append, retry_s=3600)
    folds.start(order)
    assert blobs.asked.wait(5)
    folds.drop(KEY.round)
    blobs.go_on.set()
    assert reports.came.wait(5)  # reported, so that what it left in the spools is removed
    assert folds.close(wait_s=5)
    assert capfd.readouterr().err == ""
