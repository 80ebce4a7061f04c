"""What may go from a data folder, as a person is told of it: `consilo coordinator gc` and `consilo participant gc`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Group

from shared.errors import ConfigError, StorageError
from shared.terminal import emit, facts, table

COPIES_DAYS = 30  # long enough to see whether a newer version works
DAYS_MAX = 36_500

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Garbage:
    """What goes, or stays, for one reason."""

    kind: StrEnum
    sizes: Mapping[str, int]
    """By digest, or by path in the data folder; empty where the names say nothing to anybody."""
    files: int
    size: int
    goes: bool
    why: str
    stuck: bool = False
    """It should have gone, and is still there."""

    @classmethod
    def named(cls, kind: StrEnum, sizes: Mapping[str, int], *, goes: bool, why: str) -> Garbage:
        return cls(kind, sizes, len(sizes), sum(sizes.values()), goes, why)


def copies_option(of: str) -> Callable[[Command], Command]:
    """Add `--copies-older-than`."""
    return click.option(
        "--copies-older-than",
        type=click.IntRange(0, DAYS_MAX),
        default=COPIES_DAYS,
        show_default=True,
        metavar="DAYS",
        help=f"Copies of the {of}, made before a newer version brought it up to date, go at this age.",
    )


dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")


def require_owner(path: Path, user: int) -> None:
    """Raises ConfigError for a file of a daemon that is another user: what is made beside it, that one cannot open."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise StorageError(f"{path} cannot be looked at: {error.strerror}") from error
    if owner != user:
        raise ConfigError(
            f"{path} belongs to user {owner}, and this is user {user}: run this as the user that the daemon runs as, "
            "who could not open the files that are made here"
        )


def emit_garbage(found: Sequence[Garbage], *, dry_run: bool, as_json: bool, by_name: bool = False) -> None:
    """Print what was found. `by_name`: each is one thing with a name. Exit code 1 when something is still there."""
    gone = sum(each.size for each in found if each.goes)
    emit(
        {"dry_run": dry_run, "bytes": gone, "found": [_facts(each) for each in found]},
        as_json=as_json,
        render=lambda: _shown(found, "would go" if dry_run else "went", gone, by_name=by_name),
    )
    if any(each.stuck for each in found):
        raise click.exceptions.Exit(1)


def _facts(garbage: Garbage) -> dict[str, object]:
    return {
        "what": str(garbage.kind),
        "files": garbage.files,
        "bytes": garbage.size,
        "goes": garbage.goes,
        "why": garbage.why,
        "names": list(garbage.sizes),
    }


def _shown(found: Sequence[Garbage], verb: str, gone: int, *, by_name: bool) -> Group:
    rows = [
        (
            str(each.kind),
            ", ".join(each.sizes) if by_name else each.files,
            each.size,
            "yes" if each.goes else "no",
            each.why,
        )
        for each in found
        if each.files
    ]
    columns = ["what", "path" if by_name else "files", "bytes", verb, "why"]
    return Group(*([table(columns, rows)] if rows else []), facts([(f"bytes that {verb}", gone)]))
