"""What must hold after each fault, looked at from outside: with an operator's eyes, and a hand on every silo's disk.

Each check raises `Failure` that says what was promised and what is there. What they knew before they keep: a round that
was committed once must be there, the same, for good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.audit import verify_lines
from coordinator.client.operations import Operations
from shared.errors import AuditError
from shared.identity import VerifyingKey
from shared.ids import Digest, RoundNumber
from shared.wire.operations import JobDetail, RoundStatus
from tests.faults.arithmetic import Whole, fold
from tests.faults.cells import Draw, Fault, Side
from tests.faults.federation import SENTINEL_LOSSES, SILOS, numbers_of
from tests.faults.processes import Failure
from tests.faults.strikes import Struck

COMMITTED = "committed"
# The daemon ends by itself when it cannot know what is on disk, and says so; its supervisor starts it again.
_BAD = ("Traceback", "internal_error", '"exception"', "Segmentation", "SecretLeak")


_CLOCK = {Fault.CLOCK_FORWARD, Fault.CLOCK_BACK}
# Of a silo: its update is on the coordinator's disk, and counts.
_TAKEN = {"Committed", "Fixed", "Confirmed", "Opened", "Finished"}


def summary_of(status: RoundStatus) -> dict[str, Any]:
    return dict(json.loads(status.summary))


@dataclass(slots=True)
class Models:
    """One job's committed versions, and what each must be."""

    cells: int
    rounds: dict[RoundNumber, RoundStatus] = field(default_factory=dict)
    _checked: int = 0
    _expected: dict[str, Whole] = field(default_factory=dict)
    _newest: str = ""

    def start_from(self, initial: str, value: int) -> None:
        """That version, in which all cells have this value."""
        self._expected[initial] = np.full(self.cells, value)
        self._newest = initial

    def take(self, detail: JobDetail) -> None:
        """What the coordinator says of the job's rounds now. What it said before must stand."""
        told = {status.key.number: status for status in detail.rounds}
        for number, before in self.rounds.items():
            if told.get(number) != before:
                raise Failure(f"round {number} was {before}, and is {told.get(number)} now: a round was lost")
        self.rounds |= told

    def look(self, operations: Operations, folder: Path) -> None:
        """Fetch every version that is new, and compare it with the fold of the survivors that its round names."""
        for number in sorted(self.rounds):
            if number <= self._checked:
                continue
            self._checked = number
            status = self.rounds[number]
            if status.outcome == COMMITTED and status.purpose == "train":
                self._look(number, summary_of(status), operations, folder)

    def _look(self, number: int, summary: Mapping[str, Any], operations: Operations, folder: Path) -> None:
        parent, version, survivors = summary["model"], summary["next_model"], summary["survivors"]
        if parent != self._newest:
            raise Failure(f"round {number} starts from {parent}, but the last committed version is {self._newest}")
        named = set(survivors) | set(summary["dropped"])
        if named != set(SILOS) or set(survivors) & set(summary["dropped"]):
            raise Failure(
                f"round {number} has survivors {survivors} and dropped {summary['dropped']}: not all are named"
            )
        expected = self._expected[parent] + fold(numbers_of(survivors), number, self.cells)
        found = values_of(operations, version, folder)
        wrong = np.flatnonzero(found != expected)
        if wrong.size:
            first = int(wrong[0])
            raise Failure(
                f"round {number}, {survivors}: {wrong.size} of {self.cells} cells are wrong; cell {first} is "
                f"{found[first]}, expected {expected[first]}, was {self._expected[parent][first]}"
            )
        self._expected = {version: expected}
        self._newest = version


def values_of(operations: Operations, version: str, folder: Path) -> Whole:
    """A version's cells, exported as an operator would."""
    from safetensors.numpy import load_file

    path = folder / f"{version}.safetensors"
    operations.export_model(Digest.parse(version), path)
    values = load_file(path)["values"]
    path.unlink()
    whole = values.astype(np.int64)
    if (whole != values).any():
        raise Failure(f"version {version} has cells that are no whole numbers: {values[whole != values][:5]}")
    return whole


class Audit:
    """The log, with the head that was kept from the last look."""

    def __init__(self, path: Path, key: VerifyingKey) -> None:
        self._path = path
        self._key = key
        self._head: Digest | None = None

    def look(self) -> None:
        log = self._path.read_bytes()
        whole = log[: log.rindex(b"\n") + 1]  # a coordinator that is at work may be writing the last line
        try:
            self._head = verify_lines(whole, verifying_key=self._key, head=self._head).head
        except AuditError as error:
            raise Failure(f"the audit log does not verify: {error}") from None


class Ledgers:
    """Who trained when. In one round nobody trains again once its update is on its disk."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self.trainings = 0

    def look(self, forgiven: Mapping[tuple[str, str, int], str]) -> None:
        """`forgiven`: whose update of which job and round was spoiled."""
        self.trainings = 0
        for silo, path in self._paths.items():
            spooled: set[tuple[str, int]] = set()
            for what, job, number in _ledger(path):
                if what == "Ready":
                    spooled.add((job, number))
                if what != "train":
                    continue
                self.trainings += 1
                if (job, number) in spooled and (silo, job, number) not in forgiven:
                    raise Failure(
                        f"{silo} trained again in round {number} of {job}, although its update was on its disk"
                    )


def _ledger(path: Path) -> Iterator[tuple[str, str, int]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        what, job, number = line.split()
        yield what, job, int(number)


class Logs:
    """No traceback, nothing that a silo's data says, and no key."""

    def __init__(self, paths: Mapping[str, Path], keys: Mapping[str, Path]) -> None:
        self._paths = paths
        self._read: dict[str, int] = dict.fromkeys(paths, 0)
        secrets = [repr(loss).encode() for loss in SENTINEL_LOSSES]
        secrets += [line for path in keys.values() for line in path.read_bytes().split(b"\n") if len(line) > 40]
        self._secret = re.compile(b"|".join(map(re.escape, secrets)))
        self._bad = re.compile(b"|".join(re.escape(word.encode()) for word in _BAD))

    def look(self) -> None:
        for name, path in self._paths.items():
            with path.open("rb") as log:
                log.seek(self._read[name])
                new = log.read()
            new = new[: new.rfind(b"\n") + 1]
            self._read[name] += len(new)
            if self._secret.search(new):
                raise Failure(f"the log of {name} has a secret in it")
            found = self._bad.search(new)
            if found is not None:
                line = new[new.rfind(b"\n", 0, found.start()) + 1 :].split(b"\n")[0]
                raise Failure(f"the log of {name} says: {line.decode(errors='replace')[:2000]}")


def outcome_promised(draw: Draw, struck: Struck, status: RoundStatus) -> None:
    """How the round that was struck may have ended."""
    summary, fault = summary_of(status), draw.cell.fault
    where = f"round {status.key.number}, {draw.cell}, {struck.victim} ({struck.detail})"
    if status.outcome != COMMITTED:
        if fault is Fault.CORRUPT and draw.cell.side is Side.COORDINATOR and status.outcome == "damaged":
            return
        raise Failure(f"{where}: the round was aborted: {status.summary.decode()}")
    left_out = set(SILOS) - set(summary["survivors"])
    if draw.cell.side is Side.PARTICIPANT and left_out - {struck.victim}:
        raise Failure(f"{where}: others were left out: {summary['dropped']}")
    if left_out and (fault in _CLOCK or draw.cell.phase in _TAKEN):
        raise Failure(f"{where}: it was left out: {summary['dropped']}")
