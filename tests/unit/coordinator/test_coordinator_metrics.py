"""What the dashboards see, and what they must never see."""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from coordinator.audit import AuditLog, AuditProjection, HeldFile, resume
from coordinator.disk_use import DiskKind
from coordinator.metrics import JOBS_SHOWN_MAX, PHASES, CoordinatorMetrics
from coordinator.round.machine import next_deadline
from coordinator.round.phases import Aborted
from coordinator.rpc.authorization import MATRIX
from coordinator.standings import JobStanding, Standings
from coordinator.storage.memory import MemoryStore
from shared import errors
from shared.build import BuildInfo
from shared.clock import ManualClock
from shared.disk_use import DiskUse
from shared.expiry import own_ends
from shared.exposition import metrics_routes
from shared.http_answer import HostRule
from shared.http_server import serve_http
from shared.ids import JobId, ParticipantId, RoundKey, RoundNumber
from shared.reasons import AbortReason, DropReason, JobState, Purpose, RefusalReason
from shared.tls import leaf_in
from tests.support.credentials import Consortium
from tests.support.masked_silo import FOLDED, MaskedRound
from tests.support.rounds import COORDINATOR_KEY, MEMBERS, make_masked_frame, make_plan

KEY = RoundKey(JobId("heart-1"), RoundNumber(3))
NOW = datetime(2026, 11, 29, tzinfo=UTC)
ROUND_OF_TWO = {
    "survivors": ["hospital-a", "hospital-b"],
    "weight_total": 1.0,
    "metrics": {"train.loss": 0.5},
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=NOW)


@pytest.fixture
def metrics(clock: ManualClock) -> CoordinatorMetrics:
    return CoordinatorMetrics(build=BuildInfo("1.2.3", "abc", "3.11"), clock=clock)


def _value(metrics: CoordinatorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"consilo_coordinator_{name}", labels)


def test_closed_lists_start_at_zero(metrics: CoordinatorMetrics) -> None:
    assert all(_value(metrics, "members_dropped_total", reason=reason) == 0 for reason in DropReason)
    assert all(_value(metrics, "rounds_aborted_total", reason=reason) == 0 for reason in AbortReason)
    assert all(_value(metrics, "rounds_committed_total", purpose=purpose) == 0 for purpose in Purpose)
    assert _value(metrics, "build_info", version="1.2.3", revision="abc", python="3.11") == 1


def test_a_committed_round(metrics: CoordinatorMetrics) -> None:
    summary = {
        "survivors": ["hospital-a", "hospital-c"],
        "dropped": {"hospital-b": DropReason.UPLOAD_LATE},
        "weight_total": 90.0,
        "metrics": {"train.loss": 0.25, "evaluate.accuracy": 0.9},
        "phases_s": {"recruiting": 2.0, "folding": 0.1},
    }
    metrics.finished(KEY, Purpose.TRAIN, "committed", summary)
    assert _value(metrics, "rounds_committed_total", purpose="train") == 1
    assert _value(metrics, "members_dropped_total", reason="upload_late") == 1
    assert _value(metrics, "federated_metric", job="heart-1", metric="accuracy", half="evaluate") == 0.9
    assert _value(metrics, "federated_weight", job="heart-1") == 90
    assert _value(metrics, "phase_duration_seconds_sum", phase="recruiting") == 2


def test_an_aborted_round_keeps_the_last_means(metrics: CoordinatorMetrics) -> None:
    metrics.finished(KEY, Purpose.TRAIN, "committed", ROUND_OF_TWO)
    metrics.finished(KEY, Purpose.TRAIN, AbortReason.BELOW_FLOOR, {"dropped": {}})
    assert _value(metrics, "rounds_aborted_total", reason="below_floor") == 1
    assert _value(metrics, "federated_metric", job="heart-1", metric="loss", half="train") == 0.5


