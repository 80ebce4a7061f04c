"""How jobs, rounds and model versions look: as JSON for machines, as tables for people.

Pure: values in, JSON values or renderables out. Names and reasons come from other machines, so every cell is text and
none is markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.checkpoints import ModelDescription, TrainedModel, parse_description
from coordinator.client.standing import (
    control_json,
    control_words,
    pause_json,
    pause_words,
    places_in_queue,
    since_words,
    why,
)
from coordinator.storage.interface import COMMITTED
from shared.complaints import first_complaint
from shared.errors import WireError
from shared.job import JobSpec, jobspec_digest, parse_jobspec
from shared.reasons import AttemptAbortReason, DropReason, Purpose
from shared.terminal import facts, table
from shared.wire.operations import JobDetail, JobStatus, LiveRound, ModelStatus, RoundStatus
from shared.wire.steering import Steered

SHORT_DIGEST_CHARS = 12
# What a masked round does in the phases that a plain one has not; short, so that a title stays on one line.
MASKED_PHASES = {
    "advertising": "fresh keys",
    "sharing": "sealed shares",
    "confirming": "one list for all",
    "unmasking": "the total alone",
}


class RoundSummary(BaseModel):
    """What a round's summary says, as far as this version knows its keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    survivors: tuple[str, ...] = ()
    dropped: dict[str, str] = {}
    rules: dict[str, str] = {}
    """Who declined, and by which rule of its policy."""
    left: dict[str, str] = {}
    """Who left the last attempt, and the check that each of them named."""
    encoding: str = ""
    """Of the words of an update; empty in rounds of an earlier version."""
    range_miss: bool = False
    control: int = 0
    """The revision of the job's control that it was planned with; 0 for none."""
    opened: tuple[str, ...] = ()
    """Of a round without a result: those whose total may have been opened."""
    metrics: dict[str, float] = {}
    """`train.<metric>` over the round's training, `evaluate.<metric>` of the version that the round started from."""
    next_model: str = ""
    duration_s: float = 0.0

    @property
    def left_out(self) -> Sequence[str]:
        """Each member that is missing, with the reason in words; of one that declined or left the attempt also why."""
        return [f"{name}: {self._why(name, reason)}" for name, reason in sorted(self.dropped.items())]

    def _why(self, name: str, reason: str) -> str:
        words: Mapping[str, Mapping[str, str]] = {DropReason.DECLINED: self.rules, DropReason.ATTEMPT_LEFT: self.left}
        said = words.get(reason, {}).get(name)
        return f"{reason} ({said})" if said else reason


def summary_of(finished: RoundStatus) -> RoundSummary:
    """Raises WireError."""
    try:
        return RoundSummary.model_validate_json(finished.summary)
    except ValidationError as error:
        raise WireError(f"round {finished.key} has a summary that cannot be read: {first_complaint(error)}") from None


def spec_of(job: JobStatus) -> JobSpec:
    """Raises WireError."""
    return parse_jobspec(job.spec)


def masking_words(spec: JobSpec) -> str:
    """How a job's updates are protected, as short as a title allows."""
    masking = spec.masking
    if not masking.masked:
        return masking.mode
    equal = ", equal weights" if masking.weights == "equal" else ""
    return f"{masking.mode} {masking.encoding}, {spec.threshold} of {len(spec.members)}{equal}"


# --- jobs as JSON -----------------------------------------------------------------------------------------------------


def job_json(job: JobStatus) -> dict[str, Any]:
    spec = spec_of(job)
    return {
        "job": job.job,
        "specification": str(jobspec_digest(job.spec)),
        "name": spec.name,
        "task": spec.task,
        "state": job.state,
        "reason": job.reason,
        "pause": pause_json(job),
        "control": control_json(job),
        "members": list(spec.members),
        "rounds": spec.rounds,
        "masking": masking_json(spec),
        "submitted_by": job.submitted_by,
        "submitted_at": job.submitted_at,
    }


