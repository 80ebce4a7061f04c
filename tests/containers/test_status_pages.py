"""The status pages of a real federation in a real browser: Chromium in a container, on this machine's network.

One federation for all of it: a job that ended, one whose round is open because a silo stands still, one that is paused.
axe-core looks at each page in light and dark, wide and at the width of a phone; what a page asks of the network is
written down; a keyboard is used; and a value that one silo measured is searched for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.containers.engine import awaited, built, container, telling
from tests.support.demo_federation import AWAY, ENDED, ENDED_ROUNDS, OPEN, PAUSED, demo_federation
from tests.support.federation import Federation, free_port

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

RECOGNISABLE_CHARS = 12  # of a loss, which no total has by chance
WIDTHS = {"wide": 1280, "phone": 360}
SCHEMES = ("light", "dark")
OF_COORDINATOR = (
    "/",
    f"/jobs/{OPEN}",
    f"/jobs/{ENDED}?rounds=all",
    f"/jobs/{PAUSED}",
    "/participants",
    "/models",
    "/jobs/no-such",
)
OF_SILO = ("/", "/sent", "/allowed")


@dataclass(frozen=True)
class Shown:
    """A federation and a browser."""

    federation: Federation
    browser: Browser

    def url(self, name: str, path: str) -> str:
        return f"http://127.0.0.1:{self.federation.status_port(name)}{path}"

    @property
    def urls(self) -> list[str]:
        silo = self.federation.members[0]
        return [self.url("coordinator", path) for path in OF_COORDINATOR] + [self.url(silo, path) for path in OF_SILO]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    port = free_port()
    with (
        demo_federation(tmp_path_factory.mktemp("federation")) as federation,
        telling("the federation", federation.said),
        container(
            built("chromium"), f"--remote-debugging-port={port}", options=["--network=host", "--init"]
        ) as chromium,
        sync_playwright() as playwright,
    ):
        awaited("Chromium listens", lambda: "DevTools listening on" in chromium.logs())
        browser = playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
        try:
            yield Shown(federation, browser)
        finally:
            browser.close()


def opened(shown: Shown, url: str, *, scheme: Any = "light", width: int = 1280) -> tuple[Page, list[str]]:
    """A page in a fresh context, and every address that it asked for."""
    context = shown.browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    return page, asked


@pytest.mark.parametrize(("scheme", "width"), list(product(SCHEMES, WIDTHS)))
def test_axe_finds_nothing(shown: Shown, scheme: str, width: str) -> None:
    for url in shown.urls:
        page, _ = opened(shown, url, scheme=scheme, width=WIDTHS[width])
        found = Axe().run(page)
        assert found.violations_count == 0, f"{url}\n{found.generate_report()}"
        checked = {rule["id"] for rule in found.response["passes"]}
        assert {"color-contrast", "document-title", "html-has-lang", "landmark-one-main", "heading-order"} <= checked
        page.context.close()


def test_axe_would_have_found_something(shown: Shown) -> None:
    page, _ = opened(shown, shown.url("coordinator", "/"))
    page.evaluate("document.documentElement.removeAttribute('lang')")
    assert "html-has-lang" in [violation["id"] for violation in Axe().run(page).response["violations"]]
    page.context.close()


def test_a_page_that_a_reader_lets_load_again_has_that_one_finding(shown: Shown) -> None:
    """WCAG 2.2.1 allows what a reader asked for and can stop; axe cannot know that."""
    page, _ = opened(shown, shown.url("coordinator", "/?refresh=30"))
    assert [violation["id"] for violation in Axe().run(page).response["violations"]] == ["meta-refresh"]
    page.get_by_role("link", name="Stop that").click()
    assert page.locator("meta[http-equiv=refresh]").count() == 0
    page.context.close()


def test_a_page_asks_for_itself_and_its_stylesheet_and_nothing_else(shown: Shown) -> None:
    for url in shown.urls:
        page, asked = opened(shown, url)
        page.wait_for_load_state("networkidle")
        root = re.match(r"http://127\.0\.0\.1:\d+", url)
        assert root is not None
        assert sorted(asked) == sorted([url, f"{root[0]}/style.css"])
        assert page.context.cookies() == []
        page.context.close()


def test_nothing_reaches_beyond_the_width_of_a_phone(shown: Shown) -> None:
    """Tables scroll by themselves."""
    for url in shown.urls:
        page, _ = opened(shown, url, width=WIDTHS["phone"])
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS["phone"], url
        page.context.close()


def test_a_keyboard_skips_to_the_content_and_sees_where_it_is(shown: Shown) -> None:
    page, _ = opened(shown, shown.url("coordinator", "/"))
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the content"
    top = "element => element.getBoundingClientRect().top"
    awaited("the link is seen when it has the focus", lambda: skip.evaluate(top) >= 0, limit_s=30.0)
    assert skip.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert page.locator(":focus").get_attribute("id") == "main"
    page.keyboard.press("Tab")
    assert page.locator("main :focus").count() == 1, "and goes on in there"
    page.context.close()


def test_a_table_that_scrolls_is_reached_by_the_keyboard(shown: Shown) -> None:
    page, _ = opened(shown, shown.url("coordinator", f"/jobs/{ENDED}"), width=WIDTHS["phone"])
    region = page.get_by_role("region", name="Finished rounds, the newest first")
    region.focus()
    page.keyboard.press("ArrowRight")
    awaited("the table scrolls", lambda: region.evaluate("element => element.scrollLeft") > 0, limit_s=30.0)
    page.context.close()


def test_what_the_coordinator_shows_of_an_open_round(shown: Shown) -> None:
    page, _ = opened(shown, shown.url("coordinator", "/"))
    page.get_by_role("link", name=OPEN, exact=True).click()
    assert page.title() == f"{OPEN} · coordinator · Consilo"
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=AWAY, exact=True))
    assert "waited for" in row.inner_text()
    assert page.locator(".phases [aria-current=step]").inner_text().startswith("▸")
    picture = page.get_by_role("img", name=re.compile("^loss loss, rounds 1 to"))
    assert picture.count() == 1
    page.context.close()


def test_what_a_silo_shows_of_itself(shown: Shown) -> None:
    silo = shown.federation.members[0]
    page, _ = opened(shown, shown.url(silo, "/"))
    assert page.get_by_role("heading", name=re.compile(f"{OPEN}, round")).count() == 1
    page.get_by_role("link", name="What left").click()
    page.wait_for_url("**/sent")
    logged = shown.federation.logged(silo)
    # A round may be over before the acknowledgement comes: then the log has no such line, and the page lists it.
    acknowledged = {line["update"] for line in logged if line["event"] == "update_sent"}
    counted = [line for line in logged if line["event"] == "round_over" and line["counted"] == "yes"]
    listed = {code.get_attribute("title") for code in page.locator("tbody code").all()} - {None}
    assert acknowledged
    assert acknowledged <= listed, "what the log tells is listed"
    assert len(listed) >= len(counted) > ENDED_ROUNDS, "and so is what is in each model"
    page.context.close()


def test_no_figure_of_one_silo_is_on_a_page_of_the_coordinator(shown: Shown) -> None:
    """Each silo's ledger has what its task measured: a loss for each round, with all its digits."""
    ledgers = sorted(shown.federation.folder.glob("ledger-*"))
    measured = [value for path in ledgers for value in path.read_text().split() if len(value) >= RECOGNISABLE_CHARS]
    assert len(ledgers) == len(shown.federation.members)
    assert len(measured) > 100
    for path in (*OF_COORDINATOR, "/status.json", f"/jobs/{OPEN}.json", f"/jobs/{ENDED}.json"):
        page, _ = opened(shown, shown.url("coordinator", path))
        source = page.content()
        assert [value for value in measured if value[:RECOGNISABLE_CHARS] in source] == []
        page.context.close()
