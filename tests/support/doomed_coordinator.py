"""A coordinator with an appointment, as `consilo.demo.doomed` is a silo's daemon with one.

    python -m tests.support.doomed_coordinator CONFIG ROUND:STATE:KILL|STOP ...

It is what `consilo coordinator run` starts, but when a round reaches a state (a name of coordinator.round.phases) it
sends itself SIGKILL or SIGSTOP. What the state depends on is on record then, and what it says has been handed to the
sessions. `Decided` is the moment at which the end of a round is on record and nobody has been told.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from consilo.demo.moment import Blow, Moment
from coordinator.app import run
from coordinator.metrics import CoordinatorMetrics
from coordinator.round.phases import RoundState
from coordinator.settings import CoordinatorSettings
from shared.build import BuildInfo
from shared.config import load_config
from shared.errors import FederationError
from shared.ids import RoundKey
from shared.reasons import Purpose

DECIDED = "Decided"
_SIGNALS: Mapping[Blow, signal.Signals] = {Blow.KILL: signal.SIGKILL, Blow.STOP: signal.SIGSTOP}


class Doomed(CoordinatorMetrics):
    """Sees the rounds as metrics do, and keeps its appointments, each of them once."""

    def __init__(self, *, build: BuildInfo, moments: Sequence[Moment]) -> None:
        super().__init__(build=build)
        self._ahead = list(moments)

    def moved(self, state: RoundState) -> None:
        super().moved(state)
        self._meet(state.frame.key, type(state).__name__)

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        super().finished(key, purpose, outcome, summary)
        self._meet(key, DECIDED)

    def _meet(self, key: RoundKey, state: str) -> None:
        for moment in self._ahead:
            if (moment.round, moment.state) == (key.number, state):
                self._ahead.remove(moment)
                os.kill(os.getpid(), _SIGNALS[moment.blow])
                return


def doomed_coordinator(config: Path, *moments: Moment) -> list[str]:
    """The command. It needs the root of this repository in PYTHONPATH."""
    return [sys.executable, "-P", "-m", "tests.support.doomed_coordinator", str(config), *map(str, moments)]


def main(arguments: Sequence[str]) -> None:
    config, *appointments = arguments
    moments = [Moment.parse(text) for text in appointments]

    def metrics(*, build: BuildInfo) -> Doomed:
        return Doomed(build=build, moments=moments)

    try:
        run(load_config(Path(config), CoordinatorSettings, environment=os.environ), metrics=metrics)
    except FederationError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