def specification_json(spec: JobSpec) -> dict[str, Any]:
    """What a silo approves, before there is a job of it."""
    return {
        "specification": str(jobspec_digest(spec.to_bytes())),
        "name": spec.name,
        "task": spec.task,
        "members": list(spec.members),
        "rounds": spec.rounds,
        "seed": spec.seed,
        "initial": spec.initial,
        "masking": masking_json(spec),
    }


def masking_json(spec: JobSpec) -> dict[str, Any]:
    """What the job says, and what follows from its members."""
    masking = spec.masking
    if not masking.masked:
        return {"mode": masking.mode}
    return {
        "mode": masking.mode,
        "encoding": masking.encoding,
        "weights": masking.weights,
        "members": len(spec.members),
        "threshold": spec.threshold,
        "max_colluding": masking.max_colluding,
    }


def round_json(finished: RoundStatus) -> dict[str, Any]:
    names = {"round": finished.key.number, "purpose": finished.purpose, "outcome": finished.outcome}
    return {**names, **summary_of(finished).model_dump(mode="json")}


def live_json(live: LiveRound) -> dict[str, Any]:
    members = [
        {
            "participant": member.participant,
            "phase": member.phase,
            "connected": member.connected,
            "percent": member.percent,
        }
        for member in live.members
    ]
    return {
        "round": live.key.number,
        "purpose": live.purpose,
        "phase": live.phase,
        "control": live.control_revision,
        "members": members,
    }


def detail_json(detail: JobDetail, rounds: Iterable[RoundStatus]) -> dict[str, Any]:
    """A job with these of its finished rounds, and the open one."""
    return {
        **job_json(detail.job),
        "rounds_committed": committed_rounds(detail.rounds),
        "bound_to": list(bound_to(detail)),
        "control_since_round": control_since(detail),
        "finished": [round_json(finished) for finished in rounds],
        "live": None if detail.live is None else live_json(detail.live),
    }


def control_since(detail: JobDetail) -> int | None:
    """The first round that was planned under the control that the job has now; None before there is one."""
    revision = detail.job.control.revision
    if not revision:
        return None
    planned = [(finished.key.number, summary_of(finished).control) for finished in detail.rounds]
    if detail.live is not None:
        planned.append((detail.live.key.number, detail.live.control_revision))
    return next((number for number, under in planned if under == revision), None)


def bound_to(detail: JobDetail) -> tuple[str, ...]:
    """Whom a job's next round asks, and nobody else: those whose total may have been opened on its model."""
    if detail.job.state.over:
        return ()
    bound: tuple[str, ...] = ()
    for finished in detail.rounds:
        bound = () if finished.outcome == COMMITTED else summary_of(finished).opened or bound
    return bound


def refused_to_repeat(detail: JobDetail) -> tuple[str, ...]:
    """Who said last that it helped to open another total on the job's model, as long as no round made a new one."""
    refused: tuple[str, ...] = ()
    for finished in detail.rounds:
        left = summary_of(finished).left
        said = tuple(name for name, check in sorted(left.items()) if check == AttemptAbortReason.REPEATED_TOTAL)
        refused = () if finished.outcome == COMMITTED else said or refused
    return refused


def committed_rounds(rounds: Iterable[RoundStatus]) -> int:
    """Rounds of training that made a version: those that the job counts."""
    return sum(finished.purpose is Purpose.TRAIN and finished.outcome == COMMITTED for finished in rounds)


# --- jobs as tables ---------------------------------------------------------------------------------------------------


def job_table(jobs: Sequence[JobStatus]) -> RenderableType:
    rows = []
    for job, place in zip(jobs, places_in_queue(jobs), strict=True):
        spec = spec_of(job)
        state = job.state if place is None else f"{job.state} ({place})"
        rows.append((job.job, spec.task, len(spec.members), spec.rounds, state, job.submitted_at, why(job)))
    return table(("job", "task", "members", "rounds", "state", "submitted", "reason"), rows)


def job_list_json(jobs: Sequence[JobStatus]) -> list[dict[str, Any]]:
    places = places_in_queue(jobs)
    return [{**job_json(job), "place_in_queue": place} for job, place in zip(jobs, places, strict=True)]


