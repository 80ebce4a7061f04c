"""`module:Class`: how a silo names the task that it installed, and how the class is found.

The folder names of Consilo's own packages are their import names. A silo's package with one of these names would be
hidden by ours, or hide it, and fail far from the cause: it is refused by name.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from participant.tasks.interface import Task
from shared.errors import TaskError

RESERVED = ("shared", "coordinator", "participant")
_ENTRY = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
_OURS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a task's class is."""

    module: str
    class_name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.class_name}"


def parse_entry(text: str) -> Entry:
    """Read `package.module:Class`. Raises TaskError."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise TaskError(f"a task's entry is written package.module:Class, got {text[:200]!r}")
    entry = Entry(match[1], match[2])
    top = entry.module.partition(".")[0]
    if top in RESERVED:
        raise TaskError(f"entry {text!r}: a task's package cannot be called {top!r}, Consilo has one; rename it")
    return entry


def check_search_path(folders: Sequence[Path]) -> None:
    """Raises TaskError for a folder that is not there, or holds a package with a name of ours."""
    for folder in folders:
        if not folder.is_dir():
            raise TaskError(f"the folder {folder} of the task's search path does not exist")
        if folder.resolve() == _OURS:
            continue  # run from a checkout of Consilo: these are ours
        for name in RESERVED:
            if _is_importable(folder, name):
                raise TaskError(
                    f"{folder / name}: a silo's own package cannot be called {name!r}, Consilo has one; rename it"
                )


def import_task(entry: Entry, folders: Sequence[Path]) -> type[Task[Any]]:
    """Import the class. Only ever in a task's own process: the module may be anything.

    Raises TaskError when it is not there or no Task; what the module itself raises passes through.
    """
    check_search_path(folders)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{entry.module}.".startswith(f"{error.name}."):
            raise  # something that the task itself imports
        also = "".join(f" or in {folder}" for folder in folders)
        raise TaskError(
            f"entry {entry}: no module {error.name!r} is installed here{also}: install the task's package into this "
            "environment (pip install), or put its folder on PYTHONPATH"
        ) from None
    if not hasattr(module, entry.class_name):
        raise TaskError(f"entry {entry}: module {entry.module!r} has no class {entry.class_name!r}")
    found = getattr(module, entry.class_name)
    if not (inspect.isclass(found) and issubclass(found, Task)):
        raise TaskError(f"entry {entry}: expected a subclass of consilo.Task, got {found!r}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise TaskError(f"entry {entry}: the class has no {missing}")
    return found


def _is_importable(folder: Path, name: str) -> bool:
    """A folder of that name without Python in it (data, say) does no harm."""
    package = folder / name
    return (folder / f"{name}.py").exists() or (package.is_dir() and any(package.glob("*.py")))
