"""A status page as a browser, a screen reader and an attacker look at it: what each page is, whatever is on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "rect", "circle", "path"})
# What may stand in names and reasons that come from other machines.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "</title></style><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200b\x07\x1b[31m",
    "'; DROP TABLE jobs; --",
)


@dataclass
class Table:
    caption: str | None = None
    headings_scoped: bool = True
    rows: list[list[str]] = field(default_factory=list)


class Page(HTMLParser):
    """What is on a page, read strictly: a tag that is not closed is an error."""

    def __init__(self, body: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.source = body.decode("utf-8")
        self.open: list[str] = []
        self.ids: list[str] = []
        self.referred: list[str] = []
        self.headings: list[int] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.tables: list[Table] = []
        self.title = ""
        self.words: list[str] = []
        self.language = ""
        self.refresh = ""
        self.feed(self.source)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= given.keys()
        if "id" in given:
            self.ids.append(given["id"])
        for name in ("aria-labelledby", "aria-describedby"):
            self.referred += given.get(name, "").split()
        match tag:
            case "html":
                self.language = given.get("lang", "")
            case "a":
                self.links.append(given["href"])
            case "link":
                self.loaded.append(given["href"])
            case "meta" if given.get("http-equiv") == "refresh":
                self.refresh = given["content"]
            case "table":
                self.tables.append(Table())
            case "caption":
                self.tables[-1].caption = ""
            case "th":
                self.tables[-1].headings_scoped &= given.get("scope") in {"col", "row"}
            case "tr":
                self.tables[-1].rows.append([])
            case _ if re.fullmatch("h[1-6]", tag):
                self.headings.append(int(tag[1]))
            case _:
                pass
        if tag in {"td", "th"}:
            self.tables[-1].rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "title" in self.open and "svg" not in self.open:
            self.title += data
        self.words.append(data)
        if "caption" in self.open:
            self.tables[-1].caption = (self.tables[-1].caption or "") + data
        if self.open and {"td", "th"} & set(self.open):
            self.tables[-1].rows[-1][-1] += data

    def table(self, first: str) -> list[list[str]]:
        """The rows below the heading of the one table whose first column is called that; white space put together."""
        (found,) = [table for table in self.tables if table.rows[0][0].strip() == first]
        return _below_heading(found)

    def table_captioned(self, caption: str) -> list[list[str]]:
        (found,) = [table for table in self.tables if (table.caption or "").strip() == caption]
        return _below_heading(found)


def _below_heading(table: Table) -> list[list[str]]:
    return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in table.rows[1:]]


def assert_harmless(page: Page, text: str) -> None:
    """A hostile text is shown as text: `page_of` found no tag of it, and nothing that steers a reader is left."""
    if re.search("[<>\"'&\u202e\u2066\u200b\x07\x1b]", text):
        assert text not in page.source
    else:
        assert text in page.text, "a template's own words are words"
    assert not re.search("[\u202e\u2066\u200b\x07\x1b]", page.source)


def page_of(body: bytes) -> Page:
    """A page that is as every page must be."""
    page = Page(body)
    assert page.source.startswith("<!doctype html>")
    assert page.language == "en"
    assert page.title.endswith("· Consilo")
    assert {"header", "nav", "main", "footer"} <= page.tags
    assert page.links[0] == "#main", "the first thing that a keyboard meets"
    assert "main" in page.ids
    assert len(page.ids) == len(set(page.ids))
    assert set(page.referred) <= set(page.ids)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert all(table.caption and table.headings_scoped for table in page.tables)
    assert page.loaded == ["/style.css"]
    assert not page.tags & {"script", "form", "img", "iframe", "object", "style", "input", "button", "base"}
    assert not [name for name in page.attributes if name.startswith("on") or name in {"style", "src", "srcset"}]
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in page.links), page.links
    return page
