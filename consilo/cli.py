"""The root of the command line.

Groups of commands come from the entry-point group `consilo.commands` and are imported only when they are used, so that
a machine with one extra installed has a working `consilo`, `--help` answers at once, and the coordinator never imports
torch. The short helps stand here for the same reason: printing them must import nothing.

Exit codes, everywhere: 0 done, 1 failed (also: an extra is missing), 2 used wrongly, 130 interrupted. A failure of our
own tree is one line on standard error; a traceback means a bug.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from shared.build import build_info, requirement
from shared.errors import FederationError
from shared.terminal import printable

# gRPC's own lines on standard error would stand between ours, which are JSON; what they say, our errors say. It reads
# this when it is imported, which the groups do.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

COMMANDS = "consilo.commands"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_SHORT_HELP = {
    "audit": "Show and verify the audit log.",
    "coordinator": "Run and check a coordinator.",
    "demo": "Run a whole federation on this machine.",
    "job": "Submit, list, show, watch and abort jobs.",
    "model": "List, show and export model versions.",
    "participant": "Run and check a participant.",
    "pki": "Make the consortium's authority and its members' certificates.",
    "task": "Try a task, and make its initial model.",
    "version": "Show version, revision and what is installed.",
}
# Which extra brings a third-party package: what to say when an import finds it missing.
_EXTRA_OF = {"sqlalchemy": "coordinator", "torch": "participant", "sklearn": "demo"}


class _Missing(click.ClickException):
    """Something that this command needs is not installed: one line, without the usage of a command that was right."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {printable(self.message)}", err=True, file=file)


class LazyGroup(click.Group):
    """A group whose commands are entry points."""

    def __init__(self, *, find: Callable[[], dict[str, EntryPoint]], **settings: Any) -> None:
        super().__init__(**settings)
        self._find = find

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._find()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._find().get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            loaded = entry.load()
        except ModuleNotFoundError as error:
            raise _Missing(_missing(cmd_name, error, entry)) from None
        if not isinstance(loaded, click.Command):
            raise click.UsageError(f"{entry.value} is not a command: {cmd_name!r} cannot be used", ctx)
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, but from the table: click would import every group for its short help."""
        rows = [(name, _SHORT_HELP.get(name, "")) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FederationError as error:
            click.echo(f"error: {printable(str(error))}", err=True)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            # A command that imports the heavy part only when it runs.
            if _extra_for(error) is None:
                raise
            raise _Missing(_missing(ctx.invoked_subcommand or "this command", error, None)) from None
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS)}


def _extra_for(error: ModuleNotFoundError) -> str | None:
    return _EXTRA_OF.get((error.name or "").partition(".")[0])


def _missing(command: str, error: ModuleNotFoundError, entry: EntryPoint | None) -> str:
    extra = _extra_for(error)
    if extra is not None:
        return (
            f"`consilo {command}` needs {error.name}, which the extra {extra!r} brings: "
            f"pip install {shlex.quote(requirement(extra))}"
        )
    where = f" ({entry.value})" if entry else ""
    return f"`consilo {command}`{where} is not part of this installation: no module {error.name}"


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: object) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(str(build_info(environment=os.environ)))
        ctx.exit(0)


def make_main(find: Callable[[], dict[str, EntryPoint]]) -> click.Group:
    """The root group over whatever `find` finds."""
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show version, revision and Python in one line.",
    )
    return LazyGroup(
        find=find,
        name="consilo",
        params=[version],
        help="Cross-silo federated training over mutual TLS.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
    )


main = make_main(_installed)
