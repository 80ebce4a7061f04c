"""Whole folds, from spools and an opening to a published model: what comes out, and how it ends when it cannot."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from coordinator.folding import run_fold, run_together
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.frame import RoundFrame
from coordinator.round.surroundings import FoldOrder
from coordinator.storage.memory import MemoryBlobs
from shared.errors import StorageError
from shared.hashing import tagged_hash
from shared.ids import AttemptKey, AttemptNumber, Digest, ParticipantId
from shared.reasons import AbortReason, Purpose
from shared.update import RANGE_NONE, Encoding, update_digest
from shared.wire.sealed import decode_upload_commit
from tests.support.masked import MaskedAttempt, SiloUpdate, make_masked
from tests.support.rounds import ELEMENTS, MEMBERS, A, B, C, D, initial_model, make_masked_frame, model_values

TRAIN = make_masked_frame(top_cells=(0,))
FIRST = make_masked_frame()
EVALUATE = make_masked_frame(purpose=Purpose.EVALUATE)
KEY = AttemptKey(TRAIN.key, AttemptNumber(1))
UPDATES = {
    A: SiloUpdate(deltas=np.full(ELEMENTS, 0.5, "<f4"), weight=1.0, means=[1.0], evaluate_weight=4, evaluate_means=[2]),
    C: SiloUpdate(deltas=np.full(ELEMENTS, -0.25, "<f4"), weight=2.0, means=[4.0]),
    D: SiloUpdate(deltas=np.full(ELEMENTS, 1.0, "<f4"), weight=1.0, means=[3.0]),
}


def attempt_of(
    frame: RoundFrame,
    *,
    encoding: Encoding,
    updates: Mapping[ParticipantId, SiloUpdate] = UPDATES,
    wrong_dealers: Collection[ParticipantId] = (),
) -> MaskedAttempt:
    trains = frame.plan.value.purpose is Purpose.TRAIN
    return make_masked(
        frame.spec,
        layout=frame.layout(encoding),
        sizes=[ELEMENTS] if trains else [],
        updates=updates,
        dropped=[name for name in MEMBERS if name not in updates],
        wrong_dealers=wrong_dealers,
        top_cells=frame.top_cells,
    )


def order_of(frame: RoundFrame, attempt: MaskedAttempt, blobs: MemoryBlobs) -> FoldOrder:
    content = initial_model()
    staged = blobs.stage("initial")
    staged.allocate(len(content))
    staged.write_at(0, memoryview(content))
    blobs.publish(staged, frame.spec.initial_model)
    attempt.spool(blobs, KEY)
    return FoldOrder(frame, KEY, attempt.layout.encoding, attempt.contributions, attempt.opening)


def uploading(attempt: MaskedAttempt, member: ParticipantId, content: bytes) -> MaskedAttempt:
    """The same, with another update that this member committed to."""
    digests = [Digest.of(content[start:end]) for start, end in attempt.layout.chunk_ranges()]
    kept = attempt.contributions[member]
    update = update_digest(decode_upload_commit(kept.commit.payload).header, digests)
    return replace(
        attempt,
        sections={**attempt.sections, member: content},
        contributions={**attempt.contributions, member: replace(kept, update=update)},
    )


def folded(frame: RoundFrame, attempt: MaskedAttempt) -> tuple[Folded | FoldFailed, MemoryBlobs]:
    blobs = MemoryBlobs()
    return run_fold(order_of(frame, attempt, blobs), blobs), blobs


@pytest.mark.parametrize(
    ("frame", "encoding"), [(FIRST, Encoding.U64), (TRAIN, Encoding.U32), (TRAIN, Encoding.U64), (TRAIN, Encoding.U16)]
)
def test_a_train_round_makes_the_next_model(frame: RoundFrame, encoding: Encoding) -> None:
    attempt = attempt_of(frame, encoding=encoding)
    outcome, blobs = folded(frame, attempt)
    assert isinstance(outcome, Folded)
    model = blobs.model(outcome.next_model)
    values = model_values(bytes(model.read_at(0, model.size)))
    assert values.tolist() == pytest.approx([0.25] * ELEMENTS, abs=1e-3)  # (0.5 - 0.5 + 1) / 4
    assert outcome.weight_total == 4.0
    assert outcome.totals == {"train.weight": 4, "train.loss": 12, "evaluate.weight": 4, "evaluate.loss": 8}
    assert outcome.top_cells == (0,)
    assert outcome.aggregate == tagged_hash(
        "aggregate", *(attempt.contributions[name].update.raw for name in (A, C, D))
    )
    assert folded(frame, attempt)[0] == outcome


def test_an_evaluate_round_has_totals_and_no_model() -> None:
    nothing = np.empty(0, "<f4")
    updates = {
        name: SiloUpdate(deltas=nothing, evaluate_weight=weight, evaluate_means=[weight / 4])
        for name, weight in ((A, 1.0), (B, 2.0), (C, 3.0))
    }
    outcome, _ = folded(EVALUATE, attempt_of(EVALUATE, encoding=Encoding.U64, updates=updates))
    assert isinstance(outcome, Folded)
    assert (outcome.next_model, outcome.weight_total, outcome.top_cells) == (EVALUATE.plan.value.model, 6.0, ())
    assert outcome.totals == {"train.weight": 0, "train.loss": 0, "evaluate.weight": 6, "evaluate.loss": 3.5}


def test_a_round_that_changed_nothing_has_no_range() -> None:
    updates = {name: replace(one, deltas=np.zeros(ELEMENTS, "<f4")) for name, one in UPDATES.items()}
    outcome, _ = folded(TRAIN, attempt_of(TRAIN, encoding=Encoding.U32, updates=updates))
    assert isinstance(outcome, Folded)
    assert outcome.top_cells == (RANGE_NONE,)
    assert outcome.next_model == TRAIN.spec.initial_model


@pytest.mark.parametrize("dealer", [B, C])
def test_a_wrong_dealer_ends_the_round_and_is_named_in_the_log(dealer: ParticipantId) -> None:
    attempt = attempt_of(TRAIN, encoding=Encoding.U32, wrong_dealers=[dealer])
    with capture_logs() as logs:
        outcome, _ = folded(TRAIN, attempt)
    assert isinstance(outcome, FoldFailed)
    assert outcome.reason is AbortReason.UNOPENABLE
    assert [line["dealer"] for line in logs if line["event"] == "dealer_blamed"] == [dealer]


def test_too_few_good_words_end_the_round() -> None:
    attempt = attempt_of(TRAIN, encoding=Encoding.U32)
    few = {A: attempt.opening.revealed[A], C: attempt.opening.revealed[C]}
    outcome, _ = folded(TRAIN, replace(attempt, opening=replace(attempt.opening, revealed=few)))
    assert isinstance(outcome, FoldFailed)
    assert outcome.reason is AbortReason.UNOPENABLE


def test_a_total_that_cannot_be_ends_the_round() -> None:
    attempt = attempt_of(TRAIN, encoding=Encoding.U32)
    start = attempt.layout.parameter_bytes
    content = attempt.sections[A]
    word = (int.from_bytes(content[start : start + 8], "little") - 4 * 256) % 2**64  # the total is 0
    lied = content[:start] + word.to_bytes(8, "little") + content[start + 8 :]
    outcome, _ = folded(TRAIN, uploading(attempt, A, lied))
    assert isinstance(outcome, FoldFailed)
    assert outcome.reason is AbortReason.TOTAL_REFUSED
    assert outcome.detail.startswith("3 updates have a train.weight of 0.0 examples in total")
    assert not any(name in outcome.detail for name in MEMBERS)


def test_masks_that_do_not_cancel_never_make_a_model() -> None:
    """One survivor's update of another attempt: its weight is noise, and the round ends there."""
    attempt = attempt_of(TRAIN, encoding=Encoding.U32)
    other = make_masked(
        TRAIN.spec,
        layout=attempt.layout,
        sizes=[ELEMENTS],
        updates=UPDATES,
        dropped=[B],
        top_cells=TRAIN.top_cells,
        seed=b"another",
    )
    outcome, _ = folded(TRAIN, uploading(attempt, C, other.sections[C]))
    assert isinstance(outcome, FoldFailed)
    assert outcome.reason is AbortReason.TOTAL_REFUSED


