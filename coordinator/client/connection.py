"""How commands reach the coordinator: the options that say where, and the connection that they are given.

@job.command("list")
@with_operations
@json_option
def list_jobs(*, operations: Operations, as_json: bool) -> None: ...
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from coordinator.client.operations import Operations
from coordinator.client.operations import Progress as Told
from coordinator.client.rpc import OperationsChannel
from coordinator.client.settings import CONFIG_VARIABLE, DEFAULT_CONFIG, OperatorSettings, load_operator
from shared.clock import SystemClock
from shared.config import dialled_address
from shared.identity import Role
from shared.terminal import printable, stderr_console
from shared.tls import check_credentials

Command = Callable[..., Any]


class AddressType(click.ParamType[str]):
    """A coordinator's address, as in operator.toml."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return dialled_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def operator_options(command: Command) -> Command:
    """Add `--config` and `--coordinator`, passed as `config` and `address`."""
    command = click.option(
        "--coordinator",
        "address",
        metavar="HOST:PORT",
        type=AddressType(),
        help="Dial this address instead of the configured one.",
    )(command)
    return click.option(
        "--config",
        envvar=CONFIG_VARIABLE,
        default=DEFAULT_CONFIG,
        show_default=True,
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="The operator's configuration: which coordinator, which credentials.",
    )(command)


def with_operations(command: Command) -> Command:
    """Give a command an open connection as `operations`, and the options that say where it leads."""

    @functools.wraps(command)
    def connected(*, config: Path, address: str | None, **arguments: Any) -> Any:
        with dial(operator_settings(config, address)) as operations:
            return command(operations=operations, **arguments)

    return operator_options(connected)


def operator_settings(config: Path, address: str | None) -> OperatorSettings:
    """The configuration with the address of the command line on top. Raises ConfigError."""
    environment = dict(os.environ)
    if address is not None:
        environment["CONSILO_OPERATOR__COORDINATOR"] = address
    return load_operator(config, environment=environment)


@contextmanager
def dial(settings: OperatorSettings) -> Iterator[Operations]:
    """A connection, made when it is first used. Raises ConfigError for credentials with which nobody is let in."""
    check_credentials(settings.tls.paths, expected_role=Role.OPERATOR, now=SystemClock().now())
    with OperationsChannel(address=settings.operator.coordinator, tls=settings.tls.paths) as channel:
        yield Operations(channel)


@contextmanager
def byte_progress(what: str, total: int | None) -> Iterator[Told]:
    """A bar on standard error while bytes move; nothing where nobody looks."""
    console = stderr_console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(printable(what), total=total)
        yield lambda count: bar.advance(task, count)
