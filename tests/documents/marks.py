"""Which blocks of commands the documents have, and what their marks say: who runs each of them, or why nobody can.

A mark is an HTML comment directly before the block, which no reader of the rendered page sees:

    <!-- run: SCRIPT LABEL -->        tests/documents/SCRIPT.sh runs it at `@ LABEL`
    <!-- run: SCRIPT (all below) -->  in order, each block from here on without a mark of its own
    <!-- run by: PATH "TEXT" -->      that file runs it, and TEXT in it shows so
    <!-- example: REASON -->          for a system that is not at hand
    <!-- file: SCRIPT LABEL -->       no commands: a file, which the script writes at `< LABEL NAME`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
# cli.md is generated from the commands themselves.
DOCUMENTS = sorted(
    {ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")} - {ROOT / "docs/cli.md"}
)
COMMANDS = ("console", "sh", "bash")
PROMPT = "$ "
_MARK = re.compile(r"<!-- (run|run by|example|file): (.+) -->")
_LABELLED = re.compile(r"([a-z0-9-]+) ([a-z0-9-]+)")
_ALL_BELOW = re.compile(r"([a-z0-9-]+) \(all below\)")
_ELSEWHERE = re.compile(r'(\S+) "(.+)"')
REASON_WORDS_MIN = 3


class MarkError(Exception):
    """A block without a mark, or a mark that says nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """A script runs the block, or writes the file; without a label in the order of the page."""

    script: str
    label: str | None


@dataclass(frozen=True, slots=True)
class RunElsewhere:
    """Something else of the repository runs it."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """Nothing runs it."""

    reason: str


Mark = Run | RunElsewhere | Example


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, and the lines that the document shows after it."""

    typed: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, and where it stands."""

    document: str
    line: int
    language: str
    text: str
    mark: Mark | None
    is_file: bool

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}"

    def commands(self) -> tuple[Command, ...]:
        """Of `console` each that follows a prompt; of `sh` the whole block is one. None where it only shows output."""
        if self.language not in COMMANDS:
            return ()
        if self.language != "console":
            return (Command(self.text, ()),)
        return tuple(_console(self.text.splitlines()))


def _console(lines: list[str]) -> Iterator[Command]:
    starts = [number for number, line in enumerate(lines) if line.startswith(PROMPT)]
    for start, end in pairwise([*starts, len(lines)]):
        last = start
        while lines[last].endswith("\\") and last + 1 < end:
            last += 1
        typed = [lines[start].removeprefix(PROMPT), *lines[start + 1 : last + 1]]
        yield Command("\n".join(typed), tuple(lines[last + 1 : end]))


def blocks_of(document: Path, root: Path = ROOT) -> list[Block]:
    """Every fenced block of a document with its mark. Raises MarkError for a mark that is none."""
    name = str(document.relative_to(root))
    return list(_blocks(name, document.read_text(encoding="utf-8").splitlines()))


def _blocks(name: str, lines: list[str]) -> Iterator[Block]:
    mark: tuple[str, Mark] | None = None
    all_below: Run | None = None
    opened: int | None = None
    for number, line in enumerate(lines, start=1):
        if opened is not None:
            if line == "```":
                language = lines[opened - 1].removeprefix("```")
                text = "".join(f"{inner}\n" for inner in lines[opened : number - 1])
                kind, said = mark or ("run", all_below if language in COMMANDS else None)
                yield Block(name, opened, language, text, said, is_file=kind == "file")
                mark, opened = None, None
        elif line.startswith("```"):
            opened = number
        elif re.match(r"\s+(```|~~~)", line):
            raise MarkError(f"{name}:{number}: expected a fence at the beginning of its line, where its mark is seen")
        elif found := _MARK.fullmatch(line):
            kind, said = found[1], _parsed(found[1], found[2], f"{name}:{number}")
            if isinstance(said, Run) and said.label is None:
                all_below = said
            else:
                mark = kind, said
        elif line.strip() and mark is not None:
            raise MarkError(f"{name}:{number}: expected a block after the mark before it, got {line!r}")


def _parsed(kind: str, text: str, where: str) -> Mark:
    match kind:
        case "run" if found := _ALL_BELOW.fullmatch(text):
            return Run(found[1], None)
        case "run" | "file" if found := _LABELLED.fullmatch(text):
            return Run(found[1], found[2])
        case "run by" if found := _ELSEWHERE.fullmatch(text):
            return RunElsewhere(found[1], found[2])
        case "example" if len(text.split()) >= REASON_WORDS_MIN:
            return Example(text)
        case _:
            raise MarkError(f"{where}: expected a mark as tests/documents/marks.py has them, got {kind}: {text}")


def all_blocks() -> list[Block]:
    """Of all documents that have marks."""
    return [block for document in DOCUMENTS for block in blocks_of(document)]
