"""The coordinator as a process that can die: the real conductor, intake and fold over storage that survives it.

Theory of operation. `Host` is the machine: it holds what outlives a process (records, files, the audit file, the
clock) and at most one `Process`. What `coordinator.conducting` does with threads is done here in one: `call` is for
those who wait for an answer, `post` for what must happen and is done again after a StorageError. DurabilityUnknown is
the end of the process, wherever it comes up; so is a kill at any boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from coordinator.audit import MESSAGE_TYPE, AuditProjection, HeldFile
from coordinator.audit import resume as resume_audit
from coordinator.conductor import Conductor
from coordinator.intake import Intake, Receiving
from coordinator.older_copy import own_heads
from coordinator.registry import Enrolled
from coordinator.round.driver import RoundDriver
from coordinator.round.effects import FoldFailed
from coordinator.round.phases import RoundState
from coordinator.round.surroundings import FoldOrder, Surroundings
from shared.clock import ManualClock
from shared.errors import AuditError, FederationError, StorageError, UnreachableError
from shared.identity import Identity, Role
from shared.ids import Digest, ParticipantId, RoundKey
from shared.protocol.messages import Hello, RoundBroadcast
from shared.reasons import AbortReason, Purpose
from shared.wire.sealed import decode_upload_commit
from shared.wire.session import decode_participant_message, encode_coordinator_message
from shared.wire.transfer import (
    UploadOpen,
    UploadStatus,
    decode_commit_request,
    decode_upload_frame,
    decode_upload_status_request,
    encode_commit_response,
    encode_upload_status,
)
from tests.simulation.boundaries import ENDS, Boundaries
from tests.simulation.durable import durable_before_sent
from tests.simulation.settings import COORDINATOR, JOB, Parts, Shape, hold
from tests.simulation.wire import Link
from tests.support.rounds import COORDINATOR_KEY, TASK, coordinator_seal, initial_index, initial_model, key_of

P = ParamSpec("P")
T = TypeVar("T")

OPERATOR = Identity("hearts.example", Role.OPERATOR, "olga")


class _Folds:
    def __init__(self, boundaries: Boundaries) -> None:
        self.orders: list[FoldOrder] = []
        self._boundaries = boundaries

    def start(self, order: FoldOrder) -> None:
        with self._boundaries.around("start_fold"):
            self.orders.append(order)

    def drop(self, key: RoundKey) -> None:
        """The hard case: every fold that is dropped was begun already, and ends when a history says so."""


class _Outbox:
    def __init__(self, links: Mapping[ParticipantId, Link], host: Host) -> None:
        self._links = links
        self._host = host

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None:
        link = self._links.get(participant)
        with self._host.faults.around("send"):
            durable_before_sent(self._host.store._records, message)
            if link is not None:
                link.to_participant.append(encode_coordinator_message(message))


class _Unobserved:
    def moved(self, state: RoundState) -> None: ...

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Stream:
    """An upload's stream of chunks, which does not outlive the process that reads it."""

    process: Process
    receiving: Receiving


class Process:
    """One life of the coordinator."""

    def __init__(self, host: Host) -> None:
        parts = host.parts
        self.links: dict[ParticipantId, Link] = {}
        self.folds = _Folds(host.faults)
        self.intake: Intake = parts.intake(host.blobs)
        sign = partial(COORDINATOR_KEY.sign, MESSAGE_TYPE)
        audit = resume_audit(host.store.audit_entries, sign=sign, clock=host.clock)
        around = Surroundings(
            store=host.store,
            audit=audit,
            outbox=_Outbox(self.links, host),
            folds=self.folds,
            seal=parts.seal(coordinator_seal),
            clock=host.clock,
            observer=_Unobserved(),
        )
        self.conductor: Conductor = parts.conductor(
            around=around,
            blobs=host.blobs,
            intake=self.intake,
            signer=COORDINATOR_KEY,
            consortium=host.shape.consortium,
        )
        self.later: list[Callable[[], object]] = []
        self.projection = AuditProjection(file=host.audit_file)

    @property
    def driver(self) -> RoundDriver | None:
        """The open round of the one job."""
        job = self.conductor._jobs.running.get(JOB)
        return None if job is None else job.driver


