"""`consilo job`: submit, list, show, watch, pause, control and abort jobs of a running coordinator, and what silos
approve of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.live import Live

from coordinator.client import watching
from coordinator.client.connection import byte_progress, with_operations
from coordinator.client.job_file import JobRequest, check_initial, load_job_file
from coordinator.client.operations import Operations
from coordinator.client.standing import control_words, why
from coordinator.client.views import (
    detail_json,
    job_facts,
    job_json,
    job_list_json,
    job_screen,
    job_table,
    masking_words,
    progress_screen,
    round_line,
    spec_of,
    specification_facts,
    specification_json,
    steered_facts,
    steered_json,
)
from shared.control import ControlChange
from shared.entropy import Entropy, SystemEntropy
from shared.ids import JobId, parse_job_id
from shared.job import MEMBERS_MAX
from shared.reasons import JobState
from shared.terminal import emit, emit_line, json_option, stdout_console, warn
from shared.wire.operations import JobDetail, JobStatus, RoundStatus

ROUNDS_ON_SCREEN = 15
_ID_BYTES = 4


class JobIdType(click.ParamType[JobId]):
    """A job's id, as `consilo job list` prints it."""

    name = "job"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> JobId:
        try:
            return parse_job_id(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_JOB = click.argument("job", metavar="JOB", type=JobIdType())


@click.group()
def job() -> None:
    """Submit, list, show, watch, pause, control and abort jobs; print what silos approve."""


@job.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "job_id", type=JobIdType(), help="The job's id.  [default: its name and 8 random digits]")
@click.option("--watch", is_flag=True, help="Stay and show its rounds until it ends.")
@with_operations
@json_option
def submit(*, operations: Operations, file: Path, job_id: JobId | None, watch: bool, as_json: bool) -> None:
    """Submit the job in FILE, and its initial model with it.

    Submitting again with the same --id is safe: the same file changes nothing, another one is refused.
    """
    request = load_job_file(file)
    status = submit_request(operations, request, job_id or new_job_id(request, SystemEntropy()))
    if status.state is JobState.QUEUED and status.reason:
        warn(f"job {status.job} waits: {status.reason}")
    if watch:
        follow(operations, status.job, as_json=as_json)
    else:
        emit(job_json(status), as_json=as_json, render=lambda: job_facts(status))


@job.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def digest(*, file: Path, as_json: bool) -> None:
    """Print the digest of the specification that FILE would be submitted as. Dials nobody.

    Silos that name the jobs they take part in (policy.approved_jobs) need it before the job is submitted, and by
    another way than the coordinator: read it to them by telephone.
    """
    spec = load_job_file(file).spec
    emit(specification_json(spec), as_json=as_json, render=lambda: specification_facts(spec))


@job.command("list")
@with_operations
@json_option
def list_jobs(*, operations: Operations, as_json: bool) -> None:
    """List all jobs, in the order of submission; of a queued one also its place in the queue, and why it waits."""
    jobs = operations.jobs()
    emit(job_list_json(jobs), as_json=as_json, render=lambda: job_table(jobs))


@job.command()
@_JOB
@with_operations
@json_option
def show(*, operations: Operations, job: JobId, as_json: bool) -> None:
    """Show a job, what it waits for, its rounds, and who was left out of each and why."""
    detail = operations.job(job)
    emit(detail_json(detail, detail.rounds), as_json=as_json, render=lambda: job_screen(detail))


@job.command()
@_JOB
@with_operations
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line: the job, what finished since the line before, and the open round.",
)
def watch(*, operations: Operations, job: JobId, as_json: bool) -> None:
    """Show a job's rounds as they happen, until it ends. Exit code 1 when it is aborted.

    Ending this command does not end the job. A coordinator that restarts is waited for, for up to five minutes; exit
    code 1 when it stays away.
    """
    follow(operations, job, as_json=as_json)


@job.command()
@_JOB
@click.option("--reason", default="", help="Why; it is kept in the audit log.")
@with_operations
@json_option
def abort(*, operations: Operations, job: JobId, reason: str, as_json: bool) -> None:
    """End a job now. Versions that it made stay; an open round changes nothing."""
    status = operations.abort_job(job, reason)
    emit(job_json(status), as_json=as_json, render=lambda: job_facts(status))


@job.command()
@_JOB
@click.option("--reason", default="", help="Why; it is shown with the job, and kept in the audit log.")
@with_operations
@json_option
def pause(*, operations: Operations, job: JobId, reason: str, as_json: bool) -> None:
    """Plan no further round of a job until it is resumed. An open round goes to its end first.

    A paused job holds no members: other jobs may run with them. Pausing it again changes nothing.
    """
    steered = operations.pause_job(job, reason)
    emit(steered_json(steered), as_json=as_json, render=lambda: steered_facts(steered))


