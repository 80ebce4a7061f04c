"""A moment of a round at which a daemon of `consilo.demo.doomed` ends or stands still, and how such a daemon starts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Blow(StrEnum):
    """What happens then: SIGKILL or SIGSTOP."""

    KILL = "KILL"
    STOP = "STOP"


@dataclass(frozen=True, slots=True)
class Moment:
    """A round, a state of it (a name of participant.round.phases), and what happens then."""

    round: int
    state: str
    blow: Blow

    def __str__(self) -> str:
        return f"{self.round}:{self.state}:{self.blow}"

    @classmethod
    def parse(cls, text: str) -> Moment:
        """Raises ValueError."""
        number, state, blow = text.split(":")
        return cls(int(number), state, Blow(blow))


def doomed(config: Path, *moments: Moment) -> list[str]:
    """The command. -P: the working folder is not searched for modules, whatever is in it."""
    return [sys.executable, "-P", "-m", "consilo.demo.doomed", str(config), *map(str, moments)]
