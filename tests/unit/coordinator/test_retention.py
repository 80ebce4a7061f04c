"""What the policy lets go, and what it never does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.retention import KEEP_ALL, JobVersions, prunable
from coordinator.storage.interface import ModelRecord
from shared.ids import Digest, JobId
from shared.reasons import JobState

DIGESTS = [Digest.of(bytes([number])) for number in range(12)]
HEART, LUNG = JobId("heart-1"), JobId("lung-1")


def models(*, promoted: str = "", pruned: str = "", count: int = 12) -> list[ModelRecord]:
    """Records in their order; `promoted` and `pruned` are hexadecimal digits."""
    return [
        ModelRecord(digest, b"{}", f"{number:x}" in promoted, f"{number:x}" in pruned)
        for number, digest in enumerate(DIGESTS[:count])
    ]


def job(versions: str, *, over: bool = False, name: JobId = HEART) -> JobVersions:
    state = JobState.COMPLETED if over else JobState.RUNNING
    return JobVersions(name, state, tuple(DIGESTS[int(digit, 16)] for digit in versions))


def pruned(records: list[ModelRecord], *jobs: JobVersions, keep: int) -> str:
    return "".join(f"{DIGESTS.index(digest):x}" for digest in prunable(records, jobs, keep_versions=keep))


def test_each_job_keeps_its_newest_versions() -> None:
    assert pruned(models(), job("01234", over=True), keep=2) == "012"
    assert pruned(models(), job("0123", over=True), job("4567", over=True, name=LUNG), keep=1) == "012456"
    assert pruned(models(), job("01", over=True), keep=9) == ""


def test_a_job_that_is_not_over_keeps_what_it_began_with() -> None:
    assert pruned(models(), job("01234"), keep=2) == "12"
    assert pruned(models(), job("0"), keep=1) == ""


def test_nothing_goes_where_nobody_asked_for_it() -> None:
    assert pruned(models(), job("01234", over=True), keep=KEEP_ALL) == ""


def test_promoted_versions_stay_and_pruned_ones_are_not_pruned_again() -> None:
    assert pruned(models(promoted="1", pruned="2"), job("01234", over=True), keep=1) == "03"


def test_a_version_stays_as_long_as_any_job_keeps_it() -> None:
    assert pruned(models(), job("0123", over=True), job("145", name=LUNG), keep=1) == "024"
    assert pruned(models(), job("0123", over=True), job("145", name=LUNG, over=True), keep=1) == "0124"


def test_a_version_that_came_twice_counts_once() -> None:
    assert pruned(models(), job("011122", over=True), keep=2) == "0"


def test_a_model_of_no_job_is_nobodys_to_prune() -> None:
    assert pruned(models(), keep=1) == ""


digits = st.integers(0, 11)
some_jobs = st.lists(
    st.builds(
        JobVersions,
        st.sampled_from([HEART, LUNG]),
        st.sampled_from(JobState),
        st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=9).map(tuple),
    ),
    max_size=5,
)
some_models = st.lists(
    st.builds(ModelRecord, st.sampled_from(DIGESTS), st.just(b"{}"), st.booleans(), st.booleans()),
    unique_by=lambda model: model.digest,
)


@given(some_models, some_jobs, st.integers(0, 4))
def test_what_is_needed_is_never_prunable(records: list[ModelRecord], jobs: list[JobVersions], keep: int) -> None:
    chosen = set(prunable(records, jobs, keep_versions=keep))
    by_digest = {record.digest: record for record in records}
    assert chosen <= by_digest.keys(), "only what is on record"
    assert not any(by_digest[digest].promoted or by_digest[digest].pruned for digest in chosen)
    for known in jobs:
        assert known.versions[-1] not in chosen, "its newest, from which its next or open round starts"
        assert known.over or known.versions[0] not in chosen, "what it began with"
        newest = list(dict.fromkeys(reversed(known.versions)))[:keep]
        assert not chosen & set(newest)
    assert chosen <= {version for known in jobs for version in known.versions}


@given(some_models, some_jobs, st.integers(1, 4))
def test_everything_else_is(records: list[ModelRecord], jobs: list[JobVersions], keep: int) -> None:
    """The same decision, asked the other way round: for each version, who wants it."""
    chosen = prunable(records, jobs, keep_versions=keep)
    for record in records:
        owners = [known for known in jobs if record.digest in known.versions]
        wanted = any(
            len(set(known.versions[len(known.versions) - known.versions[::-1].index(record.digest) :])) < keep
            or (not known.over and known.versions[0] == record.digest)
            for known in owners
        )
        goes = bool(owners) and not wanted and not record.promoted and not record.pruned
        assert (record.digest in chosen) is goes
    assert list(chosen) == [record.digest for record in records if record.digest in chosen], "oldest first"


@given(some_models, some_jobs, st.integers(1, 4))
def test_what_was_pruned_is_not_chosen_again(records: list[ModelRecord], jobs: list[JobVersions], keep: int) -> None:
    chosen = set(prunable(records, jobs, keep_versions=keep))
    after = [ModelRecord(r.digest, r.manifest, r.promoted, r.pruned or r.digest in chosen) for r in records]
    assert prunable(after, jobs, keep_versions=keep) == ()
