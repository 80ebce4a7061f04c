"""`consilo participant gc`: what may go from the data folder."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from pathlib import Path

import click

from participant.settings import ParticipantSettings
from shared.clock import SystemClock
from shared.config import load_config
from shared.errors import ConfigError
from shared.garbage import copies_option, dry_run_option, emit_garbage, require_owner
from shared.ids import JobId, parse_job_id
from shared.terminal import json_option


class _Job(click.ParamType[JobId]):
    name = "job"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> JobId:
        try:
            return parse_job_id(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("participant.toml"),
    show_default=True,
    help="The participant's configuration.",
)
@dry_run_option
@copies_option("journal")
@click.option(
    "--states-of",
    type=_Job(),
    multiple=True,
    metavar="JOB",
    help="Remove what a task keeps of this job, too; may be given again. In a job that is not over, the task would "
    "take part in no further round.",
)
@json_option
def gc(
    config_path: Path, copies_older_than: int, states_of: tuple[JobId, ...], *, dry_run: bool, as_json: bool
) -> None:
    """Remove from the data folder what no round needs. Stop the daemon first, and be the user that it runs as.

    The journal stays, whatever its size: what this silo promised is never forgotten. Models and updates of rounds that
    are over go, which the daemon also removes by itself, and logs of tasks that the configuration does not have.
    """
    from participant.garbage import Asked, Kept, look_for_garbage, remove
    from participant.journal import SqliteJournal
    from participant.journal_file import JOURNAL_FILE
    from participant.startup import lock_folder

    os.umask(0o077)
    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    folder = settings.participant.data_dir
    if not (folder / JOURNAL_FILE).exists():
        raise ConfigError(f"{folder / JOURNAL_FILE} does not exist: no daemon has run in this data folder")
    require_owner(folder / JOURNAL_FILE, os.geteuid())
    asked = Asked(SystemClock().now() - timedelta(days=copies_older_than), states_of)
    with lock_folder(folder):
        with contextlib.closing(SqliteJournal(folder / JOURNAL_FILE, may_migrate=False)) as journal:
            kept = Kept(journal.open_rounds(), settings.tasks.keys())
        found = look_for_garbage(folder, kept, asked)
        if not dry_run:
            remove(folder, found)
    emit_garbage(found, dry_run=dry_run, as_json=as_json, by_name=True)
