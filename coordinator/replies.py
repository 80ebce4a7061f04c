"""What members say under their signature, opened before a round hears of it: by whom, for which attempt, about what.

The machine takes such words as true of whoever sent them, so each is opened here first, with the key that signs for
that member and with its index among the members of the job. A word that was signed for another attempt, or by another
member, is refused and changes nothing.
"""

from __future__ import annotations

from coordinator.round.phases import Uploading
from shared.errors import ConflictError, WireError
from shared.identity import VerifyingKey
from shared.ids import Digest, ParticipantId
from shared.protocol.messages import Envelope, UploadCommit
from shared.update import UpdateHeader
from shared.wire.sealed import decode_update_header, open_sealed


def open_upload_commit(
    envelope: Envelope, *, state: Uploading, participant: ParticipantId, verifier: VerifyingKey, update: Digest
) -> UpdateHeader:
    """The header of an update that is `update` on our disk, from the member's signed word for it. Raises PeerError."""
    index = state.frame.index_of(participant)
    commit = open_sealed(UploadCommit, envelope, verifier=verifier, index=index).value
    if commit.attempt != state.h0 or commit.index != envelope.signer:
        raise ConflictError(f"the commitment is not for attempt {state.key} as it was announced")
    if commit.transcript != state.transcript:
        raise ConflictError(f"the commitment is under another transcript than that of attempt {state.key}")
    if commit.update != update or commit.chunks != state.layout.chunks:
        raise ConflictError(f"the commitment names another update than the one that arrived, {update}")
    header = decode_update_header(commit.header)
    encoding = state.attempt.value.encoding
    if header.encoding is not encoding:
        raise WireError(f"the update is encoded as {header.encoding}, expected {encoding}")
    return header
