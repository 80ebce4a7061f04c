"""A silo's daemon for which time passes a thousand times as fast, with appointments as `consilo.demo.doomed` has them.

    python -m tests.support.hurried_daemon CONFIG [ROUND:STATE:KILL|STOP ...]

What it waits for in sleeps takes as long as ever. But each of its sessions has lasted long enough to have been a good
one, and when a coordinator goes away for the tenth time within a minute it is looked for as eagerly as the first time.
Jobs need deadlines to match.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from consilo.demo.doomed import Doomed
from consilo.demo.moment import Moment
from participant.app import run_daemon
from participant.settings import ParticipantSettings
from shared.build import BuildInfo
from shared.clock import SystemClock
from shared.config import load_config
from shared.errors import FederationError
from shared.log import configure_logging

HURRY = 1000
_SYSTEM = SystemClock()


class HurriedClock:
    """The time of day is right."""

    def now(self) -> datetime:
        return _SYSTEM.now()

    def monotonic(self) -> float:
        return HURRY * _SYSTEM.monotonic()


def hurried(config: Path, *moments: Moment) -> list[str]:
    """The command. It needs the root of this repository in PYTHONPATH."""
    return [sys.executable, "-P", "-m", "tests.support.hurried_daemon", str(config), *map(str, moments)]


def main(arguments: Sequence[str]) -> None:
    config, *appointments = arguments
    moments = [Moment.parse(text) for text in appointments]

    def metrics(*, build: BuildInfo, local_metrics: bool) -> Doomed:
        return Doomed(build=build, local_metrics=local_metrics, moments=moments, strike=_strike)

    def _strike(blow: signal.Signals) -> None:
        os.kill(os.getpid(), blow)

    try:
        settings = load_config(Path(config), ParticipantSettings, environment=os.environ)
        configure_logging(style=settings.log.format, level=settings.log.level)
        asyncio.run(run_daemon(settings, environment=os.environ, metrics=metrics, clock=HurriedClock()))
    except FederationError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
