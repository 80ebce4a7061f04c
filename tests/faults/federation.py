"""The federation of a campaign: a coordinator and four silos as real processes, each silo behind a link that fails on
demand, each process on a disk that can be filled, all with one wall clock that can be set.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coordinator.client.operations import Operations
from tests.faults.arithmetic import WEIGHTS
from tests.faults.disks import Disk, LimitedFiles, SmallDisk
from tests.faults.processes import Daemon, Failure
from tests.faults.wire import Appointment
from tests.support.federation import Federation, free_port
from tests.support.proxy import FaultProxy

COORDINATOR = "coordinator"
SILOS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
ROOT = Path(__file__).parents[2]
START_LIMIT_S = 90.0
# The certificates' first day: a wall clock that is set back for days still finds them valid.
BACKDATED = timedelta(days=5)
KEPT_VERSIONS = 40  # of a job: more than are made between two looks, and they fit on the disk
SENTINEL_LOSSES = (0.73915528, 0.61803399, 0.57721566, 0.91596559)
"""What each silo's task says of its data. No log has these digits."""


@dataclass(frozen=True, slots=True)
class Met:
    """A process kept its appointment, in this round."""

    name: str
    round: int


class FaultyFederation:
    """See the module's docstring. Processes end with the `with` block, whatever happened."""

    def __init__(
        self, folder: Path, *, parameters: int, small_disks: bool = False, kept_versions: int = KEPT_VERSIONS
    ) -> None:
        self.folder = folder
        self.parameters = parameters
        folder.mkdir(parents=True)
        self.ledgers = {silo: folder / f"{silo}.ledger" for silo in SILOS}
        port = free_port()
        self.links = {silo: FaultProxy(("127.0.0.1", port)) for silo in SILOS}
        self.files = Federation(
            folder,
            entry="known_task:KnownTask",
            options={silo: self._options(number, silo) for number, silo in enumerate(SILOS)},
            port=port,
            links={silo: f"localhost:{link.port}" for silo, link in self.links.items()},
            now=datetime.now(UTC) - BACKDATED,
        )
        with (folder / "coordinator.toml").open("a") as settings:
            settings.write(f"\n[retention]\nkeep_versions = {kept_versions}\n")
        self.disks: dict[str, Disk] = {
            name: SmallDisk(self.data(name)) if small_disks else LimitedFiles(partial(self._pids, name))
            for name in (COORDINATOR, *SILOS)
        }
        self.offset_s = 0.0
        self.changed = threading.Condition()
        self.daemons: dict[str, Daemon] = {}
        self.here: dict[str, bool] = dict.fromkeys(SILOS, False)
        """Whose session both ends say is open."""
        self._listed: frozenset[str] = frozenset()
        self._dialed: dict[str, bool] = dict.fromkeys(SILOS, False)
        self._met: list[Met] = []
        self._jumped = 0
        self._wanted: set[str] = set()
        """Who is not to end."""
        self.failed = False
        """Whether what is left of it is to be kept."""
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        for link in self.links.values():
            self._closing.enter_context(link)
        self._closing.callback(self._close_disks)
        self._closing.callback(self._end_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed |= kind is not None
        self._closing.close()

    def data(self, name: str) -> Path:
        return self.folder / ("coordinator-data" if name == COORDINATOR else f"{name}/data")

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    # --- processes ----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        role = COORDINATOR if name == COORDINATOR else "participant"
        config = self.folder / ("coordinator.toml" if name == COORDINATOR else f"{name}/participant.toml")
        with self.changed:
            self._wanted.add(name)
            self.daemons[name] = Daemon(
                name,
                role=role,
                config=config,
                log=self.log(name),
                environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/faults/tasks'}"},
                offset_s=self.offset_s,
                heard=self._heard,
            )

    def start_all(self) -> None:
        for name in (COORDINATOR, *SILOS):
            self.start(name)
        self.wait_for(self.all_here, START_LIMIT_S, "a session with every silo")

    def start_again(self, name: str) -> bool:
        """As a supervisor does with one that ended because it could not know what is on its disk. Whether it did."""
        daemon = self.daemons[name]
        if daemon.running:
            return False
        code, last = daemon.wait(), self.log(name).read_text().strip().splitlines()[-1]
        if code != 1 or "may or may not be on disk" not in last:
            raise Failure(f"{name} ended by itself, with code {code}, and said: {last}")
        self.start(name)
        return True

    def expect_end(self, name: str) -> None:
        """From here on it may end."""
        with self.changed:
            self._wanted.discard(name)

    def expect_life(self, name: str) -> None:
        """From here on it may not."""
        with self.changed:
            self._wanted.add(name)

    def stop_all(self) -> Mapping[str, int]:
        """SIGTERM to all; the exit codes."""
        for name in (*SILOS, COORDINATOR):
            self.expect_end(name)
            self.daemons[name].signal(signal.SIGTERM)
        return {name: self.daemons.pop(name).wait() for name in (*SILOS, COORDINATOR)}

    def _end_all(self) -> None:
        for daemon in self.daemons.values():
            daemon.end()

    def _close_disks(self) -> None:
        for disk in self.disks.values():
            disk.close(keep=self.failed)

    def _pids(self, name: str) -> list[int]:
        """A daemon's and its task's."""
        if name not in self.daemons:
            return []
        pid = self.daemons[name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]

    # --- what the processes say ---------------------------------------------------------------------------------------

    def _heard(self, name: str, message: dict[str, Any]) -> None:
        with self.changed:
            match message["say"]:
                case "here" if name == COORDINATOR:
                    self._listed = frozenset(message["members"])
                case "here":
                    self._dialed[name] = message["open"]
                case "gone" if name == COORDINATOR:
                    self._listed = frozenset()
                case "gone":
                    self._dialed[name] = False
                case "held" | "struck":
                    self._met.append(Met(name, message["round"]))
                case "jumped":
                    self._jumped += 1
                case _:
                    pass  # where rounds are, which the ledgers have too
            self.here = {silo: silo in self._listed and self._dialed[silo] for silo in SILOS}
            self.changed.notify_all()

    def all_here(self) -> bool:
        return all(self.here.values())

    def wait_for(self, true: Callable[[], bool], limit_s: float, what: str) -> None:
        """Raises Failure when it does not come true, or when a process ends that was not asked to."""
        ends = time.monotonic() + limit_s
        with self.changed:
            while not true():
                self.require_alive()
                left = ends - time.monotonic()
                if left <= 0:
                    raise Failure(f"{what}: not within {limit_s:g} s")
                self.changed.wait(min(left, 0.5))

    def wait_for_news(self, at_most_s: float) -> None:
        """Until a process says something, or the job moves, or this time is over. Raises Failure as `wait_for`."""
        with self.changed:
            self.require_alive()
            self.changed.wait(at_most_s)

    def require_alive(self) -> None:
        for name in self._wanted:
            if name in self.daemons and not self.daemons[name].running:
                raise Failure(f"{name} ended by itself, with code {self.daemons[name].wait()}")

    def met(self, appointment: Appointment, name: str, limit_s: float) -> Met:
        """Wait until it is kept."""
        self._met.clear()
        self.daemons[name].meet(appointment)
        self.wait_for(lambda: bool(self._met), limit_s, f"{name} in phase {appointment.phase} of a round")
        return self._met[0]

    def set_clock(self, offset_s: float) -> None:
        """On all machines, whose clocks are kept together by whoever set them wrong."""
        self.offset_s, self._jumped = offset_s, 0
        for daemon in self.daemons.values():
            daemon.jump(offset_s)
        self.wait_for(lambda: self._jumped == len(self.daemons), 10.0, "the clocks jump")

    # --- operators ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def operations(self) -> Iterator[Operations]:
        with self.files.operations() as operations:
            yield operations

    def _options(self, number: int, silo: str) -> dict[str, object]:
        return {
            "silo": number,
            "parameters": self.parameters,
            "ledger": str(self.ledgers[silo]),
            "loss": SENTINEL_LOSSES[number],
        }


def numbers_of(members: Collection[str]) -> list[int]:
    """Silos by their numbers."""
    assert len(WEIGHTS) == len(SILOS)
    return [SILOS.index(member) for member in members]