def test_one_survivors_figures_are_not_shown_and_older_totals_do_not_stand_for_them(
    metrics: CoordinatorMetrics,
) -> None:
    metrics.finished(KEY, Purpose.TRAIN, "committed", ROUND_OF_TWO)
    assert _value(metrics, "federated_weight", job="heart-1") == 1
    of_one = {"survivors": ["hospital-a"], "weight_total": 123.0, "metrics": {"train.loss": 0.731931}}
    metrics.finished(KEY, Purpose.TRAIN, "committed", of_one)
    assert _value(metrics, "rounds_committed_total", purpose="train") == 2
    assert _value(metrics, "last_commit_time_seconds", job="heart-1") == NOW.timestamp()
    shown = generate_latest(metrics.registry).decode()
    assert "consilo_coordinator_federated_metric{" not in shown
    assert "consilo_coordinator_federated_weight{" not in shown
    metrics.finished(KEY, Purpose.TRAIN, "committed", ROUND_OF_TWO)
    assert _value(metrics, "federated_metric", job="heart-1", metric="loss", half="train") == 0.5


def test_every_phase_of_a_masked_round_is_one_of_the_listed(metrics: CoordinatorMetrics) -> None:
    played = MaskedRound(make_masked_frame())
    seen = []
    while played.phase != "committed":
        metrics.moved(played.state)
        if played.phase not in seen:
            seen.append(played.phase)
        assert _value(metrics, "round_phase", job="heart-1", phase=played.phase) == 1
        if not played.waiting:
            played.hear(FOLDED)
            break
        member, message = played.waiting.popleft()
        for _, event in played.silos[member].hears(message):
            played.tell(member, event)
    assert seen == list(PHASES)
    assert _value(metrics, "round_updates", job="heart-1") == len(MEMBERS)
    metrics.moved(played.state)
    assert not any(_value(metrics, "round_phase", job="heart-1", phase=phase) for phase in PHASES)


def test_a_masked_round_says_whom_it_waits_on(metrics: CoordinatorMetrics) -> None:
    played = MaskedRound(make_masked_frame())
    for reached in ("advertising", "sharing", "uploading", "confirming", "unmasking"):
        played.until(reached)
        metrics.moved(played.state)
        waiting = {name for name in MEMBERS if _value(metrics, "round_waiting_on", job="heart-1", participant=name)}
        assert waiting == set(MEMBERS)
        assert _value(metrics, "round_ready", job="heart-1") == len(MEMBERS)


def test_who_is_connected(metrics: CoordinatorMetrics, clock: ManualClock) -> None:
    a, b, c = map(ParticipantId, ("hospital-a", "hospital-b", "hospital-c"))
    metrics.allowed([a, b, c])
    assert [_value(metrics, "participant_connected", participant=name) for name in (a, b, c)] == [0, 0, 0]
    metrics.connected([a, b])
    clock.advance(60)
    metrics.connected([b])
    metrics.connected([b, c])
    assert _value(metrics, "connected_participants") == 2
    assert [_value(metrics, "participant_connected", participant=name) for name in (a, b, c)] == [0, 1, 1]
    opened = [_value(metrics, "session_start_time_seconds", participant=name) for name in (a, b, c)]
    assert opened == [None, NOW.timestamp(), NOW.timestamp() + 60]
    metrics.superseded(b)
    assert _value(metrics, "session_start_time_seconds", participant=b) == NOW.timestamp() + 60


def test_who_leaves_the_allow_list_is_shown_until_its_session_ends(metrics: CoordinatorMetrics) -> None:
    a, b = map(ParticipantId, ("hospital-a", "hospital-b"))
    metrics.allowed([a, b])
    metrics.connected([a, b])
    metrics.allowed([b])
    assert _value(metrics, "participant_connected", participant=a) == 1
    metrics.connected([b])
    assert _value(metrics, "participant_connected", participant=a) is None
    metrics.connected([])
    metrics.allowed([])
    assert "hospital" not in generate_latest(metrics.registry).decode()


