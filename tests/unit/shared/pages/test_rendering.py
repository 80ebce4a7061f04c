"""Snapshots to HTML and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

import pytest
from jinja2 import UndefinedError

from shared.pages.rendering import Frame, Link, Renderer, as_json, refresh_of, stylesheet
from tests.support.status_html import HOSTILE, page_of

FRAME = Frame(
    title="Trouble",
    side="coordinator",
    who="coordinator",
    version="0.2.0",
    path="/",
    taken_at=datetime(2026, 11, 29, tzinfo=UTC),
    links=(Link("/", "Federation"),),
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer("coordinator.status")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_text(renderer: Renderer, text: str) -> None:
    page = page_of(renderer.page("trouble.html", FRAME, said=text))
    visible = re.sub("[\u202e\u2066\u200b\x07\x1b]", "\ufffd", text)
    assert re.sub(r"\s+", " ", visible) in page.text


def test_a_name_that_is_spelled_wrong_is_an_error(renderer: Renderer) -> None:
    with pytest.raises(UndefinedError):
        renderer.page("trouble.html", FRAME)


def test_nothing_moves_unless_a_reader_asks() -> None:
    assert [refresh_of(query) for query in ({}, {"refresh": "5"}, {"refresh": "1"}, {"refresh": "5 "})] == [0, 5, 0, 0]


def test_json_of_what_json_has_not() -> None:
    @dataclass
    class Snapshot:
        at: datetime
        loss: float
        gone: float
        names: tuple[str, ...]
        left: dict[str, int | None]

    made = as_json(Snapshot(datetime(2026, 11, 29, tzinfo=UTC), 0.5, float("nan"), ("a", "\ud800<"), {"b": None}))
    assert json.loads(made) == {
        "at": "2026-11-29T00:00:00+00:00", "loss": 0.5, "gone": None, "names": ["a", "\ud800<"], "left": {"b": None},
    }  # fmt: skip
    with pytest.raises(TypeError, match="a snapshot has no object"):
        as_json({"what": object()})


# --- the stylesheet ---------------------------------------------------------------------------------------------------


def test_the_stylesheet_loads_nothing() -> None:
    style = stylesheet().decode()
    assert "url(" not in style
    assert "@import" not in style
    for needed in ("prefers-color-scheme: dark", "prefers-reduced-motion", "@media print", ":focus-visible"):
        assert needed in style


def colours() -> Iterator[tuple[str, dict[str, str]]]:
    """The two palettes."""
    blocks = re.findall(r":root \{(.*?)\}", stylesheet().decode(), re.DOTALL)
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks[:2])
    yield "light", light
    yield "dark", {**light, **dark}


def luminance(colour: str) -> float:
    """As WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_every_colour_of_text_can_be_read_on_every_ground_it_stands_on() -> None:
    for scheme, palette in colours():
        grounds = {name: palette[name] for name in ("ground", "sheet")}
        for ink in ("ink", "soft", "accent", "ok", "warn", "bad", "second"):
            for name, ground in grounds.items():
                assert contrast(palette[ink], ground) >= 4.5, (scheme, ink, name)
        for level in ("ok", "warn", "bad", "accent"):
            assert contrast(palette[level], palette[f"{level}-soft"]) >= 4.5, (scheme, level)
            assert contrast(palette["ink"], palette[f"{level}-soft"]) >= 4.5, (scheme, level)


# --- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["shared.pages", "coordinator.status", "participant.status"])
def test_templates_turn_no_protection_off(room: str) -> None:
    texts = [
        entry.read_text("utf-8")
        for entry in resources.files(room).joinpath("templates").iterdir()
        if entry.name.endswith(".html")
    ]
    assert texts
    for text in texts:
        assert not re.search(r"\|\s*(safe|forceescape)|autoescape|Markup|<script|<style|\sstyle=|\son[a-z]+=", text)
        assert not re.findall(r"<[^>{]*=\{\{", text), "an attribute without quotes"