def steered_facts(steered: Steered) -> RenderableType:
    """A job after somebody asked for something: first of all whether that changed anything."""
    changed = "yes" if steered.changed else "no: it was so already"
    return Group(facts([("changed", changed)]), job_facts(steered.job))


def steered_json(steered: Steered) -> dict[str, Any]:
    return {**job_json(steered.job), "changed": steered.changed}


def job_facts(job: JobStatus, *, since: str = "") -> RenderableType:
    """`since`: from when on its control is in force, where the rounds are known that say it."""
    spec = spec_of(job)
    control = control_words(job, spec)
    pairs = [
        ("job", job.job),
        ("state", job.state),
        ("pause", pause_words(job)),
        ("reason" if job.state.over else "waits for", job.reason),
        ("task", spec.task),
        ("members", ", ".join(spec.members)),
        ("rounds", spec.rounds),
        ("quorum, floor", f"{spec.round.quorum}, {spec.floor}"),
        ("control", f"{control}; {since}" if control and since else control),
        ("strategy", spec.strategy.name),
        ("masking", _masking_fact(spec)),
        ("initial model", spec.initial),
        ("specification", str(jobspec_digest(job.spec))),
        ("submitted", f"{job.submitted_at} by {job.submitted_by}"),
    ]
    return facts([pair for pair in pairs if pair[1] != ""])


def specification_facts(spec: JobSpec) -> RenderableType:
    return facts(
        [
            ("specification", str(jobspec_digest(spec.to_bytes()))),
            ("name", spec.name),
            ("task", spec.task),
            ("members", ", ".join(spec.members)),
            ("rounds, seed", f"{spec.rounds}, {spec.seed}"),
            ("masking", _masking_fact(spec)),
            ("initial model", spec.initial),
        ]
    )


def _masking_fact(spec: JobSpec) -> str:
    if not spec.masking.masked:
        return "plain: the coordinator sees each update"
    return f"{masking_words(spec)} must help to open a total, {spec.masking.max_colluding} may collude"


def round_table(spec: JobSpec, rounds: Sequence[RoundStatus], *, title: str | None = None) -> Table:
    """One line a round; metrics by halves: of the training, and of the version that the round started from.

    With two metrics and nobody left out it fits 80 columns.
    """
    names = [(half, metric) for half in ("train", "evaluate") for metric in spec.metrics]
    summaries = [summary_of(finished) for finished in rounds]
    somebody_out = any(summary.dropped for summary in summaries)
    rows = []
    for finished, summary in zip(rounds, summaries, strict=True):
        number = finished.key.number
        rows.append(
            (
                f"{number} eval" if finished.purpose is Purpose.EVALUATE else number,
                finished.outcome,
                f"{len(summary.survivors)}/{len(spec.members)}",
                *(_metric(summary.metrics.get(f"{half}.{metric}")) for half, metric in names),
                f"{summary.duration_s:.2f}",
                *((", ".join(summary.left_out),) if somebody_out else ()),
            )
        )
    columns = ("round", "outcome", "in", *(f"{half}\n{metric}" for half, metric in names), "s")
    return table((*columns, "left out") if somebody_out else columns, rows, title=title)


def member_table(live: LiveRound) -> Table:
    """Who is where in the open round."""
    rows = [
        (
            member.participant,
            member.phase,
            "yes" if member.connected else "no",
            "" if member.percent is None else f"{member.percent} %",
        )
        for member in live.members
    ]
    explained = f" ({MASKED_PHASES[live.phase]})" if live.phase in MASKED_PHASES else ""
    title = f"round {live.key.number} ({live.purpose}): {live.phase}{explained}"
    return table(("member", "phase", "connected", "trained"), rows, title=title)


def job_screen(detail: JobDetail, *, last: int | None = None) -> RenderableType:
    """Everything about a job; with `last`, only so many of its rounds."""
    spec = spec_of(detail.job)
    shown = detail.rounds if last is None else detail.rounds[-last:]
    parts: list[RenderableType] = [job_facts(detail.job, since=since_words(control_since(detail)))]
    if shown:
        parts.append(round_table(spec, shown))
    if bound := bound_to(detail):
        parts.append(Text(f"A total of this model may have been opened: rounds on it ask {', '.join(bound)} alone."))
    if refused := refused_to_repeat(detail):
        parts.append(Text(_repeat_advice(detail.job, refused)))
    if detail.live is not None:
        parts.append(member_table(detail.live))
    return Group(*parts)


