"""How a row is run, and what its outcome is held against."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from click.testing import CliRunner

from consilo.cli import main
from tests.inputs.place import Place, Row

SHOWN_FOLDER = "/srv/consilo"
"""What the folder is called in the table: its own name is another one in each run."""
DIFFERS = "..."

_SAID = re.compile(r"^(?:error|Error|warning): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command."""

    code: int
    output: str
    """Both streams, with the folder's name replaced."""

    @property
    def said(self) -> Sequence[str]:
        """The errors and warnings: of a check, what it found wrong."""
        if self.output.startswith("["):
            return [found["detail"] for found in json.loads(self.output) if not found["ok"]]
        return _SAID.findall(self.output)


def run_row(row: Row, place: Place, known: Mapping[str, str]) -> Outcome:
    """Run a row's command in this process, through the root of the command line. Raises what it leaves uncaught."""
    command = shlex.split(row.command.format_map(known))
    with _standing_in(place.folder):
        result = CliRunner(env=dict(row.environment)).invoke(main, command, prog_name="consilo")
    for descriptor in place.held:
        os.close(descriptor)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.output.replace(str(place.folder), SHOWN_FOLDER))


@contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    """Daemons and some commands set the mask of new files for their process, which here is the tests'."""
    before, mask = Path.cwd(), os.umask(0o022)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.umask(mask)


def matches(said: str, expected: str) -> bool:
    """Whether `expected`, in which `...` stands for anything, is all that was said."""
    return re.fullmatch(".*?".join(map(re.escape, expected.split(DIFFERS))), said) is not None


def tree(folder: Path) -> Mapping[str, str]:
    """Every file and folder, with what is in it."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"


def changes(before: Mapping[str, str], after: Mapping[str, str], *, allowed: Sequence[str]) -> list[str]:
    """What a command lost, changed or left behind, but for what it may."""
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return sorted(name for name in touched if not any(fnmatch(name, pattern) for pattern in allowed))
