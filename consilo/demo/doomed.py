"""A hospital's daemon with an appointment: for `consilo demo --drop`, and for tests that need a process to end or to
stand still at one certain moment of a round.

    python -m consilo.demo.doomed CONFIG ROUND:STATE:KILL|STOP ...

It is the daemon that `consilo participant run` starts, but when a round reaches a state (a name of
participant.round.phases) it sends itself SIGKILL or SIGSTOP. Between a state and the next lie milliseconds: from
outside nobody hits them twice. In the state Uploading its keys are shared and its update is not on its way yet: that is
where it hurts.

No daemon can be told to do this: nothing but this module knows how, and nothing in a configuration or in the
environment asks for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from consilo.demo.moment import Blow, Moment
from participant.app import run_daemon
from participant.metrics import ParticipantMetrics
from participant.round.phases import RoundState
from participant.settings import ParticipantSettings
from shared.allocator import keep_memory
from shared.build import BuildInfo
from shared.config import load_config
from shared.errors import FederationError
from shared.log import configure_logging

_SIGNALS: Mapping[Blow, signal.Signals] = {Blow.KILL: signal.SIGKILL, Blow.STOP: signal.SIGSTOP}


class Doomed(ParticipantMetrics):
    """Sees the rounds as metrics do, and keeps its appointments, each of them once."""

    def __init__(
        self,
        *,
        build: BuildInfo,
        local_metrics: bool = False,
        moments: Sequence[Moment],
        strike: Callable[[signal.Signals], None],
    ) -> None:
        super().__init__(build=build, local_metrics=local_metrics)
        self._strike = strike
        self._ahead = list(moments)

    def moved(self, state: RoundState) -> None:
        super().moved(state)
        for moment in self._ahead:
            if (moment.round, moment.state) == (state.offer.key.number, type(state).__name__):
                self._ahead.remove(moment)
                self._strike(_SIGNALS[moment.blow])
                return


def main(arguments: Sequence[str]) -> None:
    config, *appointments = arguments
    moments = [Moment.parse(text) for text in appointments]

    def strike(blow: signal.Signals) -> None:
        os.kill(os.getpid(), blow)

    def metrics(*, build: BuildInfo, local_metrics: bool) -> Doomed:
        return Doomed(build=build, local_metrics=local_metrics, moments=moments, strike=strike)

    keep_memory()
    try:
        settings = load_config(Path(config), ParticipantSettings, environment=os.environ)
        configure_logging(style=settings.log.format, level=settings.log.level)
        asyncio.run(run_daemon(settings, environment=os.environ, metrics=metrics))
    except FederationError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
