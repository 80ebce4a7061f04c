"""What operators see, as values: made from a look (`coordinator.status.look`) on the thread of whoever asked (pure).

What goes in is what `consilo job show` and `model list` are told (`coordinator.telling`), and the open round. A round
that a single silo is in has that silo's figures for its totals: they are not shown (`RoundLine.withheld`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from coordinator.checkpoints import SURVIVOR, TrainedModel
from coordinator.client.standing import control_words, places_in_queue, since_words, why
from coordinator.client.views import (
    bound_to,
    committed_rounds,
    control_since,
    description_of,
    masking_words,
    refused_to_repeat,
    spec_of,
    summary_of,
)
from coordinator.status.advice import for_aborted, for_dropped
from coordinator.status.look import FederationSeen, JobSeen, RunningSeen
from coordinator.status.open_round import OpenRound, open_round
from coordinator.storage.interface import COMMITTED, ModelRecord
from coordinator.telling import LEAST_IN_A_TOTAL, job_detail, model_status, record_status
from shared.ids import JobId, ParticipantId
from shared.job import JobSpec, jobspec_digest
from shared.reasons import JobState, Purpose
from shared.wire.operations import JobDetail, JobStatus, RoundStatus

ENDED_SHOWN = 20  # of the jobs that are over, the newest


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job in a list."""

    job: str
    name: str
    task: str
    state: str
    over: bool
    why: str
    place_in_queue: int | None
    members: tuple[str, ...]
    connected: int
    quorum: int
    rounds: int
    committed: int | None
    """Rounds of training that the job counts; None where only its own page says it."""
    masking: str
    submitted_at: str
    trouble: str
    """Why it cannot go on; empty for one that can."""
    last_abort: str
    """Why its last round has no result; empty where it has one."""
    open: OpenRound | None


@dataclass(frozen=True, slots=True)
class ParticipantLine:
    """One participant."""

    participant: str
    connected: bool
    since: datetime | None
    """Connected or away since then; None for one that had no session with this process."""
    age_s: float | None
    allowed: bool
    tasks: tuple[str, ...]
    jobs: tuple[str, ...]
    """Open ones that it is a member of."""


@dataclass(frozen=True, slots=True)
class Federation:
    """Jobs and participants at one moment."""

    at: datetime
    open: tuple[JobLine, ...]
    ended: tuple[JobLine, ...]
    """The newest first, `ENDED_SHOWN` at most."""
    ended_more: int
    participants: tuple[ParticipantLine, ...]
    audit_size: int
    audit_head: str
    audit_last_at: str

    @property
    def connected(self) -> int:
        return sum(line.connected for line in self.participants)

    @property
    def away(self) -> tuple[ParticipantLine, ...]:
        return tuple(line for line in self.participants if not line.connected)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A member that is not in a round's result."""

    participant: str
    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class RoundLine:
    """A finished round."""

    number: int
    purpose: str
    committed: bool
    outcome: str
    advice: str
    survivors: int
    members: int
    metrics: Mapping[str, float]
    """Means over all survivors, by `train.` and `evaluate.` names."""
    withheld: bool
    """Fewer than two silos are in it: its figures would be one silo's own."""
    duration_s: float
    left_out: tuple[LeftOut, ...]
    version: str
    """Digest of what it made; empty where it made nothing."""


@dataclass(frozen=True, slots=True)
class VersionLine:
    """A model version."""

    digest: str
    job: str
    """Empty for one that somebody brought."""
    round: int
    parent: str
    parameters: int
    survivors: int
    members: int
    kept: str
    """`kept`, `promoted` or `pruned`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job and everything that became of it."""

    at: datetime
    line: JobLine
    pause_by: str
    pause_at: str
    pause_reason: str
    control: str
    bound_to: tuple[str, ...]
    """Whom its rounds ask alone."""
    refused: tuple[str, ...]
    """Who would not open another total on the job's model."""
    metrics: tuple[str, ...]
    rounds: tuple[RoundLine, ...]
    versions: tuple[VersionLine, ...]
    """Made by this job, the newest first."""
    start: str
    specification: str
    submitted_by: str
    rules: tuple[tuple[str, str], ...]


def federation(seen: FederationSeen, *, allowed: Sequence[str]) -> Federation:
    """`allowed`: the participants on the allow-list. Raises WireError for a specification that cannot be read."""
    statuses = [record_status(record, record.reason or waits) for record, waits in seen.jobs]
    placed = list(zip(statuses, places_in_queue(statuses), strict=True))
    over = [(status, place) for status, place in placed if status.state.over]
    going = [(status, place) for status, place in placed if not status.state.over]
    lines = tuple(_job_line(status, place, seen, seen.running.get(status.job)) for status, place in going)
    return Federation(
        at=seen.at,
        open=tuple(sorted(lines, key=lambda line: line.state not in {JobState.RUNNING, JobState.PAUSING})),
        ended=tuple(_job_line(status, place, seen, None) for status, place in over[: -ENDED_SHOWN - 1 : -1]),
        ended_more=max(0, len(over) - ENDED_SHOWN),
        participants=_participants(seen, allowed, lines),
        audit_size=seen.audit.size,
        audit_head=str(seen.audit.head),
        audit_last_at=seen.audit.last_at,
    )


def _job_line(status: JobStatus, place: int | None, seen: FederationSeen, running: RunningSeen | None) -> JobLine:
    trained = [done for done in running.finished if done.purpose is Purpose.TRAIN] if running is not None else []
    committed = None if running is None else sum(done.abort is None for done in trained)
    return _line(
        status,
        spec_of(status),
        place,
        connected=seen.connected.keys(),
        committed=committed,
        running=running,
        now=seen.monotonic,
    )


