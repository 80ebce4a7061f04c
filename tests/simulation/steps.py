"""A federation in which nothing goes wrong by itself: its ordinary steps, and how it comes to rest.

A step is one thing that can happen now: a frame is delivered, a silo trains, sends a chunk, reconnects, a total is
folded. `World` chooses among them, and breaks things in between.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog

from shared.clock import ManualClock
from shared.errors import ConflictError, LateError, PeerError, PhaseError, UnreachableError
from shared.reasons import JobState
from tests.simulation.coordinator_process import OPERATOR, Host
from tests.simulation.evidence import Evidence
from tests.simulation.invariants import check
from tests.simulation.masked_invariants import no_secret
from tests.simulation.settings import JOB, Convicted, Parts, Shape, hold
from tests.simulation.silo import Silo
from tests.simulation.wire import Link

Step = Callable[[], object]

REST_STEPS_MAX = 4000
REST_WAITS_MAX = 60
LINES: list[str] = []
"""What was logged in the history at hand; whoever plays one sees to it that `note` is among structlog's processors."""


class Federation:
    """A coordinator, its participants, the wire between them and the time."""

    def __init__(self, shape: Shape, parts: Parts | None = None) -> None:
        self.clock = ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC))
        self.host = Host(shape, parts or Parts(), self.clock)
        self.seen = Evidence()
        LINES.clear()
        self.host.boot()
        self.silos = [Silo(name, self.host, self.seen) for name in shape.names]
        self.check()

    def check(self) -> None:
        check(self.host, self.seen, self.silos)

    # --- ordinary steps -----------------------------------------------------------------------------------------------

    def steps(self) -> Sequence[Step]:
        """What can happen now when nothing goes wrong, in a fixed order."""
        host, steps = self.host, list[Step]()
        process = host.process
        if process is None:
            steps.append(host.start)
        else:
            steps += [partial(self._deliver, link) for link in process.links.values() if link.to_coordinator]
            steps += [partial(host.close_session, link) for link in process.links.values() if link.broken]
            if process.folds.orders:
                steps.append(host.fold)
        for silo in self.silos:
            steps += self._steps_of(silo)
        return steps

    def _steps_of(self, silo: Silo) -> list[Step]:
        steps: list[Step] = []
        if silo.link is None or silo.link.broken:
            if self.host.process is not None and not silo.revoked:
                steps.append(silo.connect)
        elif silo.link.to_participant:
            steps.append(silo.hear)
        if self.host.process is not None and not silo.revoked:
            if silo.work.training:
                steps.append(silo.work.train)
            if silo.work.uploads:
                steps.append(silo.work.upload)
        return steps

    def _take(self, step: Step) -> None:
        step()
        self.host.breathe()

    def _deliver(self, link: Link) -> None:
        frame = link.to_coordinator.popleft()
        try:
            self.host.hear(link, frame)
        except LateError:
            return
        except PeerError as error:
            self.seen.texts.append(str(error))
            if link.gap and isinstance(error, PhaseError | ConflictError):
                return
            raise Convicted("honest-refused", f"{link.participant}: {type(error).__name__}: {error}") from error
        except UnreachableError:
            return

    def _silo(self, number: int) -> Silo:
        return self.silos[number % len(self.silos)]

    def _everything(self) -> object:
        """What a refused word may not change: records, and the very state of the round."""
        records = self.host.store._records
        process = self.host.process
        driver = None if process is None else process.driver
        return (
            len(records.audit),
            [(key, record.outcome) for key, record in records.rounds.items()],
            [len(journal) for journal in records.journals.values()],
            None if driver is None else id(driver.state),
        )

    # --- rest ---------------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Nothing goes wrong any more: everybody comes back, time passes, and all that began must end."""
        for faults in (self.host.faults, *(silo.faults for silo in self.silos)):
            faults.forget()
        for _ in range(REST_WAITS_MAX):
            self._resume()
            self._exhaust()
            if self._over():
                break
            process = self.host.up()
            due = process.conductor.next_deadline - self.clock.monotonic()
            stuck = due == float("inf") and not process.later
            hold(not stuck, "ends", f"nothing is to come, and the round is {process.driver and process.driver.state}")
            self.clock.advance(1.0 if process.later else max(due, 0.0))
            self.host.breathe(retry=True)
            self.check()
        hold(self._over(), "ends", "the job does not end")
        self._nothing_left()
        no_secret(self.host, self.seen, LINES)

    def _resume(self) -> None:
        """A job that an operator paused goes on."""
        if self.host.store._records.jobs[JOB].pause is not None:
            with suppress(ConflictError):  # it is over
                self.host.up().conductor.desk.resume_job(JOB, OPERATOR)

    def _exhaust(self) -> None:
        for taken in range(REST_STEPS_MAX):
            steps = self.steps()
            if not steps:
                self.check()
                return
            self._take(steps[taken % len(steps)])
            if taken % 8 == 0:
                self.check()
        raise Convicted("ends", "the same steps are taken again and again")

    def _over(self) -> bool:
        process = self.host.process
        job = self.host.store._records.jobs[JOB]
        if process is None or process.later or (process.driver is not None and process.driver.finished):
            return False
        if job.state.over:
            return True
        members_left = sum(not silo.revoked for silo in self.silos)
        return process.driver is None and members_left < job.control.quorum_of(self.host.spec)

    def _nothing_left(self) -> None:
        records = self.host.store._records
        hold(all(record.outcome for record in records.rounds.values()), "ends", "a round is open for good")
        over = {key for key, record in records.rounds.items() if record.outcome}
        left = [str(key) for key, _ in self.host.blobs._spools if key.round in over]
        hold(not left, "ends", f"updates of finished rounds are still on the coordinator's disk: {left}")
        for silo in self.silos:
            if not silo.revoked:
                hold(not silo.driver.open_rounds, "ends", f"{silo.name} holds {silo.driver.open_rounds} for good")
                hold(not silo.spool, "ends", f"{silo.name} keeps the updates of {list(silo.spool)}")
                hold(not silo.holds_secrets, "ends", f"{silo.name} keeps the secrets of an attempt for good")
                hold(not silo.work.sent, "ends", f"{silo.name} keeps digests of {list(silo.work.sent)}")
        if records.jobs[JOB].state is JobState.COMPLETED:
            committed = [record.purpose for record in records.rounds.values() if record.outcome == "committed"]
            expected = ["train"] * self.host.spec.rounds + ["evaluate"]
            hold(
                sorted(committed, reverse=True) == sorted(expected, reverse=True), "ends", f"completed with {committed}"
            )


def note(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """A processor of structlog: keeps every line for `no-secret`, and shows none."""
    LINES.append(str(event))
    raise structlog.DropEvent
