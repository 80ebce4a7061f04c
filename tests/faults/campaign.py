"""Runs draws on federations, and looks after each whether all that is promised holds.

One after the other: a process keeps its appointment, the fault is done and undone, the round that was struck comes to
an outcome, everybody is back, and a later round commits with all four silos. Only then everything is looked at and the
next fault is drawn. After a failure what is left of the block goes on with a fresh federation; the folder of the failed
one is kept.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors.torch import save_file

from shared.errors import FederationError
from shared.ids import Digest, JobId, parse_round_number
from shared.reasons import JobState
from shared.wire.operations import JobDetail, RoundStatus
from tests.faults.cells import Block, Draw, Fault, Mode, Side, blocks
from tests.faults.federation import COORDINATOR, SILOS, START_LIMIT_S, FaultyFederation
from tests.faults.processes import Failure
from tests.faults.promises import COMMITTED, Audit, Ledgers, Logs, Models, outcome_promised, summary_of
from tests.faults.strikes import Strikes
from tests.support.federation import job_spec

# What a job of a campaign says. An outcome within the sum of its deadlines and of one window for reconnecting is what
# is promised; quorum and grace leave room for a silo that is down.
ROUND = {
    "quorum": 3,
    "grace_s": 1.5,
    "deadline_s": 30.0,
    "exchange_deadline_s": 8.0,
    "upload_deadline_s": 12.0,
    "attempts": 3,
    "aborted_rounds_allowed": 1000,
}
WINDOW_S = 15.0
OUTCOME_LIMIT_S = 30.0 + 3 * (4 * 8.0 + 12.0) + 2 * WINDOW_S
BACK_LIMIT_S = 60.0
ROUNDS_MAX = 1_000_000
RETRY_S = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A draw that was done, and what came of it."""

    draw: Draw
    detail: str
    took_s: float
    failure: str
    """Empty when everything held."""


class Job:
    """One job of a federation, watched by an operator who comes back whenever the coordinator does."""

    def __init__(
        self, federation: FaultyFederation, name: str, mode: Mode, *, rounds: int = ROUNDS_MAX, **changes: Any
    ) -> None:
        """`changes`: of what `ROUND` says."""
        self._federation = federation
        self._ending = threading.Event()
        self._detail: JobDetail | None = None
        initial = federation.folder / f"{name}.safetensors"
        first = len(list(federation.folder.glob("*.safetensors")))  # no two jobs have a model in common
        save_file({"values": torch.full((federation.parameters,), float(first))}, initial)
        spec = job_spec(
            SILOS,
            initial,
            rounds=rounds,
            masking={"mode": mode.value} if mode is Mode.PLAIN else {},
            **{**ROUND, **changes},
        )
        self.id: JobId = federation.files.submit(name, spec, initial)
        self.models = Models(federation.parameters)
        self.models.start_from(str(Digest.of(initial.read_bytes())), first)
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()

    @property
    def last(self) -> int:
        """The number of the last round that ended."""
        return max((status.key.number for status in self._rounds()), default=0)

    @property
    def state(self) -> JobState | None:
        return self._detail.job.state if self._detail is not None else None

    def is_over(self, number: int) -> bool:
        return any(status.key.number == number for status in self._rounds())

    def is_whole_after(self, number: int) -> bool:
        """Whether a later round has committed with everybody."""
        return any(
            status.key.number > number
            and status.outcome == COMMITTED
            and summary_of(status)["survivors"] == list(SILOS)
            for status in self._rounds()
        )

    def begin(self) -> None:
        """Up to a first round with everybody: from here on all tasks are loaded."""
        self._federation.wait_for(lambda: self.is_whole_after(0), START_LIMIT_S, "a first round with every silo")

    def look(self) -> None:
        assert self._detail is not None
        self.models.take(self._detail)
        with self._federation.operations() as operations:
            self.models.look(operations, self._federation.folder)

    def abort(self) -> None:
        with self._federation.operations() as operations:
            operations.abort_job(self.id, "the campaign is through with it")
        self._federation.wait_for(lambda: self.state is JobState.ABORTED, BACK_LIMIT_S, "the end of the job")

    def _rounds(self) -> Sequence[RoundStatus]:
        return self._detail.rounds if self._detail is not None else ()

    def _watch(self) -> None:
        while not self._ending.is_set():
            try:
                with self._federation.operations() as operations:
                    for detail in operations.watch_job(self.id):
                        with self._federation.changed:
                            self._detail = detail
                            self._federation.changed.notify_all()
                        if self._ending.is_set():
                            return
            except FederationError:
                pass
            self._ending.wait(RETRY_S)