def _line(
    status: JobStatus,
    spec: JobSpec,
    place: int | None,
    *,
    connected: Collection[ParticipantId],
    committed: int | None,
    running: RunningSeen | None,
    now: float,
) -> JobLine:
    live = None if running is None or running.live is None else open_round(running.live, now)
    last = running.finished[-1].abort if running is not None and running.finished else None
    return JobLine(
        job=status.job,
        name=spec.name,
        task=spec.task,
        state=str(status.state),
        over=status.state.over,
        why=why(status),
        place_in_queue=place,
        members=tuple(spec.members),
        connected=len(set(connected) & set(spec.members)),
        quorum=live.quorum if live is not None else status.control.quorum_of(spec),
        rounds=spec.rounds,
        committed=committed,
        masking=masking_words(spec),
        submitted_at=status.submitted_at,
        trouble=running.trouble if running is not None else "",
        last_abort=str(last or ""),
        open=live,
    )


def _participants(
    seen: FederationSeen, allowed: Sequence[str], lines: Sequence[JobLine]
) -> tuple[ParticipantLine, ...]:
    names = sorted({*allowed, *seen.connected})
    return tuple(_participant(ParticipantId(name), seen, allowed, lines) for name in names)


def _participant(
    name: ParticipantId,
    seen: FederationSeen,
    allowed: Sequence[str],
    lines: Sequence[JobLine],
) -> ParticipantLine:
    enrolled, since = seen.connected.get(name), seen.changed.get(name)
    return ParticipantLine(
        participant=name,
        connected=enrolled is not None,
        since=since,
        age_s=None if since is None else (seen.at - since).total_seconds(),
        allowed=name in allowed,
        tasks=() if enrolled is None else tuple(sorted(enrolled.tasks)),
        jobs=tuple(line.job for line in lines if name in line.members),
    )


def job(seen: JobSeen) -> Job:
    """Raises WireError or ModelError for a record that cannot be read."""
    detail = job_detail(seen.view, already_said=0)
    status, spec = detail.job, spec_of(detail.job)
    pause = status.pause
    return Job(
        at=seen.at,
        line=_line(
            status,
            spec,
            None,
            connected=seen.connected,
            committed=committed_rounds(detail.rounds),
            running=seen.running,
            now=seen.monotonic,
        ),
        pause_by=pause.by if pause else "",
        pause_at=pause.at if pause else "",
        pause_reason=pause.reason if pause else "",
        control=_control(detail, spec),
        bound_to=bound_to(detail),
        refused=refused_to_repeat(detail),
        metrics=tuple(spec.metrics),
        rounds=tuple(_round(finished, spec) for finished in detail.rounds),
        versions=versions(seen.models, of=status.job),
        start=str(spec.initial_model),
        specification=str(jobspec_digest(status.spec)),
        submitted_by=status.submitted_by,
        rules=_rules(spec),
    )


def _control(detail: JobDetail, spec: JobSpec) -> str:
    control = control_words(detail.job, spec)
    return f"{control}; {since_words(control_since(detail))}" if control else ""


def _rules(spec: JobSpec) -> tuple[tuple[str, str], ...]:
    policy = spec.round
    return (
        ("rounds", str(spec.rounds)),
        ("quorum, floor", f"{policy.quorum} Ready start an attempt, {spec.floor} updates are the least"),
        ("deadline, grace", f"{policy.deadline_s:g} s to train, {policy.grace_s:g} s after the quorum"),
        ("upload deadline", f"{policy.upload_deadline_s:g} s"),
        ("aborted rounds allowed", str(policy.aborted_rounds_allowed)),
        ("strategy", spec.strategy.name),
        ("masking", masking_words(spec) if spec.masking.masked else "plain: the coordinator sees each update"),
    )


def _round(finished: RoundStatus, spec: JobSpec) -> RoundLine:
    summary = summary_of(finished)
    committed = finished.outcome == COMMITTED
    withheld = len(summary.survivors) < LEAST_IN_A_TOTAL
    left_out = tuple(
        LeftOut(name, f"{reason} ({summary.left[name]})" if name in summary.left else reason, for_dropped(reason))
        for name, reason in sorted(summary.dropped.items())
    )
    return RoundLine(
        number=finished.key.number,
        purpose=str(finished.purpose),
        committed=committed,
        outcome=finished.outcome,
        advice="" if committed else for_aborted(finished.outcome),
        survivors=len(summary.survivors),
        members=len(spec.members),
        metrics={} if withheld else summary.metrics,
        withheld=withheld and bool(summary.metrics),
        duration_s=summary.duration_s,
        left_out=left_out,
        version=summary.next_model if finished.purpose is Purpose.TRAIN else "",
    )


def versions(models: Sequence[ModelRecord], *, of: JobId | None = None) -> tuple[VersionLine, ...]:
    """The newest first; `of`: only what this job made. Raises ModelError."""
    lines = (_version(model) for model in reversed(models))
    return tuple(line for line in lines if of is None or line.job == of)


def _version(model: ModelRecord) -> VersionLine:
    described = description_of(model_status(model))
    kept = "pruned" if model.pruned else "promoted" if model.promoted else "kept"
    if not isinstance(described, TrainedModel):
        return VersionLine(str(model.digest), "", 0, "", described.parameters, 0, 0, kept)
    return VersionLine(
        digest=str(model.digest),
        job=described.job,
        round=described.round,
        parent=str(described.parent),
        parameters=described.parameters,
        survivors=sum(outcome == SURVIVOR for outcome in described.members.values()),
        members=len(described.members),
        kept=kept,
    )
