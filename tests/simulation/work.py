"""What takes long at a simulated participant, in steps: fetch, train, look over, upload.

Theory of operation. `SimulatedWork` stands where `participant.work` does and keeps its promises: an update is on disk
before it is reported, an upload asks its status, sends what is missing, commits, and starts over when the coordinator
cannot be reached; a late one ends quietly, an impossible one is reported. Each of these is one `step`, so that anything
can happen in between. The bytes are those of the real `participant.protect`, made anew whenever an upload starts over;
what was sent under an attempt's masks is remembered for as long as the round runs, as `participant.uploads` does.

Every participant contributes a vector with one number in a cell of its own, a power of two; whoever is counted twice
shows as twice that. In every encoding these numbers are exact.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from participant.fitting import Fit, NoUpdate, fit_of
from participant.protect import MaskedChunks, PlainChunks, SentDigests, UpdateChunks
from participant.round.checks import layout_of
from participant.round.effects import UploadAcknowledged, UploadImpossible, WorkDone, WorkFailed
from participant.round.phases import MISSES_MAX, Masked, Measured, Offer, Plain, Protection, SpooledUpdate
from shared.errors import FederationError, LateError, PeerError, UnreachableError
from shared.ids import Digest, RoundKey
from shared.protocol.messages import AttemptStart, Envelope, Sealed, UploadCommit, attempt_digest
from shared.reasons import DropReason, Purpose
from shared.update import UpdateHeader, UpdateLayout, update_digest
from shared.wire.sealed import encode_update_header, seal
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
from tests.simulation.coordinator_process import Stream
from tests.simulation.settings import BANKS, Shape, hold
from tests.support.rounds import key_of

if TYPE_CHECKING:  # each holds the other
    from tests.simulation.silo import Silo

_FOLDER = tempfile.TemporaryDirectory(prefix="simulated-models-")


def one_hot(shape: Shape, index: int, number: int, value: float) -> bytes:
    """The update of member `index` (from 1) in a round: float32 zeros and its value."""
    vector = np.zeros(shape.elements, "<f4")
    vector[hot_cell(shape, index, number)] = value
    return vector.tobytes()


def hot_cell(shape: Shape, index: int, number: int) -> int:
    return (number % BANKS) * shape.members + index - 1


def loss_of(index: int) -> float:
    """A bit of its own, so that a total of losses says whose they are."""
    return 2.0**index


class HeldFile:
    """Stands for the path of a spooled update, as far as `participant.protect` reads one."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self, _mode: str, *, buffering: int = -1) -> io.BytesIO:
        hold(buffering == 0, "wire", "a spool is read as it is")
        return io.BytesIO(self._content)


@dataclass(slots=True)
class Upload:
    """One upload on its way."""

    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    protection: Protection
    chunks: tuple[bytes, ...] = ()
    """Since it last began, in the layout's order."""
    stream: Stream | None = None
    sent: int = 0
    ended: bool = False

    @property
    def layout(self) -> UpdateLayout:
        return layout_of(self.offer, self.update, self.attempt.value.encoding)

    @property
    def header(self) -> bytes:
        encoding = self.attempt.value.encoding
        return encode_update_header(UpdateHeader(encoding, None if encoding.masked else 1.0, contributors=1))


