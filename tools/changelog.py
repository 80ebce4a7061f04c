"""Which releases there are, as CHANGELOG.md has them, newest first.

    ## 0.1.0 - 2026-12-01

    Commit: 40 hexadecimal digits

The commit cannot stand in itself, so the line comes with the commit after it: a release without one is being made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

UNRELEASED = "Unreleased"
VERSION = r"\d+\.\d+\.\d+"

_HEADING = re.compile(rf"({VERSION}) - (\d{{4}}-\d{{2}}-\d{{2}})")
_COMMIT = re.compile(r"^Commit: ([0-9a-f]{40})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Release:
    """One section. `commit` is None while it is being made."""

    version: str
    on: date
    commit: str | None


def releases(text: str) -> Sequence[Release]:
    """Raises ValueError, which says what is wrong with the text."""
    found: list[Release] = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        if heading == UNRELEASED and not found:
            continue
        said = _HEADING.fullmatch(heading)
        if said is None:
            raise ValueError(
                f"expected a section `## {UNRELEASED}`, first, and sections such as `## 0.1.0 - 2026-12-01`, "
                f"got `## {heading}`"
            )
        commits = _COMMIT.findall(body)
        if len(commits) > 1 or (found and not commits) or ("Commit:" in body and not commits):
            raise ValueError(
                f"expected one line `Commit: <40 hexadecimal digits>` in the section of {said[1]}; only the newest "
                "release may have none yet"
            )
        found.append(Release(said[1], date.fromisoformat(said[2]), commits[0] if commits else None))
    return _newest_first(found)


def _newest_first(found: list[Release]) -> Sequence[Release]:
    ordered = sorted({release.version: release for release in found}.values(), key=_order, reverse=True)
    if ordered != found:
        raise ValueError(f"expected each release once, newest first, got {', '.join(each.version for each in found)}")
    return found


def _order(release: Release) -> tuple[int, ...]:
    return tuple(map(int, release.version.split(".")))


def newest_released(text: str) -> Release | None:
    """The newest whose commit is known; None before the first. Raises ValueError."""
    return next((release for release in releases(text) if release.commit is not None), None)


def read_changelog(root: Path) -> str:
    return (root / "CHANGELOG.md").read_text(encoding="utf-8")
