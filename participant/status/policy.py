"""[policy] of participant.toml in words: what this silo takes part in (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from participant.settings import PolicyTable
from shared.consortium import Consortium
from shared.pages.words import duration

ANY = ("*",)


def policy_words(policy: PolicyTable, consortium: Consortium | None) -> tuple[tuple[str, str], ...]:
    """Each rule, and what it says."""
    return tuple(_rules(policy, consortium))


def _rules(policy: PolicyTable, consortium: Consortium | None) -> Iterator[tuple[str, str]]:
    names = "Any name" if policy.allowed_jobs == ANY else "Only " + (", ".join(policy.allowed_jobs) or "none")
    yield "Names of jobs", names
    if policy.approved_jobs:
        yield "Specifications", f"Only those that are approved: {len(policy.approved_jobs)}, each for one job"
    else:
        yield "Specifications", "Any: none is written down under approved_jobs"
    yield "Members of a job", f"At least {policy.minimum_members}, this silo among them"
    yield (
        "Jobs without masking",
        "Allowed: the coordinator sees this silo's update" if policy.allow_plain else "Declined",
    )
    yield "Masked totals", f"Over at least {policy.minimum_survivors} updates"
    yield "Colluding members that a masked job withstands", _colluding(policy)
    yield "Masked jobs of two", "Allowed: each learns the other's update" if policy.allow_two_party else "Declined"
    yield (
        "Another total on one model",
        f"Allowed for {', '.join(policy.allowed_repeats)}" if policy.allowed_repeats else "Declined",
    )
    yield "Training", f"At most {duration(policy.max_deadline_s)} a round"
    yield "Progress", "A percentage is shared" if policy.share_progress else "Not shared"
    yield (
        "Whose keys are believed",
        f"Those of the manifest {consortium.digest}, {consortium.participants} participants"
        if consortium is not None
        else "Nobody's: no manifest is pinned, so masked jobs are declined",
    )


def _colluding(policy: PolicyTable) -> str:
    least = (
        "As many as is the default for its members"
        if policy.minimum_colluding == "auto"
        else f"At least {policy.minimum_colluding}"
    )
    return f"{least}; none at all is allowed too" if policy.allow_no_collusion else least
