"""A list for a wire: two streams of frames, each in order, and unordered against each other."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from shared.ids import ParticipantId


@dataclass(slots=True, eq=False)
class Link:
    """One session. `broken`: the connection is gone, whether or not the two ends have noticed. `gap`: a frame was lost
    or overtaken by others, which a stream never does; what a side cannot make sense of is no breach then.
    """

    participant: ParticipantId
    session: str
    to_coordinator: deque[bytes] = field(default_factory=deque)
    to_participant: deque[bytes] = field(default_factory=deque)
    broken: bool = False
    gap: bool = False

    def break_off(self) -> None:
        """Nothing that is on its way arrives any more."""
        self.broken = True
        self.to_coordinator.clear()
        self.to_participant.clear()
