"""What every command prints with: a table for people or JSON for machines.

Results go to standard output, everything said about them (progress, warnings) to standard error, so that a pipe sees
only results. Cells and titles are text and never markup: names come from peers, and a name must not move a cursor.

    @job.command("list")
    @json_option
    def list_jobs(*, as_json: bool) -> None:
        jobs = ...
        emit([...], as_json=as_json, render=lambda: table(["job", "state"], rows))
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 200  # nobody reads a pipe at 80 columns: rows stay whole for grep

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add `--json`, passed to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")(command)


def emit(value: object, *, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print a result: `value` as JSON, or what `render` makes of it for people. `render` is called only when used."""
    if as_json:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        stdout_console().print(render())


def emit_line(value: object, *, as_json: bool, text: str) -> None:
    """Print one result of a stream: one JSON object a line, or one line of text."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else printable(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table whose cells are printed as they are; numbers stand on the right."""
    made = Table(title=_title(title), title_justify="left")
    for name in columns:
        made.add_column(Text(printable(name)), overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def facts(pairs: Iterable[tuple[str, object]], *, title: str | None = None) -> Table:
    """Two columns without a head: a name and what is known under it."""
    made = Table(title=_title(title), title_justify="left", show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(Text(name), _cell(value))
    return made


def warn(text: str) -> None:
    """One line on standard error."""
    click.echo(f"warning: {printable(text)}", err=True)


def stdout_console() -> Console:
    """Where results go. Made on each use: tests and pipes replace the stream."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """Where progress goes."""
    return _console(sys.stderr)


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal replaced by `?`; line feeds stay."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def _console(stream: Any) -> Console:
    return Console(file=stream, width=None if stream.isatty() else PIPE_COLUMNS, highlight=False)


def _title(title: str | None) -> Text | None:
    return None if title is None else Text(printable(title), style="table.title")


def _cell(value: object) -> Text:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Text("" if value is None else printable(str(value)), justify="right" if number else "left")