class SimulatedWork:
    """Implements `participant.round.surroundings.Work`; performs a step when it is told to."""

    def __init__(self, silo: Silo) -> None:
        self._silo = silo
        self.training: dict[RoundKey, Offer] = {}
        self.uploads: dict[RoundKey, Upload] = {}
        self.sent: dict[RoundKey, SentDigests] = {}
        self.fails_next: DropReason | None = None

    def start_work(self, offer: Offer) -> None:
        with self._silo.faults.around("start_work"):
            self.training[offer.key] = offer

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        with self._silo.faults.around("start_upload"):
            self.uploads[offer.key] = Upload(offer, update, attempt, protection)

    def stop(self, offer: Offer) -> None:
        with self._silo.faults.around("stop"):
            self.training.pop(offer.key, None)
            self.uploads.pop(offer.key, None)

    def keep_state(self, offer: Offer) -> bool:
        with self._silo.faults.around("keep_state"):
            return True

    def erase(self, offer: Offer) -> None:
        with self._silo.faults.around("erase"):
            self.sent.pop(offer.key, None)
            self._silo.spool.pop(offer.key, None)

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        self._silo.live(self._train)

    def _train(self) -> None:
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
        try:
            update = self._trained(offer, model)
        except NoUpdate as failed:
            silo.report(key, WorkFailed(failed.reason))
        else:
            silo.report(key, WorkDone(update))

    def _trained(self, offer: Offer, model: bytes) -> SpooledUpdate:
        silo, key = self._silo, offer.key
        measured = Measured(1.0, (loss_of(offer.index),))
        if offer.plan.value.purpose is Purpose.EVALUATE:
            self._keep(key, b"")
            return SpooledUpdate(None, measured, 0, (), offer.misses < MISSES_MAX)
        shape = silo.host.shape
        deltas = silo.trained(offer)
        fit = self._fit(offer, measured, deltas, model) if offer.masked else Fit((), fits=True)
        self._keep(key, deltas)
        silo.witness.trained(silo.name, key, silo.value)
        return SpooledUpdate(measured, measured, shape.elements, fit.cells, fit.fits)

    def _keep(self, key: RoundKey, deltas: bytes) -> None:
        """On disk. What is on disk and on record is never made again."""
        silo = self._silo
        known = silo.journal._kept.rounds.get(key)
        hold(known is None or known.update is None, "trained-once", f"{silo.name} trains again for round {key}")
        with silo.faults.around("keep_update"):
            silo.spool[key] = deltas

    def _fit(self, offer: Offer, measured: Measured, deltas: bytes, model: bytes) -> Fit:
        file = Path(_FOLDER.name) / str(offer.plan.value.model)
        if not file.exists():
            file.write_bytes(model)
        return fit_of(
            offer,
            measured,
            deltas=cast(Path, HeldFile(deltas)),
            parameters=self._silo.host.shape.elements,
            model=file,
        )

    # --- uploading ----------------------------------------------------------------------------------------------------

    def upload(self, *, lose_answer: bool = False) -> None:
        """The next call of an upload. A lost answer is a call that was made and seems not to have been."""
        key, upload = next(iter(self.uploads.items()))
        try:
            done, commit = self._next_call(upload, lose_answer=lose_answer)
        except UnreachableError:
            upload.stream, upload.sent, upload.ended = None, 0, False
        except LateError:
            self.uploads.pop(key, None)
        except PeerError as error:
            self._silo.refused(error, "upload")
            self.impossible(key, upload)
        else:
            if done:
                self.uploads.pop(key, None)
                self._silo.report(key, UploadAcknowledged(attempt_digest(upload.attempt), commit))

    def impossible(self, key: RoundKey, upload: Upload) -> None:
        self.uploads.pop(key, None)
        self._silo.report(key, UploadImpossible(attempt_digest(upload.attempt), DropReason.LOST))

    def _next_call(self, upload: Upload, *, lose_answer: bool) -> tuple[bool, Envelope | None]:
        host, name, key = self._silo.host, self._silo.name, upload.attempt.value.key
        if upload.stream is None:
            status = decode_upload_status(host.upload_status(name, encode_upload_status_request(key)))
            if status.committed:
                return True, None
            upload.chunks = self.chunks_of(upload)
            stream = host.upload_open(name, encode_upload_open(UploadOpen(key, status.durable_bytes)))
            upload.stream = stream
            upload.sent = stream.receiving.received_chunks
        elif upload.sent < len(upload.chunks):
            host.upload_chunk(upload.stream, encode_data(upload.chunks[upload.sent]))
            upload.sent += 1
        elif not upload.ended:
            host.upload_end(upload.stream)
            upload.ended = True
        else:
            commit, answer = self.commit(upload, upload.chunks)
            if lose_answer:
                raise UnreachableError("the answer was lost")
            self._silo.witness.acknowledged(name, key, answer)
            return True, commit
        if lose_answer:
            raise UnreachableError("the answer was lost")
        return False, None

    def commit(self, upload: Upload, chunks: tuple[bytes, ...]) -> tuple[Envelope, Digest]:
        """Send the signed word. Raises as the coordinator answers."""
        silo, key, protection = self._silo, upload.attempt.value.key, upload.protection
        digest = update_digest(upload.header, [Digest(hashlib.sha256(chunk).digest()) for chunk in chunks])
        said = UploadCommit(
            attempt=attempt_digest(upload.attempt),
            transcript=protection.transcript if isinstance(protection, Masked) else attempt_digest(upload.attempt),
            index=upload.offer.index,
            header=upload.header,
            update=digest,
            chunks=len(chunks),
        )
        envelope = seal(said, signer=key_of(silo.name), index=upload.offer.index).envelope
        silo.witness.sent(silo.name, key)
        request = encode_commit_request(CommitRequest(key, envelope))
        answer = decode_commit_response(silo.host.upload_commit(silo.name, request))
        hold(answer == digest, "acknowledged-durable", f"{silo.name} sent {digest}, {answer} was acknowledged")
        return envelope, answer

    def chunks_of(self, upload: Upload) -> tuple[bytes, ...]:
        """What goes over the wire."""
        return tuple(bytes(chunk.data) for chunk in self._protected(upload))

    def _protected(self, upload: Upload) -> UpdateChunks:
        offer, update, protection = upload.offer, upload.update, upload.protection
        deltas = cast(Path, HeldFile(self._silo.spool[offer.key]))
        if isinstance(protection, Plain):
            return PlainChunks(deltas=deltas, update=update, layout=upload.layout, masking=offer.spec.masking)
        return MaskedChunks(
            deltas=deltas,
            update=update,
            layout=upload.layout,
            spec=offer.spec,
            sizes=() if update.train is None else (update.parameters,),
            protection=protection,
            sent=self._sent_under(offer.key, protection.transcript),
        )

    def _sent_under(self, key: RoundKey, transcript: Digest) -> SentDigests:
        known = self.sent.get(key)
        if known is None or known.transcript != transcript:
            known = SentDigests(transcript)
            self.sent[key] = known
        return known
