"""Alerts fire and end under compose, while a participant and the coordinator are killed in turn, and rounds go on.

The federation's Prometheus is exchanged for one that has the same scrapes and the rules sixty times as fast: ten
minutes without a participant are ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.containers.engine import awaited
from tests.containers.federation import DAEMONS, JOB, LIMIT_S, ComposeFederation
from tests.containers.prometheus import Prometheus, hurried_rules, write_configuration
from tests.support.rules import PROMETHEUS

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

LOST = "hospital-d"
FACTOR = 1 / 60
COMMITTED = 'sum(consilo_coordinator_rounds_committed_total{purpose="train"})'
NUMBER = "consilo_coordinator_round_number"


@pytest.fixture(scope="module")
def seen(federation: ComposeFederation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Its Prometheus, once all are up and rounds are committed."""
    folder = tmp_path_factory.mktemp("compose")
    settings = folder / "prometheus"
    settings.mkdir()
    scrapes = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    write_configuration(settings, scrapes, hurried_rules(FACTOR))
    for path in (folder.parent, folder, settings):
        path.chmod(0o755)  # Prometheus is nobody there
    override = folder / "override.yml"
    override.write_text(yaml.safe_dump({"services": {"prometheus": {"volumes": [f"{settings}:/etc/prometheus:ro"]}}}))
    federation.overrides.append(override)
    federation.up("prometheus")
    found = federation.prometheus()
    awaited("Prometheus answers", found.answers)
    awaited(
        "all are up, and a round is committed",
        lambda: found.value("sum(up)") == len(DAEMONS) and (found.value(COMMITTED) or 0) >= 1,
        limit_s=LIMIT_S,
    )
    found.await_quiet("ConsiloParticipantMissing", "ConsiloSiloDown", "ConsiloCoordinatorDown", "ConsiloQuorumAtRisk")
    yield found
    federation.overrides.remove(override)


def await_rounds(found: Prometheus) -> None:
    """Until rounds were committed in this life of the coordinator, beyond those that are known now."""
    before = found.value(COMMITTED) or 0
    awaited("rounds go on", lambda: (found.value(COMMITTED) or 0) >= before + 2, limit_s=LIMIT_S)


def of_alert(found: Prometheus, name: str) -> list[dict[str, str]]:
    return [each["labels"] for each in found.alerts() if each["labels"]["alertname"] == name]


def test_a_participant_that_is_killed_is_missed_until_it_is_back(
    federation: ComposeFederation, seen: Prometheus
) -> None:
    missing = {"ConsiloParticipantMissing", "ConsiloQuorumAtRisk", "ConsiloSiloDown"}
    federation.kill(LOST)
    seen.await_firing(*missing)
    assert [labels["participant"] for labels in of_alert(seen, "ConsiloParticipantMissing")] == [LOST]
    at_risk = [(labels["severity"], labels["job"]) for labels in of_alert(seen, "ConsiloQuorumAtRisk")]
    assert at_risk == [("warning", JOB)], "three of four are the quorum, and there were four"
    await_rounds(seen)
    federation.compose("start", LOST)
    seen.await_quiet(*missing)
    await_rounds(seen)


def test_a_coordinator_that_is_killed_is_missed_until_it_is_back(
    federation: ComposeFederation, seen: Prometheus
) -> None:
    down = {"ConsiloCoordinatorDown", "ConsiloSiloSessionLost"}
    number = seen.value(NUMBER)
    assert number
    federation.kill("coordinator")
    seen.await_firing(*down)
    federation.compose("start", "coordinator")
    seen.await_quiet(*down)
    await_rounds(seen)
    assert (seen.value(NUMBER) or 0) > number
    assert not {"ConsiloRecordsLost", "ConsiloDiskFilling"} & seen.firing()
