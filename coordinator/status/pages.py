"""The operators' pages over HTTP: what a path shows, and where it comes from.

Each request is answered on a thread of the listener. What only the conductor's thread may read is asked of it
(`coordinator.status.look`), at most once a second whoever looks (`shared.pages.remembered`), and waited for a little:
one that is busy for longer makes a page that says so, never an old one that looks new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, TypeVar

from coordinator.disk_use import DiskKind
from coordinator.status import snapshot
from coordinator.status.attention import needs
from coordinator.status.look import Look
from shared.clock import Clock
from shared.errors import FederationError, UnknownError
from shared.health_report import HEALTH_PATH, HealthReport, health_route
from shared.http_answer import JSON, Query, Reply, Routes
from shared.identity import AllowlistFile
from shared.ids import JobId, parse_job_id
from shared.pages.chart import Chart, chart_of
from shared.pages.facts import About, Attention, Certificate, Disk, certificates, disk, of_machine
from shared.pages.remembered import Remembered
from shared.pages.rendering import Link, as_json
from shared.pages.site import Site

ANSWER_S = 5.0  # the conductor does one thing after another, and the longest are writes to a slow disk
ROUNDS_SHOWN = 50
VERSIONS_SHOWN = 200
JOB_VERSIONS_SHOWN = 10
CHARTS_MAX = 8
LINKS = (Link("/", "Federation"), Link("/participants", "Participants"), Link("/models", "Models"))
_JSON_SUFFIX = ".json"

T = TypeVar("T")


class Asks(Protocol):
    """The conductor's thread (`coordinator.conducting.ConductorThread`)."""

    def ask(self, work: Callable[[], T]) -> Future[T]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pages look. Everything but the conductor's answers for itself, on any thread."""

    about: About
    look: Look
    thread: Asks
    clock: Clock
    health: Callable[[], HealthReport]
    allowlist: AllowlistFile
    certificates: Callable[[], Mapping[str, datetime]]
    """When our own end, as `shared.expiry.own_ends` tells it."""
    data_dir: Path
    disk_sizes: Callable[[], Mapping[DiskKind, int]]


@dataclass(frozen=True, slots=True)
class Overview:
    """All of the first page: also `/status.json`."""

    about: About
    uptime_s: float
    ready: bool
    why: str
    attention: tuple[Attention, ...]
    certificates: tuple[Certificate, ...]
    disk: Disk | None
    federation: snapshot.Federation


class StatusPages:
    """What the listener answers."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._site = Site("coordinator", about=sources.about, links=LINKS, clock=sources.clock)
        self._overviews: Remembered[None, Overview] = Remembered(lambda _: self._overview(), clock=sources.clock)
        self._jobs: Remembered[JobId, snapshot.Job] = Remembered(self._job, clock=sources.clock)
        self._models: Remembered[None, tuple[snapshot.VersionLine, ...]] = Remembered(
            lambda _: snapshot.versions(self._asked(sources.look.models)), clock=sources.clock
        )

    @property
    def routes(self) -> Routes:
        return {
            "/": self._guarded(self._federation_page),
            "/status.json": self._guarded(self._federation_json),
            "/participants": self._guarded(self._participants_page),
            "/models": self._guarded(self._models_page),
            "/jobs/*": self._guarded(self._job_page),
            "/style.css": self._site.style,
            HEALTH_PATH: health_route(self._sources.health),
        }

    # --- pages --------------------------------------------------------------------------------------------------------

    def _federation_page(self, query: Query) -> Reply:
        overview = self._overviews.get(None)
        return self._site.page("federation.html", "Federation", query, overview=overview)

    def _federation_json(self, _query: Query) -> Reply:
        return Reply(content_type=JSON, body=as_json(self._overviews.get(None)))

    def _participants_page(self, query: Query) -> Reply:
        return self._site.page("participants.html", "Participants", query, overview=self._overviews.get(None))

    def _models_page(self, query: Query) -> Reply:
        every = self._models.get(None)
        return self._site.page(
            "models.html", "Models", query, versions=every[:VERSIONS_SHOWN], more=max(0, len(every) - VERSIONS_SHOWN)
        )

    def _job_page(self, query: Query) -> Reply:
        job = self._find(query.rest.removesuffix(_JSON_SUFFIX))
        if job is None:
            return self._site.page(
                "trouble.html",
                "No such job",
                query,
                status=HTTPStatus.NOT_FOUND,
                said="This coordinator has no job of that name. The page Federation lists those that it has.",
            )
        if query.rest.endswith(_JSON_SUFFIX):
            return Reply(content_type=JSON, body=as_json(job))
        whole = query.parameters.get("rounds") == "all"
        rounds = job.rounds if whole else job.rounds[-ROUNDS_SHOWN:]
        return self._site.page(
            "job.html",
            job.line.job,
            query,
            job=job,
            charts=charts_of(job),
            rounds=tuple(reversed(rounds)),
            more_rounds=len(job.rounds) - len(rounds),
            versions=job.versions[:JOB_VERSIONS_SHOWN],
            more_versions=max(0, len(job.versions) - JOB_VERSIONS_SHOWN),
        )

    def _find(self, name: str) -> snapshot.Job | None:
        try:
            job = parse_job_id(name)
        except ValueError:
            return None
        try:
            return self._jobs.get(job)
        except UnknownError:
            return None

    def _guarded(self, show: Callable[[Query], Reply]) -> Callable[[Query], Reply]:
        """A page that says what is wrong, where the conductor or its records do not answer."""

        def guarded(query: Query) -> Reply:
            try:
                return show(query)
            except TimeoutError:
                said = (
                    f"The conductor did not answer within {ANSWER_S:g} s: it is busy, or its disk is slow. Try again."
                )
            except FederationError as error:
                said = f"The records cannot be read now: {error}"
            return self._site.page("trouble.html", "No answer", query, status=HTTPStatus.SERVICE_UNAVAILABLE, said=said)

        return guarded

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def _asked(self, work: Callable[[], T]) -> T:
        """On the conductor's thread. Raises TimeoutError, and what `work` raises."""
        waiting = self._sources.thread.ask(work)
        try:
            return waiting.result(ANSWER_S)
        except TimeoutError:
            waiting.cancel()
            raise

    def _overview(self) -> Overview:
        sources = self._sources
        health = sources.health()
        federation = snapshot.federation(self._asked(sources.look.federation), allowed=sources.allowlist.participants())
        ends = certificates(sources.certificates(), federation.at)
        room = disk(sources.data_dir, sources.disk_sizes().items())
        found = needs(federation, health, allowlist=sources.allowlist.problem)
        return Overview(
            about=sources.about,
            uptime_s=(federation.at - sources.about.started_at).total_seconds(),
            ready=health.ready,
            why=health.why,
            attention=(*found, *of_machine(ends, room)),
            certificates=ends,
            disk=room,
            federation=federation,
        )

    def _job(self, job: JobId) -> snapshot.Job:
        return snapshot.job(self._asked(lambda: self._sources.look.job(job)))


def charts_of(job: snapshot.Job) -> tuple[Chart, ...]:
    """A chart for each metric: over the round's training, and of the version that the round started from."""
    made = []
    for metric in job.metrics[:CHARTS_MAX]:
        series = {
            words: [
                (line.number, line.metrics[f"{half}.{metric}"])
                for line in job.rounds
                if f"{half}.{metric}" in line.metrics
            ]
            for half, words in (("train", f"{metric} in training"), ("evaluate", f"{metric} in evaluation"))
        }
        made.append(chart_of(metric, series))
    return tuple(chart for chart in made if chart is not None)
