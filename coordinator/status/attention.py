"""What needs a person, first on the page: the worst first (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.cohort import listed
from coordinator.status.advice import for_aborted
from coordinator.status.snapshot import Federation, JobLine
from shared.health_report import HealthReport
from shared.pages.facts import BAD, WARN, Attention
from shared.pages.words import duration
from shared.reasons import JobState

LATE_S = 5.0  # a deadline that is over for longer means that the conductor has not got to it


def needs(federation: Federation, health: HealthReport, *, allowlist: str | None) -> tuple[Attention, ...]:
    """`allowlist`: what is wrong with it, if anything is."""
    found = [*_of_all(federation, health, allowlist=allowlist)]
    for line in federation.open:
        found += _of_job(line, federation, health)
    return tuple(sorted(found, key=lambda each: each.level != BAD))


def _of_all(federation: Federation, health: HealthReport, *, allowlist: str | None) -> Iterator[Attention]:
    if not health.ready:
        yield Attention(BAD, f"Not ready: {health.why}", "/participants")
    if allowlist is not None:
        yield Attention(BAD, f"Nobody is let in: {allowlist}")
    strangers = [line.participant for line in federation.participants if line.connected and not line.allowed]
    if strangers and allowlist is None:
        yield Attention(WARN, f"Connected and no longer on the allow-list: {listed(strangers)}", "/participants")


def _of_job(line: JobLine, federation: Federation, health: HealthReport) -> Iterator[Attention]:
    path = f"/jobs/{line.job}"
    if line.trouble:
        yield Attention(BAD, f"{line.job} cannot go on: {line.trouble}", path)
    if line.open is not None and line.open.ends_in_s is not None and line.open.ends_in_s < -LATE_S:
        late = duration(-line.open.ends_in_s)
        yield Attention(BAD, f"{line.job}: round {line.open.number} is {late} past its deadline", path)
    if line.last_abort:
        yield Attention(
            WARN, f"{line.job}: its last round has no result ({line.last_abort}). {for_aborted(line.last_abort)}", path
        )
    if line.state not in {JobState.RUNNING, JobState.PAUSING}:
        return
    away = [each.participant for each in federation.away if each.participant in line.members]
    if line.connected < line.quorum and f"job {line.job}:" not in health.why:
        yield Attention(BAD, f"{line.job}: {line.connected} members are connected, its quorum is {line.quorum}", path)
    if away and line.connected >= line.quorum:
        yield Attention(WARN, f"{line.job}: not connected: {listed(away)}", "/participants")
