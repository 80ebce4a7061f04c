"""The silo's pages over HTTP: what a path shows, and where it comes from.

Each request is answered on a thread of the listener. What only the daemon's event loop may read is asked of it, at most
once a second whoever looks, and waited for a little: a loop that is busy for longer makes a page that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from participant.disk_use import DiskKind
from participant.sent import Sent, SentRecord
from participant.settings import PolicyTable
from participant.status.policy import policy_words
from participant.status.snapshot import Look, Silo
from shared.clock import Clock
from shared.consortium import Consortium
from shared.errors import FederationError
from shared.health_report import HEALTH_PATH, HealthReport, health_route
from shared.http_answer import JSON, Query, Reply, Routes
from shared.pages.facts import BAD, WARN, About, Attention, Certificate, Disk, certificates, disk, of_machine
from shared.pages.remembered import Remembered
from shared.pages.rendering import Link, as_json
from shared.pages.site import Site

ANSWER_S = 5.0
SENT_SHOWN = 50
LINKS = (Link("/", "Now"), Link("/sent", "What left"), Link("/allowed", "What is allowed"))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pages look. Everything but `look` answers for itself, on any thread."""

    about: About
    look: Look
    loop: asyncio.AbstractEventLoop
    clock: Clock
    health: Callable[[], HealthReport]
    policy: PolicyTable
    consortium: Consortium | None
    journal_doubt: str
    """Why the journal is not believed, and every plan declined; empty for one that is."""
    sent: SentRecord
    certificates: Callable[[], Mapping[str, datetime]]
    """When our own end, as `shared.expiry.own_ends` tells it."""
    data_dir: Path
    disk_sizes: Callable[[], Mapping[DiskKind, int]]


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it: also `/status.json`."""

    about: About
    uptime_s: float
    attention: tuple[Attention, ...]
    silo: Silo
    sent: tuple[Sent, ...]
    policy: tuple[tuple[str, str], ...]
    certificates: tuple[Certificate, ...]
    disk: Disk | None


class StatusPages:
    """What the listener answers."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._site = Site("participant", about=sources.about, links=LINKS, clock=sources.clock)
        self._overviews: Remembered[None, Overview] = Remembered(lambda _: self._overview(), clock=sources.clock)

    @property
    def routes(self) -> Routes:
        return {
            "/": self._shown("now.html", "Now"),
            "/sent": self._shown("sent.html", "What left"),
            "/allowed": self._shown("allowed.html", "What is allowed"),
            "/status.json": self._json,
            "/style.css": self._site.style,
            HEALTH_PATH: health_route(self._sources.health),
        }

    def _shown(self, template: str, title: str) -> Callable[[Query], Reply]:
        def show(query: Query) -> Reply:
            try:
                overview = self._overviews.get(None)
            except (TimeoutError, FederationError) as error:
                return self._site.page(
                    "trouble.html", "No answer", query, status=HTTPStatus.SERVICE_UNAVAILABLE, said=_why(error)
                )
            return self._site.page(template, title, query, overview=overview)

        return show

    def _json(self, _query: Query) -> Reply:
        try:
            return Reply(content_type=JSON, body=as_json(self._overviews.get(None)))
        except (TimeoutError, FederationError) as error:
            return Reply(status=HTTPStatus.SERVICE_UNAVAILABLE, content_type=JSON, body=as_json({"error": _why(error)}))

    def _overview(self) -> Overview:
        sources = self._sources
        silo = self._asked(sources.look.silo)
        ends = certificates(sources.certificates(), silo.at)
        room = disk(sources.data_dir, sources.disk_sizes().items())
        return Overview(
            about=sources.about,
            uptime_s=(silo.at - sources.about.started_at).total_seconds(),
            attention=(*needs(silo, sources.journal_doubt), *of_machine(ends, room)),
            silo=silo,
            sent=sources.sent.last(SENT_SHOWN),
            policy=policy_words(sources.policy, sources.consortium),
            certificates=ends,
            disk=room,
        )

    def _asked(self, work: Callable[[], T]) -> T:
        """On the event loop. Raises TimeoutError, and what `work` raises."""
        answer: Future[T] = Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(work())
                except FederationError as error:
                    answer.set_exception(error)

        try:
            self._sources.loop.call_soon_threadsafe(run)
        except RuntimeError:  # the loop is closed: the daemon ends
            raise TimeoutError from None
        try:
            return answer.result(ANSWER_S)
        except TimeoutError:
            answer.cancel()
            raise


def needs(silo: Silo, journal_doubt: str) -> tuple[Attention, ...]:
    """What needs a person, the worst first."""
    found = []
    if silo.alarms:
        many = "an alarm was" if len(silo.alarms) == 1 else f"{len(silo.alarms)} alarms were"
        found.append(Attention(BAD, f"Since the start {many} raised: the coordinator said what an honest one does not"))
    if journal_doubt:
        found.append(Attention(BAD, f"Every plan is declined: {journal_doubt}"))
    if not silo.session.open:
        failure = f": {silo.session.failure}" if silo.session.failure else ""
        found.append(Attention(BAD, f"No session with the coordinator{failure}"))
    found += [
        Attention(BAD, f"Task {task.name} does not load ({task.note}): run `consilo participant check`", "/allowed")
        for task in silo.tasks
        if task.state == "failed"
    ]
    found += [
        Attention(WARN, f"This silo stopped job {job.job} for itself: {job.stopped}", "/allowed")
        for job in silo.jobs
        if job.stopped
    ]
    return tuple(found)


def _why(error: Exception) -> str:
    if isinstance(error, FederationError):
        return f"The records cannot be read now: {error}"
    return f"The daemon did not answer within {ANSWER_S:g} s: it is busy, or its disk is slow. Try again."
