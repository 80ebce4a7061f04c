"""The real participant, from the driver inwards: its machine, its tools, its consent, its path to masked bytes.

The journal is the one in memory, work is done at once, and an upload comes back as the bytes that would be sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from participant.consent import Policy
from participant.fitting import fit_of, tensor_sizes
from participant.protect import MaskedChunks, ResendDiffers, SentDigests
from participant.round.checks import layout_of
from participant.round.driver import Driver
from participant.round.effects import Event, UploadAcknowledged, UploadImpossible, WorkDone
from participant.round.phases import Masked, Measured, Offer, Protection, RoundState, SpooledUpdate
from participant.round.surroundings import Surroundings
from shared.consortium import Consortium
from shared.entropy import Entropy
from shared.errors import PeerError
from shared.ids import JobId, ParticipantId, RoundKey
from shared.protocol.messages import (
    AttemptStart,
    RoundBroadcast,
    RoundReply,
    Sealed,
    UploadCommit,
    attempt_digest,
)
from shared.reasons import AttemptAbortReason, Purpose
from shared.update import CHUNK_BYTES, UpdateHeader, update_digest
from shared.wire.sealed import encode_update_header, seal
from tests.attacks.silos import Deltas, Pads, Refused, Said, Upload
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import COORDINATOR_KEY, TASK, initial_model, key_of

_Report: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Sending:
    offer: Offer
    update: SpooledUpdate
    attempt: Sealed[AttemptStart]
    protection: Masked
    sent: SentDigests


class _Observer:
    """Keeps the alarms, and the state that each round reached."""

    def __init__(self) -> None:
        self.alarms: list[str] = []
        self.states: dict[RoundKey, RoundState] = {}

    def moved(self, state: RoundState) -> None:
        self.states[state.offer.key] = state

    def alarmed(self, what: str) -> None:
        self.alarms.append(what)


class ProductSilo:
    """One member. `acknowledges`: whether it hears by itself that its upload arrived."""

    def __init__(
        self,
        *,
        name: ParticipantId,
        deltas: Deltas,
        folder: Path,
        consortium: Consortium,
        entropy: Entropy,
        allowed_repeats: tuple[JobId, ...] = (),
        allow_no_collusion: bool = False,
        acknowledges: bool = True,
    ) -> None:
        self.name, self.deltas, self.acknowledges = name, deltas, acknowledges
        self.observer = _Observer()
        self.pads: Pads = defaultdict(set)
        self._policy = Policy(
            participant=name,
            tasks={TASK},
            minimum_members=3,
            allow_plain=False,
            allowed_jobs=("*",),
            max_deadline_s=86400.0,
            minimum_survivors=3,
            journal_doubtful=False,
            allow_no_collusion=allow_no_collusion,
            allowed_repeats=allowed_repeats,
            consortium=consortium,
        )
        self._folder, self._entropy = folder, entropy
        self._spool, self._model = folder / f"{name}.deltas", folder / "model"
        if not self._model.exists():
            self._model.write_bytes(initial_model())
        self._spool.write_bytes(deltas.tobytes())
        self._journal = MemoryJournal()
        self._begin()

    def _begin(self) -> None:
        self._said: list[Said] = []
        self._pending: list[_Report] = []
        self._sending: _Sending | None = None
        signing = key_of(self.name)
        around = Surroundings(
            policy=self._policy,
            journal=self._journal,
            work=self,
            observer=self.observer,
            own_key=signing.verifying_key,
            signer=signing,
            entropy=self._entropy,
        )
        self._driver = Driver(around=around)
        self._driver.connected(self._heard_from)
        self._driver.start()

    def restart(self) -> list[Said]:
        self._journal = self._journal.crash()
        self._begin()
        return self._worked_off()

    def rolled_back(self) -> ProductSilo:
        return ProductSilo(
            name=self.name,
            deltas=self.deltas,
            folder=self._folder,
            consortium=self._consortium,
            entropy=self._entropy,
            allowed_repeats=self._policy.allowed_repeats,
            allow_no_collusion=self._policy.allow_no_collusion,
            acknowledges=self.acknowledges,
        )

    @property
    def _consortium(self) -> Consortium:
        assert self._policy.consortium is not None
        return self._policy.consortium

    def change_spool(self, deltas: Deltas) -> None:
        self._spool.write_bytes(deltas.tobytes())

    def hear(self, message: RoundBroadcast) -> list[Said]:
        self._said = []
        try:
            self._driver.received(message, COORDINATOR_KEY.verifying_key)
        except PeerError as error:
            self._said.append(Refused(type(error).__name__, str(error)))
        return self._worked_off()

    def resend(self) -> list[Said]:
        self._said = []
        if self._sending is not None:
            sending = self._sending
            self._pending.append(lambda: self._send(sending))
        return self._worked_off()

    def acknowledge(self, upload: Upload) -> list[Said]:
        """It hears that its upload is durable at the coordinator."""
        self._said = []
        if self._sending is not None and self._sending.protection.transcript == upload.transcript:
            sending, self._sending = self._sending, None
            start = attempt_digest(sending.attempt)
            self._report(sending.offer.key, UploadAcknowledged(start, upload.commit))
        return self._worked_off()

    def _heard_from(self, reply: RoundReply) -> None:
        self._said.append(reply)

    def _worked_off(self) -> list[Said]:
        while self._pending:
            self._pending.pop(0)()
        return self._said

    def _report(self, key: RoundKey, event: Event) -> None:
        self._driver.report(key, event)

    # --- work, as the driver asks for it ------------------------------------------------------------------------------

    def start_work(self, offer: Offer) -> None:
        self._pending.append(lambda: self._report(offer.key, WorkDone(self._updated(offer))))

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        assert isinstance(protection, Masked)
        sending = _Sending(offer, update, attempt, protection, SentDigests(protection.transcript))
        self._sending = sending
        self._pending.append(lambda: self._send(sending))

    def stop(self, offer: Offer) -> None:
        if self._sending is not None and self._sending.offer.key == offer.key:
            self._sending = None

    def keep_state(self, offer: Offer) -> bool:
        return False

    def erase(self, offer: Offer) -> None:
        """The tests look at the file."""

    def _updated(self, offer: Offer) -> SpooledUpdate:
        evaluated = Measured(1.0, (0.25,))
        if offer.plan.value.purpose is Purpose.EVALUATE:
            return SpooledUpdate(None, evaluated, 0, (), fits=True)
        trained, parameters = Measured(1.0, (0.5,)), self.deltas.size
        fit = fit_of(offer, trained, deltas=self._spool, parameters=parameters, model=self._model)
        return SpooledUpdate(trained, evaluated, parameters, fit.cells, fit.fits)

    def _send(self, sending: _Sending) -> None:
        if self._sending is not sending:
            return
        offer, update, protection = sending.offer, sending.update, sending.protection
        layout = layout_of(offer, update, sending.attempt.value.encoding)
        chunks = MaskedChunks(
            deltas=self._spool,
            update=update,
            layout=layout,
            spec=offer.spec,
            sizes=() if update.train is None else tensor_sizes(self._model),
            protection=protection,
            sent=sending.sent,
        )
        sent, digests = b"", []
        try:
            for chunk, (start, _) in zip(chunks, layout.chunk_ranges(), strict=True):
                sent += bytes(chunk.data)
                digests.append(chunk.digest)
                section = 0 if start < layout.parameter_bytes else 1
                place = (start - section * layout.parameter_bytes) // CHUNK_BYTES
                for root, _sign in protection.masks._terms:
                    self.pads[root.reveal(), section, place].add(bytes(chunk.data))
        except ResendDiffers:
            event = UploadImpossible(attempt_digest(sending.attempt), AttemptAbortReason.RESEND_DIFFERS)
            self._report(offer.key, event)
            return
        header = encode_update_header(UpdateHeader(layout.encoding, None, contributors=1))
        said = UploadCommit(
            attempt=attempt_digest(sending.attempt),
            transcript=protection.transcript,
            index=offer.index,
            header=header,
            update=update_digest(header, digests),
            chunks=layout.chunks,
        )
        commit = seal(said, signer=key_of(self.name), index=offer.index).envelope
        upload = Upload(sending.attempt.value.key, protection.transcript, sent, commit)
        self._said.append(upload)
        if self.acknowledges:
            self._sending = None
            self._report(offer.key, UploadAcknowledged(said.attempt, commit))
