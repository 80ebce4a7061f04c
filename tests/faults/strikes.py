"""How each fault is done: to whom, for how long, and how it is undone.

A process stands at its appointment while a link is cut, a disk filled or a byte flipped, so the phase is hit exactly. A
signal it sends itself. On the coordinator's side a link is that of all silos: it is the coordinator's network that
fails.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.ids import JobId
from tests.faults.cells import Draw, Fault, Side
from tests.faults.federation import COORDINATOR, SILOS, FaultyFederation
from tests.faults.processes import Failure
from tests.faults.wire import Appointment
from tests.support.proxy import FaultProxy

REACH_LIMIT_S = 60.0
TERM_LIMIT_S = 8.0
PAUSE_S = (0.0, 0.4)  # between the end of a process and its next start
SHORT_S = (0.3, 1.5)
LONG_S = (3.5, 5.0)  # longer than silence is borne: the session is given up
LONG_SHARE = 0.15
DISK_S = (0.5, 2.5)
DELAY_S = (0.05, 0.25)
THROTTLE_BYTES = (15_000.0, 100_000.0)
CLOCK_H = (1.0, 12.0)
CLOCK_BOUNDS_H = (-96.0, 240.0)  # in which the certificates are valid

_SIGNALS = {Fault.KILL: signal.SIGKILL, Fault.TERMINATE: signal.SIGTERM, Fault.STOP: signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that has been done and undone."""

    victim: str
    round: int
    detail: str


