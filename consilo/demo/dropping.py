"""`consilo demo --drop`: one hospital is killed in the middle of a masked round, and comes back.

In the middle means: its keys are shared and the others' masks count on it, but its update is not in. The round goes on
without it; what its masks left in the sum is taken out with the shares that the others hold. It is started again when
that round is over. A job of the demo has quorum = members, so the next round waits until it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from consilo.demo.daemons import CONSILO, Daemons
from consilo.demo.folders import Federation
from consilo.demo.moment import Blow, Moment, doomed
from consilo.demo.protection import Protection
from coordinator.round.gathering import RECONNECT_WINDOW_S
from shared.errors import ConfigError
from shared.wire.operations import JobDetail

ROUND = 3  # neither the first, which is encoded in a way of its own, nor so late that nobody waits for it
IN_THE_MIDDLE = "Uploading"
ROUNDS_MIN = ROUND + 1  # it must be there for one more


class _Stage(Enum):
    DOOMED = "doomed"
    DOWN = "down"
    BACK = "back"


class Dropping:
    """One hospital's life in a demo that drops it."""

    def __init__(self, federation: Federation, *, daemons: Daemons, say: Callable[[str], None]) -> None:
        self._federation = federation
        self._daemons = daemons
        self._say = say
        self._stage = _Stage.DOOMED
        self._name = victim(federation)

    def start(self) -> None:
        """In place of the hospital's daemon."""
        config = self._federation.participant_config(self._name)
        command = doomed(config, Moment(ROUND, IN_THE_MIDDLE, Blow.KILL))
        self._daemons.start(self._name, command, folder=self._federation.root, may_end=True)

    def look(self, seen: JobDetail | None) -> None:
        """See what is to do, now that the job is like this."""
        if self._stage is _Stage.DOOMED and self._daemons.has_ended(self._name):
            self._stage = _Stage.DOWN
            self._say(
                f"{self._name} was killed (SIGKILL) in round {ROUND}: its keys are shared, its update is not in; "
                f"it has {RECONNECT_WINDOW_S:.0f} s to come back"
            )
        if self._stage is _Stage.DOWN and seen is not None and _is_over(seen, ROUND):
            self._stage = _Stage.BACK
            self._say(f"round {ROUND} is over without {self._name}, which is started again")
            self._daemons.start(self._name, [*CONSILO, *run_arguments(self._federation, self._name)],
                                folder=self._federation.root)  # fmt: skip


def victim(federation: Federation) -> str:
    return federation.hospitals[-1]


def run_arguments(federation: Federation, name: str) -> list[str]:
    return ["participant", "run", "--config", str(federation.participant_config(name))]


def require_droppable(protection: Protection, *, rounds: int) -> None:
    """Raises ConfigError where a hospital cannot be spared, or could not be back."""
    if not protection.masked:
        raise ConfigError("--drop shows what a masked round survives: leave out --plain")
    if protection.spare < 1:
        raise ConfigError(
            f"--drop needs a hospital to spare: of {protection.members}, {protection.threshold} must help to open a "
            "total; take 4 or more"
        )
    if rounds < ROUNDS_MIN:
        raise ConfigError(f"--drop kills a hospital in round {ROUND}: expected --rounds {ROUNDS_MIN} or more")


def _is_over(detail: JobDetail, number: int) -> bool:
    return any(finished.key.number >= number for finished in detail.rounds)
