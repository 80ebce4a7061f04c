"""`consilo coordinator`: run a coordinator, or look whether one could run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from coordinator.settings import CoordinatorSettings
from shared.clock import SystemClock
from shared.config import load_config
from shared.terminal import emit, json_option, table

_config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("coordinator.toml"),
    show_default=True,
    help="The coordinator's configuration.",
)


@click.group()
def coordinator() -> None:
    """Run and check a coordinator."""


@coordinator.command()
@_config_option
def run(config: Path) -> None:
    """Run a coordinator until it is told to end (SIGTERM or SIGINT; twice: at once)."""
    from coordinator import app

    app.run(load_config(config, CoordinatorSettings, environment=os.environ))


@coordinator.command()
@_config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config: Path, *, as_json: bool) -> None:
    """Look at everything that would keep a coordinator from starting. Changes nothing."""
    from coordinator.checks import run_checks

    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    findings = list(run_checks(settings, SystemClock()))
    emit(
        {
            "ok": all(finding.ok for finding in findings),
            "checks": [{"name": found.name, "ok": found.ok, "detail": found.detail} for found in findings],
        },
        as_json=as_json,
        render=lambda: table(
            ["check", "", "found"], [(found.name, "ok" if found.ok else "FAILED", found.detail) for found in findings]
        ),
    )
    if not all(finding.ok for finding in findings):
        ctx.exit(1)
