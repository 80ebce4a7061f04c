"""Alerts fire and end in a real Prometheus while daemons are killed and started, and rounds go on.

The rules are those of the repository, sixty times as fast: ten minutes without a participant are ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from participant.tasks.state_dict import write_model
from tests.cluster.tasks.regression_task import build
from tests.containers.engine import awaited
from tests.containers.prometheus import Prometheus, hurried_rules, prometheus, scrape
from tests.support.federation import Federation, job_spec

pytestmark = [pytest.mark.containers, pytest.mark.cluster, pytest.mark.timeout(900)]

MEMBERS = ("hospital-a", "hospital-b", "hospital-c")
LOST = "hospital-c"
FACTOR = 1 / 60


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three silos of which two are a quorum, and a job that lasts longer than the test."""
    folder = tmp_path_factory.mktemp("federation")
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    options = {member: {"silo": index, "rows": 24} for index, member in enumerate(MEMBERS)}
    spec = job_spec(
        MEMBERS,
        initial,
        rounds=100_000,
        quorum=2,
        min_survivors=2,
        upload_deadline_s=10.0,  # of a member that is killed while two of two upload
        masking={"mode": "plain"},
        training={"learning_rate": 0.001},
        aborted_rounds_allowed=1000,
    )
    with Federation(folder, entry="regression_task:RegressionTask", options=options, metrics=True) as running:
        running.start()
        running.submit("heart-1", spec, initial)
        yield running


@pytest.fixture(scope="module")
def watching(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    ports = federation.metrics_ports
    scrapes = [
        scrape("consilo-coordinator", f"127.0.0.1:{ports['coordinator']}"),
        scrape("consilo-participant", *(f"127.0.0.1:{ports[member]}" for member in MEMBERS)),
    ]
    with prometheus(tmp_path_factory.mktemp("prometheus"), scrapes, rules=hurried_rules(FACTOR)) as found:
        found.await_health("consilo-coordinator", "consilo-participant")
        _await_rounds(found)
        yield found


def _await_rounds(found: Prometheus, *, more: int = 2) -> None:
    """Until rounds were committed in this life of the coordinator, beyond those that are known now."""
    committed = 'consilo_coordinator_rounds_committed_total{purpose="train"}'
    before = found.value(committed) or 0
    awaited("rounds go on", lambda: (found.value(committed) or 0) >= before + more)


def test_a_participant_that_is_killed_is_missed_until_it_is_back(federation: Federation, watching: Prometheus) -> None:
    missing = {"ConsiloParticipantMissing", "ConsiloQuorumAtRisk", "ConsiloSiloDown"}
    assert not missing & watching.firing()
    federation.kill(LOST)
    watching.await_firing(*missing)
    (alert,) = [each for each in watching.alerts() if each["labels"]["alertname"] == "ConsiloParticipantMissing"]
    assert alert["labels"]["participant"] == LOST
    assert alert["annotations"]["summary"] == f"{LOST} has had no session for ten minutes"
    at_risk = [each for each in watching.alerts() if each["labels"]["alertname"] == "ConsiloQuorumAtRisk"]
    assert [(each["labels"]["severity"], each["labels"]["job"]) for each in at_risk] == [("warning", "heart-1")]
    _await_rounds(watching)
    federation.start_participant(LOST)
    watching.await_quiet(*missing)
    _await_rounds(watching)


def test_a_coordinator_that_is_killed_is_missed_until_it_is_back(federation: Federation, watching: Prometheus) -> None:
    down = {"ConsiloCoordinatorDown", "ConsiloSiloSessionLost"}
    assert not down & watching.firing()
    number = watching.value("consilo_coordinator_round_number")
    assert number
    federation.kill("coordinator")
    watching.await_firing(*down)
    federation.start_coordinator()
    watching.await_quiet(*down)
    _await_rounds(watching)
    after = watching.value("consilo_coordinator_round_number")
    assert after
    assert after > number
    assert "ConsiloRecordsLost" not in watching.firing()
