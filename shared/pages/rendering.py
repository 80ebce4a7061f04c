"""Snapshots to HTML, by Jinja: everything is escaped, a name that a template spells wrong is an error.

Templates are package data, and read when the process starts, so that a page never fails because an installation was
changed under a daemon that runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from shared.pages import words

HTML = "text/html; charset=utf-8"
CSS = "text/css; charset=utf-8"
JSON = "application/json"
OWN_ROOM = "shared.pages"
REFRESH_CHOICES_S = (5, 30)
"""What a reader may ask for; nothing moves unless somebody does, since a page that reloads loses a reader's place."""


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the navigation."""

    path: str
    label: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What is around the content of each page."""

    title: str
    side: str
    """`coordinator` or `participant`."""
    who: str
    version: str
    path: str
    taken_at: datetime
    links: Sequence[Link]
    refresh_s: int = 0


class Renderer:
    """The templates of one house, and those that both share."""

    def __init__(self, room: str) -> None:
        """`room`: the package with the house's own `templates`."""
        texts = {**_templates(OWN_ROOM), **_templates(room)}
        self._environment = Environment(
            loader=DictLoader(texts),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_visible,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {
            "duration": words.duration,
            "size": words.size,
            "moment": words.moment,
            "metric": words.metric,
            "stamp": words.stamp,
            "short": words.short,
        }
        self._environment.globals |= {"refresh_choices_s": REFRESH_CHOICES_S, "count": words.count}
        for name in texts:
            self._environment.get_template(name)

    def page(self, template: str, frame: Frame, **values: object) -> bytes:
        return self._environment.get_template(template).render(frame=frame, **values).encode()


def stylesheet() -> bytes:
    """The one asset."""
    return resources.files(OWN_ROOM).joinpath("style.css").read_bytes()


def as_json(snapshot: object) -> bytes:
    """The same values for scripts. Moments are RFC 3339; what is no number is null."""
    return json.dumps(_json(snapshot), ensure_ascii=True, allow_nan=False, indent=1).encode()


def refresh_of(query: Mapping[str, str]) -> int:
    """What the reader asked for, if it is one of the choices."""
    return next((choice for choice in REFRESH_CHOICES_S if query.get("refresh") == str(choice)), 0)


def _templates(room: str) -> dict[str, str]:
    folder = resources.files(room).joinpath("templates")
    return {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".html")}


def _visible(value: object) -> object:
    """Of each value that a template shows: text without what nobody sees. Markup is what templates made themselves."""
    return words.plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _json(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat(timespec="seconds")
        case float():
            return value if value - value == 0 else None
        case str():
            return str(value)
        case bool() | int() | None:
            return value
        case Mapping():
            return {str(key): _json(kept) for key, kept in value.items()}
        case tuple() | list():
            return [_json(kept) for kept in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _json(asdict(value))
        case _:
            raise TypeError(f"a snapshot has no {type(value).__name__}")