@job.command()
@_JOB
@with_operations
@json_option
def resume(*, operations: Operations, job: JobId, as_json: bool) -> None:
    """Let a paused job go on: it takes its old place in the queue, and goes on from the model that it had come to.

    Resuming a job that is not paused changes nothing.
    """
    steered = operations.resume_job(job)
    emit(steered_json(steered), as_json=as_json, render=lambda: steered_facts(steered))


@job.command()
@_JOB
@click.option("--deadline-s", type=click.FloatRange(min=0, min_open=True), help="Seconds to fetch, evaluate and train.")
@click.option("--quorum", type=click.IntRange(min=1, max=MEMBERS_MAX), help="How many members must be Ready.")
@click.option("--reset", is_flag=True, help="First of all, take back what was changed before.")
@with_operations
@json_option
def control(
    *, operations: Operations, job: JobId, deadline_s: float | None, quorum: int | None, reset: bool, as_json: bool
) -> None:
    """Change the deadline or the quorum of the rounds that are planned from now on; an open round keeps its own.

    What is not given stays as it is. The quorum stays between the job's floor and its members, and every silo checks
    that again. The audit log names who changed what.
    """
    change = ControlChange(reset=reset, deadline_s=deadline_s, quorum=quorum)
    if change == ControlChange():
        raise click.UsageError("expected what to change: --deadline-s, --quorum or --reset")
    steered = operations.control_job(job, change)
    emit(steered_json(steered), as_json=as_json, render=lambda: steered_facts(steered))


def new_job_id(request: JobRequest, entropy: Entropy) -> JobId:
    """The job's name and something that no other job has."""
    return parse_job_id(f"{request.spec.name}-{entropy.take(_ID_BYTES).hex()}")


def submit_request(operations: Operations, request: JobRequest, job_id: JobId) -> JobStatus:
    """Send the initial model, if it is a file, and then the job."""
    if request.initial is not None and request.opening is not None:
        check_initial(request.initial)
        with (
            request.initial.open("rb") as file,
            byte_progress(f"sending {request.initial.name}", request.opening.model_bytes) as progress,
        ):
            operations.put_model(file, request.opening, progress=progress)
    return operations.submit_job(job_id, request.spec.to_bytes())


def follow(operations: Operations, job_id: JobId, *, as_json: bool) -> None:
    """Print a job as it goes on; ends the command with exit code 1 when the job is aborted."""
    with_details = watching.watch(operations, job_id, told=lambda line: click.echo(line, err=True))
    console = stdout_console()
    if as_json or not console.is_terminal:
        last = _follow_in_lines(with_details, as_json=as_json)
    else:
        last = None
        with Live(console=console, refresh_per_second=8) as live:
            for detail in with_details:
                live.update(progress_screen(detail, last=ROUNDS_ON_SCREEN))
                last = detail
    if last is None or not last.job.state.over:
        raise click.ClickException(f"the coordinator stopped telling about job {job_id}; the job is not over")
    if last.job.state is JobState.ABORTED:
        raise click.exceptions.Exit(1)


def _follow_in_lines(details: Iterable[JobDetail], *, as_json: bool) -> JobDetail | None:
    last: JobDetail | None = None
    for detail in details:
        told = 0 if last is None else len(last.rounds)
        fresh = detail.rounds[told:]
        if as_json:
            emit_line(detail_json(detail, fresh), as_json=True, text="")
        else:
            for line in _news(detail, last, fresh):
                emit_line({}, as_json=False, text=line)
        last = detail
    return last


def _news(detail: JobDetail, last: JobDetail | None, fresh: Iterable[RoundStatus]) -> Iterator[str]:
    """What `detail` says that `last` did not. That a job ended is said after its last round, as it came about."""
    spec = spec_of(detail.job)
    state: list[str] = []
    if last is None or detail.job.state is not last.job.state:
        reason = f" ({why(detail.job)})" if why(detail.job) else ""
        protection = f", {masking_words(spec)}" if last is None else ""
        state = [f"{detail.job.job}: {detail.job.state}{protection}{reason}"]
    ended_now = last is not None and detail.job.state.over
    if not ended_now:
        yield from state
    yield from (round_line(spec, finished) for finished in fresh)
    if last is not None and detail.job.control != last.job.control:
        yield f"{detail.job.job}: control {control_words(detail.job, spec)}"
    if ended_now:
        yield from state
