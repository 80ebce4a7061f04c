"""`consilo coordinator`: run a coordinator, look whether one could run, back one up and restore it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator import cli_disk
from coordinator.settings import CoordinatorSettings
from shared.clock import SystemClock
from shared.config import load_config
from shared.findings import findings_table
from shared.health_report import health_line
from shared.terminal import emit, emit_line, facts, json_option

if TYPE_CHECKING:
    from coordinator.backup import BackupManifest

_config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    default=Path("coordinator.toml"),
    show_default=True,
    help="The coordinator's configuration.",
)


@click.group()
def coordinator() -> None:
    """Run, check, back up and restore a coordinator, and look after its disk."""


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
            "checks": [
                {
                    "name": found.name, "ok": found.ok, "warning": found.warning, "skipped": found.skipped,
                    "detail": found.detail, "advice": found.advice,
                }
                for found in findings
            ],
        },
        as_json=as_json,
        render=lambda: findings_table(findings),
    )  # fmt: skip
    if not all(finding.ok for finding in findings):
        ctx.exit(1)


@coordinator.command()
@_config_option
@click.option("--ready", is_flag=True, help="Also fail when it is not ready.")
@json_option
@click.pass_context
def health(ctx: click.Context, config: Path, *, ready: bool, as_json: bool) -> None:
    """Ask the coordinator that runs with this configuration, on this machine, whether it is live and ready.

    Live: its event loop and the thread of its records answer. Exit code 0 then, 1 otherwise: for health checks, which
    restart it. Ready: the members of the job that runs, or runs next, reach its quorum; without a job, a participant is
    connected. That is for alerts: a coordinator that waits for silos is as it should be.
    """
    from coordinator.rpc.health_client import ask_health

    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    answered = ask_health(settings.coordinator.listen[0], settings.tls.paths)
    emit_line(asdict(answered), as_json=as_json, text=health_line(live=answered.live, ready=answered.ready))
    ctx.exit(0 if answered.live and (answered.ready or not ready) else 1)


@coordinator.command()
@_config_option
@click.argument("destination", type=click.Path(path_type=Path))
@json_option
def backup(config: Path, destination: Path, *, as_json: bool) -> None:
    """Copy the records, the audit log and the models to DESTINATION, also while the coordinator runs.

    DESTINATION is a folder that is empty or not there. Its last file is backup.json: without it the backup was
    interrupted, and cannot be restored. Not in a backup are keys and certificates (back them up apart, and better
    protected), and what open rounds have taken in: the jobs of a restored backup are not gone on with, but started anew
    from any model that is in it.
    """
    from coordinator.backup import BackupOrder, make_backup
    from coordinator.client.cli_audit import load_verifying_key
    from shared.build import build_info

    os.umask(0o077)
    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    order = BackupOrder(
        data_dir=settings.coordinator.data_dir,
        destination=destination,
        coordinator=settings.coordinator.id,
        verifying_key=load_verifying_key(settings.signing.certificate, ca=settings.tls.ca),
        now=SystemClock().now(),
        build=build_info(environment=os.environ),
    )
    manifest = make_backup(order)
    shown: dict[str, object] = {"backup": str(destination), **_said(manifest)}
    emit(shown, as_json=as_json, render=lambda: facts(shown.items()))


@coordinator.command()
@_config_option
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def restore(config: Path, source: Path, *, as_json: bool) -> None:
    """Make a data folder of the backup in SOURCE, after checking every byte of it.

    The data folder of the configuration must be empty or not there; move an old one aside. The signing key must be the
    one that signed the backup's audit log. The first start after it ends the jobs that were open when the backup was
    made: silos may know results that the backup does not have. `consilo job show` says from which model to go on.
    """
    from coordinator.restoring import RestoreOrder
    from coordinator.restoring import restore as restore_backup
    from coordinator.startup import check_identity
    from shared.log import configure_logging

    os.umask(0o077)
    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    configure_logging(style=settings.log.format, level=settings.log.level)
    clock = SystemClock()
    order = RestoreOrder(
        source=source,
        data_dir=settings.coordinator.data_dir,
        signing_key=check_identity(settings, clock).signing.key,
        clock=clock,
    )
    restored = restore_backup(order)
    shown = {"data_dir": str(order.data_dir), **_said(restored.manifest)}
    emit(
        {**shown, "ends_at_start": list(restored.open_jobs)},
        as_json=as_json,
        render=lambda: facts([*shown.items(), ("ends_at_start", ", ".join(restored.open_jobs) or "no job")]),
    )


def _said(manifest: BackupManifest) -> dict[str, object]:
    return {
        "made_at": manifest.made_at,
        "models": len(manifest.models),
        "bytes": manifest.total_bytes,
        "audit_entries": manifest.audit_entries,
        "audit_head": manifest.audit_head,
    }


cli_disk.add_to(coordinator, _config_option)
