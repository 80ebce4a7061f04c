"""The coordinator's pages over a conductor that a test drives, without a network and without a thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from coordinator.conductor import Conductor
from coordinator.status.pages import Sources, StatusPages
from shared.clock import Clock
from shared.errors import FederationError
from shared.health_report import HealthReport
from shared.http_answer import Query, Reply, Routes
from shared.identity import AllowlistFile
from shared.pages.facts import About
from tests.support.status_html import Page, page_of

T = TypeVar("T")
ABOUT = About("coordinator", "hearts.example", "ab" * 32, "0.2.0", "1234", datetime(2026, 11, 21, tzinfo=UTC))
READY = HealthReport(who="coordinator", live=True, ready=True, why="")


class AtOnce:
    """A conductor's thread that does what it is asked then and there."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, work: Callable[[], T]) -> Future[T]:
        self.asked += 1
        answer: Future[T] = Future()
        try:
            answer.set_result(work())
        except FederationError as error:
            answer.set_exception(error)
        return answer


class Busy(AtOnce):
    """One that never gets to it."""

    def ask(self, work: Callable[[], T]) -> Future[T]:
        return Future()


def allowlist_in(folder: Path, participants: Sequence[str]) -> AllowlistFile:
    """The file as `consilo pki` writes it."""
    path = folder / "allowlist.toml"
    digests = f'tls_sha256 = "{"00" * 32}"\nsigning_sha256 = "{"11" * 32}"\n'
    entries = [f'[[allowed]]\nrole = "participant"\nid = "{name}"\n{digests}' for name in participants]
    path.write_text("\n".join(['consortium = "hearts.example"', *entries]))
    return AllowlistFile(path)


class Pages:
    """What a browser would get."""

    def __init__(
        self,
        conductor: Conductor,
        *,
        clock: Clock,
        folder: Path,
        participants: Sequence[str],
        health: HealthReport = READY,
        thread: AtOnce | None = None,
    ) -> None:
        self.thread = thread or AtOnce()
        self.allowlist = allowlist_in(folder, participants)
        pages = StatusPages(
            Sources(
                about=ABOUT,
                look=conductor.look,
                thread=self.thread,
                clock=clock,
                health=lambda: health,
                allowlist=self.allowlist,
                certificates=dict,
                data_dir=folder,
                disk_sizes=dict,
            )
        )
        self.routes: Routes = pages.routes

    def reply(self, path: str, **parameters: str) -> Reply:
        route, rest = (path, "") if path in self.routes else ("/jobs/*", path.removeprefix("/jobs/"))
        return self.routes[route](Query(path=path, rest=rest, parameters=parameters))

    def page(self, path: str, *, status: int = 200, **parameters: str) -> Page:
        reply = self.reply(path, **parameters)
        assert reply.status == status
        return page_of(reply.body)

    def json(self, path: str) -> Any:
        reply = self.reply(path)
        assert reply.content_type == "application/json"
        return json.loads(reply.body)