class Host:
    """The coordinator's machine."""

    def __init__(self, shape: Shape, parts: Parts, clock: ManualClock) -> None:
        self.shape, self.parts, self.clock = shape, parts, clock
        self.spec = shape.spec()
        self.faults = parts.boundaries(COORDINATOR)
        self.store = parts.store(faults=self.faults)
        self.blobs = parts.blobs(faults=self.faults)
        self.audit_file = HeldFile()
        self.process: Process | None = None
        self.crashes = 0
        self.taken: set[bytes] = set()
        """Every chunk that was ever in a spool."""
        self._sessions = 0

    # --- life ---------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """The first start, with the initial model and the job; the operator tries again until both are there."""
        while True:
            self.start()
            try:
                if self.process is not None:
                    self.call(self._submit)
                    return
            except UnreachableError:
                continue

    def _submit(self) -> None:
        model = initial_model(self.shape.elements)
        staged = self.blobs.stage("initial")
        staged.allocate(len(model))
        staged.write_at(0, memoryview(model))
        conductor = self.up().conductor
        conductor.desk.add_model(staged, Digest.of(model), initial_index(self.shape.elements), OPERATOR)
        conductor.desk.submit_job(JOB, self.spec.to_bytes(), OPERATOR)

    def start(self) -> None:
        """A new process, unless it dies at once."""
        if self.process is not None:
            return
        try:
            process = Process(self)
            process.conductor.start()
        except (StorageError, *ENDS):
            self.crash()
        else:
            self.process = process

    def crash(self, *, keep_bytes: int = 0) -> None:
        """End the process now; only what is durable is left."""
        if self.process is not None:
            for link in self.process.links.values():
                link.break_off()
        self.process = None
        self.crashes += 1
        self.store = self.store.crash()
        self.blobs = self.blobs.crash(keep_bytes=keep_bytes)

    def up(self) -> Process:
        """The living process. Raises UnreachableError."""
        if self.process is None:
            raise UnreachableError("the coordinator is down")
        return self.process

    # --- the thread of the conductor ----------------------------------------------------------------------------------

    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What somebody waits for. Our own troubles reach them as UnreachableError, the rest as it is."""
        try:
            return work(*args, **kwargs)
        except ENDS:
            self.crash()
            raise UnreachableError("the coordinator died") from None
        except StorageError:
            raise UnreachableError("the coordinator has trouble") from None

    def post(self, work: Callable[[], object]) -> None:
        """What must happen, again and again until it does."""
        process = self.up()
        try:
            work()
        except ENDS:
            self.crash()
        except StorageError:
            process.later.append(work)
        except FederationError:
            return

    def breathe(self, *, retry: bool = False) -> None:
        """Between two pieces of work: deadlines, what is to be done again (when time passed), the audit file."""
        process = self.process
        if process is None:
            return
        if retry:
            later, process.later = process.later, []
            for work in later:
                if self.process is process:
                    self.post(work)
        try:
            if self.process is process and process.conductor.next_tick <= self.clock.monotonic():
                process.conductor.tick()
            if self.process is process:
                process.projection.project(self.store.audit_entries)
        except AuditError as error:
            hold(False, "audit", str(error))
        except ENDS:
            self.crash()
        except StorageError:
            return

    def fold(self) -> None:
        """Run the oldest fold that was asked for."""
        process = self.up()
        order = process.folds.orders.pop(0)
        key = order.attempt.round
        try:
            outcome = self.parts.fold(order, self.blobs)
        except ENDS:
            self.crash()
            return
        except StorageError:
            process.folds.orders.insert(0, order)
            return
        if isinstance(outcome, FoldFailed) and outcome.reason is AbortReason.DAMAGED:
            # Only an abort may have taken the updates away.
            driver = process.driver
            gone = driver is None or driver.finished or driver.frame.key != key
            hold(
                gone, "acknowledged-durable", f"the fold of {key} does not find what was acknowledged: {outcome.detail}"
            )
        elif isinstance(outcome, FoldFailed) and outcome.reason is not AbortReason.FOLD_FAILED:
            hold(False, "honest-total", f"the total of {order.attempt} of honest silos is {outcome.reason}")
        self.post(lambda: process.conductor.fold_ended(key, outcome))

    # --- sessions -----------------------------------------------------------------------------------------------------

    def open_session(self, participant: ParticipantId, hello: bytes) -> Link:
        """Raises UnreachableError."""
        process = self.up()
        said = decode_participant_message(hello)
        hold(isinstance(said, Hello), "wire", "a session opens with a Hello")
        assert isinstance(said, Hello)
        self._sessions += 1
        link = Link(participant, f"session-{self._sessions}")
        superseded = process.links.get(participant)
        process.links[participant] = link
        enrolled = Enrolled(link.session, frozenset({TASK}))
        key = key_of(participant).verifying_key
        heads = own_heads(said.heads, verifier=COORDINATOR_KEY.verifying_key)
        hold(len(heads) == len(said.heads), "honest-head", f"a head of {participant} that its coordinator did not sign")
        try:
            lost = self.call(process.conductor.heads_shown, participant, heads)
            hold(lost == 0, "honest-head", f"{participant} verified a result that was not durable when it was sent")
            self.call(process.conductor.session_opened, participant, enrolled, key, said.open_rounds)
        except UnreachableError:
            if self.process is process:
                self.close_session(link)
            raise
        if superseded is not None:
            superseded.break_off()
            self.post(partial(process.conductor.session_closed, participant, superseded.session))
        return link

    def close_session(self, link: Link) -> None:
        process = self.up()
        link.break_off()
        if process.links.get(link.participant) is link:
            del process.links[link.participant]
        self.post(partial(process.conductor.session_closed, link.participant, link.session))

    def hear(self, link: Link, frame: bytes) -> None:
        """A frame on a session. Raises PeerError for what is refused, UnreachableError when the session ends of it."""
        message = decode_participant_message(frame)
        process = self.up()
        try:
            self.call(process.conductor.received, link.participant, link.session, message)  # type: ignore[arg-type]
        except UnreachableError:
            if self.process is process:
                self.close_session(link)
            raise

    # --- transfers ----------------------------------------------------------------------------------------------------

    def fetch(self, participant: ParticipantId, model: Digest) -> bytes:
        process = self.up()
        self.call(process.conductor.may_fetch, participant, model)

        def read() -> bytes:
            with closing(self.blobs.model(model)) as reader:
                return bytes(reader.read_at(0, reader.size))

        return self.call(read)

    def upload_status(self, participant: ParticipantId, request: bytes) -> bytes:
        process = self.up()
        grant = self.call(process.conductor.may_upload, participant, decode_upload_status_request(request))
        if grant.committed:
            return encode_upload_status(UploadStatus(grant.layout.total_bytes, committed=True))
        durable = self.call(process.intake.durable_bytes, grant.upload, grant.layout)
        return encode_upload_status(UploadStatus(durable, committed=False))

    def upload_open(self, participant: ParticipantId, frame: bytes) -> Stream:
        process = self.up()
        opening = decode_upload_frame(frame)
        assert isinstance(opening, UploadOpen)
        grant = self.call(process.conductor.may_upload, participant, opening.key)
        return Stream(process, self.call(process.intake.open, grant.upload, grant.layout, opening.offset))

    def upload_chunk(self, stream: Stream, frame: bytes) -> None:
        self._still(stream)
        chunk = decode_upload_frame(frame)
        assert isinstance(chunk, memoryview)
        self.taken.add(bytes(chunk))
        self.call(stream.receiving.append, chunk)

    def upload_end(self, stream: Stream) -> None:
        """The stream ended well, and what came on it is durable."""
        self._still(stream)
        self.call(stream.receiving.sync)

    def _still(self, stream: Stream) -> None:
        if stream.process is not self.process:
            raise UnreachableError("the stream ended with its coordinator")

    def upload_commit(self, participant: ParticipantId, request: bytes) -> bytes:
        process = self.up()
        wanted = decode_commit_request(request)
        header = decode_upload_commit(wanted.commit.payload).header
        grant = self.call(process.conductor.may_upload, participant, wanted.key)
        update = self.call(process.intake.prove, grant.upload, grant.layout, header)
        offer = process.conductor.offer_upload
        acknowledged = self.call(offer, participant, wanted.key, wanted.commit, update)
        process.intake.rest(grant.upload)
        return encode_commit_response(acknowledged)
