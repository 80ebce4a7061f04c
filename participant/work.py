"""What takes long, as asyncio tasks: fetch, evaluate, train, spool; and uploads. The adapter behind the round's driver.

Theory of operation. At most one piece of work and one upload run for a round; `stop` cancels them, and a cancelled task
call ends the task's process. Calls of one task wait for each other. A failure of the network is retried with backoff
for as long as the round lives; a failure of the task or of the data is an outcome, reported once. Nothing that a task
says in words leaves this module but to the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from participant.backoff import Backoff
from participant.journal import Journal
from participant.protect import UpdateChunks
from participant.round.checks import layout_of
from participant.round.effects import (
    Event,
    UploadAcknowledged,
    UploadImpossible,
    WorkDone,
    WorkFailed,
    WorkProgressed,
)
from participant.round.phases import Offer, SpooledUpdate
from participant.spool import Spool
from participant.tasks.contract import (
    EvaluationDone,
    RoundContext,
    TaskFailed,
    TaskHandle,
    TaskReady,
    TrainingDone,
)
from shared.clock import Clock
from shared.errors import (
    FederationError,
    IdentityError,
    LateError,
    ModelError,
    PeerError,
    StorageError,
    TaskError,
    UnreachableError,
    WireError,
)
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey, TaskName
from shared.protocol.messages import AttemptStart, Envelope, Sealed, UploadCommit, attempt_digest
from shared.reasons import DropReason, Purpose
from shared.update import Encoding, UpdateHeader, UpdateLayout
from shared.wire.sealed import Signer, encode_update_header, seal

log = structlog.get_logger()

T = TypeVar("T")

TASK_START_LIMIT_S = 300.0  # importing PyTorch from a cold disk takes a while


class TransferCalls(Protocol):
    """What `participant.rpc.transfer.Transfers` does; see there for the errors."""

    async def fetch_model(self, model: Digest, size: int, partial: Path) -> None: ...

    async def upload(
        self,
        *,
        key: AttemptKey,
        chunks: UpdateChunks,
        layout: UpdateLayout,
        header: bytes,
        commit: Callable[[Digest], Envelope],
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What work is done with."""

    participant: ParticipantId
    tasks: Mapping[TaskName, TaskHandle]
    spool: Spool
    journal: Journal
    transfers: Callable[[], TransferCalls]
    """The current channel's calls: one that broke was replaced, with the certificates as they are now."""
    signer: Signer
    clock: Clock
    share_progress: bool


