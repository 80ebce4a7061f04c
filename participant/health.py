"""How this daemon is, for whoever asks at its status listener.

*Live*: its event loop still goes on. *Ready*: a session with the coordinator is open. A silo whose coordinator is away
is live and not ready, and no restart of the daemon would change that.
"""

from __future__ import annotations

from typing import Protocol

from shared.health_report import HealthReport
from shared.heartbeat import Heartbeat


class SessionState(Protocol):
    """What is read of `participant.rpc.session.SessionLoop`."""

    @property
    def trouble(self) -> str: ...


class DaemonHealth:
    """The answers, as they are now. Any thread may ask."""

    def __init__(self, *, who: str, session: SessionState) -> None:
        self.loop = Heartbeat()
        self._who = who
        self._session = session
        self._draining = False

    def drain(self) -> None:
        """The daemon was told to end: it takes part in nothing new, and is live to its end."""
        self._draining = True

    def report(self) -> HealthReport:
        live, trouble = self.loop.alive, self._session.trouble
        if not live:
            trouble = f"the event loop has not answered for {self.loop.age_s:.0f} s"
        elif self._draining:
            trouble = "it was told to end, and drains"
        return HealthReport(who=self._who, live=live, ready=not trouble, why=trouble)
