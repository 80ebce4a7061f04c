"""The world of one history: what may happen to a federation, by name.

A history is a shape and a list of operations `(name, a, b)` with small numbers, so that a failure that was found can be
kept as a literal and read. An operation that makes no sense at its moment does nothing. `go` is the only one in which
all is well: it takes that many ordinary steps (deliver a frame, train, send a chunk, fold, reconnect..), in an order
drawn from its seed. After each operation all invariants are checked; at the end the world comes to rest, and everything
must be over.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from coordinator.desk import Desk
from coordinator.round.phases import phase_name
from coordinator.storage.faults import Fault
from shared.control import ControlChange
from shared.errors import ConflictError, LateError, PeerError, UnreachableError
from shared.protocol.messages import AttemptAnswer, AttemptStart, Exchange
from shared.reasons import DropReason
from shared.wire.session import ShutEnvelope, decode_coordinator_message, decode_participant_message
from tests.simulation.coordinator_process import OPERATOR
from tests.simulation.hostile import hostile_word
from tests.simulation.settings import JOB, Convicted, Parts, Shape, hold
from tests.simulation.silo import Silo
from tests.simulation.steps import Federation
from tests.simulation.verbs import COORDINATOR_VERBS, PARTICIPANT_VERBS

Operation = tuple[str, int, int]

SECONDS = (0.5, 4.0, 5.5, 16.0, 61.0, 601.0)  # a moment, the grace, the reconnect window, both deadlines
DEADLINES_S = (30.0, 600.0, 1200.0)  # what an operator makes of the deadline of 600 s
OUTAGES_S = (16.0, 61.0, 61.0, 601.0)
PHASES = ("advertising", "sharing", "uploading", "confirming", "unmasking", "folding")
UNTIL_STEPS_MAX = 150
EXPONENTS = (0, 3, 6, -2, None, 40)  # log2 of what a silo trains; None is nothing at all, and 40 fits no encoding
_FAULTS = tuple(Fault)  # to a call that only reads they are all the same
UPLOAD_CALLS_MAX = 6  # status, two chunks, the end, the commitment, and one to spare


class World(Federation):
    """Performs operations. Raises Convicted when an invariant does not hold."""

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

    def do_until(self, a: int, b: int) -> None:
        """Ordinary steps until the round is in a certain phase, and a few more."""
        draw, further = random.Random(b), a // len(PHASES) % 8
        for _ in range(UNTIL_STEPS_MAX):
            process = self.host.process
            driver = None if process is None else process.driver
            if driver is not None and phase_name(driver.state) == PHASES[a % len(PHASES)]:
                break
            steps = self.steps()
            if not steps:
                return
            self._take(steps[draw.randrange(len(steps))])
        self.do_go(b, further)

    def do_drop(self, a: int, b: int) -> None:
        """A connection breaks: both sides notice, or the coordinator only later, or the participant only later."""
        self._break(self._silo(a), b)

    def _break(self, silo: Silo, b: int) -> None:
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
        verb = COORDINATOR_VERBS[a % len(COORDINATOR_VERBS)]
        self.host.faults.inject(verb, _FAULTS[b % len(_FAULTS)], after=b // 3 % 4)

    def do_die(self, a: int, b: int) -> None:
        """The coordinator is killed at a boundary to come, in the middle of whatever it does then."""
        self.host.faults.die_after(a % 64)

    def do_die_silo(self, a: int, b: int) -> None:
        """A silo is, at a boundary of its own."""
        self._silo(a).faults.die_after(b)

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
        if not a % 4:
            self._ask(lambda desk: desk.abort_job(JOB, "enough", OPERATOR))

    def do_pause(self, a: int, b: int) -> None:
        """An operator pauses the job; the answer may be lost with the process."""
        self._ask(lambda desk: desk.pause_job(JOB, "for a while", OPERATOR))

    def do_resume(self, a: int, b: int) -> None:
        self._ask(lambda desk: desk.resume_job(JOB, OPERATOR))

    def do_control(self, a: int, b: int) -> None:
        """An operator changes the rules of the rounds to come, or takes that back."""
        spec = self.host.spec
        quorum = spec.floor + a % (len(spec.members) - spec.floor + 1)
        changes = (
            ControlChange(quorum=quorum),
            ControlChange(deadline_s=DEADLINES_S[a % len(DEADLINES_S)]),
            ControlChange(reset=True, quorum=quorum),
            ControlChange(reset=True),
        )
        self._ask(lambda desk: desk.control_job(JOB, changes[b % len(changes)], OPERATOR))

    def _ask(self, ask: Callable[[Desk], object]) -> None:
        process = self.host.process
        if process is None:
            return
        try:
            self.host.call(ask, process.conductor.desk)
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

    # --- masking ------------------------------------------------------------------------------------------------------

    def do_lose_secrets(self, a: int, b: int) -> None:
        """A silo restarts in the middle of a masked attempt."""
        holders = [silo for silo in self.silos if silo.holds_secrets]
        if holders:
            holders[a % len(holders)].restart()

    def do_late(self, a: int, b: int) -> None:
        """Whoever owes a word of a short exchange is too late for it."""
        self.clock.advance(self.host.spec.round.exchange_deadline_s + 1.0)
        self.host.breathe(retry=True)

    def do_outage(self, a: int, b: int) -> None:
        """Nobody can be reached for a while."""
        for silo in self.silos:
            self._break(silo, b)
        self.clock.advance(OUTAGES_S[a % len(OUTAGES_S)])
        self.host.breathe(retry=True)

    def do_value(self, a: int, b: int) -> None:
        """From now on a silo trains larger or smaller updates."""
        exponent = EXPONENTS[b % len(EXPONENTS)]
        self._silo(a).value = 0.0 if exponent is None else 2.0**exponent

    def do_journal_fault(self, a: int, b: int) -> None:
        """A call of a participant's journal will fail."""
        verb = PARTICIPANT_VERBS[b % len(PARTICIPANT_VERBS)]
        self._silo(a).faults.inject(verb, _FAULTS[a // 8 % len(_FAULTS)], after=a // 24 % 3)

    def do_twice(self, a: int, b: int) -> None:
        """The next frame in one direction comes twice."""
        queue = self._queue(self._silo(a), b)
        if queue:
            queue.appendleft(queue[0])

    def do_lose(self, a: int, b: int) -> None:
        """A frame of the exchanges is lost; the session goes on."""
        queue = self._queue_with_a_gap(a, b)
        if queue:
            queue.popleft()

    def do_delay(self, a: int, b: int) -> None:
        """A frame of the exchanges is overtaken by all others."""
        self._queue_with_a_gap(a, b).rotate(-1)

    def _queue_with_a_gap(self, a: int, b: int) -> deque[bytes]:
        """One whose next frame is of the exchanges; else none."""
        link, queue = self._silo(a).link, self._queue(self._silo(a), b)
        if link is None or not queue or not _is_of_an_attempt(queue[0], to_participant=queue is link.to_participant):
            return deque()
        link.gap = True
        return queue

    def _queue(self, silo: Silo, b: int) -> deque[bytes]:
        if silo.link is None:
            return deque()
        return silo.link.to_participant if b % 2 else silo.link.to_coordinator

    # --- broken rules -------------------------------------------------------------------------------------------------

    def do_hostile(self, a: int, b: int) -> None:
        """Somebody breaks the rules: it is refused to their face, and nothing changes."""
        process = self.host.process
        if process is None:
            return
        word = hostile_word(self.host, self._silo(a), a * 41 + b)
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


def _is_of_an_attempt(frame: bytes, *, to_participant: bool) -> bool:
    if not to_participant:
        return isinstance(decode_participant_message(frame), AttemptAnswer)
    message = decode_coordinator_message(frame)
    return message.kind is AttemptStart if isinstance(message, ShutEnvelope) else isinstance(message, Exchange)


def play(shape: Shape, operations: Sequence[Operation], parts: Parts | None = None) -> World:
    """A whole history. Raises Convicted."""
    world = World(shape, parts)
    for operation in operations:
        world.perform(operation)
    world.rest()
    return world
