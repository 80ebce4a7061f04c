"""What every page of a side has: its frame, its navigation, the one stylesheet."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from shared.clock import Clock
from shared.http_answer import HTML, Query, Reply
from shared.pages.facts import About
from shared.pages.rendering import CSS, Frame, Link, Renderer, refresh_of, stylesheet


class Site:
    """Makes replies of the templates in `<side>.status`. Any thread."""

    def __init__(self, side: str, *, about: About, links: Sequence[Link], clock: Clock) -> None:
        """`side`: `coordinator` or `participant`."""
        self._side = side
        self._about = about
        self._links = links
        self._clock = clock
        self._renderer = Renderer(f"{side}.status")
        self._style = stylesheet()

    def page(self, template: str, title: str, query: Query, *, status: int = HTTPStatus.OK, **values: object) -> Reply:
        frame = Frame(
            title=title,
            side=self._side,
            who=self._about.who,
            version=self._about.version,
            path=query.path,
            taken_at=self._clock.now(),
            links=self._links,
            refresh_s=refresh_of(query.parameters),
        )
        return Reply(status=status, content_type=HTML, body=self._renderer.page(template, frame, **values))

    def style(self, _query: Query) -> Reply:
        return Reply(content_type=CSS, body=self._style)
