"""What a command that looks at a set-up found, row by row: fine, fine but, not fine, or not looked at.

A row that is not fine says what was expected, what was found and what to do. One that could not be looked at, because
it rests on another that failed, says so and is no failure of its own: a person reads the first cause and not its
shadows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from shared.errors import FederationError
from shared.terminal import table

NEEDS_ROW = "not looked at: it needs the row {!r}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is what to do, where `detail` does not say it already."""

    name: str
    ok: bool
    detail: str
    warning: bool = False
    """It would run with this, and a person should know."""
    skipped: bool = False
    """Not looked at."""
    advice: str = ""

    @property
    def result(self) -> str:
        if not self.ok:
            return "FAILED"
        if self.skipped:
            return "skipped"
        return "warning" if self.warning else "ok"


@dataclass(frozen=True, slots=True)
class Caution:
    """What a look returns in place of a text when it would run with this, and a person should know."""

    detail: str
    advice: str = ""


Look = Callable[[], str | Caution]
"""Looks at one thing. Returns what was found, or raises a FederationError that says what is wrong and what to do."""


def found_by(name: str, look: Look) -> Finding:
    """Look, whatever comes of it."""
    try:
        found = look()
    except FederationError as error:
        return Finding(name, ok=False, detail=str(error))
    if isinstance(found, Caution):
        return Finding(name, ok=True, detail=found.detail, warning=True, advice=found.advice)
    return Finding(name, ok=True, detail=found)


def found_in_order(looks: Mapping[str, Look], needs: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Look at one after the other; what needs a row that failed or was skipped is skipped."""
    missing: set[str] = set()
    for name, look in looks.items():
        lacks = next((needed for needed in needs.get(name, ()) if needed in missing), None)
        found = found_by(name, look) if lacks is None else skipped(name, NEEDS_ROW.format(lacks))
        if found.skipped or not found.ok:
            missing.add(name)
        yield found


def skipped(name: str, why: str) -> Finding:
    """A row that rests on one that is not there."""
    return Finding(name, ok=True, detail=why, skipped=True)


def findings_table(findings: Sequence[Finding]) -> Table:
    """For people."""
    return table(
        ("check", "result", "found, and what to do"),
        [
            (found.name, found.result, f"{found.detail}\n-> {found.advice}" if found.advice else found.detail)
            for found in findings
        ],
    )
