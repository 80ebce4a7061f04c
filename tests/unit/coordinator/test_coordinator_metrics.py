"""What the dashboards see, and what they must never see."""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from coordinator.disk_use import DiskKind
from coordinator.metrics import JOBS_SHOWN_MAX, PHASES, CoordinatorMetrics
from coordinator.round.phases import Aborted
from shared.build import BuildInfo
from shared.disk_use import DiskUse
from shared.exposition import metrics_routes
from shared.http_answer import HostRule
from shared.http_server import serve_http
from shared.ids import JobId, ParticipantId, RoundKey, RoundNumber
from shared.reasons import AbortReason, DropReason, Purpose
from tests.support.masked_silo import FOLDED, MaskedRound
from tests.support.rounds import MEMBERS, make_masked_frame, make_plan

KEY = RoundKey(JobId("heart-1"), RoundNumber(3))


@pytest.fixture
def metrics() -> CoordinatorMetrics:
    return CoordinatorMetrics(build=BuildInfo("1.2.3", "abc", "3.11"))


def _value(metrics: CoordinatorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"consilo_coordinator_{name}", labels)


def test_closed_lists_start_at_zero(metrics: CoordinatorMetrics) -> None:
    assert all(_value(metrics, "members_dropped_total", reason=reason) == 0 for reason in DropReason)
    assert all(_value(metrics, "rounds_aborted_total", reason=reason) == 0 for reason in AbortReason)
    assert all(_value(metrics, "rounds_committed_total", purpose=purpose) == 0 for purpose in Purpose)
    assert _value(metrics, "build_info", version="1.2.3", revision="abc", python="3.11") == 1


def test_a_committed_round(metrics: CoordinatorMetrics) -> None:
    summary = {
        "survivors": ["hospital-a"],
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
    metrics.finished(KEY, Purpose.TRAIN, "committed", {"weight_total": 1.0, "metrics": {"train.loss": 0.5}})
    metrics.finished(KEY, Purpose.TRAIN, AbortReason.BELOW_FLOOR, {"dropped": {}})
    assert _value(metrics, "rounds_aborted_total", reason="below_floor") == 1
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


def test_who_is_connected(metrics: CoordinatorMetrics) -> None:
    metrics.connected([ParticipantId("hospital-a"), ParticipantId("hospital-b")])
    metrics.connected([ParticipantId("hospital-b")])
    assert _value(metrics, "connected_participants") == 1
    assert _value(metrics, "participant_connected", participant="hospital-a") == 0
    assert _value(metrics, "participant_connected", participant="hospital-b") == 1


def test_participants_are_named_only_where_an_operator_must_call_them(metrics: CoordinatorMetrics) -> None:
    metrics.connected([ParticipantId("hospital-a")])
    metrics.finished(KEY, Purpose.TRAIN, "committed", {"weight_total": 1.0, "dropped": {"hospital-a": "disk"}})
    naming = [line for line in generate_latest(metrics.registry).decode().splitlines() if "hospital-a" in line]
    assert naming == ['consilo_coordinator_participant_connected{participant="hospital-a"} 1.0']


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
    metrics.disk(DiskUse(dict.fromkeys(DiskKind, 1), {kind: 10 * number for number, kind in enumerate(DiskKind)}, 77))
    assert _value(metrics, "disk_bytes", kind="models") == 0
    assert _value(metrics, "disk_bytes", kind="spools") == 10
    assert _value(metrics, "disk_free_bytes") == 77


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
