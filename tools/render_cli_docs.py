"""Write docs/cli.md, every `--help` of the command line, or say that it is stale (`--check`). `make docs` runs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from consilo.cli import main as consilo

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COLUMNS = 100

INTRODUCTION = """\
# The command line

<!-- Written by tools/render_cli_docs.py from the commands themselves: change their help and run `make docs`. -->

`consilo COMMAND --help` prints the same. Exit codes everywhere: 0 done, 1 failed (also: an extra is missing), 2 used
wrongly, 130 interrupted. Results go to standard output, everything said about them to standard error; with `--json`
what is on standard output is JSON.
"""


def page() -> str:
    sections = [f"## {title}\n\n```text\n{text}\n```\n" for title, text in helps(consilo, None, "consilo")]
    return "\n".join([INTRODUCTION, *sections])


def helps(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
    """(`consilo job list`, its help) of a command and all below it."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=COLUMNS, **command.context_settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            try:
                found = command.get_command(context, child)
            except click.UsageError as error:
                raise SystemExit(error.message) from None
            if found is None:
                raise SystemExit(f"`{context.command_path} {child}` is listed and not there")
            if not found.hidden:
                yield from helps(found, context, child)


def check() -> int:
    kept = PAGE.read_text("utf-8") if PAGE.exists() else ""
    if kept == page():
        return 0
    print("docs/cli.md is stale: run `make docs` and commit the result", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        raise SystemExit(check())
    PAGE.write_text(page(), "utf-8")
