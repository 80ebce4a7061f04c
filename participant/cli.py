"""`consilo participant`: run the daemon, check that it could run, and say what only a person at the silo may say."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from participant.cli_gc import gc
from participant.settings import ParticipantSettings
from shared.allocator import keep_memory
from shared.config import load_config
from shared.dumps import forbid_core_dumps
from shared.errors import ConfigError
from shared.findings import Finding, findings_table
from shared.health_report import health_line
from shared.ids import JobId, parse_job_id
from shared.log import configure_logging
from shared.terminal import emit, emit_line, json_option, table

if TYPE_CHECKING:
    from participant.journal import SqliteJournal

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("participant.toml"),
    show_default=True,
    help="The participant's configuration.",
)


@click.group()
def participant() -> None:
    """The daemon inside a silo: run it, check its set-up, decide for it."""


participant.add_command(gc)


@participant.command()
@_CONFIG
def run(config_path: Path) -> None:
    """Run until SIGTERM. Dials out to the coordinator; opens no port but the loopback one for metrics."""
    if find_spec("torch") is None:  # otherwise each job would learn it, in the middle of a round
        raise ModuleNotFoundError("a participant runs tasks with torch", name="torch")
    forbid_core_dumps()
    keep_memory()
    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    configure_logging(style=settings.log.format, level=settings.log.level)
    from participant.app import run_daemon

    asyncio.run(run_daemon(settings, environment=os.environ))


@participant.command()
@_CONFIG
@json_option
def check(config_path: Path, *, as_json: bool) -> None:
    """Check configuration, credentials, data folder and tasks, without dialling. Exit code 1 when something fails.

    The tasks are loaded for it, beside a daemon that runs too: see that the GPU has room for both.
    """
    from participant.checks import local_findings, proxy_finding

    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    _report([*local_findings(settings), proxy_finding(settings, os.environ)], as_json=as_json)


@participant.command()
@_CONFIG
@json_option
def doctor(config_path: Path, *, as_json: bool) -> None:
    """Check everything that `check` does, and dial: name, proxy, connection, TLS, and a session with the coordinator.

    For each row that is not ok it says what to do. A daemon that runs is left alone: no task is loaded beside it, which
    would take from the memory of its GPU, and no session is opened, because it would end that daemon's. On any other
    machine with this participant's identity, a session would. Exit code 1 when something fails.
    """
    from participant.doctor.rows import findings

    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    _report(list(findings(settings, os.environ)), as_json=as_json)


def _report(found: Sequence[Finding], *, as_json: bool) -> None:
    emit(
        [
            {
                "check": row.name, "ok": row.ok, "warning": row.warning, "skipped": row.skipped, "detail": row.detail,
                "advice": row.advice,
            }
            for row in found
        ],
        as_json=as_json,
        render=lambda: findings_table(found),
    )  # fmt: skip
    if not all(row.ok for row in found):
        raise SystemExit(1)


@participant.command()
@_CONFIG
@click.option("--ready", is_flag=True, help="Also fail when it is not ready.")
@json_option
def health(config_path: Path, *, ready: bool, as_json: bool) -> None:
    """Ask the daemon that runs with this configuration, on this machine, whether it is live and ready.

    Live: its event loop answers. Exit code 0 then, 1 otherwise: for health checks, which restart it. Ready: a session
    with the coordinator is open. That is for alerts: no restart here brings back a coordinator that is away. It asks at
    the address under [status].
    """
    from participant.asking import ask_health

    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    report = ask_health(settings)
    line = health_line(live=report.live, ready=report.ready, why=report.why)
    emit_line(asdict(report), as_json=as_json, text=line)
    if not report.live or (ready and not report.ready):
        raise SystemExit(1)


@participant.command("confirm-journal")
@_CONFIG
@click.option("--yes", is_flag=True, help="Do not ask.")
def confirm_journal(config_path: Path, *, yes: bool) -> None:
    """Say that a lost, restored or exchanged journal may be used.

    The rounds that it has open are over with that, and this silo takes no further part in the jobs that it knows. In
    jobs that it does not know, because they came later, it would take part: take their digests out of
    policy.approved_jobs, and their names out of policy.allowed_jobs.

    Beside the signing key the daemon keeps a marker of the journal that the key was used with. When the data folder
    holds an empty journal, an older copy or another one, this silo does not know what it promised, and declines every
    plan. Confirm only when somebody knows why the journal changed, and when the jobs that ran before it changed are
    over: in one that still runs, a coordinator could be told a second time what may be told once. Stop the daemon
    first.
    """
    from participant.journal import SqliteJournal
    from participant.journal_file import JOURNAL_FILE
    from participant.marker import confirm, doubt_about
    from participant.startup import lock_folder

    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    folder, key = settings.participant.data_dir, settings.signing.key
    with lock_folder(folder), contextlib.closing(SqliteJournal(folder / JOURNAL_FILE)) as journal:
        doubt = doubt_about(journal, key)
        if doubt is None:
            click.echo("The journal is the one that the signing key was used with: there is nothing to confirm.")
            return
        click.echo(f"{doubt.detail}.")
        left = journal.unfinished()
        if left.rounds:
            click.echo(f"Its open rounds end now: {', '.join(map(str, left.rounds))}.")
        if left.jobs:
            click.echo(f"This silo takes no further part in its jobs: {', '.join(left.jobs)}.")
        question = "Are the jobs of that time over, and shall this journal be used from now on?"
        if not yes and not click.confirm(question):
            raise ConfigError("not confirmed: nothing was changed, and the daemon goes on declining every plan")
        confirm(journal, key)
        click.echo("Confirmed. Start the daemon: it answers plans by its policy again.")


@participant.command()
@click.argument("job", required=False)
@_CONFIG
@click.option("--undo", is_flag=True, help="Take it back. What was opened meanwhile stays opened.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def allow(job: str | None, config_path: Path, *, undo: bool, yes: bool, as_json: bool) -> None:
    """Let JOB open another total on a model on which this silo helped to open one; without JOB, list what is allowed.

    A silo helps with one total on a model. A job that goes on from a model that was used before, after the coordinator
    was restored from a backup for one, may need another, over other members: it is refused (`repeated_total`) until
    this is said. It takes effect at once, also while the daemon runs.

    It costs something: whoever sees both totals can subtract them, and the difference may be this silo's update. A
    job's id is chosen by the coordinator; ask the data scientist, over another channel, whether the job is theirs, and
    compare its digest.
    """
    from participant.journal import SqliteJournal
    from participant.journal_file import JOURNAL_FILE

    settings = load_config(config_path, ParticipantSettings, environment=os.environ)
    path = settings.participant.data_dir / JOURNAL_FILE
    if not path.exists():
        raise ConfigError(f"{path} does not exist: this silo has taken part in nothing that could be repeated")
    if job is None and (undo or yes):
        raise click.UsageError("which job? Give its id")
    with contextlib.closing(SqliteJournal(path, may_migrate=False)) as journal:
        if job is not None:
            _change_allowance(journal, _job_id(job), undo=undo, yes=yes)
        rows = [(each, "policy.allowed_repeats") for each in settings.policy.allowed_repeats]
        rows += [(each, "this command") for each in journal.allowances()]
    emit(
        [{"job": each, "by": by} for each, by in rows],
        as_json=as_json,
        render=lambda: table(("job that may repeat a total", "allowed by"), rows),
    )


def _change_allowance(journal: SqliteJournal, job: JobId, *, undo: bool, yes: bool) -> None:
    if undo:
        if not journal.forbid_repeat(job):
            raise ConfigError(f"job {job} is not among those that this command allowed")
        return
    history = journal.history(job)
    known = "is not known here yet" if history is None else f"has the specification {history.jobspec}"
    click.echo(
        f"Job {job} {known}. With this it may have a second total on a model opened with this silo's help. Whoever "
        "sees both totals can subtract one from the other, and learn this silo's update from it.",
        err=True,
    )
    if not yes and not click.confirm("Does somebody here answer for that?", err=True):
        raise ConfigError("nothing was changed")
    journal.allow_repeat(job)


def _job_id(text: str) -> JobId:
    try:
        return parse_job_id(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="JOB") from None
