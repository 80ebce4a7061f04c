"""What an attack talks to: a silo that hears the coordinator's words, and what it says and sends about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import Envelope, RoundBroadcast, RoundReply
from shared.update import CHUNK_BYTES

Deltas: TypeAlias = NDArray[np.float32]


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

    def hear(self, message: RoundBroadcast) -> list[Said]: ...

    def resend(self) -> list[Said]:
        """The coordinator says that it has nothing of the upload that runs: it is sent from its beginning."""
        ...

    def change_spool(self, deltas: Deltas) -> None:
        """Somebody at the silo replaces the file with its update."""
        ...

    def rolled_back(self) -> Silo:
        """The silo's machine as it was before it was planned with: an old snapshot is brought back to life."""
        ...


def chunks_of(content: bytes, parameter_bytes: int) -> list[tuple[int, int, bytes]]:
    """(section, chunk of the section, content)."""
    sections = content[:parameter_bytes], content[parameter_bytes:]
    return [
        (number, start // CHUNK_BYTES, section[start : start + CHUNK_BYTES])
        for number, section in enumerate(sections)
        for start in range(0, len(section), CHUNK_BYTES)
    ]