class AsyncWork:
    """Implements `participant.round.driver.Work` on the running event loop."""

    def __init__(
        self,
        *,
        means: Means,
        report: Callable[[RoundKey, Event], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """`on_fatal`: work ended in what is no outcome (DurabilityUnknown, or a bug); the process must end."""
        self._means = means
        self._report = report
        self._on_fatal = on_fatal
        self._running: dict[RoundKey, set[asyncio.Task[None]]] = {}
        self._one_call: dict[TaskName, asyncio.Lock] = {name: asyncio.Lock() for name in means.tasks}

    def start_work(self, offer: Offer) -> None:
        self._start(offer.key, self._work(offer))

    def start_upload(self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart]) -> None:
        self._start(offer.key, self._upload(offer, update, attempt))

    def stop(self, offer: Offer) -> None:
        for task in self._running.pop(offer.key, set()):
            task.cancel()

    def keep_state(self, offer: Offer) -> bool:
        return self._means.spool.keep_state(offer.key)

    def erase(self, offer: Offer) -> None:
        self._means.spool.erase(offer.key)

    async def close(self) -> None:
        """End all work, and the tasks' processes."""
        tasks = [task for running in self._running.values() for task in running]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(handle.stop() for handle in self._means.tasks.values()))

    def _start(self, key: RoundKey, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.setdefault(key, set()).add(task)
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: RoundKey, task: asyncio.Task[None]) -> None:
        self._running.get(key, set()).discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_fatal(error)

    async def warm(self, name: TaskName) -> TaskReady | TaskFailed:
        """Load a task before the first plan, so that no round waits for it."""
        async with self._one_call[name]:
            return await self._means.tasks[name].start(deadline_s=TASK_START_LIMIT_S)

    # --- fetch, evaluate, train, spool --------------------------------------------------------------------------------

    async def _work(self, offer: Offer) -> None:
        means, key = self._means, offer.key
        try:
            update = await self._finished_update(offer)
        except _Failed as failed:
            log.warning("work_failed", job=key.job, round=key.number, reason=failed.reason, detail=failed.detail)
            self._report(key, WorkFailed(failed.reason))
            return
        await asyncio.to_thread(means.spool.make_durable, key)
        self._report(key, WorkDone(update))

    async def _finished_update(self, offer: Offer) -> SpooledUpdate:
        plan = offer.plan.value
        ends = self._means.clock.monotonic() + plan.deadline_s
        try:
            async with asyncio.timeout(plan.deadline_s):
                await self._fetch(offer)
            self._means.spool.begin(offer.key)
        except StorageError as error:
            raise _Failed(DropReason.DISK, str(error)) from None
        except TimeoutError:
            raise _Failed(DropReason.MODEL_UNAVAILABLE, f"not fetched within {plan.deadline_s:g} s") from None
        except (PeerError, ModelError) as error:
            raise _Failed(DropReason.MODEL_UNAVAILABLE, str(error)) from None
        async with self._one_call[offer.spec.task]:
            evaluation = await self._evaluate(offer, ends)
            if plan.purpose is Purpose.EVALUATE:
                return _spooled(None, evaluation, 0)
            training = await self._train(offer, ends)
            return _spooled(training, evaluation, training.parameters)

    async def _fetch(self, offer: Offer) -> None:
        means, plan = self._means, offer.plan.value
        means.spool.keep_only_models({plan.model, *(kept.plan.value.model for kept in means.journal.open_rounds())})
        if means.spool.model(plan.model).exists():
            return
        means.spool.require_room(plan.model_bytes)
        partial = means.spool.partial_model(plan.model)

        async def fetch() -> None:
            await means.transfers().fetch_model(plan.model, plan.model_bytes, partial)

        await _until_reachable(fetch, "fetch_waits", offer.key)
        await asyncio.to_thread(means.spool.keep_model, plan.model)

    async def _evaluate(self, offer: Offer, ends: float) -> EvaluationDone:
        means = self._means
        outcome = await means.tasks[offer.spec.task].evaluate(
            context=self._context(offer),
            model=means.spool.model(offer.plan.value.model),
            state_in=self._state_in(offer),
            deadline_s=self._remaining(ends),
        )
        if isinstance(outcome, TaskFailed):
            raise _Failed(outcome.reason, outcome.message)
        return outcome

    async def _train(self, offer: Offer, ends: float) -> TrainingDone:
        means, key = self._means, offer.key
        outcome = await means.tasks[offer.spec.task].train(
            context=self._context(offer),
            model=means.spool.model(offer.plan.value.model),
            state_in=self._state_in(offer),
            update_out=means.spool.deltas(key),
            state_out=means.spool.new_state(key),
            deadline_s=self._remaining(ends),
            progress=self._progress(key),
        )
        if isinstance(outcome, TaskFailed):
            raise _Failed(outcome.reason, outcome.message)
        return outcome

    def _context(self, offer: Offer) -> RoundContext:
        spec = offer.spec
        return RoundContext(
            job=offer.key.job,
            job_name=spec.name,
            number=offer.key.number,
            participant=self._means.participant,
            job_seed=spec.seed,
            training=spec.training,
            metrics=spec.metrics,
        )

    def _state_in(self, offer: Offer) -> Path | None:
        job, spool = offer.key.job, self._means.spool
        number = self._means.journal.state_round(job)
        if number is None:
            return None
        spool.drop_older_states(job, number)
        return spool.state(job, number)

    def _remaining(self, ends: float) -> float:
        return max(0.001, ends - self._means.clock.monotonic())

    def _progress(self, key: RoundKey) -> Callable[[float], None]:
        if not self._means.share_progress:
            return lambda _fraction: None
        return lambda fraction: self._report(key, WorkProgressed(int(100 * fraction)))

    # --- upload -------------------------------------------------------------------------------------------------------

    async def _upload(self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart]) -> None:
        means, start = self._means, attempt_digest(attempt)
        layout = layout_of(offer, update.parameters)
        chunks = UpdateChunks(deltas=means.spool.deltas(offer.key), update=update, layout=layout)
        header = encode_update_header(update.header)

        def commit(digest: Digest) -> Envelope:
            said = UploadCommit(attempt=start, index=offer.index, header=header, update=digest, chunks=layout.chunks)
            return seal(said, signer=means.signer, index=offer.index).envelope

        async def send() -> None:
            await means.transfers().upload(
                key=attempt.value.key, chunks=chunks, layout=layout, header=header, commit=commit
            )

        try:
            await _until_reachable(send, "upload_waits", offer.key)
        except LateError as error:
            log.info("upload_late", job=offer.key.job, round=offer.key.number, detail=str(error))
        except (TaskError, StorageError, PeerError) as error:
            reason = _why_impossible(error)
            log.warning(
                "upload_impossible", job=offer.key.job, round=offer.key.number, reason=reason, detail=str(error)
            )
            self._report(offer.key, UploadImpossible(start, reason))
        else:
            self._report(offer.key, UploadAcknowledged(start))


class _Failed(Exception):  # noqa: N818 - an outcome on its way to becoming a value
    """Work that ends without an update."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _why_impossible(error: FederationError) -> DropReason:
    if isinstance(error, TaskError):
        return DropReason.NON_FINITE
    return DropReason.DISK if isinstance(error, StorageError) else DropReason.LOST


def _spooled(training: TrainingDone | None, evaluation: EvaluationDone, parameters: int) -> SpooledUpdate:
    """Section 1 as weighted sums: the training half is empty in a round of purpose `evaluate`."""
    weight = evaluation.weight if training is None else training.weight
    halves = (
        [0.0] * (1 + len(evaluation.values)) if training is None else _sums(training.weight, training.values),
        _sums(evaluation.weight, evaluation.values),
    )
    try:
        header = UpdateHeader(Encoding.PLAIN, weight, contributors=1)
    except WireError as error:
        raise _Failed(DropReason.TASK_INVALID, str(error)) from None
    return SpooledUpdate(header, tuple(halves[0] + halves[1]), parameters)


def _sums(weight: float, means: tuple[float, ...]) -> list[float]:
    return [weight, *(weight * mean for mean in means)]


async def _until_reachable(call: Callable[[], Awaitable[T]], event: str, key: RoundKey) -> T:
    """Try again while the coordinator cannot be reached or does not let us in; the round's end cancels it."""
    backoff = Backoff()
    while True:
        try:
            return await call()
        except (UnreachableError, IdentityError) as error:
            # An allow-list that is being replaced refuses everybody for a moment: no reason to drop hours of training.
            delay_s = backoff.next_delay_s()
            log.warning(event, job=key.job, round=key.number, detail=str(error), retry_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)
