"""`consilo coordinator disk` and `gc`: what lies in the data folder, and what may go."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Group

from coordinator.settings import KEEP_VERSIONS_MAX, CoordinatorSettings
from shared.clock import SystemClock
from shared.config import load_config
from shared.garbage import copies_option, dry_run_option, emit_garbage, require_owner
from shared.terminal import emit, facts, json_option, table

if TYPE_CHECKING:
    from coordinator.disk_report import DiskReport
    from coordinator.garbage import Asked
    from shared.garbage import Garbage

_Config = Callable[[Callable[..., None]], Callable[..., None]]


def add_to(group: click.Group, config_option: _Config) -> None:
    """Both commands, with the group's own option for the configuration."""
    for command in (disk, gc):
        group.command()(config_option(command))


@click.option(
    "--keep-versions",
    type=click.IntRange(0, KEEP_VERSIONS_MAX),
    help="Say what another [retention] keep_versions than the configured one would free.",
)
@json_option
def disk(config: Path, keep_versions: int | None, *, as_json: bool) -> None:
    """Show what lies in the data folder, by kind and by job, and what retention would free.

    Also while the coordinator runs. Run it as the coordinator's own user. Changes nothing.
    """
    from coordinator.disk_report import report_disk

    os.umask(0o077)
    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    keep = settings.retention.keep_versions if keep_versions is None else keep_versions
    report = report_disk(settings.coordinator.data_dir, keep_versions=keep)
    emit(report.as_json(), as_json=as_json, render=lambda: _shown(report))


def _shown(report: DiskReport) -> Group:
    kinds = table(
        ["in the data folder", "files", "bytes"],
        [(str(kind), report.use.files[kind], size) for kind, size in report.use.sizes.items()],
    )
    jobs = table(
        ["models of job", "state", "versions", "with a file", "bytes", "would go"],
        [(job.job, job.state, job.versions, job.files, job.size, job.prunable) for job in report.jobs],
    )
    freed = f"{report.prunable_bytes} bytes in {report.prunable_files} versions"
    summary = facts(
        [
            ("free on this disk", report.use.free),
            (
                f"keep_versions = {report.keep_versions} would free",
                freed if report.keep_versions else "nothing: all stay",
            ),
            ("models that no record names", f"{report.unrecorded_bytes} bytes in {report.unrecorded_files} files"),
        ]
    )
    return Group(kinds, *([jobs] if report.jobs else []), summary)


@dry_run_option
@copies_option("database")
@click.option(
    "--unrecorded-models",
    is_flag=True,
    help="Remove model files that no record names, too. Not where the database was set back: they may be all that is "
    "left of what it lost.",
)
@json_option
def gc(config: Path, copies_older_than: int, *, dry_run: bool, unrecorded_models: bool, as_json: bool) -> None:
    """Remove from the data folder what no record needs, and give its bytes back.

    The coordinator must not run meanwhile; run this as its own user. What a start and a commit remove by themselves
    goes too: spools of rounds that are over, unfinished files, and versions that [retention] does not keep. What goes
    is in the audit log. Exit code 1 when something is still there.
    """
    from coordinator.garbage import Asked

    os.umask(0o077)
    settings = load_config(config, CoordinatorSettings, environment=os.environ)
    asked = Asked(
        keep_versions=settings.retention.keep_versions,
        copies_before=SystemClock().now() - timedelta(days=copies_older_than),
        unrecorded_models=unrecorded_models,
    )
    found = _look(settings, asked) if dry_run else _collect(settings, asked)
    emit_garbage(found, dry_run=dry_run, as_json=as_json)


def _look(settings: CoordinatorSettings, asked: Asked) -> Sequence[Garbage]:
    from coordinator.garbage import look_for_garbage
    from coordinator.startup import require_whole
    from coordinator.storage.beside import RecordsBeside
    from coordinator.storage.filecalls import FileCalls
    from coordinator.storage.listing import left_over_in
    from coordinator.storage.lock import LOCK_FILE, ProcessLock

    data_dir = settings.coordinator.data_dir
    database = _own_database(data_dir)
    with closing(ProcessLock(path=data_dir / LOCK_FILE, guards=f"the data folder {data_dir}")):
        require_whole(data_dir)
        with closing(RecordsBeside(database)) as records:
            return look_for_garbage(data_dir, records, left_over_in(data_dir, FileCalls()), asked)


def _collect(settings: CoordinatorSettings, asked: Asked) -> Sequence[Garbage]:
    from coordinator.garbage import collect
    from coordinator.startup import check_identity, open_records
    from coordinator.storage.database import require_this_schema, schema_of
    from shared.log import configure_logging

    data_dir, clock = settings.coordinator.data_dir, SystemClock()
    configure_logging(style=settings.log.format, level=settings.log.level)
    database = _own_database(data_dir)
    require_this_schema(database, schema_of(database))
    key = check_identity(settings, clock).signing.key
    with open_records(data_dir, signing_key=key, clock=clock) as records:
        return collect(data_dir, records, asked)


def _own_database(data_dir: Path) -> Path:
    from coordinator.storage.database import require_database
    from coordinator.storage.listing import DATABASE_FILE

    database = data_dir / DATABASE_FILE
    require_database(database)
    require_owner(database, os.geteuid())
    return database
