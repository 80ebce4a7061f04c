"""Scripts: in which order blocks are run, in which folders, and with what in the place of what no document can know.

A script is bash, in which some lines mean more:

    @ LABEL            run the block of that label: command after command, each as the document shows that it ends
    @ LABEL 1          only its first command; `2-`: the second and those after it
    @ LABEL without-output     what is shown is not looked for
    @ LABEL fails      its exit code is above 0, which what is shown does not say
    @ LABEL answer=y   what is typed at its prompts
    ~ FROM => TO       from here on FROM in commands and files is TO, which may have the shell's variables
    < LABEL FILE       write the block of that label, which is no commands but a file
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
PRELUDE = "prelude"


class ScriptError(Exception):
    """A line of a script that means nothing."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Bash that no document shows: folders, copies that are sent by mail in life, waiting."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Show:
    """A document's block is run."""

    line: int
    label: str
    first: int = 1
    last: int | None = None
    compared: bool = True
    fails: bool = False
    answer: str = ""

    def takes(self, number: int) -> bool:
        """Whether the block's command of that number, from 1, is run here."""
        return self.first <= number and (self.last is None or number <= self.last)


@dataclass(frozen=True, slots=True)
class Write:
    """A document's block becomes a file."""

    line: int
    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Replace:
    """From here on one text stands for another."""

    line: int
    old: str
    new: str


Step = Hidden | Show | Write | Replace


def script_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.sh") if path.stem != PRELUDE)


def steps_of(name: str) -> list[Step]:
    """The steps of a script. Raises ScriptError for a line that means nothing."""
    return list(parsed((FOLDER / f"{name}.sh").read_text(encoding="utf-8")))


def parsed(text: str) -> Iterator[Step]:
    hidden: list[str] = []
    first = 1
    for number, line in enumerate([*text.splitlines(), "~ => "], start=1):
        if not line.startswith(("@ ", "~ ", "< ")):
            hidden.append(line)
            continue
        if any(each.strip() and not each.startswith("#") for each in hidden):
            yield Hidden(first, "".join(f"{each}\n" for each in hidden))
        hidden, first = [], number + 1
        if line != "~ => ":
            yield _directive(number, line)


def _directive(number: int, line: str) -> Step:
    if found := re.fullmatch(r"~ (.+) => (.+)", line):
        return Replace(number, found[1], found[2])
    if found := re.fullmatch(r"< ([a-z0-9-]+) (\S+)", line):
        return Write(number, found[1], found[2])
    if found := re.fullmatch(r"@ ([a-z0-9-]+)(?: (\d+)(-)?(\d+)?)?( without-output)?( fails)?(?: answer=(\S+))?", line):
        start = int(found[2] or 1)
        end = int(found[4]) if found[4] else start if found[2] and not found[3] else None
        answer = f"{found[7]}\n" if found[7] else ""
        return Show(number, found[1], start, end, compared=not found[5], fails=bool(found[6]), answer=answer)
    raise ScriptError(f"line {number}: expected a line as tests/documents/scripts.py has them, got {line!r}")
