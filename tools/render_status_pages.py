"""Take the pictures of docs/status-pages.md: a federation of real processes, a headless Chromium, one file each.

The federation is the one that the test in a browser looks at (`tests.support.demo_federation`). Pictures show times and
digests, so each run makes others: run it when a page has changed. `--browser` names a Chromium; nothing is fetched.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the tests' support is no installed package

# By name, since the checks of scripts and those of tests read one file by different rules.
demo = importlib.import_module("tests.support.demo_federation")

IMAGES = ROOT / "docs" / "images"
WIDE, PHONE = 1100, 390
SILO = "hospital-c"  # the one that missed two rounds
# As in the container of the test: it shows nothing but our own pages.
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@dataclass(frozen=True, slots=True)
class Picture:
    """One file."""

    file: str
    of: str
    path: str
    scheme: Literal["light", "dark"] = "light"
    width: int = WIDE
    height: int | None = None
    """How much of the page, from its top; None for all of it."""


PICTURES = (
    Picture("status-federation.png", "coordinator", "/"),
    Picture("status-federation-phone.png", "coordinator", "/", "dark", PHONE, 1150),
    Picture("status-job.png", "coordinator", f"/jobs/{demo.OPEN}", height=980),
    Picture("status-rounds.png", "coordinator", f"/jobs/{demo.ENDED}", "dark", height=1100),
    Picture("status-silo.png", SILO, "/", height=1150),
    Picture("status-sent.png", SILO, "/sent", height=620),
    Picture("status-allowed.png", SILO, "/allowed", "dark"),
)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    asked.add_argument("--browser", default="/usr/bin/chromium", help="where Chromium is (default: %(default)s)")
    asked.add_argument("--out", type=Path, default=IMAGES, help="where the files go (default: docs/images)")
    said = asked.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="consilo-pages-") as folder,
        demo.demo_federation(Path(folder) / "federation") as federation,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=said.browser, args=list(FLAGS))
        for picture in PICTURES:
            take(browser, picture, port=federation.status_port(picture.of), out=said.out)
        browser.close()
    return 0


def take(browser: Browser, picture: Picture, *, port: int, out: Path) -> None:
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height or 800}, color_scheme=picture.scheme
    )
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}{picture.path}")
    target = out / picture.file
    page.screenshot(path=target, full_page=picture.height is None)
    print(f"{target.name}: {target.stat().st_size} bytes", flush=True)
    context.close()


if __name__ == "__main__":
    raise SystemExit(main())
