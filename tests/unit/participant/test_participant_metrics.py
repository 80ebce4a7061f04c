"""What the participant's metrics count; nothing of a silo's data is among it."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import generate_latest

from participant.disk_use import DiskKind
from participant.metrics import ParticipantMetrics
from participant.metrics.declared import JOBS_SHOWN_MAX
from participant.metrics.observer import _LEFT_KEPT
from participant.round.effects import WorkFailed
from participant.round.ending import ALARMS
from participant.round.phases import Finished, Measured, Out, Ready, Working
from participant.settings import DEFAULT_METRICS, OwnMetricsTable
from shared.build import build_info
from shared.clock import ManualClock
from shared.config import split_address
from shared.disk_use import DiskUse
from shared.errors import UnreachableError, WireError
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, TaskName
from shared.protocol.messages import AnswerKind, AttemptAbort, AttemptAnswer, Heartbeat, Withdraw
from shared.reasons import SAID_BY_PARTICIPANT, AttemptAbortReason, ConsentRule, DropReason
from shared.wire.sealed import seal
from tests.support.credentials import Consortium
from tests.support.federation import CONSILO, Process, free_port
from tests.support.rounds import (
    KEY,
    A,
    aborted_of,
    key_of,
    make_masked_spec,
    make_offer,
    make_plan,
    make_spec,
    offer_of,
    spooled,
)
from tests.unit.participant.round.test_participant_driver import PLAN, SECOND, Daemon
from tests.unit.participant.status.test_noting import watched

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def metrics(clock: ManualClock | None = None, *, local_metrics: bool = True) -> ParticipantMetrics:
    clock = clock or ManualClock(start=NOW)
    return ParticipantMetrics(build=build_info(environment={}), local_metrics=local_metrics, clock=clock)


def value(of: ParticipantMetrics, name: str, **labels: str) -> float | None:
    return of.registry.get_sample_value(f"consilo_participant_{name}", labels)


def test_rounds_are_counted_by_outcome_and_mode() -> None:
    seen, masked = metrics(), offer_of(make_masked_spec())
    seen.moved(Working(masked))
    seen.moved(Ready(masked, spooled(), None))
    assert value(seen, "rounds", phase="working") == 0
    assert value(seen, "rounds", phase="ready") == 1
    seen.moved(Finished(masked, survived=True))
    seen.moved(Finished(make_offer(), survived=False))
    assert value(seen, "rounds", phase="ready") == 0
    assert value(seen, "rounds_finished_total", outcome="survived", mode="masked") == 1
    assert value(seen, "rounds_finished_total", outcome="without_this_silo", mode="plain") == 1


def test_a_round_that_was_left_has_a_reason() -> None:
    seen, offer = metrics(), make_offer()
    seen.moved(Out(offer, Withdraw(offer.key, offer.digest, DropReason.OUT_OF_RANGE), over=True))
    assert value(seen, "rounds_left_total", reason="out_of_range") == 1


def ends(of: ParticipantMetrics) -> dict[tuple[str, ...], float]:
    """Rounds left, by reason, and rounds finished, by outcome and mode; none of those at zero."""
    names = ("consilo_participant_rounds_left_total", "consilo_participant_rounds_finished_total")
    samples = [sample for family in of.registry.collect() for sample in family.samples if sample.name in names]
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.value}


def test_a_round_that_was_left_is_counted_once_and_never_as_finished() -> None:
    seen, daemon = metrics(), Daemon(minimum_members=50)
    watched(daemon, seen)
    daemon.hears(PLAN, PLAN, PLAN)
    assert ends(seen) == {("cohort_too_small",): 1}
    daemon.hears(aborted_of(PLAN))
    assert ends(seen) == {("cohort_too_small",): 1}
    assert not seen._counted_left, "the round is over"
    daemon.hears(SECOND)
    assert ends(seen) == {("cohort_too_small",): 2}

    seen, daemon = metrics(), Daemon()
    driver = watched(daemon, seen)
    daemon.hears(PLAN)
    driver.report(KEY, WorkFailed(DropReason.TASK_CRASHED))
    daemon.hears(PLAN)
    daemon.hears(SECOND, aborted_of(SECOND))
    assert ends(seen) == {("task_crashed",): 1, ("without_this_silo", "plain"): 1}


def test_of_rounds_that_were_left_only_so_many_are_remembered() -> None:
    seen, spec = metrics(), make_spec()
    for number in range(_LEFT_KEPT + 5):
        offer = make_offer(plan=make_plan(spec, job=JobId(f"job-{number}")))
        seen.moved(Out(offer, Withdraw(offer.key, offer.digest, DropReason.DISK), over=True))
    assert len(seen._counted_left) == _LEFT_KEPT


def test_an_attempt_that_was_left_is_counted_when_it_is_said() -> None:
    seen = metrics()
    word = seal(AttemptAbort(Digest.of(b"h0"), 1, AttemptAbortReason.GONE), signer=key_of(A), index=1)
    seen.said(AttemptAnswer(AttemptKey(KEY, AttemptNumber(1)), AnswerKind.ATTEMPT_ABORT, word.envelope))
    seen.said(Heartbeat())
    assert value(seen, "attempts_left_total", reason="gone") == 1


def test_alarms_are_counted_by_what_was_wrong() -> None:
    seen = metrics()
    seen.alarmed("range_understated")
    assert value(seen, "alarms_total", what="range_understated") == 1


def test_closed_labels_start_at_zero() -> None:
    seen = metrics()
    assert all(value(seen, "rounds_left_total", reason=reason) == 0 for reason in (*ConsentRule, *SAID_BY_PARTICIPANT))
    assert all(value(seen, "attempts_left_total", reason=reason) == 0 for reason in AttemptAbortReason)
    assert all(value(seen, "alarms_total", what=what) == 0 for what in ALARMS)
    for error in ("WireError", "PhaseError", "IdentityError", "ConflictError", "LateError", "UnknownError"):
        assert value(seen, "messages_refused_total", error=error) == 0
    seen.refused(WireError("no"))
    assert value(seen, "messages_refused_total", error="WireError") == 1


def test_a_round_has_the_time_of_its_phase_while_it_is_open() -> None:
    clock = ManualClock(start=NOW)
    seen, offer = metrics(clock), make_offer()
    seen.moved(Working(offer))
    clock.advance(5)
    seen.moved(Working(offer))  # the task said how far it is
    assert value(seen, "round_phase_start_time_seconds", job=offer.key.job) == NOW.timestamp()
    seen.moved(Ready(offer, spooled(), None))
    assert value(seen, "round_phase_start_time_seconds", job=offer.key.job) == NOW.timestamp() + 5
    seen.moved(Finished(offer, survived=True))
    assert value(seen, "round_phase_start_time_seconds", job=offer.key.job) is None


def test_what_the_task_said_of_this_silo_stays_until_it_says_more() -> None:
    seen, offer = metrics(), make_offer()
    job = offer.key.job
    seen.moved(Ready(offer, replace(spooled(), train=Measured(8, (0.25,)), evaluate=Measured(4, (0.5,))), None))
    seen.moved(Finished(offer, survived=False))
    assert value(seen, "local_metric", job=job, metric="loss", half="train") == 0.25
    assert value(seen, "local_metric", job=job, metric="loss", half="evaluate") == 0.5
    seen.moved(Ready(offer, replace(spooled(), train=None, evaluate=Measured(4, (0.75,))), None))
    assert value(seen, "local_metric", job=job, metric="loss", half="train") == 0.25
    assert value(seen, "local_metric", job=job, metric="loss", half="evaluate") == 0.75


def test_what_the_task_said_of_this_silo_is_not_served_unless_the_silo_asks_for_it() -> None:
    seen, offer = metrics(local_metrics=False), make_offer()
    seen.moved(Ready(offer, replace(spooled(), train=Measured(8, (0.25,)), evaluate=Measured(4, (0.5,))), None))
    text = generate_latest(seen.registry).decode()
    assert "consilo_participant_rounds{" in text
    assert "local_metric" not in text
    assert " 0.25" not in text


def test_a_silo_asks_for_its_own_figures_with_one_key() -> None:
    assert not OwnMetricsTable().local_metrics
    asked = OwnMetricsTable.model_validate({"local_metrics": True})
    assert asked.local_metrics
    assert asked.address == OwnMetricsTable().address == split_address(DEFAULT_METRICS)


def test_jobs_of_long_ago_are_shown_no_more() -> None:
    seen, spec = metrics(), make_spec()
    for number in range(JOBS_SHOWN_MAX + 5):
        offer = make_offer(plan=make_plan(spec, job=JobId(f"job-{number}")))
        seen.moved(Ready(offer, replace(spooled(), evaluate=Measured(4, (0.5,))), None))
        if number:
            seen.moved(Finished(offer, survived=True))
    shown = {
        sample.labels["job"]
        for family in seen.registry.collect()
        for sample in family.samples
        if "job" in sample.labels
    }
    assert shown == {"job-0", *(f"job-{number}" for number in range(6, JOBS_SHOWN_MAX + 5))}


def test_a_session_has_the_time_of_its_opening_while_it_is_open() -> None:
    clock = ManualClock(start=NOW)
    seen = metrics(clock)
    assert value(seen, "session_start_time_seconds") is None
    seen.session(open_now=True)
    clock.advance(9)
    assert value(seen, "session_start_time_seconds") == NOW.timestamp()
    seen.session(open_now=False)
    assert value(seen, "session_start_time_seconds") is None
    assert (value(seen, "session_open"), value(seen, "sessions_total")) == (0, 1)
    seen.session_failed(UnreachableError("nobody answers"))
    assert value(seen, "sessions_failed_total", error="UnreachableError") == 1


def test_readiness_is_false_until_it_is_known_and_followed_then() -> None:
    seen, ready = metrics(), [True, False]
    assert value(seen, "ready") == 0
    seen.readiness(lambda: ready.pop(0))
    assert (value(seen, "ready"), value(seen, "ready")) == (1, 0)


def test_work_and_bytes_are_counted() -> None:
    seen = metrics()
    assert value(seen, "sent_bytes_total", kind="update") == value(seen, "received_bytes_total", kind="model") == 0
    seen.sent("update", 10)
    seen.received("model", 20)
    seen.trained(40.0)
    seen.loop_lag(0.002)
    seen.certificates({"tls": NOW})
    seen.task_loaded(TaskName("heart"), available=False)
    assert value(seen, "task_available", task="heart") == 0
    seen.task_loaded(TaskName("heart"), available=True)
    assert value(seen, "task_available", task="heart") == 1
    assert value(seen, "sent_bytes_total", kind="update") == 10
    assert value(seen, "received_bytes_total", kind="model") == 20
    assert value(seen, "training_duration_seconds_bucket", le="60.0") == 1
    assert value(seen, "event_loop_lag_seconds_bucket", le="0.005") == 1
    assert value(seen, "certificate_not_after_time_seconds", certificate="tls") == NOW.timestamp()


def test_the_disk_is_told_by_kind() -> None:
    of = metrics()
    of.disk(DiskUse(dict.fromkeys(DiskKind, 1), {kind: 10 * number for number, kind in enumerate(DiskKind)}, 77, 990))
    assert value(of, "disk_bytes", kind="journal") == 0
    assert value(of, "disk_bytes", kind="journal_log") == 10
    assert value(of, "disk_free_bytes") == 77
    assert value(of, "disk_size_bytes") == 990


def test_a_daemon_tells_of_its_disk(tmp_path: Path) -> None:
    """From its start on, and whether or not a coordinator can be reached."""
    credentials, port = Consortium(tmp_path / "pki").participant("hospital-a"), free_port()
    config = tmp_path / "participant.toml"
    config.write_text(
        '[participant]\nid = "hospital-a"\ncoordinators = ["localhost:1"]\ndata_dir = "data"\n'
        f'[tls]\ncertificate = "{credentials.tls.certificate}"\nkey = "{credentials.tls.key}"\n'
        f'ca = "{credentials.tls.ca}"\n'
        f'[signing]\ncertificate = "{credentials.signing_certificate}"\nkey = "{credentials.signing_key_path}"\n'
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
    )
    command = [*CONSILO, "participant", "run", "--config", str(config)]
    daemon = Process(command, log=tmp_path / "log", environment={})
    page = ""
    try:
        daemon.wait_for("participant_started")
        for _ in range(1000):  # the first look is on a thread
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                page = answer.read().decode()
            if "disk_bytes{" in page:
                break
    finally:
        assert daemon.stop() == 0
    told = dict(re.findall(r'^consilo_participant_disk_bytes\{kind="(\w+)"\} (\S+)$', page, re.MULTILINE))
    assert told.keys() == {str(kind) for kind in DiskKind}
    assert float(told["journal"]) > 0
    assert "local_metric" not in page, "the file does not ask for it"
