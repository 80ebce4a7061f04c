"""Watching a job across restarts of its coordinator.

A watch lives for as long as a job, which may be weeks, and the coordinator is stopped and upgraded meanwhile. So a
connection that breaks is made again, with growing pauses, and only a coordinator that stays away for `AWAY_LIMIT_S`
ends the watch. One that cannot be reached at the beginning ends it at once: then the address is wrong, or the
certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from coordinator.client.operations import Operations
from shared.errors import UnreachableError
from shared.ids import JobId
from shared.wire.operations import JobDetail

AWAY_LIMIT_S = 300.0  # a restart takes seconds, an upgrade of its machine minutes
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 5.0

_Told = Callable[[str], None]


class Patience:
    """Time as `watch` uses it."""

    def __init__(self, *, limit_s: float = AWAY_LIMIT_S) -> None:
        self.limit_s = limit_s

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


def watch(
    operations: Operations, job: JobId, *, told: _Told, patience: Patience | None = None
) -> Generator[JobDetail, None, None]:
    """What `Operations.watch_job` says, and again from the beginning after each break. `told` hears of these.

    Raises a leaf of FederationError; UnreachableError once nobody answered for the patience's limit.
    """
    waits = patience or Patience()
    away_since: float | None = None
    pause_s, heard = FIRST_PAUSE_S, False
    while True:
        try:
            for detail in operations.watch_job(job):
                if away_since is not None:
                    told("connected again")
                away_since, pause_s, heard = None, FIRST_PAUSE_S, True
                yield detail
        except UnreachableError as error:
            if not heard:
                raise
            if away_since is None:
                away_since = waits.now()
                told(f"connection lost: waiting up to {waits.limit_s:g} s for the coordinator")
            if waits.now() - away_since >= waits.limit_s:
                raise UnreachableError(
                    f"the coordinator was away for {waits.limit_s:g} s, and job {job} was not over: {error}"
                ) from None
            waits.pause(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
        else:
            return