# --- a disk that changes what it keeps --------------------------------------------------------------------------------


ATTEMPT = attempt_of(TRAIN, encoding=Encoding.U32)


def refused_as_damaged(order: FoldOrder, blobs: MemoryBlobs, *said: str) -> None:
    """And nothing is published or left lying."""
    models = dict(blobs._models)
    outcome = run_fold(order, blobs)
    assert isinstance(outcome, FoldFailed)
    assert outcome.reason is AbortReason.DAMAGED
    assert all(part in outcome.detail for part in said), outcome.detail
    assert blobs._models == models
    assert all(staged.left is None for staged in blobs._staged.values())


@given(place=st.integers(0, ATTEMPT.layout.total_bytes - 1), bit=st.integers(0, 7), member=st.sampled_from([A, C, D]))
def test_of_an_update_with_a_changed_byte_no_sum_is_made(place: int, bit: int, member: ParticipantId) -> None:
    """Wherever it is: in a parameter, in a weight (where the total would be refused) or in a range cell."""
    blobs = MemoryBlobs()
    order = order_of(TRAIN, ATTEMPT, blobs)
    blobs._spools[KEY, member].content[place] ^= 1 << bit
    refused_as_damaged(order, blobs, f"attempt {KEY}", f"committed by {member}")


@pytest.mark.parametrize("length", [0, 17, ATTEMPT.layout.total_bytes - 1])
def test_an_update_that_lost_its_end_is_damaged(length: int) -> None:
    blobs = MemoryBlobs()
    order = order_of(TRAIN, ATTEMPT, blobs)
    del blobs._spools[KEY, D].content[length:]
    refused_as_damaged(order, blobs, f"committed by {D}")