class Campaign:
    """See the module's docstring."""

    def __init__(self, folder: Path, *, small_disks: bool, say: Say) -> None:
        self._folder = folder
        self._small_disks = small_disks
        self._say = say
        self._federations = 0
        self.trainings = 0
        self.rounds = 0

    def run(self, draws: Sequence[Draw]) -> list[Done]:
        done: list[Done] = []
        for block in blocks(draws):
            left = block
            while left.draws:
                these = self._on_one_federation(left)
                done += these
                through = {kept.draw.number for kept in these}
                left = Block(left.parameters, tuple(draw for draw in left.draws if draw.number not in through))
        return done

    def _on_one_federation(self, block: Block) -> list[Done]:
        """As far as the first failure."""
        self._federations += 1
        folder, done = self._folder / f"federation-{self._federations}", list[Done]()
        federation = FaultyFederation(folder, parameters=block.parameters, small_disks=self._small_disks)
        with federation:
            federation.start_all()
            at_work = _AtWork(federation)
            try:
                for mode in Mode:
                    if block.of(mode):
                        self._on_one_job(at_work, mode, block.of(mode), done)
                at_work.close()
                self.trainings += at_work.ledgers.trainings
            except Failure as failed:
                federation.failed = True
                if not done:
                    raise
                last = done.pop()
                done.append(replace(last, failure=last.failure or f"when its work was done: {failed}"))
                self._say(f"  FAILED: {done[-1].failure}\n  kept: {folder}")
        if not federation.failed:
            shutil.rmtree(folder)
        return done

    def _on_one_job(self, at_work: _AtWork, mode: Mode, draws: Sequence[Draw], done: list[Done]) -> None:
        with Job(at_work.federation, f"{mode}-1", mode) as job:
            job.begin()
            for draw in draws:
                done.append(at_work.do(draw, job))
                self._say(_line(done[-1]))
                if done[-1].failure:
                    raise Failure(done[-1].failure)
            self.rounds += job.last
            job.abort()


class _AtWork:
    """One federation under faults."""

    def __init__(self, federation: FaultyFederation) -> None:
        self.federation = federation
        self._strikes = Strikes(federation)
        files = federation.files.consortium
        names = (COORDINATOR, *SILOS)
        self.ledgers = Ledgers(federation.ledgers)
        self._audit = Audit(federation.data(COORDINATOR) / "audit.log", files.coordinator().signing_key.verifying_key)
        keys = {silo: files.participant(silo).signing_key_path for silo in SILOS}
        self._logs = Logs({name: federation.log(name) for name in names}, keys)
        self._forgiven: dict[tuple[str, str, int], str] = {}

    def do(self, draw: Draw, job: Job) -> Done:
        began, detail, failure = time.monotonic(), "", ""
        try:
            detail = self._do(draw, job)
        except Failure as failed:
            failure = str(failed)
        return Done(draw, detail, time.monotonic() - began, failure)

    def _do(self, draw: Draw, job: Job) -> str:
        federation = self.federation
        struck = self._strikes.do(draw, job.id, job.last)
        if draw.cell.fault is Fault.CORRUPT and draw.cell.side is Side.PARTICIPANT:
            self._forgiven[struck.victim, job.id, struck.round] = "its update was spoiled"
        federation.wait_for(lambda: job.is_over(struck.round), OUTCOME_LIMIT_S, f"an outcome of round {struck.round}")
        federation.wait_for(federation.all_here, BACK_LIMIT_S, "a session with every silo")
        federation.wait_for(
            lambda: job.is_whole_after(struck.round), OUTCOME_LIMIT_S, f"a round after {struck.round} with every silo"
        )
        job.look()
        self._look()
        status = job.models.rounds[parse_round_number(struck.round)]
        outcome_promised(draw, struck, status)
        return f"{struck.victim}, round {struck.round} ({status.outcome}), {struck.detail}"

    def _look(self) -> None:
        self._audit.look()
        self.ledgers.look(self._forgiven)
        self._logs.look()

    def close(self) -> None:
        """A job that runs to its end, and an end that everybody was asked for. Raises Failure."""
        federation = self.federation
        with Job(federation, "last-1", Mode.MASKED, rounds=2) as job:
            federation.wait_for(lambda: job.state is JobState.COMPLETED, OUTCOME_LIMIT_S, "the last job's end")
            job.look()
        for name, code in federation.stop_all().items():
            if code:
                raise Failure(f"{name} ended with code {code} when it was asked to end")
        self._look()


def _line(done: Done) -> str:
    verdict = f"FAILED: {done.failure}" if done.failure else "ok"
    return f"{done.draw.number:4d}  {done.took_s:5.1f} s  {done.draw.cell}: {done.detail}  {verdict}"
