"""What takes long, as asyncio tasks: fetch, evaluate, train, spool; and uploads. The adapter behind the round's driver.

Theory of operation. At most one piece of work and one upload run for a round; `stop` cancels them, and a cancelled task
call ends the task's process. Calls of one task wait for each other. A failure of the network is retried with backoff
for as long as the round lives; a failure of the task or of the data is an outcome, reported once. Nothing that a task
says in words leaves this module but to the log.

A disk that is full or refuses otherwise is waited for (`participant.patience`), and the room for an update is reserved
before hours of training go into it. A training that was interrupted goes on from what the task saved: after a restart
of the daemon, and, a few times, when the task's process was killed. What is on disk of a finished update is sealed with
digests, and one that changed afterwards is not sent: the silo leaves the round, because a disk that changes bytes is
nothing to train on again before somebody has looked at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import structlog

from participant.backoff import Backoff
from participant.fitting import NoUpdate, fit_of, tensor_sizes
from participant.journal import Journal
from participant.patience import DISK_RETRY_S, Patience
from participant.protect import ResendDiffers
from participant.round.effects import (
    Event,
    UploadAcknowledged,
    UploadImpossible,
    WorkDone,
    WorkFailed,
)
from participant.round.phases import Masked, Measured, Offer, Protection, SpooledUpdate
from participant.round_log import log_sent
from participant.sent import SentRecord
from participant.spool import Spool
from participant.tasks.contract import (
    TaskFailed,
    TaskHandle,
    TaskReady,
    TrainingDone,
)
from participant.training import Training, measured
from participant.uploads import TransferCalls, Uploads
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
)
from shared.ids import ParticipantId, RoundKey, TaskName
from shared.protocol.messages import AttemptStart, Envelope, Sealed, UploadCommit, attempt_digest
from shared.reasons import AttemptAbortReason, DropReason, Purpose
from shared.wire.sealed import Signer, reopen

log = structlog.get_logger()

T = TypeVar("T")

PROGRESS_S = 2.0  # a transfer that ran for so long got somewhere: the next try need not wait long
TASK_START_LIMIT_S = 300.0  # importing PyTorch from a cold disk takes a while


class WorkObserver(Protocol):
    """Told about work, for metrics."""

    def trained(self, seconds: float) -> None:
        """A task trained for so long, and has a result."""
        ...

    def task_loaded(self, name: TaskName, *, available: bool) -> None:
        """Whether a task could be loaded."""
        ...


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
    observer: WorkObserver
    sent: SentRecord
    disk_retry_s: float = DISK_RETRY_S


class AsyncWork:
    """Implements `participant.round.surroundings.Work` on the running event loop."""

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
        self._training = Training(
            participant=means.participant,
            tasks=means.tasks,
            spool=means.spool,
            journal=means.journal,
            clock=means.clock,
            progress=report if means.share_progress else None,
        )
        self._uploads = Uploads(spool=means.spool, signer=means.signer)
        self._running: dict[RoundKey, set[asyncio.Task[None]]] = {}
        self._uploading: set[asyncio.Task[None]] = set()
        self._one_call: dict[TaskName, asyncio.Lock] = {name: asyncio.Lock() for name in means.tasks}
        self._loading: dict[TaskName, asyncio.Task[TaskReady | TaskFailed]] = {}

    def start_work(self, offer: Offer) -> None:
        self._start(offer.key, self._work(offer))

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        task = self._start(offer.key, self._upload(offer, update, attempt, protection))
        self._uploading.add(task)
        task.add_done_callback(self._uploading.discard)

    def stop(self, offer: Offer) -> None:
        for task in self._running.pop(offer.key, set()):
            task.cancel()

    def keep_state(self, offer: Offer) -> bool:
        return self._means.spool.keep_state(offer.key)

    def percent(self, key: RoundKey) -> int | None:
        """How far a round's training is; None before it began."""
        return self._training.percents.get(key)

    def loaded(self, name: TaskName) -> TaskReady | TaskFailed | None:
        """What came of loading a task; None while it is being loaded."""
        loading = self._loading.get(name)
        return loading.result() if loading is not None and loading.done() and not loading.cancelled() else None

    def erase(self, offer: Offer) -> None:
        self._training.percents.pop(offer.key, None)
        self._uploads.forget(offer.key)
        self._means.spool.erase(offer.key)

    async def end_tasks(self) -> None:
        """End all work but uploads, and the tasks' processes."""
        await self._end(set().union(*self._running.values()) - self._uploading)

    async def close(self) -> None:
        """End all work, and the tasks' processes."""
        await self._end(set().union(*self._running.values()))

    async def _end(self, tasks: Collection[asyncio.Task[None]]) -> None:
        ending: list[asyncio.Task[Any]] = [*tasks, *self._loading.values()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await asyncio.gather(*(handle.stop() for handle in self._means.tasks.values()))

    def _start(self, key: RoundKey, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.setdefault(key, set()).add(task)
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: RoundKey, task: asyncio.Task[None]) -> None:
        self._running.get(key, set()).discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_fatal(error)

    async def warm(self, name: TaskName) -> TaskReady | TaskFailed:
        """Load a task, unless it is loaded: before the first plan, so that no round waits for it, and in each round.

        The end of a round does not end a load that was begun in it. Else rounds that are shorter than the load would
        keep this silo out for good: each would throw away what the one before had loaded.
        """
        loading = self._loading.get(name)
        if loading is None or loading.done():
            loading = self._loading[name] = asyncio.get_running_loop().create_task(self._load(name))
        return await asyncio.shield(loading)

    async def _load(self, name: TaskName) -> TaskReady | TaskFailed:
        async with self._one_call[name]:
            loaded = await self._means.tasks[name].start(deadline_s=TASK_START_LIMIT_S)
        self._means.observer.task_loaded(name, available=isinstance(loaded, TaskReady))
        return loaded

    # --- fetch, evaluate, train, spool --------------------------------------------------------------------------------

    async def _work(self, offer: Offer) -> None:
        means, key = self._means, offer.key
        try:
            update = await self._finished_update(offer)
        except NoUpdate as failed:
            log.warning("work_failed", job=key.job, round=key.number, reason=failed.reason, detail=failed.detail)
            self._report(key, WorkFailed(failed.reason))
            return
        await asyncio.to_thread(means.spool.make_durable, key)
        self._report(key, WorkDone(update))

    async def _finished_update(self, offer: Offer) -> SpooledUpdate:
        plan = offer.plan.value
        ends = self._means.clock.monotonic() + plan.deadline_s
        patience = Patience(self._means.clock, offer.key, ends, retry_s=self._means.disk_retry_s)
        try:
            async with asyncio.timeout(plan.deadline_s):
                await patience.through(lambda: self._fetch(offer))
            await patience.through(lambda: self._begin(offer))
            await self._loaded(offer, ends)
            async with self._one_call[offer.spec.task]:
                evaluation = await self._training.evaluate(offer, ends)
                if plan.purpose is Purpose.EVALUATE:
                    return SpooledUpdate(None, evaluation, 0, (), fits=True)
                training = await self._training.train(offer, ends, patience)
                self._means.observer.trained(training.duration_s)
            update = await asyncio.to_thread(self._looked_over, offer, training, evaluation)
            root = await patience.through(lambda: asyncio.to_thread(self._means.spool.seal_update, offer.key))
        except StorageError as error:
            raise NoUpdate(DropReason.DISK, str(error)) from None
        except TimeoutError:
            if patience.refused:  # the time ran out between two tries
                raise NoUpdate(DropReason.DISK, patience.refused) from None
            raise NoUpdate(DropReason.MODEL_UNAVAILABLE, f"not fetched within {plan.deadline_s:g} s") from None
        except (PeerError, ModelError) as error:
            raise NoUpdate(DropReason.MODEL_UNAVAILABLE, str(error)) from None
        return replace(update, root=root)

    async def _begin(self, offer: Offer) -> None:
        """A folder to work in, with room for the update. Raises StorageError, ModelError or DurabilityUnknown."""
        spool, plan = self._means.spool, offer.plan.value
        self._training.drop_older_states(offer.key.job)
        await asyncio.to_thread(spool.begin, offer.key, offer.digest)
        if plan.purpose is Purpose.TRAIN:
            parameters = await asyncio.to_thread(tensor_sizes, spool.model(plan.model))
            await asyncio.to_thread(spool.reserve_update, offer.key, sum(parameters))

    async def _loaded(self, offer: Offer, ends: float) -> None:
        try:
            async with asyncio.timeout(max(0.001, ends - self._means.clock.monotonic())):
                ready = await self.warm(offer.spec.task)
        except TimeoutError:
            raise NoUpdate(DropReason.TASK_DEADLINE, "the task was not loaded before the round's deadline") from None
        if isinstance(ready, TaskFailed):
            raise NoUpdate(ready.reason, ready.message)

    async def _fetch(self, offer: Offer) -> None:
        means, plan = self._means, offer.plan.value
        means.spool.keep_only_models({plan.model, *(kept.plan.value.model for kept in means.journal.open_rounds())})
        if await asyncio.to_thread(means.spool.has_model, plan.model):
            return
        means.spool.require_room(plan.model, plan.model_bytes)
        partial = means.spool.partial_model(plan.model)

        async def fetch() -> None:
            await means.transfers().fetch_model(plan.model, plan.model_bytes, partial)

        await _until_reachable(fetch, "fetch_waits", offer.key)
        await asyncio.to_thread(means.spool.keep_model, plan.model)

    def _looked_over(self, offer: Offer, training: TrainingDone, evaluation: Measured) -> SpooledUpdate:
        spool, trained = self._means.spool, measured(training)
        if not offer.masked:
            return SpooledUpdate(trained, evaluation, training.parameters, (), fits=True)
        fit = fit_of(
            offer,
            trained,
            deltas=spool.deltas(offer.key),
            parameters=training.parameters,
            model=spool.model(offer.plan.value.model),
        )
        return SpooledUpdate(trained, evaluation, training.parameters, fit.cells, fit.fits)

    # --- upload -------------------------------------------------------------------------------------------------------

    async def _upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        key, start, sent = offer.key, attempt_digest(attempt), self._means.sent
        try:
            outgoing = await self._uploads.prepare(offer, update, attempt, protection)
            how = "masked" if isinstance(protection, Masked) else "plain"
            sent.began(attempt.value.key, outgoing.layout.total_bytes, protection=how)
            outgoing = outgoing.noted(lambda update: sent.left(attempt.value.key, update))

            async def send() -> Envelope:
                return await outgoing.send(self._means.transfers())

            commit = await _until_reachable(send, "upload_waits", key)
        except LateError as error:
            log.info("upload_late", job=key.job, round=key.number, detail=str(error))
        except (TaskError, ModelError, StorageError, PeerError) as error:
            reason = _why_impossible(error)
            log.warning("upload_impossible", job=key.job, round=key.number, reason=reason, detail=str(error))
            self._report(key, UploadImpossible(start, reason))
        else:
            said = reopen(UploadCommit, commit).value
            sent.acknowledged(attempt.value.key)
            log_sent(attempt.value.key, said.update, outgoing.layout.total_bytes, protection)
            self._report(key, UploadAcknowledged(start, commit))


def _why_impossible(error: FederationError) -> DropReason | AttemptAbortReason:
    match error:
        case ResendDiffers():
            return AttemptAbortReason.RESEND_DIFFERS
        case TaskError():
            return DropReason.NON_FINITE
        case StorageError():
            return DropReason.DISK
        case _:
            return DropReason.LOST


async def _until_reachable(call: Callable[[], Awaitable[T]], event: str, key: RoundKey) -> T:
    """Try again while the coordinator cannot be reached or does not let us in; the round's end cancels it."""
    backoff, now = Backoff(), asyncio.get_running_loop().time
    while True:
        began = now()
        try:
            return await call()
        except (UnreachableError, IdentityError) as error:
            # An allow-list that is being replaced refuses everybody for a moment: no reason to drop hours of training.
            if now() - began > PROGRESS_S:
                backoff.reset()
            delay_s = backoff.next_delay_s()
            log.warning(event, job=key.job, round=key.number, detail=str(error), retry_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)
