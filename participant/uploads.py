"""One update on its way to the coordinator, in one attempt: which bytes, under which signed word.

Sent again after a break, a masked update goes out with the same bytes or not at all: what was sent under an attempt's
masks is remembered here for as long as the round runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from participant.fitting import tensor_sizes
from participant.protect import MaskedChunks, PlainChunks, SentDigests, UpdateChunks, plain_weight
from participant.round.checks import layout_of
from participant.round.phases import Masked, Offer, Plain, Protection, SpooledUpdate
from participant.spool import Spool
from shared.ids import AttemptKey, Digest, RoundKey
from shared.protocol.messages import AttemptStart, Envelope, Sealed, UploadCommit, attempt_digest
from shared.update import UpdateHeader, UpdateLayout
from shared.wire.sealed import Signer, encode_update_header, seal


class TransferCalls(Protocol):
    """What `participant.rpc.transfer.Transfers` does; see there for the errors."""

    async def fetch_model(self, model: Digest, size: int, partial: Path) -> None: ...

    async def upload(
        self,
        *,
        key: AttemptKey,
        chunks: UpdateChunks,
        layout: UpdateLayout,
        header: bytes,
        commit: Callable[[Digest], Envelope],
    ) -> Envelope: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """An upload that can be tried as often as it takes."""

    key: AttemptKey
    chunks: UpdateChunks
    layout: UpdateLayout
    header: bytes
    commit: Callable[[Digest], Envelope]

    def noted(self, left: Callable[[Digest], None]) -> Outgoing:
        """The same, with `left` told the digest of what left, before the word for it is signed."""

        def commit(update: Digest) -> Envelope:
            left(update)
            return self.commit(update)

        return replace(self, commit=commit)

    async def send(self, calls: TransferCalls) -> Envelope:
        """The word for it, once it is durable at the coordinator."""
        return await calls.upload(
            key=self.key, chunks=self.chunks, layout=self.layout, header=self.header, commit=self.commit
        )


class Uploads:
    """The uploads of one participant."""

    def __init__(self, *, spool: Spool, signer: Signer) -> None:
        self._spool = spool
        self._signer = signer
        self._sent: dict[RoundKey, SentDigests] = {}

    async def prepare(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> Outgoing:
        """Raises StorageError, ModelError or TaskError when nothing can be sent."""
        layout = layout_of(offer, update, attempt.value.encoding)
        start = attempt_digest(attempt)
        header = encode_update_header(_header(offer, update, layout))
        transcript = protection.transcript if isinstance(protection, Masked) else start

        def commit(digest: Digest) -> Envelope:
            said = UploadCommit(
                attempt=start,
                transcript=transcript,
                index=offer.index,
                header=header,
                update=digest,
                chunks=layout.chunks,
            )
            return seal(said, signer=self._signer, index=offer.index).envelope

        chunks = await asyncio.to_thread(self._chunks, offer, update, layout, protection)
        return Outgoing(key=attempt.value.key, chunks=chunks, layout=layout, header=header, commit=commit)

    def forget(self, key: RoundKey) -> None:
        """The round is over here."""
        self._sent.pop(key, None)

    def _chunks(
        self, offer: Offer, update: SpooledUpdate, layout: UpdateLayout, protection: Protection
    ) -> UpdateChunks:
        deltas = self._spool.deltas(offer.key)
        if isinstance(protection, Plain):
            return PlainChunks(deltas=deltas, update=update, layout=layout, masking=offer.spec.masking)
        sizes = () if update.train is None else tensor_sizes(self._spool.model(offer.plan.value.model))
        return MaskedChunks(
            deltas=deltas,
            update=update,
            layout=layout,
            spec=offer.spec,
            sizes=sizes,
            protection=protection,
            sent=self._sent_under(offer.key, protection.transcript),
        )

    def _sent_under(self, key: RoundKey, transcript: Digest) -> SentDigests:
        known = self._sent.get(key)
        if known is None or known.transcript != transcript:
            known = SentDigests(transcript)
            self._sent[key] = known
        return known


def _header(offer: Offer, update: SpooledUpdate, layout: UpdateLayout) -> UpdateHeader:
    measured = update.evaluate if update.train is None else update.train
    weight = None if layout.encoding.masked else plain_weight(measured, offer.spec.masking)
    return UpdateHeader(layout.encoding, weight, contributors=1)
