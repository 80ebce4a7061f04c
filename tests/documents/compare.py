"""Is what came what the document shows? Loosely: a document shows one run, and digests, times and ports differ.

Of a table's row the first cell counts, of a log line its event; of every other line all words but those with a digit.
`[...]` is anything. Each must come, in the order in which the document has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

LEFT_OUT = "[...]"
EDGE = "│"
_BORDER = re.compile(r"[\s─━┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇┃╞╪╡┳┻╋]*")
_ANSI = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


class DiffersError(Exception):
    """A document says something else than what came."""


def shown_to_fail(shown: Iterable[str]) -> bool:
    """Whether a command ends with an exit code above 0, by what the document shows of it."""
    return any(line.startswith("error: ") or re.match(r"│[^│]*│ FAILED ", line) for line in shown)


def events_of(shown: Iterable[str]) -> list[str]:
    """Of shown log lines, what happened."""
    return [found[1] for line in shown if (found := re.search(r'^\{.*"event": "(\w+)"', line))]


def require_shown(shown: Iterable[str], output: str) -> None:
    """Raises DiffersError unless each shown line comes, in this order."""
    came = [_ANSI.sub("", line) for line in output.replace("\r", "").splitlines()]
    lines = iter(came)
    for line in shown:
        if (pattern := _pattern(line)) is not None and not any(pattern.search(_plain(each)) for each in lines):
            raise DiffersError(f"the document shows\n  {line}\nand this came:\n{output}")


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def _pattern(line: str) -> re.Pattern[str] | None:
    """None for a line that says nothing by itself: a border, the rest of a long cell, something left out."""
    plain = re.sub(r"(\[y/N\]:) \w+$", r"\1", _plain(line))  # what was typed is not echoed
    if not plain.replace(LEFT_OUT, "") or _BORDER.fullmatch(plain):
        return None
    if plain.startswith("{") and (events := events_of([plain])):
        return re.compile(rf'"event": {re.escape(json.dumps(events[0]))}')
    if plain.startswith((EDGE, "┃")):
        cell = plain.strip("│┃").split(plain[0])[0].strip()
        return re.compile(rf"^{plain[0]} ?{_loose(cell)}") if cell else None
    return re.compile(_loose(plain))


def _loose(text: str) -> str:
    return ".*".join(" ".join(_words(part)) for part in text.split(LEFT_OUT))


def _words(part: str) -> Iterator[str]:
    for word in part.split(" "):
        yield r"\S+" if re.search(r"\d", word) else re.escape(word)
