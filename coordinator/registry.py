"""Who is connected, what each offers and which key signs for it.

A participant has at most one session: the newest. What a participant said in an older one is not remembered, except its
signing key, which an upload that outlives its session still needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from coordinator.cohort import Offers
from shared.errors import UnreachableError
from shared.identity import VerifyingKey
from shared.ids import ParticipantId, TaskName


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One connected participant."""

    session: str
    tasks: frozenset[TaskName]


class Registry:
    """The connected participants. Used from the conductor's thread only."""

    def __init__(self) -> None:
        self._connected: dict[ParticipantId, Enrolled] = {}
        self._keys: dict[ParticipantId, VerifyingKey] = {}
        self._changed: dict[ParticipantId, datetime] = {}

    def connect(self, participant: ParticipantId, enrolled: Enrolled, key: VerifyingKey, *, at: datetime) -> None:
        self._connected[participant] = enrolled
        self._keys[participant] = key
        self._changed[participant] = at

    def disconnect(self, participant: ParticipantId, session: str, *, at: datetime) -> bool:
        """Whether this was the participant's newest session, and it is gone now."""
        current = self._connected.get(participant)
        if current is None or current.session != session:
            return False
        del self._connected[participant]
        self._changed[participant] = at
        return True

    @property
    def changed(self) -> Mapping[ParticipantId, datetime]:
        """Since when each participant is connected, or away; of those who had a session with this process."""
        return self._changed

    def is_newest(self, participant: ParticipantId, session: str) -> bool:
        current = self._connected.get(participant)
        return current is not None and current.session == session

    @property
    def connected(self) -> Mapping[ParticipantId, Enrolled]:
        return self._connected

    def offers(self) -> Offers:
        return {participant: enrolled.tasks for participant, enrolled in self._connected.items()}

    def key_of(self, participant: ParticipantId) -> VerifyingKey:
        """The key that signs for a participant. Raises UnreachableError, which it takes as "try again", when it has
        not opened a session here: after a restart its upload may come before its session.
        """
        try:
            return self._keys[participant]
        except KeyError:
            raise UnreachableError(f"{participant} has no session with this coordinator yet") from None
