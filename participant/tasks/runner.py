"""Runs one installed task for the daemon: a warm process, a deadline for each call, and an outcome for every end.

The runner holds at most one process (`participant.tasks.spawn`). A call that ends in anything but a result ends the
process too, because what the user's code left in it is anybody's guess; the next call starts another, and since each
call starts from files and seeds alone, nobody can tell the difference from the results. The daemon itself never
imports torch and never runs a line of the user's code.

A task with state (`Task.state_dict`) that is called without one must not meet what an aborted round, or another job,
left in its memory: then too the process is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from participant.tasks.contract import (
    CheckpointPlace,
    EvaluationDone,
    EvaluationOutcome,
    Noted,
    Progress,
    RoundContext,
    TaskDefinition,
    TaskFailed,
    TaskReady,
    TrainingDone,
    TrainingOutcome,
    ignore_note,
    ignore_progress,
)
from participant.tasks.messages import (
    CallContext,
    Command,
    Evaluate,
    Failed,
    InitModel,
    Load,
    Loaded,
    Measured,
    Reply,
    Train,
    Written,
)
from participant.tasks.seeding import LOAD_SEED
from participant.tasks.spawn import ProcessEnded, TaskProcess
from shared.complaints import first_complaint
from shared.ids import Digest
from shared.reasons import DropReason

TERM_GRACE_S = 2.0  # between SIGTERM and SIGKILL: nothing that the task could save is wanted any more

ReplyT = TypeVar("ReplyT", Written, Measured)
OutcomeT = TypeVar("OutcomeT")


class TaskRunner:
    """One installed task: the `TaskHandle` of the daemon."""

    def __init__(
        self,
        *,
        definition: TaskDefinition,
        log: Path | None,
        load_seed: int = LOAD_SEED,
        term_grace_s: float = TERM_GRACE_S,
    ) -> None:
        """`log` is the silo's file for what the task prints, tracebacks included; None is our standard error."""
        self._definition = definition
        self._log = log
        self._load_seed = load_seed
        self._term_grace_s = term_grace_s
        self._process: TaskProcess | None = None
        self._ready: TaskReady | None = None
        self._state_in_memory = False
        self._busy = False

    @property
    def pid(self) -> int | None:
        """The task's process, if there is one."""
        return None if self._process is None else self._process.pid

    async def start(self, *, deadline_s: float) -> TaskReady | TaskFailed:
        """Load the task, unless it is loaded already."""
        return await self._guarded(self._loaded, deadline_s)

    async def init_model(self, *, out: Path, deadline_s: float) -> Digest | TaskFailed:
        """Write the model as `build_model` made it under the runner's `load_seed`."""

        async def call() -> Digest | TaskFailed:
            reply = await self._ask(lambda: InitModel(out=str(out.absolute())), Written, None, ignore_progress)
            return reply if isinstance(reply, TaskFailed) else Digest.parse(reply.digest)

        return await self._guarded(call, deadline_s)

    async def evaluate(
        self,
        *,
        context: RoundContext,
        model: Path,
        state_in: Path | None,
        deadline_s: float,
        progress: Progress = ignore_progress,
    ) -> EvaluationOutcome:
        def command() -> Evaluate:
            return Evaluate(context=_travelling(context), model=str(model.absolute()), state_in=_text(state_in))

        async def call() -> EvaluationOutcome:
            reply = await self._ask(command, Measured, state_in, progress)
            if isinstance(reply, TaskFailed):
                return reply
            return EvaluationDone(weight=reply.weight, metrics=reply.metrics, duration_s=reply.duration_s)

        return await self._guarded(call, deadline_s)

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
        def command() -> Train:
            return Train(
                context=_travelling(context),
                model=str(model.absolute()),
                state_in=_text(state_in),
                update_out=str(update_out.absolute()),
                state_out=str(state_out.absolute()),
                checkpoint=None if checkpoint is None else _text(checkpoint.path),
                bound_to="" if checkpoint is None else checkpoint.bound_to,
            )

        async def call() -> TrainingOutcome:
            reply = await self._ask(command, Measured, state_in, progress, noted)
            if isinstance(reply, TaskFailed):
                return reply
            return TrainingDone(
                weight=reply.weight,
                metrics=reply.metrics,
                duration_s=reply.duration_s,
                update=update_out,
                parameters=reply.parameters,
                state=state_out if reply.has_state else None,
            )

        return await self._guarded(call, deadline_s)

    async def stop(self) -> None:
        """End the process, politely when it is idle."""
        process = self._forget()
        if process is not None:
            await (process.kill() if self._busy else process.close())

    async def _guarded(
        self, call: Callable[[], Awaitable[OutcomeT | TaskFailed]], deadline_s: float
    ) -> OutcomeT | TaskFailed:
        """Run `call` under its deadline. Whatever does not end well ends the process."""
        if self._busy:
            raise RuntimeError(f"task {self._definition.name!r} is in a call; a task has one at a time")
        self._busy = True
        outcome: OutcomeT | TaskFailed | None = None
        try:
            async with asyncio.timeout(deadline_s):
                outcome = await call()
        except TimeoutError:
            outcome = TaskFailed(
                reason=DropReason.TASK_DEADLINE, message=f"not finished after {deadline_s:.1f} s; the process was ended"
            )
        except ProcessEnded as ended:
            outcome = TaskFailed(reason=DropReason.TASK_CRASHED, message=str(ended), process_ended=True)
        finally:
            try:
                if outcome is None or isinstance(outcome, TaskFailed):
                    await self._kill()
            finally:
                self._busy = False
        return outcome

    async def _loaded(self) -> TaskReady | TaskFailed:
        """Make sure of a live process with the task in it."""
        if self._process is not None and self._ready is not None and self._process.alive:
            return self._ready
        await self._kill()
        definition = self._definition
        threads = str(definition.threads) if definition.threads else None
        try:
            load = Load(
                entry=definition.entry,
                options=dict(definition.options),
                device=definition.device,
                threads=definition.threads,
                search_path=[str(folder.absolute()) for folder in definition.search_path],
                seed=self._load_seed,
            )
            self._process = await TaskProcess.start(
                log=self._log,
                environment={} if threads is None else {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                term_grace_s=self._term_grace_s,
            )
        except ValidationError as error:
            return _unavailable(f"task {definition.name!r}: {first_complaint(error)}")
        except OSError as error:
            return _unavailable(f"task {definition.name!r}: its process cannot be started: {error}")
        reply = await self._process.ask(load, ignore_progress)
        match reply:
            case Loaded():
                self._ready = TaskReady(**reply.model_dump(exclude={"kind"}))
                return self._ready
            case Failed():
                return TaskFailed(reason=reply.reason, message=reply.message)
            case _:
                raise ProcessEnded(f"the task's process answered load with {reply.kind}")

    async def _ask(
        self,
        make: Callable[[], Command],
        expected: type[ReplyT],
        state_in: Path | None,
        progress: Progress,
        noted: Noted = ignore_note,
    ) -> ReplyT | TaskFailed:
        ready = await self._loaded()
        if isinstance(ready, TaskReady) and ready.keeps_state and state_in is None and self._state_in_memory:
            await self._kill()
            ready = await self._loaded()
        if isinstance(ready, TaskFailed):
            return ready
        assert self._process is not None  # noqa: S101 - _loaded returned TaskReady
        command = make()
        self._state_in_memory |= state_in is not None or isinstance(command, Train)
        reply: Reply = await self._process.ask(command, progress, noted)
        if isinstance(reply, Failed):
            return TaskFailed(reason=reply.reason, message=reply.message)
        if not isinstance(reply, expected):
            raise ProcessEnded(f"the task's process answered {command.kind} with {reply.kind}")
        return reply

    async def _kill(self) -> None:
        process = self._forget()
        if process is not None:
            await process.kill()

    def _forget(self) -> TaskProcess | None:
        process, self._process, self._ready, self._state_in_memory = self._process, None, None, False
        return process


def _travelling(context: RoundContext) -> CallContext:
    return CallContext(
        job=context.job,
        job_name=context.job_name,
        number=context.number,
        participant=context.participant,
        job_seed=context.job_seed,
        training=dict(context.training),
        metrics=None if context.metrics is None else list(context.metrics),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _unavailable(message: str) -> TaskFailed:
    return TaskFailed(reason=DropReason.TASK_UNAVAILABLE, message=message)
