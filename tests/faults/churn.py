"""A job of many rounds while silos come and go, and what it costs the two processes that stay.

The coordinator and the first silo run from the first round to the last. The others leave, each by itself: told to end
(SIGTERM) or killed (SIGKILL), in a phase that is drawn, exactly, and are started again when a drawn number of rounds
has gone by without them, or a drawn time, because with two away there are no rounds. What is drawn comes from the seed;
how the processes interleave does not.

After each round every promise of `tests.faults.promises` is looked at, and what the two processes take is measured.

    python -m tests.faults.churn [--rounds 200] [--mode masked|plain] [--seed 1] [--folder DIR]

prints what was met and a line for each thing that was measured; exit code 1 when something that is promised did not
hold, or grew.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.disk_use import disk_use as coordinator_disk
from participant.disk_use import disk_use as participant_disk
from shared.reasons import DropReason, JobState
from tests.faults.campaign import Job
from tests.faults.cells import PHASES, Mode, Side
from tests.faults.federation import COORDINATOR, SILOS, FaultyFederation
from tests.faults.growth import KIB, MIB, Bound, Series, process_takes
from tests.faults.processes import Failure
from tests.faults.promises import COMMITTED, Audit, Ledgers, Logs, summary_of
from tests.faults.wire import Appointment

STAYS = SILOS[0]
PARAMETERS = 20_000
KEPT_VERSIONS = 30  # more than are made between two looks, also where looks are slow
GRACE_S = 0.5
STAY_ROUNDS = (2, 12)
AWAY_ROUNDS = (0, 4)
AWAY_S = (0.0, 3.0)
NEWS_S = 0.1
SETTLE_LIMIT_S = 120.0
TASK = f"{STAYS} task"

_VERSION, _UPDATES = Bound(5 * PARAMETERS), Bound(2 * len(SILOS) * 8 * PARAMETERS)  # in bytes, with a margin
_STILL, _SOME = Bound(0), Bound(4)
BOUNDS = {
    f"{COORDINATOR} memory": Bound(8 * MIB),  # of which 2 MiB are SQLite's cache, which fills with the database
    f"{COORDINATOR} files": _SOME,
    f"{COORDINATOR} threads": _SOME,
    f"{COORDINATOR} models bytes": _VERSION,
    f"{COORDINATOR} spools bytes": _UPDATES,
    f"{COORDINATOR} staging bytes": _VERSION,
    f"{COORDINATOR} removed bytes": _VERSION,
    f"{COORDINATOR} database bytes": Bound(128 * KIB, a_round=16 * KIB),
    f"{COORDINATOR} database_log bytes": Bound(256 * KIB),
    f"{COORDINATOR} audit_log bytes": Bound(16 * KIB, a_round=2 * KIB),
    f"{COORDINATOR} copies bytes": _STILL,
    f"{COORDINATOR} other bytes": Bound(16),  # the number of the process, in its lock
    f"{STAYS} memory": Bound(4 * MIB),
    f"{STAYS} files": _SOME,
    f"{STAYS} threads": _SOME,
    f"{STAYS} journal bytes": Bound(32 * KIB, a_round=KIB),
    f"{STAYS} journal_log bytes": Bound(256 * KIB),
    f"{STAYS} models bytes": _VERSION,
    f"{STAYS} spool bytes": _UPDATES,
    f"{STAYS} states bytes": _STILL,
    f"{STAYS} task_logs bytes": _STILL,
    f"{STAYS} copies bytes": _STILL,
    f"{STAYS} other bytes": _STILL,
    f"{TASK} memory": Bound(8 * MIB),
    f"{TASK} files": _SOME,
    f"{TASK} threads": _SOME,
}
"""How much what is measured may be more at the end than after the warm-up."""

_NEVER = Appointment("nobody-1", 1, "", 0)  # takes the place of another
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGKILL: -signal.SIGKILL}


@dataclass(slots=True)
class Traveller:
    """One silo that comes and goes."""

    silo: str
    federation: FaultyFederation
    job: Job
    phases: tuple[str, ...]
    stay_rounds: tuple[int, int]
    """Between two departures, at least and at most."""
    source: random.Random
    left: Counter[str] = field(default_factory=Counter)
    """How often it went, by signal."""
    _signal: signal.Signals | None = None
    """What it was told to send itself; None while it has no appointment."""
    _called_off: bool = False
    _back: tuple[int, float] | None = None
    """After which round, or at what time, it comes back; None while it runs."""

    def step(self) -> None:
        """Whatever is due now. Raises Failure."""
        if self._back is not None:
            if self.job.last >= self._back[0] or time.monotonic() >= self._back[1]:
                self.come()
        elif self._signal is None and self.federation.here[self.silo]:
            self._plan_to_leave()
        elif self._signal is not None and not self.federation.daemons[self.silo].running:
            self._leave(self._signal)

    def come(self) -> None:
        """Start it, if it is away."""
        if self._back is not None:
            self._back = None
            self.federation.start(self.silo)

    def stay(self) -> None:
        """The job is over: nobody leaves any more, and who just did comes back."""
        daemon = self.federation.daemons[self.silo]
        if self._signal is not None and not daemon.running:
            self._leave(self._signal)
        elif self._signal is not None and not self._called_off:
            self._called_off = True
            daemon.meet(_NEVER)
        self.come()

    def _plan_to_leave(self) -> None:
        self._signal = self.source.choice((signal.SIGTERM, signal.SIGKILL))
        first = self.job.last + self.source.randint(*self.stay_rounds)
        self.federation.expect_end(self.silo)
        self.federation.daemons[self.silo].meet(
            Appointment(self.job.id, first, self.source.choice(self.phases), self._signal)
        )

    def _leave(self, number: signal.Signals) -> None:
        code = self.federation.daemons[self.silo].wait()
        if code != _EXIT_CODES[number]:
            raise Failure(f"{self.silo} was to end by {number.name}, and ended with code {code}")
        self.left[number.name] += 1
        self._signal = None
        self._back = (
            self.job.last + self.source.randint(*AWAY_ROUNDS),
            time.monotonic() + self.source.uniform(*AWAY_S),
        )


class Churn:
    """One federation, one job at a time. See the module's docstring."""

    def __init__(self, federation: FaultyFederation, *, seed: int, stay_rounds: tuple[int, int]) -> None:
        self._federation = federation
        self._seed = seed
        self._stay_rounds = stay_rounds
        files = federation.files.consortium
        names = (COORDINATOR, *SILOS)
        self._ledgers = Ledgers(federation.ledgers)
        self._audit = Audit(federation.data(COORDINATOR) / "audit.log", files.coordinator().signing_key.verifying_key)
        keys = {silo: files.participant(silo).signing_key_path for silo in SILOS}
        self._logs = Logs({name: federation.log(name) for name in names}, keys)
        self.series = Series()
        self.left: Counter[str] = Counter()
        self.out: Counter[str] = Counter()
        """Members that were not in a round's result, by reason."""
        self.outcomes: Counter[str] = Counter()

    def run(self, mode: Mode, *, rounds: int, limit_s: float) -> None:
        """A job of so many committed rounds, from the first to the last. Raises Failure."""
        federation = self._federation
        with Job(federation, f"churn-{mode}", mode, rounds=rounds, grace_s=GRACE_S) as job:
            job.begin()
            travellers = [
                Traveller(
                    silo=silo,
                    federation=federation,
                    job=job,
                    phases=PHASES[mode, Side.PARTICIPANT],
                    stay_rounds=self._stay_rounds,
                    source=random.Random(f"{self._seed} {mode} {silo}"),
                )
                for silo in SILOS
                if silo != STAYS
            ]
            looked, ends = 0, time.monotonic() + limit_s
            while job.state is not JobState.COMPLETED:
                if job.state is JobState.ABORTED or time.monotonic() > ends:
                    raise Failure(f"round {job.last} of {rounds}, {job.state}, after {limit_s:g} s")
                for traveller in travellers:
                    traveller.step()
                if job.last > looked:
                    looked = job.last
                    self._look(job)
                federation.wait_for_news(NEWS_S)
            self._settle(travellers)
            self._look(job)
            self._count(job, rounds)

    def _settle(self, travellers: Sequence[Traveller]) -> None:
        """Everybody is back, and nothing of a round is left over. Raises Failure."""
        federation, ends = self._federation, time.monotonic() + SETTLE_LIMIT_S
        while not federation.all_here() or any(self._spooled()):
            if time.monotonic() > ends:
                raise Failure(f"the job is over, and there are {self._spooled()}; here: {federation.here}")
            for traveller in travellers:
                traveller.stay()
            federation.wait_for_news(NEWS_S)
        for traveller in travellers:
            self.left += traveller.left

    def close(self) -> None:
        """Everybody ends well. Raises Failure."""
        federation = self._federation
        for name, code in federation.stop_all().items():
            if code:
                raise Failure(f"{name} ended with code {code} when it was asked to end")
        self._logs.look()

    def _look(self, job: Job) -> None:
        job.look()
        self._audit.look()
        self._ledgers.look({})
        self._logs.look()
        if (kept := self._lowest_spooled()) < job.last - 1:
            raise Failure(f"round {job.last} is over, and round {kept} has spools")
        self.series.take(job.last, self._measured())

    def _measured(self) -> dict[str, float]:
        """What is bounded, and what is on record for good."""
        federation = self._federation
        found: dict[str, float] = {}
        for name in (COORDINATOR, STAYS):
            found |= process_takes(federation.daemons[name].pid, name)
        if (task := _task_of(federation.daemons[STAYS].pid)) is not None:
            found |= process_takes(task, TASK)
        for kind, size in coordinator_disk(federation.data(COORDINATOR)).sizes.items():
            found[f"{COORDINATOR} {kind} bytes"] = size
        for silo_kind, size in participant_disk(federation.data(STAYS)).sizes.items():
            found[f"{STAYS} {silo_kind} bytes"] = size
        return found

    def _lowest_spooled(self) -> int:
        """The first round that has a spool at the coordinator; a large number where none has."""
        rounds = (self._federation.data(COORDINATOR) / "spools").glob("*/*/*/*")
        return min((int(spool.parts[-3]) for spool in rounds), default=1 << 30)

    def _spooled(self) -> list[Path]:
        federation = self._federation
        return [
            path
            for folder in (
                federation.data(COORDINATOR) / "spools",
                *(federation.data(silo) / "spool" for silo in SILOS),
            )
            for path in folder.rglob("*")
            if path.is_file()
        ]

    def _count(self, job: Job, rounds: int) -> None:
        reasons = set(DropReason)
        for status in job.models.rounds.values():
            dropped = summary_of(status)["dropped"]
            if not set(dropped.values()) <= reasons:
                raise Failure(f"round {status.key.number} names reasons that are none: {dropped}")
            self.outcomes[f"{status.purpose} {status.outcome}"] += 1
            self.out.update(dropped.values())
        if self.outcomes[f"train {COMMITTED}"] < rounds:
            raise Failure(f"{rounds} rounds were to commit: {dict(self.outcomes)}")


