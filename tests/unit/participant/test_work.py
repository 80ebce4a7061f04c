"""Fetch, evaluate, train, spool, upload: what each failure becomes, and what is tried again."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from participant.journal import SqliteJournal
from participant.protect import ResendDiffers, UpdateChunks
from participant.round.checks import verified_result
from participant.round.effects import Event, UploadAcknowledged, UploadImpossible, WorkDone, WorkFailed, WorkProgressed
from participant.round.phases import Masked, Measured, Offer, Plain, SpooledUpdate
from participant.sent import SENT_FILE, SentRecord
from participant.spool import Spool
from participant.spooled import digests_beside
from participant.tasks.contract import (
    CheckpointPlace,
    EvaluationDone,
    EvaluationOutcome,
    Noted,
    NoteKind,
    Progress,
    RoundContext,
    TaskFailed,
    TaskReady,
    TrainingDone,
    TrainingOutcome,
    ignore_note,
    ignore_progress,
)
from participant.training import TASK_RESTARTS_MAX
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
from shared.ids import AttemptKey, Digest, RoundKey, TaskName, parse_participant_id, parse_task_name
from shared.protocol.messages import AttemptStart, Envelope, Sealed, UploadCommit, attempt_digest
from shared.reasons import AttemptAbortReason, DropReason, Purpose
from shared.secagg.fixed_point import scale_exponent
from shared.secagg.masking import Masks
from shared.secret import Secret
from shared.update import Encoding, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import decode_update_header, encode_envelope, reopen
from tests.support.rounds import (
    ELEMENTS,
    initial_model,
    make_masked_spec,
    make_offer,
    make_plan,
    make_spec,
    offer_of,
    result_of,
    spooled,
    start_of,
)

LIMIT_S = 10.0


@dataclass
class FakeTask:
    """A TaskHandle that does what the test says."""

    evaluation: EvaluationOutcome = field(
        default_factory=lambda: EvaluationDone(weight=4.0, metrics={"loss": 0.5}, duration_s=0.0)
    )
    training: TrainingOutcome | None = None
    deltas: np.ndarray = field(default_factory=lambda: np.zeros(3))
    forever: bool = False
    loads: list[asyncio.Event] = field(default_factory=list)
    """Each is awaited by one load, the first one first."""
    loading: asyncio.Event = field(default_factory=asyncio.Event)
    loaded: bool = False
    stopped: bool = False
    called: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[RoundContext] = field(default_factory=list)
    states_in: list[Path | None] = field(default_factory=list)
    crashes: list[Callable[[Path, Noted], None]] = field(default_factory=list)
    """What each training does before its process is killed; one that comes after them is not."""
    places: list[CheckpointPlace] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)

    async def start(self, *, deadline_s: float) -> TaskReady | TaskFailed:
        self.loading.set()
        if self.loads and not self.loaded:
            await self.loads.pop(0).wait()
            self.loaded = True
        return TaskReady(
            device="cpu", device_note=None, keeps_state=False, tensors=1, parameters=3, manifest_digest=64 * "0"
        )

    async def evaluate(
        self,
        *,
        context: RoundContext,
        model: Path,
        state_in: Path | None,
        deadline_s: float,
        progress: Progress = ignore_progress,
    ) -> EvaluationOutcome:
        assert model.exists()
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
        checkpoint: CheckpointPlace | None = None,
        noted: Noted = ignore_note,
    ) -> TrainingOutcome:
        assert checkpoint is not None
        self.places.append(checkpoint)
        self.reserved.append(update_out.stat().st_size)
        if self.crashes:
            self.crashes.pop(0)(checkpoint.path, noted)
            return TaskFailed(reason=DropReason.TASK_CRASHED, message="ended by SIGKILL", process_ended=True)
        progress(0.25)
        update_out.write_bytes(self.deltas.astype("<f4").tobytes())
        if self.training is not None:
            return self.training
        return TrainingDone(
            weight=8.0,
            metrics={"loss": 0.25},
            duration_s=0.0,
            update=update_out,
            parameters=self.deltas.size,
            state=None,
        )

    async def stop(self) -> None:
        self.stopped = True


@dataclass
class FakeTransfers:
    """Transfers that fail as told, then work."""

    fetch_errors: list[FederationError] = field(default_factory=list)
    upload_errors: list[FederationError] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    header: bytes = b""
    model: bytes = field(default_factory=initial_model)

    async def fetch_model(self, model: Digest, size: int, partial: Path) -> None:
        if self.fetch_errors:
            raise self.fetch_errors.pop(0)
        await asyncio.to_thread(partial.write_bytes, self.model)

    async def upload(
        self,
        *,
        key: AttemptKey,
        chunks: UpdateChunks,
        layout: UpdateLayout,
        header: bytes,
        commit: Callable[[Digest], Envelope],
    ) -> Envelope:
        if self.upload_errors:
            raise self.upload_errors.pop(0)
        self.sent = [bytes(chunk.data) for chunk in chunks]
        assert sum(map(len, self.sent)) == layout.total_bytes
        self.header = header
        return commit(update_digest(header, map(Digest.of, self.sent)))


class Workshop:
    """An AsyncWork with fakes around it; events are awaited."""

    def __init__(self, folder: Path, task: FakeTask, transfers: FakeTransfers) -> None:
        self.task, self.transfers = task, transfers
        self.spool = Spool(folder)
        self.journal = SqliteJournal(folder / "journal.sqlite")
        self.events: asyncio.Queue[tuple[RoundKey, Event]] = asyncio.Queue()
        self.fatal: list[BaseException] = []
        self.trainings: list[float] = []
        self.loads: list[tuple[TaskName, bool]] = []
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
                observer=self,
                sent=SentRecord(folder, clock=SystemClock()),
                disk_retry_s=0.01,
            ),
            report=lambda key, event: self.events.put_nowait((key, event)),
            on_fatal=self.fatal.append,
        )

    def trained(self, seconds: float) -> None:
        self.trainings.append(seconds)

    def task_loaded(self, name: TaskName, *, available: bool) -> None:
        self.loads.append((name, available))

    async def all_events(self, count: int) -> Sequence[Event]:
        return [(await asyncio.wait_for(self.events.get(), LIMIT_S))[1] for _ in range(count)]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def worked(folder: Path, task: FakeTask, transfers: FakeTransfers, offer: Offer, *, events: int) -> Sequence[Event]:
    async def scenario() -> Sequence[Event]:
        shop = Workshop(folder, task, transfers)
        shop.work.start_work(offer)
        happened = await shop.all_events(events)
        await shop.work.close()
        assert shop.fatal == []
        return happened

    return asyncio.run(scenario())


def test_loads_and_trainings_are_told_of(tmp_path: Path) -> None:
    async def scenario(task: FakeTask, folder: Path, events: int) -> Workshop:
        shop = Workshop(folder, task, FakeTransfers())
        shop.work.start_work(make_offer())
        await shop.all_events(events)
        await shop.work.close()
        return shop

    failed = TaskFailed(reason=DropReason.TASK_CRASHED, message="no")
    trained = asyncio.run(scenario(FakeTask(), _folder(tmp_path / "trained"), 2))
    crashed = asyncio.run(scenario(FakeTask(training=failed), _folder(tmp_path / "crashed"), 2))
    assert (len(trained.trainings), trained.loads) == (1, [("heart", True)])
    assert (crashed.trainings, crashed.loads) == ([], [("heart", True)])


def test_a_round_of_training_ends_in_a_spooled_update(tmp_path: Path) -> None:
    task = FakeTask()
    progress, done = worked(tmp_path, task, FakeTransfers(), make_offer(), events=2)
    assert progress == WorkProgressed(25)
    assert isinstance(done, WorkDone)
    root = Digest.of(Digest.of(bytes(12)).raw)
    assert done.update == SpooledUpdate(Measured(8.0, (0.25,)), Measured(4.0, (0.5,)), 3, (), fits=True, root=root)
    assert task.reserved == [4 * ELEMENTS]
    assert task.contexts[0].job_seed == make_offer().spec.seed
    assert task.states_in == [None]


def test_a_round_of_evaluation_trains_nothing(tmp_path: Path) -> None:
    evaluation = make_offer(plan=make_plan(make_spec(), purpose=Purpose.EVALUATE))
    (done,) = worked(tmp_path, FakeTask(), FakeTransfers(), evaluation, events=1)
    assert isinstance(done, WorkDone)
    assert done.update == SpooledUpdate(None, Measured(4.0, (0.5,)), 0, (), fits=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnknownError("not yours"), DropReason.MODEL_UNAVAILABLE),
        (ModelError("other bytes"), DropReason.MODEL_UNAVAILABLE),
    ],
)
def test_a_model_that_cannot_be_had_is_a_reason(tmp_path: Path, error: FederationError, reason: DropReason) -> None:
    assert worked(tmp_path, FakeTask(), FakeTransfers([error]), make_offer(), events=1) == [WorkFailed(reason)]


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_kept_model_is_fetched_again_where_the_disk_changed_it(tmp_path: Path, *, spoiled: bool) -> None:
    offer = make_offer()
    kept = Spool(tmp_path).model(offer.plan.value.model)
    kept.write_bytes(initial_model())
    if spoiled:
        kept.write_bytes(initial_model()[:-1] + b"\xff")
    transfers = FakeTransfers(model=initial_model(), fetch_errors=[UnreachableError("asked")])
    assert isinstance(worked(tmp_path, FakeTask(), transfers, offer, events=2)[-1], WorkDone)
    assert kept.read_bytes() == initial_model()
    assert bool(transfers.fetch_errors) is not spoiled


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


@pytest.mark.parametrize(
    ("largest", "fits"),
    [(0.5, True), (4.0, True), (4.01, False)],
)
def test_a_masked_update_is_looked_over_before_it_is_ready(tmp_path: Path, largest: float, *, fits: bool) -> None:
    spec = make_masked_spec(masking={"weights": "equal"})
    before = result_of(start_of(make_plan(spec), spec), (1, 2, 3), top_cells=(0,))
    verified = verified_result(before.value, before.envelope)
    plan = make_plan(spec, number=2, previous_result=encode_envelope(before.envelope))
    offer = offer_of(spec, plan=plan, previous=before.value, verified=verified)
    task = FakeTask(deltas=np.array([largest] + [0.0] * (ELEMENTS - 1)))
    transfers = FakeTransfers(model=initial_model())
    done = worked(tmp_path, task, transfers, offer, events=2)[-1]
    assert isinstance(done, WorkDone)
    assert done.update.fits is fits
    assert done.update.cells == (math.ceil(math.log2(largest)),)


@pytest.mark.parametrize(
    ("deltas", "reason"),
    [
        (np.full(ELEMENTS, np.nan), DropReason.NON_FINITE),
        (np.full(ELEMENTS, 2.0**31), DropReason.OUT_OF_RANGE),
        (np.zeros(ELEMENTS + 1), DropReason.MANIFEST_MISMATCH),
    ],
)
def test_an_update_that_cannot_be_masked_is_a_reason(tmp_path: Path, deltas: np.ndarray, reason: DropReason) -> None:
    transfers = FakeTransfers(model=initial_model())
    offer = offer_of(make_masked_spec())
    assert worked(tmp_path, FakeTask(deltas=deltas), transfers, offer, events=2)[-1] == WorkFailed(reason)


def test_a_weight_that_no_update_may_have_is_a_reason(tmp_path: Path) -> None:
    weightless = EvaluationDone(weight=0.0, metrics={"loss": 0.5}, duration_s=0.0)
    happened = worked(tmp_path, FakeTask(evaluation=weightless), FakeTransfers(), make_offer(), events=1)
    assert happened == [WorkFailed(DropReason.TASK_INVALID)]


# --- an interrupted training, and a disk that refuses -----------------------------------------------------------------


def killed(path: Path, noted: Noted) -> None:
    """Without having saved anything."""


def saved_and_killed(path: Path, noted: Noted) -> None:
    path.write_bytes(b"at step 3")
    noted(NoteKind.SAVED, "9 bytes")


def test_a_training_whose_process_was_killed_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    task = FakeTask(crashes=[saved_and_killed] * TASK_RESTARTS_MAX)
    assert isinstance(worked(tmp_path, task, FakeTransfers(), make_offer(), events=2)[-1], WorkDone)
    offer = make_offer()
    place = CheckpointPlace(Spool(tmp_path).checkpoint(offer.key, offer.digest), f"heart-1/1 {offer.digest}")
    assert task.places == [place] * (1 + TASK_RESTARTS_MAX)


@pytest.mark.parametrize(
    ("crashes", "calls"), [([saved_and_killed] * 9, 1 + TASK_RESTARTS_MAX), ([killed] * 9, 1), ([killed], 1)]
)
def test_what_is_killed_each_time_or_saved_nothing_is_an_outcome(
    tmp_path: Path, crashes: list[Callable[[Path, Noted], None]], calls: int
) -> None:
    task = FakeTask(crashes=crashes)
    happened = worked(tmp_path, task, FakeTransfers(), make_offer(), events=1)
    assert happened == [WorkFailed(DropReason.TASK_CRASHED)]
    assert len(task.places) == calls


def test_what_the_task_raised_is_an_outcome_even_with_a_checkpoint(tmp_path: Path) -> None:
    raised = TaskFailed(reason=DropReason.TASK_CRASHED, message="ValueError")
    task = FakeTask(crashes=[saved_and_killed], training=raised)
    happened = worked(tmp_path, task, FakeTransfers(), make_offer(), events=2)
    assert happened[-1] == WorkFailed(DropReason.TASK_CRASHED)
    assert len(task.places) == 2


def test_a_restart_of_the_daemon_finds_the_checkpoint_of_the_same_plan_and_of_no_other(tmp_path: Path) -> None:
    offer = make_offer()
    other = make_offer(plan=make_plan(make_spec(), deadline_s=601.0))
    spool = Spool(tmp_path)
    for found in (offer, other):
        spool.begin(found.key, found.digest)
        spool.checkpoint(found.key, found.digest).write_bytes(b"at step 3")
    spool.checkpoint(offer.key, offer.digest).write_bytes(b"at step 3")
    spool.deltas(offer.key).write_bytes(b"of an update that was never finished")
    worked(tmp_path, FakeTask(), FakeTransfers(), offer, events=2)
    folder = spool.deltas(offer.key).parent
    assert {path.name for path in folder.iterdir()} == {"deltas.f32", "deltas.f32.sha256", f"{offer.digest}.checkpoint"}


def test_everything_of_a_round_is_private_and_gone_at_its_end(tmp_path: Path) -> None:
    offer = make_offer()

    async def scenario() -> None:
        shop = Workshop(tmp_path, FakeTask(crashes=[saved_and_killed]), FakeTransfers())
        shop.work.start_work(offer)
        await shop.all_events(2)
        left = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
        assert len(left) == 3
        assert all(path.stat().st_mode & 0o077 == 0 for path in left)
        shop.work.erase(offer)
        assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
        await shop.work.close()

    umask = os.umask(0o077)
    try:
        asyncio.run(scenario())
    finally:
        os.umask(umask)


def test_a_disk_that_refuses_is_waited_for(tmp_path: Path) -> None:
    transfers = FakeTransfers([StorageError("full"), StorageError("still full")])
    with capture_logs() as logged:
        happened = worked(tmp_path, FakeTask(), transfers, make_offer(), events=2)
    assert isinstance(happened[-1], WorkDone)
    said = [line for line in logged if line["event"].startswith("disk_")]
    assert [line["event"] for line in said] == ["disk_waits", "disk_goes_on"], "once a minute is often enough"
    assert said[0]["detail"] == "full"
    assert said[0]["seconds_left"] in {599, 600}


def test_a_disk_that_refuses_to_the_deadline_takes_the_silo_out(tmp_path: Path) -> None:
    offer = make_offer(deadline_s=1.0)
    transfers = FakeTransfers([StorageError("full") for _ in range(1000)])
    assert worked(tmp_path, FakeTask(), transfers, offer, events=1) == [WorkFailed(DropReason.DISK)]


def test_a_disk_that_refuses_when_the_time_runs_out_is_the_reason(tmp_path: Path) -> None:
    """In the middle of a try, too: there the model is not what was missing."""

    class Slow(FakeTransfers):
        async def fetch_model(self, model: Digest, size: int, partial: Path) -> None:
            if not self.fetch_errors:
                await asyncio.Event().wait()
            await super().fetch_model(model, size, partial)

    offer = make_offer(deadline_s=1.0)
    happened = worked(_folder(tmp_path / "disk"), FakeTask(), Slow([StorageError("full")]), offer, events=1)
    assert happened == [WorkFailed(DropReason.DISK)]
    happened = worked(_folder(tmp_path / "model"), FakeTask(), Slow(), offer, events=1)
    assert happened == [WorkFailed(DropReason.MODEL_UNAVAILABLE)]


def test_a_training_that_waits_for_room_to_its_deadline_failed_for_the_disk(tmp_path: Path) -> None:
    def no_room(path: Path, noted: Noted) -> None:
        path.write_bytes(b"at step 3")
        noted(NoteKind.NO_ROOM, "No space left on device")

    late = TaskFailed(reason=DropReason.TASK_DEADLINE, message="not finished after 600.0 s")
    task = FakeTask(crashes=[no_room], training=late)
    happened = worked(tmp_path, task, FakeTransfers(), make_offer(), events=2)
    assert happened[-1] == WorkFailed(DropReason.DISK)


# --- uploads ----------------------------------------------------------------------------------------------------------


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
        shop.work.start_upload(offer, done.update, attempt, Plain())
        happened = await shop.all_events(1)
        await shop.work.close()
        return happened

    return asyncio.run(scenario()), transfers, attempt


def test_an_upload_is_tried_until_it_is_acknowledged(tmp_path: Path) -> None:
    (event,), transfers, attempt = uploaded(tmp_path, [UnreachableError("down")])
    assert isinstance(event, UploadAcknowledged)
    assert event.attempt == attempt_digest(attempt)
    assert b"".join(transfers.sent)[:12] == bytes(12)


def test_an_acknowledged_upload_is_told_once_with_what_left(tmp_path: Path) -> None:
    with capture_logs() as logged:
        _, transfers, attempt = uploaded(tmp_path, [UnreachableError("down")])
    (line,) = [entry for entry in logged if entry["event"] == "update_sent"]
    key = attempt.value.key
    assert line == {
        "event": "update_sent",
        "log_level": "info",
        "job": key.round.job,
        "round": key.round.number,
        "attempt": key.attempt,
        "bytes": sum(map(len, transfers.sent)),
        "update": str(update_digest(transfers.header, map(Digest.of, transfers.sent))),
        "protection": "plain",
    }


def test_an_upload_that_was_not_acknowledged_is_not_told(tmp_path: Path) -> None:
    with capture_logs() as logged:
        uploaded(tmp_path, [ConflictError("other bytes")])
    assert [entry["event"] for entry in logged] == ["upload_impossible"]


def test_an_upload_is_on_this_silos_own_record(tmp_path: Path) -> None:
    _, transfers, attempt = uploaded(tmp_path, [UnreachableError("down")])
    (record,) = tmp_path.rglob(SENT_FILE)
    (sent,) = SentRecord(record.parent, clock=SystemClock()).last(50)
    key = attempt.value.key
    assert (sent.job, sent.round, sent.attempt) == (key.round.job, key.round.number, key.attempt)
    assert (sent.size, sent.protection) == (sum(map(len, transfers.sent)), "plain")
    assert sent.update == str(update_digest(transfers.header, map(Digest.of, transfers.sent)))
    assert sent.began_at <= sent.left_at <= sent.acknowledged_at


def test_an_upload_that_was_cut_off_stays_on_record_without_an_acknowledgement(tmp_path: Path) -> None:
    uploaded(tmp_path, [ConflictError("other bytes")])
    (record,) = tmp_path.rglob(SENT_FILE)
    (sent,) = SentRecord(record.parent, clock=SystemClock()).last(50)
    assert (sent.left_at, sent.update, sent.acknowledged_at) == ("", "", "")


def test_a_masked_upload_is_told_as_masked(tmp_path: Path) -> None:
    async def scenario() -> None:
        silo = MaskedUpload(tmp_path)
        await silo.send(await silo.train())
        await silo.shop.work.close()

    with capture_logs() as logged:
        asyncio.run(scenario())
    assert [line["protection"] for line in logged if line["event"] == "update_sent"] == ["masked"]


def test_what_a_task_saves_is_for_those_who_look_for_it(tmp_path: Path) -> None:
    def saves(path: Path, noted: Noted) -> None:
        path.write_bytes(b"at step 3")
        noted(NoteKind.SAVED, "at step 3")

    with capture_logs() as logged:
        worked(tmp_path, FakeTask(crashes=[saves]), FakeTransfers(), make_offer(), events=2)
    levels = {line["event"]: line["log_level"] for line in logged}
    assert levels == {"task_checkpoint_saved": "debug", "task_restarts": "warning"}


def test_a_plain_upload_is_committed_to_with_its_weight(tmp_path: Path) -> None:
    (event,), transfers, attempt = uploaded(tmp_path, [])
    assert isinstance(event, UploadAcknowledged)
    assert event.commit is not None
    said = reopen(UploadCommit, event.commit).value
    assert said == UploadCommit(
        attempt=attempt_digest(attempt),
        transcript=attempt_digest(attempt),
        index=1,
        header=transfers.header,
        update=update_digest(transfers.header, map(Digest.of, transfers.sent)),
        chunks=2,
    )
    assert decode_update_header(transfers.header) == UpdateHeader(Encoding.PLAIN, 8.0, 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TaskError("NaN"), DropReason.NON_FINITE),
        (StorageError("gone"), DropReason.DISK),
        (ConflictError("other bytes"), DropReason.LOST),
        (ResendDiffers("other bytes"), AttemptAbortReason.RESEND_DIFFERS),
    ],
)
def test_an_upload_that_cannot_be_is_said(tmp_path: Path, error: FederationError, reason: DropReason) -> None:
    events, _, attempt = uploaded(tmp_path, [error])
    assert events == [UploadImpossible(attempt_digest(attempt), reason)]


class Recording(FakeTransfers):
    """Notes each chunk as it is taken, as a connection would."""

    async def upload(
        self,
        *,
        key: AttemptKey,
        chunks: UpdateChunks,
        layout: UpdateLayout,
        header: bytes,
        commit: Callable[[Digest], Envelope],
    ) -> Envelope:
        for chunk in chunks:
            self.sent.append(bytes(chunk.data))
        return commit(update_digest(header, map(Digest.of, self.sent)))


PIECE = 1 << 20


@pytest.mark.parametrize(
    ("at", "sent"),
    [(0, 0), (PIECE - 1, 0), (PIECE, 1), (2 * PIECE + 7, 2), (-1, 2)],
)
def test_a_byte_of_the_spool_that_changed_is_found_before_its_chunk_is_sent(tmp_path: Path, at: int, sent: int) -> None:
    offer = make_offer()
    attempt = start_of(offer.plan, offer.spec)
    trained = np.arange(600_000, dtype="<f4")

    async def scenario() -> tuple[Sequence[Event], Recording]:
        shop = Workshop(tmp_path, FakeTask(deltas=trained), FakeTransfers())
        shop.work.start_work(offer)
        _, done = await shop.all_events(2)
        await shop.work.close()
        assert isinstance(done, WorkDone)
        shop.journal.record_plan(offer.plan, Digest.of(b"jobspec"))
        shop.journal.record_update(offer.key, done.update)
        shop.journal.close()
        flip(shop.spool.deltas(offer.key), at)
        transfers = Recording()
        restarted = Workshop(tmp_path, FakeTask(), transfers)
        (kept,) = restarted.journal.open_rounds()
        assert kept.update is not None
        restarted.work.start_upload(offer, kept.update, attempt, Plain())
        happened = await restarted.all_events(1)
        await restarted.work.close()
        return happened, transfers

    happened, transfers = asyncio.run(scenario())
    assert happened == [UploadImpossible(attempt_digest(attempt), DropReason.DISK)]
    assert transfers.sent == [trained.tobytes()[PIECE * piece :][:PIECE] for piece in range(sent)]


@pytest.mark.parametrize("spoil", ["digests changed", "digests gone", "cut", "longer"])
def test_what_does_not_fit_its_digests_is_not_sent(tmp_path: Path, spoil: str) -> None:
    async def scenario() -> Event:
        silo = MaskedUpload(tmp_path)
        update = await silo.train()
        deltas = silo.shop.spool.deltas(silo.offer.key)
        match spoil:
            case "digests changed":
                flip(digests_beside(deltas), 5)
            case "digests gone":
                digests_beside(deltas).unlink()
            case "cut":
                deltas.write_bytes(deltas.read_bytes()[:-1])
            case _:
                deltas.write_bytes(deltas.read_bytes() + b"x")
        event = await silo.send(update)
        assert silo.shop.transfers.sent == []
        await silo.shop.work.close()
        return event

    start = attempt_digest(start_of(MaskedUpload.offer.plan, MaskedUpload.spec))
    assert asyncio.run(scenario()) == UploadImpossible(start, DropReason.DISK)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


class MaskedUpload:
    """A silo with a spooled update, in one attempt after the other."""

    spec = make_masked_spec()
    offer = offer_of(spec)

    def __init__(self, folder: Path) -> None:
        task = FakeTask(deltas=np.linspace(-1, 1, ELEMENTS))
        self.shop = Workshop(folder, task, FakeTransfers(model=initial_model()))

    async def train(self) -> SpooledUpdate:
        self.shop.work.start_work(self.offer)
        _, done = await self.shop.all_events(2)
        assert isinstance(done, WorkDone)
        return done.update

    async def send(self, update: SpooledUpdate, *, attempt: int = 1, root: int = 1) -> Event:
        start = start_of(self.offer.plan, self.spec, attempt=attempt)
        masks = Masks([(Secret(bytes([root]) * 32), 1)])
        exponents = (scale_exponent(encoding=Encoding.U64, members=4, range_exponent=32),)
        transcript = Digest.of(b"t2 of %d" % attempt)
        masked = Masked(attempt_digest(start), transcript, masks, Secret(bytes(32)), exponents)
        self.shop.work.start_upload(self.offer, update, start, masked)
        return (await self.shop.all_events(1))[0]


def test_a_masked_upload_is_committed_to_without_its_weight(tmp_path: Path) -> None:
    async def scenario() -> None:
        silo = MaskedUpload(tmp_path)
        event = await silo.send(await silo.train())
        assert isinstance(event, UploadAcknowledged)
        assert event.commit is not None
        said = reopen(UploadCommit, event.commit).value
        assert said.transcript == Digest.of(b"t2 of 1")
        assert decode_update_header(said.header) == UpdateHeader(Encoding.U64, None, 1)
        assert np.linspace(-1, 1, ELEMENTS, dtype="<f4").tobytes() not in b"".join(silo.shop.transfers.sent)
        await silo.shop.work.close()

    asyncio.run(scenario())


def test_an_attempt_is_sent_twice_only_with_the_same_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        silo = MaskedUpload(tmp_path)
        update = await silo.train()
        first = await silo.send(update)
        assert await silo.send(update) == first
        spool = silo.shop.spool.deltas(silo.offer.key)
        spool.write_bytes(np.linspace(1, -1, ELEMENTS, dtype="<f4").tobytes())
        start = attempt_digest(start_of(silo.offer.plan, silo.spec))
        assert await silo.send(update) == UploadImpossible(start, DropReason.DISK), "the digests find it first"
        unsealed = replace(update, root=None)
        assert await silo.send(unsealed) == UploadImpossible(start, AttemptAbortReason.RESEND_DIFFERS)
        await silo.shop.work.close()

    asyncio.run(scenario())


def test_the_next_attempt_has_masks_and_a_memory_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        silo = MaskedUpload(tmp_path)
        update = await silo.train()
        await silo.send(update)
        first = silo.shop.transfers.sent
        assert isinstance(await silo.send(update, attempt=2, root=2), UploadAcknowledged)
        assert all(one != other for one, other in zip(first, silo.shop.transfers.sent, strict=True))
        silo.shop.work.erase(silo.offer)
        assert not silo.shop.work._uploads._sent
        await silo.shop.work.close()

    asyncio.run(scenario())


def test_a_late_upload_waits_for_the_rounds_end(tmp_path: Path) -> None:
    offer = make_offer()

    async def scenario() -> None:
        shop = Workshop(tmp_path, FakeTask(), FakeTransfers(upload_errors=[LateError("over")]))
        shop.work.start_upload(offer, spooled(), start_of(offer.plan, offer.spec), Plain())
        await asyncio.gather(*shop.work._running[offer.key])
        assert shop.events.empty()
        await shop.work.close()

    asyncio.run(scenario())


def test_a_load_outlives_the_round_in_which_it_began(tmp_path: Path) -> None:
    """Else rounds that are shorter than a load would keep this silo out for good."""

    async def scenario() -> None:
        loaded = asyncio.Event()
        shop = Workshop(tmp_path, FakeTask(loads=[loaded, asyncio.Event()]), FakeTransfers())
        offer = make_offer()
        shop.work.start_work(offer)
        await asyncio.wait_for(shop.task.loading.wait(), LIMIT_S)
        shop.work.stop(offer)
        shop.work.start_work(offer)
        loaded.set()  # a second load would never end
        assert isinstance((await shop.all_events(2))[-1], WorkDone)
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
