"""Fetch, evaluate, train, spool, upload: what each failure becomes, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from participant.journal import SqliteJournal
from participant.protect import UpdateChunks
from participant.round.effects import Event, UploadAcknowledged, UploadImpossible, WorkDone, WorkFailed, WorkProgressed
from participant.round.phases import Offer, SpooledUpdate
from participant.spool import Spool
from participant.tasks.contract import (
    EvaluationDone,
    EvaluationOutcome,
    Progress,
    RoundContext,
    TaskFailed,
    TaskReady,
    TrainingDone,
    TrainingOutcome,
    ignore_progress,
)
from participant.work import AsyncWork, Means
from shared.clock import SystemClock
from shared.errors import (
    ConflictError,
    DurabilityUnknown,
    FederationError,
    IdentityError,
    LateError,
    ModelError,
    StorageError,
    TaskError,
    UnknownError,
    UnreachableError,
)
from shared.identity import SigningKey
from shared.ids import AttemptKey, Digest, RoundKey, parse_participant_id, parse_task_name
from shared.protocol.messages import AttemptStart, Envelope, Sealed, attempt_digest
from shared.reasons import DropReason, Purpose
from shared.secret import Secret
from shared.update import UpdateLayout
from tests.support.rounds import make_offer, make_plan, make_spec, spooled, start_of

LIMIT_S = 10.0


@dataclass
class FakeTask:
    """A TaskHandle that does what the test says."""

    evaluation: EvaluationOutcome = field(
        default_factory=lambda: EvaluationDone(weight=4.0, metrics={"loss": 0.5}, duration_s=0.0)
    )
    training: TrainingOutcome | None = None
    forever: bool = False
    stopped: bool = False
    called: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[RoundContext] = field(default_factory=list)
    states_in: list[Path | None] = field(default_factory=list)

    async def start(self, *, deadline_s: float) -> TaskReady | TaskFailed:
        raise NotImplementedError

    async def evaluate(
        self,
        *,
        context: RoundContext,
        model: Path,
        state_in: Path | None,
        deadline_s: float,
        progress: Progress = ignore_progress,
    ) -> EvaluationOutcome:
        assert model.read_bytes() == b"the model"
        assert deadline_s > 0
        self.called.set()
        self.contexts.append(context)
        self.states_in.append(state_in)
        if self.forever:
            await asyncio.Event().wait()
        return self.evaluation

    async def train(
        self,
        *,
        context: RoundContext,
        model: Path,
        state_in: Path | None,
        update_out: Path,
        state_out: Path,
        deadline_s: float,
        progress: Progress = ignore_progress,
    ) -> TrainingOutcome:
        progress(0.25)
        update_out.write_bytes(np.zeros(3, "<f4").tobytes())
        if self.training is not None:
            return self.training
        return TrainingDone(
            weight=8.0, metrics={"loss": 0.25}, duration_s=0.0, update=update_out, parameters=3, state=None
        )

    async def stop(self) -> None:
        self.stopped = True


@dataclass
class FakeTransfers:
    """Transfers that fail as told, then work."""

    fetch_errors: list[FederationError] = field(default_factory=list)
    upload_errors: list[FederationError] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    async def fetch_model(self, model: Digest, size: int, partial: Path) -> None:
        if self.fetch_errors:
            raise self.fetch_errors.pop(0)
        await asyncio.to_thread(partial.write_bytes, b"the model")

    async def upload(
        self,
        *,
        key: AttemptKey,
        chunks: UpdateChunks,
        layout: UpdateLayout,
        header: bytes,
        commit: Callable[[Digest], Envelope],
    ) -> None:
        if self.upload_errors:
            raise self.upload_errors.pop(0)
        self.sent += [bytes(chunk) for chunk in chunks]
        assert sum(map(len, self.sent)) == layout.total_bytes
        assert commit(Digest.of(b"update")).signer == 1


class Workshop:
    """An AsyncWork with fakes around it; events are awaited."""

    def __init__(self, folder: Path, task: FakeTask, transfers: FakeTransfers) -> None:
        self.task, self.transfers = task, transfers
        self.spool = Spool(folder)
        self.journal = SqliteJournal(folder / "journal.sqlite")
        self.events: asyncio.Queue[tuple[RoundKey, Event]] = asyncio.Queue()
        self.fatal: list[BaseException] = []
        self.work = AsyncWork(
            means=Means(
                participant=parse_participant_id("hospital-a"),
                tasks={parse_task_name("heart"): task},
                spool=self.spool,
                journal=self.journal,
                transfers=lambda: transfers,
                signer=SigningKey.from_seed(Secret(bytes(32))),
                clock=SystemClock(),
                share_progress=True,
            ),
            report=lambda key, event: self.events.put_nowait((key, event)),
            on_fatal=self.fatal.append,
        )

    async def all_events(self, count: int) -> Sequence[Event]:
        return [(await asyncio.wait_for(self.events.get(), LIMIT_S))[1] for _ in range(count)]


def worked(folder: Path, task: FakeTask, transfers: FakeTransfers, offer: Offer, *, events: int) -> Sequence[Event]:
    async def scenario() -> Sequence[Event]:
        shop = Workshop(folder, task, transfers)
        shop.work.start_work(offer)
        happened = await shop.all_events(events)
        await shop.work.close()
        assert shop.fatal == []
        return happened

    return asyncio.run(scenario())


def test_a_round_of_training_ends_in_a_spooled_update(tmp_path: Path) -> None:
    task = FakeTask()
    progress, done = worked(tmp_path, task, FakeTransfers(), make_offer(), events=2)
    assert progress == WorkProgressed(25)
    assert isinstance(done, WorkDone)
    assert done.update.header.weight == 8.0
    assert done.update.statistics == (8.0, 8.0 * 0.25, 4.0, 4.0 * 0.5)
    assert done.update.parameters == 3
    assert task.contexts[0].job_seed == make_offer().spec.seed
    assert task.states_in == [None]


def test_a_round_of_evaluation_trains_nothing(tmp_path: Path) -> None:
    evaluation = make_offer(plan=make_plan(make_spec(), purpose=Purpose.EVALUATE))
    (done,) = worked(tmp_path, FakeTask(), FakeTransfers(), evaluation, events=1)
    assert isinstance(done, WorkDone)
    assert done.update == SpooledUpdate(done.update.header, (0.0, 0.0, 4.0, 2.0), 0)
    assert done.update.header.weight == 4.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnknownError("not yours"), DropReason.MODEL_UNAVAILABLE),
        (ModelError("other bytes"), DropReason.MODEL_UNAVAILABLE),
        (StorageError("full"), DropReason.DISK),
    ],
)
def test_a_model_that_cannot_be_had_is_a_reason(tmp_path: Path, error: FederationError, reason: DropReason) -> None:
    assert worked(tmp_path, FakeTask(), FakeTransfers([error]), make_offer(), events=1) == [WorkFailed(reason)]


def test_an_unreachable_coordinator_is_tried_again(tmp_path: Path) -> None:
    transfers = FakeTransfers([UnreachableError("down"), IdentityError("the allow-list is being replaced")])
    assert isinstance(worked(tmp_path, FakeTask(), transfers, make_offer(), events=2)[-1], WorkDone)


@pytest.mark.parametrize("reason", [DropReason.TASK_CRASHED, DropReason.TASK_DEADLINE, DropReason.NON_FINITE])
def test_a_failed_call_is_an_outcome_and_its_words_stay_here(tmp_path: Path, reason: DropReason) -> None:
    failed = TaskFailed(reason=reason, message="patient 4711")
    assert worked(tmp_path, FakeTask(evaluation=failed), FakeTransfers(), make_offer(), events=1) == [
        WorkFailed(reason)
    ]
    assert worked(tmp_path, FakeTask(training=failed), FakeTransfers(), make_offer(), events=2)[-1] == WorkFailed(
        reason
    )


def test_stopping_a_round_reports_nothing_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = Workshop(tmp_path, FakeTask(forever=True), FakeTransfers())
        offer = make_offer()
        shop.work.start_work(offer)
        await asyncio.wait_for(shop.task.called.wait(), LIMIT_S)
        shop.work.stop(offer)
        await shop.work.close()
        assert shop.events.empty()
        assert shop.task.stopped

    asyncio.run(scenario())


def uploaded(
    folder: Path, errors: list[FederationError]
) -> tuple[Sequence[Event], FakeTransfers, Sealed[AttemptStart]]:
    offer = make_offer()
    attempt = start_of(offer.plan, offer.spec)
    transfers = FakeTransfers(upload_errors=errors)

    async def scenario() -> Sequence[Event]:
        shop = Workshop(folder, FakeTask(), transfers)
        shop.work.start_work(offer)
        _, done = await shop.all_events(2)
        assert isinstance(done, WorkDone)
        shop.work.start_upload(offer, done.update, attempt)
        happened = await shop.all_events(1)
        await shop.work.close()
        return happened

    return asyncio.run(scenario()), transfers, attempt


def test_an_upload_is_tried_until_it_is_acknowledged(tmp_path: Path) -> None:
    events, transfers, attempt = uploaded(tmp_path, [UnreachableError("down")])
    assert events == [UploadAcknowledged(attempt_digest(attempt))]
    assert b"".join(transfers.sent)[:12] == bytes(12)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TaskError("NaN"), DropReason.NON_FINITE),
        (StorageError("gone"), DropReason.DISK),
        (ConflictError("other bytes"), DropReason.LOST),
    ],
)
def test_an_upload_that_cannot_be_is_said(tmp_path: Path, error: FederationError, reason: DropReason) -> None:
    events, _, attempt = uploaded(tmp_path, [error])
    assert events == [UploadImpossible(attempt_digest(attempt), reason)]


def test_a_late_upload_waits_for_the_rounds_end(tmp_path: Path) -> None:
    offer = make_offer()

    async def scenario() -> None:
        shop = Workshop(tmp_path, FakeTask(), FakeTransfers(upload_errors=[LateError("over")]))
        shop.work.start_upload(offer, spooled(), start_of(offer.plan, offer.spec))
        await asyncio.gather(*shop.work._running[offer.key])
        assert shop.events.empty()
        await shop.work.close()

    asyncio.run(scenario())


def test_a_bug_in_work_ends_the_daemon(tmp_path: Path) -> None:
    class Broken(FakeTask):
        async def evaluate(self, **_: object) -> EvaluationOutcome:
            raise RuntimeError("a bug")

    async def scenario() -> None:
        shop = Workshop(tmp_path, Broken(), FakeTransfers())
        shop.work.start_work(make_offer())
        await asyncio.gather(*shop.work._running[make_offer().key], return_exceptions=True)
        await asyncio.sleep(0)  # the callback of the task that ended
        await shop.work.close()
        assert str(shop.fatal[0]) == "a bug"

    asyncio.run(scenario())


def test_a_failed_sync_ends_the_daemon_and_is_no_outcome(tmp_path: Path) -> None:
    class Unsure(FakeTransfers):
        async def fetch_model(self, model: Digest, size: int, partial: Path) -> None:
            raise DurabilityUnknown("fsync failed")

    async def scenario() -> None:
        shop = Workshop(tmp_path, FakeTask(), Unsure())
        shop.work.start_work(make_offer())
        await asyncio.gather(*shop.work._running[make_offer().key], return_exceptions=True)
        await asyncio.sleep(0)  # the callback of the task that ended
        await shop.work.close()
        assert [type(error) for error in shop.fatal] == [DurabilityUnknown]
        assert shop.events.empty()

    asyncio.run(scenario())