def test_an_evaluate_round_is_no_less_careful() -> None:
    nothing = np.empty(0, "<f4")
    updates = {name: SiloUpdate(deltas=nothing, evaluate_weight=1.0, evaluate_means=[0.5]) for name in (A, B, C)}
    blobs = MemoryBlobs()
    order = order_of(EVALUATE, attempt_of(EVALUATE, encoding=Encoding.U64, updates=updates), blobs)
    blobs._spools[KEY, B].content[-1] ^= 1  # the loss of one silo
    refused_as_damaged(order, blobs, f"committed by {B}")


def test_nothing_is_added_to_a_model_with_a_changed_byte() -> None:
    blobs = MemoryBlobs()
    order = order_of(TRAIN, ATTEMPT, blobs)
    content = bytearray(blobs._models[TRAIN.spec.initial_model])
    content[-1] ^= 1
    blobs._models[TRAIN.spec.initial_model] = bytes(content)
    refused_as_damaged(order, blobs, f"model {TRAIN.spec.initial_model}")


# --- threads ----------------------------------------------------------------------------------------------------------


def test_jobs_are_done_together() -> None:
    met = threading.Barrier(3)
    done: list[int] = []

    def job(number: int) -> None:
        met.wait(5)
        done.append(number)

    with ThreadPoolExecutor(2) as pool:
        run_together(pool, [partial(job, number) for number in range(3)])
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_when_no_job_writes_any_more(failing: int) -> None:
    ended = threading.Event()
    early: list[bool] = []

    def fail() -> None:
        raise StorageError("gone")

    def go_on() -> None:
        early.append(ended.wait(0.05))

    jobs = [go_on, go_on]
    jobs.insert(failing, fail)
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(StorageError, match="gone"):
            run_together(pool, jobs)
        ended.set()
    assert early == [False, False]