def _repeat_advice(job: JobStatus, refused: Sequence[str]) -> str:
    why = (
        f"{', '.join(refused)} left an attempt (repeated_total): another total was opened on this model before. "
        "Others that were in that one may refuse too; a round ends with the first who make it impossible."
    )
    if job.state.over:
        return (
            f"{why} Start a job from another model or with the same members, or have a person at each of those silos "
            "run `consilo participant allow JOB` with the id of the new job."
        )
    return (
        f"{why} Abort this job and start another from another model; or have a person at each of those silos run "
        f"`consilo participant allow {job.job}`, whose --help says what that costs."
    )


def progress_screen(detail: JobDetail, *, last: int) -> RenderableType:
    """What a watcher looks at: where the job is, its last rounds, and who is doing what."""
    spec = spec_of(detail.job)
    done = committed_rounds(detail.rounds)
    title = f"{detail.job.job}: {detail.job.state}, {done} of {spec.rounds} rounds committed, {masking_words(spec)}"
    because = f" ({why(detail.job)})" if why(detail.job) else ""
    rounds = round_table(spec, detail.rounds[-last:], title=title + because)
    return rounds if detail.live is None else Group(rounds, member_table(detail.live))


def round_line(spec: JobSpec, finished: RoundStatus) -> str:
    """A finished round in one line, for a log."""
    summary = summary_of(finished)
    parts = [
        f"round {finished.key.number} ({finished.purpose}) {finished.outcome}",
        f"{len(summary.survivors)}/{len(spec.members)} in",
        *(f"{name} {_metric(value)}" for name, value in sorted(summary.metrics.items())),
        f"{summary.duration_s:.2f} s",
        *(f"without {named}" for named in summary.left_out),
    ]
    return ", ".join(parts)


# --- models -----------------------------------------------------------------------------------------------------------


def description_of(model: ModelStatus) -> ModelDescription:
    """Raises ModelError."""
    return parse_description(model.description)


def model_json(model: ModelStatus) -> dict[str, Any]:
    return {**description_of(model).model_dump(mode="json"), "promoted": model.promoted, "pruned": model.pruned}


def model_table(models: Sequence[ModelStatus]) -> RenderableType:
    rows: list[tuple[object, ...]] = []
    for model in models:
        described = description_of(model)
        short = str(described.digest)[:SHORT_DIGEST_CHARS]
        if isinstance(described, TrainedModel):
            parent = str(described.parent)[:SHORT_DIGEST_CHARS]
            rows.append((short, described.job, described.round, described.parameters, parent, _kept(model)))
        else:
            rows.append((short, "", "", described.parameters, "", _kept(model)))
    return table(("model", "job", "round", "parameters", "parent", "kept"), rows)


def _kept(model: ModelStatus) -> str:
    """In words what an operator did, and what the policy did."""
    return "pruned" if model.pruned else "promoted" if model.promoted else ""


def model_facts(model: ModelStatus) -> RenderableType:
    described = description_of(model)
    pairs: list[tuple[str, object]] = [("model", described.digest), ("parameters", described.parameters)]
    if isinstance(described, TrainedModel):
        pairs += [
            ("parent", described.parent),
            ("job, round", f"{described.job}, {described.round}"),
            ("weight", f"{described.weight_total:g}"),
            ("strategy", described.strategy.name),
            *described.members.items(),
            *((name, _metric(value)) for name, value in described.means.items()),
        ]
    else:
        pairs.append(("parent", "none: an initial model"))
    if model.promoted:
        pairs.append(("promoted", "yes: it is kept for good"))
    if model.pruned:
        pairs.append(("pruned", "yes, by [retention] keep_versions: the record is kept, the file is not"))
    return facts([*pairs, ("made by", f"consilo {described.code_version}")])


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
