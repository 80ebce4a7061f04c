"""docs/bad-inputs.md: the table as support looks things up in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.inputs.place import Row
from tests.inputs.table import CHAPTERS

PAGE = Path(__file__).parents[2] / "docs" / "bad-inputs.md"

_KINDS = {0: "*warning* ", 1: "", 2: "*usage* "}
_KNOWN_LATER = re.compile(r"\{\w+\}")

INTRODUCTION = """\
# What a message means

<!-- Written by `python -m tests.inputs` from the table that the tests walk: change a row and run it. -->

Each row is a mistake that somebody can make, a command that meets it, and what is then said. The tests make every one
of these mistakes and hold the command against its row: the message is all of it, with `...` for what differs from run
to run and `/srv/consilo` for the folder. A message is one line on standard error that begins with `error:`, and the
exit code is 1. Rows with *usage* are of command lines that are wrong: exit code 2, and above the line stands how the
command is used. Rows with *warning* are of commands that go on, with exit code 0. No mistake ends in a traceback: one
that does is a bug, and should be reported.

What is said of a file of a daemon's own (its configuration, certificates, data folder) ends it before anything is
dialled, and `consilo coordinator check` or `consilo participant check` says the same. What a daemon learns only from
the network is tried again instead, and stands in its log with the likely cause.
"""


def page() -> str:
    """The whole document."""
    return "\n".join([INTRODUCTION, *(_chapter(title, rows) for title, rows in CHAPTERS.items())])


def _chapter(title: str, rows: Sequence[Row]) -> str:
    head = ["| mistake | command | message |", "|---|---|---|"]
    return "\n".join([f"## {title}", "", *head, *map(_line, rows), ""])


def _line(row: Row) -> str:
    typed = [f"{name}={value}" for name, value in row.environment.items()]
    command = " ".join([*typed, "consilo", _KNOWN_LATER.sub("...", row.command)])
    return f"| {row.name} | {_code(command)} | {_KINDS[row.code]}{_code(row.says)} |"


def _code(text: str) -> str:
    """As code in a cell; text with back quotes in it stands between two of them."""
    shown = text.replace("|", "\\|")
    return f"`` {shown} ``" if "`" in text else f"`{shown}`"
