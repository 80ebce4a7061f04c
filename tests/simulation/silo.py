"""A participant as a process that can die: the real driver over a journal and a spool that survive it.

Theory of operation. `SimulatedWork` stands where `participant.work` does and keeps its promises: an update is on disk
before it is reported, an upload asks its status, sends what is missing, commits, and starts over when the coordinator
cannot be reached; a late one ends quietly, an impossible one is reported. Each of these is one `step`, so that anything
can happen in between. Every participant contributes a one-hot vector; whoever is counted twice shows as a 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from participant.consent import Policy
from participant.round.checks import layout_of
from participant.round.driver import Driver, Surroundings
from participant.round.effects import Event, UploadAcknowledged, UploadImpossible, WorkDone, WorkFailed
from participant.round.phases import Measured, Offer, Protection, RoundState, SpooledUpdate
from shared.entropy import SeededEntropy
from shared.errors import (
    DurabilityUnknown,
    FederationError,
    LateError,
    PeerError,
    StorageError,
    UnreachableError,
)
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey
from shared.protocol.messages import (
    CAPABILITIES,
    PROTOCOL_VERSIONS,
    AttemptStart,
    Hello,
    RoundReply,
    Sealed,
    UploadCommit,
    attempt_digest,
)
from shared.reasons import DropReason, Purpose
from shared.update import Encoding, UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import encode_update_header, seal
from shared.wire.session import (
    ShutEnvelope,
    decode_coordinator_message,
    encode_participant_message,
    open_broadcast,
)
from shared.wire.transfer import (
    CommitRequest,
    UploadOpen,
    decode_commit_response,
    decode_upload_status,
    encode_commit_request,
    encode_data,
    encode_upload_open,
    encode_upload_status_request,
)
from tests.simulation.coordinator_process import Host, Stream
from tests.simulation.settings import BANKS, hold
from tests.simulation.wire import Link
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import COORDINATOR_KEY, TASK, key_of


class Witness(Protocol):
    """Told what each side did, so that the invariants can be checked against it."""

    def sent(self, participant: ParticipantId, attempt: AttemptKey) -> None:
        """A signed commitment left this silo."""
        ...

    def acknowledged(self, participant: ParticipantId, attempt: AttemptKey, update: Digest) -> None: ...

    def refused(self, participant: ParticipantId, error: PeerError, said: str) -> None:
        """This participant did not accept what the coordinator said."""
        ...


def one_hot(elements: int, members: int, index: int, number: int) -> bytes:
    """The update of member `index` (from 1) in a round: float32 zeros and a one."""
    vector = np.zeros(elements, "<f4")
    vector[(number % BANKS) * members + index - 1] = 1.0
    return vector.tobytes()


def measured(index: int) -> Measured:
    """A weight of one, and a loss that is a bit of its own."""
    return Measured(1.0, (2.0**index,))


def statistics_of(update: SpooledUpdate) -> tuple[float, ...]:
    """Section 1 in the plain encoding, of weights of one."""
    trained = (0.0, 0.0) if update.train is None else (update.train.weight, *update.train.means)
    return (*trained, update.evaluate.weight, *update.evaluate.means)


@dataclass(slots=True)
class Upload:
    """One upload on its way."""

    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    stream: Stream | None = None
    sent: int = 0
    ended: bool = False

    @property
    def layout(self) -> UpdateLayout:
        return layout_of(self.offer, self.update, Encoding.PLAIN)


class SimulatedWork:
    """Implements `participant.round.driver.Work`; performs a step when it is told to."""

    def __init__(self, silo: Silo) -> None:
        self._silo = silo
        self.training: dict[RoundKey, Offer] = {}
        self.uploads: dict[RoundKey, Upload] = {}
        self.fails_next: DropReason | None = None

    def start_work(self, offer: Offer) -> None:
        self.training[offer.key] = offer

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        self.uploads[offer.key] = Upload(offer, update, attempt)

    def stop(self, offer: Offer) -> None:
        self.training.pop(offer.key, None)
        self.uploads.pop(offer.key, None)

    def keep_state(self, offer: Offer) -> bool:
        return True

    def erase(self, offer: Offer) -> None:
        self._silo.spool.pop(offer.key, None)

    # --- steps --------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        silo = self._silo
        key, offer = next(iter(self.training.items()))
        plan = offer.plan.value
        try:
            model = silo.host.fetch(silo.name, plan.model)
        except UnreachableError:
            return
        except FederationError:
            del self.training[key]
            silo.report(key, WorkFailed(DropReason.MODEL_UNAVAILABLE))
            return
        hold(Digest.of(model) == plan.model, "model-exists", f"model {plan.model} has other bytes")
        del self.training[key]
        if self.fails_next is not None:
            reason, self.fails_next = self.fails_next, None
            silo.report(key, WorkFailed(reason))
            return
        trains = plan.purpose is Purpose.TRAIN
        shape = silo.host.shape
        deltas = one_hot(shape.elements, shape.members, offer.index, key.number) if trains else b""
        silo.spool[key] = deltas
        said = measured(offer.index)
        update = SpooledUpdate(said if trains else None, said, len(deltas) // 4, (), fits=True)
        silo.report(key, WorkDone(update))

    def upload(self, *, lose_answer: bool = False) -> None:
        """The next call of an upload. A lost answer is a call that was made and seems not to have been."""
        key, upload = next(iter(self.uploads.items()))
        try:
            done = self._next_call(upload, lose_answer=lose_answer)
        except UnreachableError:
            upload.stream, upload.sent, upload.ended = None, 0, False
        except LateError:
            self.uploads.pop(key, None)
        except PeerError as error:
            self._silo.witness.refused(self._silo.name, error, "upload")
            self.impossible(key, upload)
        else:
            if done:
                self.uploads.pop(key, None)
                self._silo.report(key, UploadAcknowledged(attempt_digest(upload.attempt), None))

    def impossible(self, key: RoundKey, upload: Upload) -> None:
        self.uploads.pop(key, None)
        self._silo.report(key, UploadImpossible(attempt_digest(upload.attempt), DropReason.LOST))

    def _next_call(self, upload: Upload, *, lose_answer: bool) -> bool:
        host, name, key = self._silo.host, self._silo.name, upload.attempt.value.key
        chunks = chunks_of(upload, self._silo.spool[upload.offer.key])
        if upload.stream is None:
            status = decode_upload_status(host.upload_status(name, encode_upload_status_request(key)))
            if status.committed:
                return True
            stream = host.upload_open(name, encode_upload_open(UploadOpen(key, status.durable_bytes)))
            upload.stream = stream
            upload.sent = stream.receiving.received_chunks
        elif upload.sent < len(chunks):
            host.upload_chunk(upload.stream, encode_data(chunks[upload.sent]))
            upload.sent += 1
        elif not upload.ended:
            host.upload_end(upload.stream)
            upload.ended = True
        else:
            answer = self.commit(upload, chunks)
            if lose_answer:
                raise UnreachableError("the answer was lost")
            self._silo.witness.acknowledged(name, key, answer)
            return True
        if lose_answer:
            raise UnreachableError("the answer was lost")
        return False

    def commit(self, upload: Upload, chunks: list[bytes]) -> Digest:
        """Send the signed word. Raises as the coordinator answers."""
        silo, key = self._silo, upload.attempt.value.key
        header = encode_update_header(UpdateHeader(Encoding.PLAIN, 1.0, 1))
        digest = update_digest(header, [Digest(hashlib.sha256(chunk).digest()) for chunk in chunks])
        said = UploadCommit(
            attempt=attempt_digest(upload.attempt),
            transcript=attempt_digest(upload.attempt),
            index=upload.offer.index,
            header=header,
            update=digest,
            chunks=len(chunks),
        )
        envelope = seal(said, signer=key_of(silo.name), index=upload.offer.index).envelope
        silo.witness.sent(silo.name, key)
        request = encode_commit_request(CommitRequest(key, envelope))
        answer = decode_commit_response(silo.host.upload_commit(silo.name, request))
        hold(answer == digest, "acknowledged-durable", f"{silo.name} sent {digest}, {answer} was acknowledged")
        return answer


def chunks_of(upload: Upload, deltas: bytes) -> list[bytes]:
    """What goes over the wire, in the plain encoding."""
    content = deltas + np.array(statistics_of(upload.update), "<f8").tobytes()
    return [content[start:end] for start, end in upload.layout.chunk_ranges()]


class _Unobserved:
    def moved(self, state: RoundState) -> None: ...

    def alarmed(self, what: str) -> None: ...


class Silo:
    """A participant's machine: what outlives the process, and the process."""

    def __init__(self, name: ParticipantId, host: Host, witness: Witness) -> None:
        self.name, self.host, self.witness = name, host, witness
        self.journal = MemoryJournal()
        self.spool: dict[RoundKey, bytes] = {}
        self.link: Link | None = None
        self.revoked = False
        self.declines = False
        self._begin()

    def _begin(self) -> None:
        self.work = SimulatedWork(self)
        policy = Policy(
            participant=self.name,
            tasks=frozenset({TASK}),
            minimum_members=99 if self.declines else 1,
            allow_plain=True,
            allowed_jobs=("*",),
            max_deadline_s=3600.0,
            minimum_survivors=2,
            journal_doubtful=False,
        )
        around = Surroundings(
            policy=policy,
            journal=self.journal,
            work=self.work,
            observer=_Unobserved(),
            own_key=key_of(self.name).verifying_key,
            signer=key_of(self.name),
            entropy=SeededEntropy(self.name.encode()),
        )
        self.driver = Driver(around=around)
        self.driver.start()

    def restart(self) -> None:
        """Die, and come back with what is durable: the journal, and the spool of its open rounds."""
        self._part()
        self.journal = self.journal.crash()
        kept = {record.plan.value.key for record in self.journal.open_rounds() if record.update is not None}
        self.spool = {key: deltas for key, deltas in self.spool.items() if key in kept}
        self._begin()

    def connect(self) -> None:
        """Open a session, or a newer one."""
        self._part()
        hello = Hello(
            versions=PROTOCOL_VERSIONS,
            capabilities=CAPABILITIES,
            tasks=(TASK,),
            nonce=bytes(32),
            signing_certificate=b"certificate",
            software="simulated",
            open_rounds=self.driver.open_rounds,
        )
        try:
            self.link = self.host.open_session(self.name, encode_participant_message(hello))
        except UnreachableError:
            return
        self.driver.connected(self._say)

    def _say(self, message: RoundReply) -> None:
        if self.link is not None and not self.link.broken:
            self.link.to_coordinator.append(encode_participant_message(message))

    def _part(self) -> None:
        """This side is without a session; what the coordinator knows is another matter."""
        if self.link is not None:
            self.link.break_off()
        self.link = None
        self.driver.disconnected()

    def notice(self) -> None:
        """This side finds that its connection is broken."""
        self._part()

    def hear(self) -> None:
        """Take the next frame."""
        assert self.link is not None
        frame = self.link.to_participant.popleft()
        verifier = COORDINATOR_KEY.verifying_key
        message = decode_coordinator_message(frame)
        said = message.kind.__name__ if isinstance(message, ShutEnvelope) else type(message).__name__

        def take() -> None:
            if isinstance(message, ShutEnvelope):
                self.driver.received(open_broadcast(message, verifier=verifier), verifier)
            else:
                self.driver.received(message, verifier)  # type: ignore[arg-type] # SurvivorList is all that is left

        try:
            self._live(take)
        except PeerError as error:
            self.witness.refused(self.name, error, said)

    def report(self, key: RoundKey, event: Event) -> None:
        self._live(lambda: self.driver.report(key, event))

    def _live(self, work: Callable[[], None]) -> None:
        """A journal that fails ends the daemon, and something starts it again."""
        try:
            work()
        except (StorageError, DurabilityUnknown):
            self.restart()
