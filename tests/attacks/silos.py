"""What an attack talks to: a silo that hears the coordinator's words, and what it says and sends about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import Envelope, RoundBroadcast, RoundReply

Deltas: TypeAlias = NDArray[np.float32]
Pads: TypeAlias = dict[tuple[bytes, int, int], set[bytes]]
"""By the root of a mask, the section and the chunk (the IV): each content that it was put on by one silo."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An update as it leaves the silo, with the signed word for it."""

    key: AttemptKey
    transcript: Digest
    """t2, under which it is masked."""
    content: bytes
    commit: Envelope


@dataclass(frozen=True, slots=True)
class Refused:
    """A word of the coordinator that changed nothing; what is here stays in the silo."""

    error: str
    detail: str


Said: TypeAlias = RoundReply | Upload | Refused


class Silo(Protocol):
    """A member who does not help the coordinator, or one who does."""

    @property
    def name(self) -> ParticipantId: ...

    @property
    def deltas(self) -> Deltas:
        """Its update: what all of this is about."""
        ...

    @property
    def pads(self) -> Pads:
        """Of everything that it sent."""
        ...

    def hear(self, message: RoundBroadcast) -> list[Said]: ...

    def resend(self) -> list[Said]:
        """The coordinator says that it has nothing of the upload that runs: it is sent from its beginning."""
        ...

    def acknowledge(self, upload: Upload) -> list[Said]:
        """The coordinator says that this upload is durable there."""
        ...

    def restart(self) -> list[Said]:
        """The process ends, and the next one finds what is on its disk."""
        ...

    def change_spool(self, deltas: Deltas) -> None:
        """Somebody at the silo replaces the file with its update."""
        ...

    def rolled_back(self) -> Silo:
        """The silo's machine as it was before it was planned with: an old snapshot is brought back to life."""
        ...