class Strikes:
    """Does the faults of one federation."""

    def __init__(self, federation: FaultyFederation) -> None:
        self._federation = federation

    def do(self, draw: Draw, job: JobId, after: int) -> Struck:
        """Do a draw in a round of this job that is later than `after`. Raises Failure."""
        source, fault = random.Random(draw.seed), draw.cell.fault
        victim = COORDINATOR if draw.cell.side is Side.COORDINATOR else source.choice(SILOS)
        number = _SIGNALS.get(fault, 0)
        appointment = Appointment(job, after + 1, draw.cell.phase, number)
        if fault in {Fault.KILL, Fault.TERMINATE}:
            self._federation.expect_end(victim)
        met = self._federation.met(appointment, victim, REACH_LIMIT_S)
        return Struck(victim, met.round, self._done(fault, victim, source, job, met.round))

    def _done(self, fault: Fault, victim: str, source: random.Random, job: JobId, number: int) -> str:
        match fault:
            case Fault.KILL | Fault.TERMINATE:
                return self._end_and_start(fault, victim, source)
            case Fault.STOP:
                return self._stop(victim, source)
            case Fault.CUT:
                return self._cut(victim, source)
            case Fault.STALL:
                return self._while(victim, _length(source), FaultProxy.stall, FaultProxy.go_on)
            case Fault.DELAY:
                delay_s = source.uniform(*DELAY_S)
                lasted = self._while(victim, _length(source), lambda link: _slow(link, delay_s), _quick)
                return f"{delay_s:.2f} s each way, {lasted}"
            case Fault.THROTTLE:
                rate = source.uniform(*THROTTLE_BYTES)
                lasted = self._while(victim, _length(source), lambda link: _throttle(link, rate), _quick)
                return f"{rate:.0f} bytes/s, {lasted}"
            case Fault.DISK_FULL:
                return self._fill(victim, source)
            case Fault.CLOCK_FORWARD | Fault.CLOCK_BACK:
                return self._jump(victim, source, forward=fault is Fault.CLOCK_FORWARD)
            case Fault.CORRUPT:
                return self._corrupt(victim, source, job, number)

    def _end_and_start(self, fault: Fault, victim: str, source: random.Random) -> str:
        daemon = self._federation.daemons[victim]
        began = time.monotonic()
        code, expected = daemon.wait(), -signal.SIGKILL if fault is Fault.KILL else 0
        took = time.monotonic() - began
        if code != expected:
            raise Failure(f"{victim} ended with code {code}, expected {expected}")
        if took >= TERM_LIMIT_S:
            raise Failure(f"{victim} took {took:.1f} s to end after {fault}, expected less than {TERM_LIMIT_S:g} s")
        time.sleep(source.uniform(*PAUSE_S))
        self._federation.start(victim)
        return f"it ended after {took:.1f} s"

    def _stop(self, victim: str, source: random.Random) -> str:
        daemon = self._federation.daemons[victim]
        daemon.wait_until_stopped()
        lasts_s = _length(source)
        time.sleep(lasts_s)
        daemon.signal(signal.SIGCONT)
        return f"for {lasts_s:.1f} s"

    def _cut(self, victim: str, source: random.Random) -> str:
        """At once, or when some more bytes have passed, in the middle of what is being said."""
        links, lasts_s = self._links(victim), source.uniform(*SHORT_S)
        if source.random() < 0.5:
            return self._while(victim, lasts_s, FaultProxy.cut, FaultProxy.heal)
        more = int(10 ** source.uniform(2, 6))
        struck = [link.cut_after(more) for link in links]
        self._federation.daemons[victim].go()
        time.sleep(lasts_s)
        cut = sum(event.is_set() for event in struck)
        for link in links:
            link.cut()  # also takes back what was appointed
            link.heal()
        return f"{cut} after {more} bytes more, the others after {lasts_s:.1f} s"

    def _while(
        self,
        victim: str,
        lasts_s: float,
        begin: Callable[[FaultProxy], None],
        end: Callable[[FaultProxy], None],
    ) -> str:
        links = self._links(victim)
        for link in links:
            begin(link)
        self._federation.daemons[victim].go()
        time.sleep(lasts_s)
        for link in links:
            end(link)
        return f"for {lasts_s:.1f} s"

    def _fill(self, victim: str, source: random.Random) -> str:
        disk, lasts_s = self._federation.disks[victim], source.uniform(*DISK_S)
        self._federation.expect_end(victim)
        disk.fill()
        self._federation.daemons[victim].go()
        time.sleep(lasts_s)
        disk.free()
        again = self._federation.start_again(victim)
        self._federation.expect_life(victim)
        return f"for {lasts_s:.1f} s" + (
            ", and it ended, since it could not know what was on its disk" if again else ""
        )

    def _jump(self, victim: str, source: random.Random, *, forward: bool) -> str:
        """By hours."""
        hours = source.uniform(*CLOCK_H) * (1 if forward else -1)
        before = self._federation.offset_s
        least, most = CLOCK_BOUNDS_H
        self._federation.set_clock(max(least, min(most, before / 3600 + hours)) * 3600)
        self._federation.daemons[victim].go()
        return f"from {before / 3600:+.1f} h to {self._federation.offset_s / 3600:+.1f} h"

    def _corrupt(self, victim: str, source: random.Random, job: JobId, number: int) -> str:
        files = self._spools(victim, job, number)
        if not files:
            self._federation.daemons[victim].go()
            raise Failure(f"{victim} has no spool of round {number} to corrupt a byte of")
        path = source.choice(files)
        place = source.randrange(path.stat().st_size)
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ (1 << source.randrange(8))]))
        self._federation.daemons[victim].go()
        return f"byte {place} of {path.relative_to(self._federation.folder)}"

    def _spools(self, victim: str, job: JobId, number: int) -> list[Path]:
        data = self._federation.data(victim)
        if victim == COORDINATOR:
            found = sorted((data / "spools" / job / str(number)).glob("*/*.update"))
        else:
            found = [data / "spool" / job / str(number) / "deltas.f32"]
        return [path for path in found if path.exists() and path.stat().st_size]

    def _links(self, victim: str) -> Sequence[FaultProxy]:
        links = self._federation.links
        return list(links.values()) if victim == COORDINATOR else [links[victim]]


def _length(source: random.Random) -> float:
    return source.uniform(*(LONG_S if source.random() < LONG_SHARE else SHORT_S))


def _slow(link: FaultProxy, delay_s: float) -> None:
    link.delay_s = delay_s


def _throttle(link: FaultProxy, rate: float) -> None:
    link.bytes_per_s = rate


def _quick(link: FaultProxy) -> None:
    link.delay_s, link.bytes_per_s = 0.0, None