def _task_of(pid: int) -> int | None:
    """The one process that a daemon has started; None while one ends and the next begins."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if len(children) == 1 else None


def churn(
    folder: Path,
    mode: Mode,
    *,
    rounds: int,
    seed: int,
    limit_s: float,
    stay_rounds: tuple[int, int] = STAY_ROUNDS,
) -> Churn:
    """Run one job on a fresh federation. Raises Failure."""
    with FaultyFederation(folder, parameters=PARAMETERS, kept_versions=KEPT_VERSIONS) as federation:
        federation.start_all()
        done = Churn(federation, seed=seed, stay_rounds=stay_rounds)
        try:
            done.run(mode, rounds=rounds, limit_s=limit_s)
            done.close()
        finally:
            done.series.write(folder / "series.json")
    return done


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.churn")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.MASKED)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds")
    parser.add_argument("--folder", type=Path, help="where the federation lives; a temporary folder unless said")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="consilo-churn-"))
    federation = folder / "federation"
    began = time.monotonic()
    try:
        done = churn(federation, chosen.mode, rounds=chosen.rounds, seed=chosen.seed, limit_s=chosen.limit)
        sys.stdout.write(f"{_told(done)}\n{time.monotonic() - began:.0f} s\n")
        done.series.require(BOUNDS)
    except Failure as failed:
        sys.stdout.write(f"FAILED: {failed}\n  kept: {folder}\n")
        return 1
    shutil.rmtree(federation)
    if chosen.folder is None:
        folder.rmdir()  # a folder that was named is somebody's, with whatever else is in it
    return 0


def _told(done: Churn) -> str:
    lines = [
        f"{name}: {dict(found)}" for name, found in [("rounds", done.outcomes), ("left", done.left), ("out", done.out)]
    ]
    lines += [
        f"{name:34s} {line.early:12.0f} {line.late:12.0f} {line.most:12.0f} {line.slope:10.1f}"
        for name, line in done.series.lines().items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