def test_participants_are_named_only_where_an_operator_must_call_them(metrics: CoordinatorMetrics) -> None:
    metrics.connected([ParticipantId("hospital-a")])
    metrics.finished(KEY, Purpose.TRAIN, "committed", {"weight_total": 1.0, "dropped": {"hospital-a": "disk"}})
    naming = [line for line in generate_latest(metrics.registry).decode().splitlines() if "hospital-a" in line]
    assert [line.partition("{")[0].removeprefix("consilo_coordinator_") for line in naming] == [
        "participant_connected",
        "session_start_time_seconds",
    ]


def test_what_is_refused_starts_at_zero_and_is_counted(metrics: CoordinatorMetrics) -> None:
    for path in MATRIX:
        assert _value(metrics, "refused_total", method=path.rpartition("/")[2], error="IdentityError") == 0
    metrics.refused("/consilo.v1.SessionService/Session", "IdentityError")
    assert _value(metrics, "refused_total", method="Session", error="IdentityError") == 1
    assert all(_value(metrics, "sessions_refused_total", reason=reason) == 0 for reason in RefusalReason)
    metrics.session_ended(RefusalReason.SILENT)
    assert _value(metrics, "sessions_refused_total", reason="silent") == 1


def test_each_error_that_a_call_can_end_with_is_foreseen(metrics: CoordinatorMetrics) -> None:
    """Outcomes are no errors of a call, and after DurabilityUnknown there is no process to scrape."""

    def leaves(kind: type[Exception]) -> set[str]:
        below = kind.__subclasses__()
        return {kind.__name__} if not below else set().union(*map(leaves, below))

    ours = {"RoundAborted", "ConsentRefused", "PrivacyBudgetExhausted", "TaskError", "DurabilityUnknown"}
    known = {leaf.__name__ for leaf in vars(errors).values() if isinstance(leaf, type)}
    expected = (leaves(errors.FederationError) & known) - ours | {"TooMuch", "InternalError"}
    found = {error for error in expected if _value(metrics, "refused_total", method="Session", error=error) == 0}
    assert found == expected


def test_they_are_served_in_both_formats(metrics: CoordinatorMetrics) -> None:
    metrics.log_values_refused(lambda: 3)
    routes = metrics_routes(metrics.registry)
    with serve_http(routes, ("127.0.0.1", 0), what="metrics", hosts=HostRule.LOOPBACK) as port:
        for accept, kind in (("", "text/plain"), ("application/openmetrics-text;version=1.0.0", "application/openm")):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request) as page:  # noqa: S310 - as above
                assert page.headers["Content-Type"].startswith(kind)
                assert b"consilo_coordinator_log_secrets_refused 3.0" in page.read()
    with socket.create_server(("127.0.0.1", port)):
        pass  # given back


def test_the_disk_is_told_by_kind(metrics: CoordinatorMetrics) -> None:
    metrics.disk(
        DiskUse(dict.fromkeys(DiskKind, 1), {kind: 10 * number for number, kind in enumerate(DiskKind)}, 77, 990)
    )
    assert _value(metrics, "disk_bytes", kind="models") == 0
    assert _value(metrics, "disk_bytes", kind="spools") == 10
    assert _value(metrics, "disk_free_bytes") == 77
    assert _value(metrics, "disk_size_bytes") == 990


