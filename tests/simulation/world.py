"""The world of one history: a coordinator, its participants, the wire between them and the time.

A history is a shape and a list of operations `(name, a, b)` with small numbers, so that a failure that was found can be
kept as a literal and read. An operation that makes no sense at its moment does nothing. `go` is the only one in which
all is well: it takes that many ordinary steps (deliver a frame, train, send a chunk, fold, reconnect..), in an order
drawn from its seed. After each operation all invariants are checked; at the end the world comes to rest, and everything
must be over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from coordinator.storage.faults import Fault
from shared.clock import ManualClock
from shared.errors import ConflictError, FederationError, LateError, PeerError, PhaseError, UnreachableError
from shared.reasons import DropReason, JobState
from tests.simulation.coordinator_process import OPERATOR, Host
from tests.simulation.evidence import Evidence
from tests.simulation.hostile import hostile_word
from tests.simulation.invariants import check
from tests.simulation.settings import JOB, Convicted, Parts, Shape, hold
from tests.simulation.silo import Silo
from tests.simulation.wire import Link

Operation = tuple[str, int, int]
Step = Callable[[], object]

VERBS = (
    "journal", "commit_round", "abort_round", "open_round", "set_job_state", "journal_of", "rounds", "drop_spools",
    "sync", "append", "spool", "publish", "stage", "allocate", "write_at", "read_at", "truncate", "model", "jobs",
    "audit_entries",
)  # fmt: skip
WRITES = frozenset(VERBS) - {"journal_of", "rounds", "read_at", "model", "jobs", "audit_entries"}
SECONDS = (0.5, 4.0, 5.5, 16.0, 61.0, 601.0)  # a moment, the grace, the reconnect window, both deadlines
REST_STEPS_MAX = 4000
REST_WAITS_MAX = 60
UPLOAD_CALLS_MAX = 6  # status, two chunks, the end, the commitment, and one to spare


class World:
    """Performs operations. Raises Convicted when an invariant does not hold."""

    def __init__(self, shape: Shape, parts: Parts | None = None) -> None:
        self.clock = ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC))
        self.host = Host(shape, parts or Parts(), self.clock)
        self.seen = Evidence()
        self.host.boot()
        self.silos = [Silo(name, self.host, self.seen) for name in shape.names]
        self.check()

    def check(self) -> None:
        check(self.host, self.seen, self.silos)

    # --- performing ---------------------------------------------------------------------------------------------------

    def perform(self, operation: Operation) -> None:
        name, a, b = operation
        getattr(self, f"do_{name}")(a, b)
        self.host.breathe()
        self.check()

    def do_go(self, seed: int, count: int) -> None:
        """`count` ordinary steps."""
        draw = random.Random(seed)
        for _ in range(count):
            steps = self.steps()
            if not steps:
                return
            self._take(steps[draw.randrange(len(steps))])

    def do_next(self, a: int, b: int) -> None:
        """One ordinary step, chosen by number: what a reproduction is written with."""
        steps = self.steps()
        if steps:
            self._take(steps[a % len(steps)])

    def do_drop(self, a: int, b: int) -> None:
        """A connection breaks: both sides notice, or the coordinator only later, or the participant only later."""
        silo = self._silo(a)
        link = silo.link
        if link is None:
            return
        link.break_off()
        if b % 3 != 1 and self.host.process is not None:
            self.host.close_session(link)
        if b % 3 != 2:
            silo.notice()

    def do_reconnect(self, a: int, b: int) -> None:
        silo = self._silo(a)
        if not silo.revoked:
            silo.connect()

    def do_restart_silo(self, a: int, b: int) -> None:
        self._silo(a).restart()

    def do_crash(self, a: int, b: int) -> None:
        """The coordinator dies; perhaps it is back at once."""
        self.host.crash(keep_bytes=a)
        if b % 2:
            self.host.start()

    def do_fault(self, a: int, b: int) -> None:
        """A storage call to come will fail."""
        verb = VERBS[a % len(VERBS)]
        faults = list(Fault) if verb in WRITES else [Fault.FAILED_NOT_PERSISTED]
        self.host.faults.inject(verb, faults[b % len(faults)], after=b // 3 % 4)

    def do_wait(self, a: int, b: int) -> None:
        self.clock.advance(SECONDS[a % len(SECONDS)])
        self.host.breathe(retry=True)

    def do_decline(self, a: int, b: int) -> None:
        """From its next start on this silo declines, or consents again."""
        silo = self._silo(a)
        silo.declines = not silo.declines
        silo.restart()

    def do_fail_task(self, a: int, b: int) -> None:
        self._silo(a).work.fails_next = DropReason.TASK_CRASHED

    def do_upload(self, a: int, b: int) -> None:
        """One call of an upload; perhaps its answer is lost."""
        silo = self._silo(a)
        if silo.work.uploads and self.host.process is not None:
            silo.work.upload(lose_answer=bool(b % 2))

    def do_commit_twice(self, a: int, b: int) -> None:
        """An upload to its end, and its commitment once more (a retry that was not needed)."""
        silo = self._silo(a)
        for key, upload in list(silo.work.uploads.items()):
            chunks = silo.work.chunks_of(upload)
            for _ in range(UPLOAD_CALLS_MAX):
                if silo.work.uploads.get(key) is upload and self.host.process is not None:
                    silo.work.upload()
            try:
                silo.work.commit(upload, chunks)
            except (LateError, UnreachableError):
                return
            except PeerError:
                hold(silo.revoked, "honest-refused", f"the same commitment of {silo.name} again")

    def do_upload_other(self, a: int, b: int) -> None:
        """A broken silo commits to another update than the one that it sent."""
        silo = self._silo(a)
        for upload in silo.work.uploads.values():
            other = tuple(bytes(end - start) for start, end in upload.layout.chunk_ranges())
            before = self._everything()
            try:
                silo.work.commit(upload, other)
            except UnreachableError:
                continue
            except PeerError as error:
                self.seen.texts.append(str(error))
                hold(before == self._everything(), "refused-changes-nothing", f"another update was refused: {error}")
                continue
            hold(False, "refused-changes-nothing", f"{silo.name} committed to an update that it never sent")

    def do_upload_fails(self, a: int, b: int) -> None:
        """The silo's disk fails while it uploads: it withdraws."""
        silo = self._silo(a)
        for key, upload in list(silo.work.uploads.items()):
            silo.work.impossible(key, upload)

    def do_abort(self, a: int, b: int) -> None:
        """An operator ends the job."""
        process = self.host.process
        if process is None or a % 4:
            return
        try:
            self.host.call(process.conductor.desk.abort_job, JOB, "enough", OPERATOR)
        except (ConflictError, UnreachableError):
            return

    def do_revoke(self, a: int, b: int) -> None:
        """A member is taken off the allow-list: its session ends, and it does not come back."""
        silo, process = self._silo(a), self.host.process
        if process is None or silo.revoked:
            return
        silo.revoked = True
        self.seen.revoked.add(silo.name)
        link = silo.link
        silo.notice()
        self.host.post(partial(process.conductor.revoked, silo.name))
        if link is not None and self.host.process is process:
            self.host.close_session(link)

    def do_hostile(self, a: int, b: int) -> None:
        """Somebody breaks the rules: it is refused to their face, and nothing changes."""
        process = self.host.process
        if process is None:
            return
        word = hostile_word(self.host, self._silo(a), b)
        if word is None:
            return
        before = self._everything()
        try:
            word.say()
        except PeerError as error:
            self.seen.texts.append(str(error))
            hold(before == self._everything(), "refused-changes-nothing", f"{word.name} was refused: {error}")
            return
        except UnreachableError:
            return  # a planned fault struck first
        raise Convicted("refused-changes-nothing", f"{word.name} of {self._silo(a).name} was not refused")

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
        self.host.faults._planned.clear()
        for _ in range(REST_WAITS_MAX):
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
        if process is None or process.later:
            return False
        if job.state in {JobState.COMPLETED, JobState.ABORTED}:
            return True
        members_left = sum(not silo.revoked for silo in self.silos)
        return process.driver is None and members_left < self.host.spec.round.quorum

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
        if records.jobs[JOB].state is JobState.COMPLETED:
            committed = [record.purpose for record in records.rounds.values() if record.outcome == "committed"]
            expected = ["train"] * self.host.spec.rounds + ["evaluate"]
            hold(
                sorted(committed, reverse=True) == sorted(expected, reverse=True), "ends", f"completed with {committed}"
            )


def play(shape: Shape, operations: Sequence[Operation], parts: Parts | None = None) -> World:
    """A whole history. Raises Convicted."""
    world = World(shape, parts)
    for operation in operations:
        world.perform(operation)
    world.rest()
    return world


__all__ = ["FederationError", "Operation", "World", "play"]