def test_jobs_of_long_ago_are_shown_no_more(metrics: CoordinatorMetrics) -> None:
    """A process that lives for months has had any number of jobs; one with an open round is always shown."""

    frame = make_masked_frame()
    metrics.moved(MaskedRound(frame).state)
    for number in range(JOBS_SHOWN_MAX + 20):
        job = JobId(f"job-{number}")
        metrics.finished(RoundKey(job, KEY.number), Purpose.TRAIN, "committed", {"weight_total": 1.0})
        metrics.moved(Aborted(replace(frame, plan=make_plan(frame.spec, job=job)), AbortReason.OPERATOR))
    shown = {
        sample.labels["job"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "job" in sample.labels
    }
    assert shown == {"heart-1", *(f"job-{number}" for number in range(21, JOBS_SHOWN_MAX + 20))}


def test_an_open_round_has_its_times_and_a_finished_one_has_none(
    metrics: CoordinatorMetrics, clock: ManualClock
) -> None:
    played = MaskedRound(make_masked_frame())
    metrics.moved(played.state)
    clock.advance(7)
    metrics.moved(played.state)
    frame = played.state.frame
    of = {"job": "heart-1"}
    assert _value(metrics, "round_phase_start_time_seconds", **of) == NOW.timestamp()
    assert _value(metrics, "round_quorum", **of) == frame.quorum
    assert _value(metrics, "round_floor", **of) == frame.floor
    deadline = _value(metrics, "round_deadline_time_seconds", **of)
    assert deadline == pytest.approx(NOW.timestamp() + next_deadline(played.state), abs=1)
    played.until("sharing")
    metrics.moved(played.state)
    assert _value(metrics, "round_phase_start_time_seconds", **of) == NOW.timestamp() + 7
    metrics.moved(Aborted(frame, AbortReason.OPERATOR))
    gone = ("round_phase_start_time_seconds", "round_deadline_time_seconds", "round_quorum", "round_floor")
    assert [_value(metrics, name, **of) for name in gone] == [None] * len(gone)
    assert _value(metrics, "round_number", **of) == frame.key.number


def test_how_long_rounds_took_and_when_the_last_one_committed(metrics: CoordinatorMetrics, clock: ManualClock) -> None:
    metrics.finished(KEY, Purpose.TRAIN, AbortReason.BELOW_FLOOR, {"duration_s": 30.0})
    assert _value(metrics, "last_commit_time_seconds", job="heart-1") is None
    clock.advance(5)
    metrics.finished(KEY, Purpose.TRAIN, "committed", {"weight_total": 1.0, "duration_s": 4.0})
    assert _value(metrics, "last_commit_time_seconds", job="heart-1") == NOW.timestamp() + 5
    assert _value(metrics, "round_duration_seconds_sum", outcome="aborted") == 30
    assert _value(metrics, "round_duration_seconds_bucket", outcome="committed", le="5.0") == 1


def test_jobs_stand_where_they_are_and_vanish_when_they_are_over(metrics: CoordinatorMetrics) -> None:
    assert all(_value(metrics, "jobs", state=state) == 0 for state in JobState)
    job = JobId("heart-1")
    metrics.jobs_stand(Standings({JobState.RUNNING: 1}, {job: JobStanding(quorum=3, connected=2, running=True)}))
    assert _value(metrics, "jobs", state="running") == 1
    assert _value(metrics, "job_quorum", job=job) == 3
    assert _value(metrics, "job_members_connected", job=job) == 2
    assert _value(metrics, "job_quorum_margin", job=job) == -1
    assert _value(metrics, "job_running", job=job) == 1
    metrics.jobs_stand(Standings({JobState.RUNNING: 1}, {job: JobStanding(quorum=2, connected=4, running=False)}))
    assert _value(metrics, "job_quorum_margin", job=job) == 2
    assert _value(metrics, "job_running", job=job) == 0
    metrics.jobs_stand(Standings({JobState.COMPLETED: 1}, {}))
    assert (_value(metrics, "jobs", state="running"), _value(metrics, "jobs", state="completed")) == (0, 1)
    assert _value(metrics, "job_quorum_margin", job=job) is None
    assert _value(metrics, "job_running", job=job) is None


def test_the_audit_gauges_follow_entries_and_a_file_that_is_behind(
    metrics: CoordinatorMetrics, clock: ManualClock
) -> None:
    store = MemoryStore()
    log = AuditLog(sign=partial(COORDINATOR_KEY.sign, "audit"), clock=clock)
    projection = AuditProjection(file=HeldFile())
    metrics.audit(log, lambda: projection.published)
    assert (_value(metrics, "audit_entries"), _value(metrics, "audit_head_time_seconds")) == (0, None)
    for number in range(3):
        clock.advance(10)
        entry = log.entry("coordinator_started", {"number": number})
        store.append_audit(entry)
        log.accept(entry)
        if number == 0:
            projection.project(store.audit_entries)
    assert (_value(metrics, "audit_entries"), _value(metrics, "audit_published_entries")) == (3, 1)
    assert _value(metrics, "audit_head_time_seconds") == NOW.timestamp() + 30
    projection.project(store.audit_entries)
    assert _value(metrics, "audit_published_entries") == 3
    resumed = resume(store.audit_entries, sign=log._sign, clock=clock)
    assert resumed.head_time == log.head_time


def test_readiness_is_false_until_it_is_known_and_followed_then(metrics: CoordinatorMetrics) -> None:
    assert _value(metrics, "ready") == 0
    answers = [True, False]
    metrics.readiness(lambda: answers.pop(0))
    assert (_value(metrics, "ready"), _value(metrics, "ready")) == (1, 0)


def test_a_certificate_that_is_replaced_is_seen_at_the_next_look(metrics: CoordinatorMetrics, tmp_path: Path) -> None:
    old = Consortium(tmp_path / "old").coordinator()
    new = Consortium(tmp_path / "new", now=datetime.now(UTC) + timedelta(days=3)).coordinator()

    def look() -> list[float | None]:
        metrics.certificates(own_ends(old.tls, signing=datetime.now(UTC)))
        return [_value(metrics, "certificate_not_after_time_seconds", certificate=name) for name in ("tls", "ca")]

    before = look()
    old.tls.certificate.write_bytes(new.tls.certificate.read_bytes())
    assert look() == before  # half replaced: this authority did not issue it
    old.tls.ca.write_bytes(new.tls.ca.read_bytes())
    after = look()
    assert None not in before
    assert after == [leaf_in(path).not_valid_after_utc.timestamp() for path in (new.tls.certificate, new.tls.ca)]
    assert after != before
    old.tls.certificate.unlink()
    assert look() == after


@dataclass
class InUse:
    """Everything that is read of the process's parts, in one."""

    waiting: int = 1
    busy_s: float = 2.5
    threads: int = 8
    busy: int = 5
    open_calls: int = 6


def test_how_much_is_in_use_is_asked_at_each_scrape(metrics: CoordinatorMetrics) -> None:
    names = (
        "conductor_waiting", "conductor_busy_seconds_total", "fold_busy_seconds_total", "transfer_threads",
        "transfer_threads_busy", "calls_open",
    )  # fmt: skip
    assert [_value(metrics, name) for name in names] == [None] * len(names)
    now = InUse()
    metrics.saturation(conductor=now, folds=InUse(busy_s=3.5), threads=now, calls=now)
    assert [_value(metrics, name) for name in names] == [1, 2.5, 3.5, 8, 5, 6]
    now.waiting = 7
    assert _value(metrics, "conductor_waiting") == 7


def test_an_event_loop_that_is_late_is_seen(metrics: CoordinatorMetrics) -> None:
    metrics.loop_lag(0.3)
    assert _value(metrics, "event_loop_lag_seconds_bucket", le="0.25") == 0
    assert _value(metrics, "event_loop_lag_seconds_bucket", le="0.5") == 1


def test_nothing_is_said_of_the_disk_before_the_first_look(metrics: CoordinatorMetrics) -> None:
    """A zero would be believed, by an alert too."""
    assert _value(metrics, "disk_free_bytes") is None
    assert _value(metrics, "disk_bytes", kind="models") is None


def test_the_process_itself_is_among_them(metrics: CoordinatorMetrics) -> None:
    assert (metrics.registry.get_sample_value("process_open_fds") or 0) > 0
