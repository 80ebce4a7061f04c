"""What both sides of a live federation expose: every metric that they declare, whatever a dashboard, a rule or a
document asks for, and at the coordinator nothing of one silo's training.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import coordinator.metrics.declared
import participant.metrics.declared
from shared.metrics import Kind, Metric
from tests.support.dashboards import FILES, expressions, read
from tests.support.promql import OF_PROMETHEUS, asked, complaints
from tests.support.queries import all_queries
from tests.support.rules import rules, with_recorded
from tests.support.scrape import SILOS, STOPS_IN_ROUND, WATCHED, Scrape, live_scrapes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DECLARED = {"coordinator": coordinator.metrics.declared, "participant": participant.metrics.declared}
ENDING = {Kind.COUNTER: "_total", Kind.HISTOGRAM: "_count", Kind.INFO: "_info", Kind.GAUGE: ""}
JOB = "heart-1"


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scrape]:
    return live_scrapes(tmp_path_factory.mktemp("federation"))


def sample(prefix: str, metric: Metric) -> str:
    return f"{prefix}_{metric.name}{ENDING[metric.kind]}"


@pytest.mark.parametrize("house", DECLARED)
def test_every_declared_metric_is_there_with_its_labels(scrapes: dict[str, Scrape], house: str) -> None:
    declared, scrape = DECLARED[house], scrapes[house]
    for metric in declared.METRICS:
        name = sample(declared.PREFIX, metric)
        assert scrape.samples.get(name), f"{name} has no sample"
        if metric.kind is not Kind.INFO:
            assert scrape.labels(name) == {label.name for label in metric.labels}
        for label in metric.labels:
            if label.closed:
                said = {dict(labels)[label.name] for labels in scrape.samples[name]}
                assert said <= set(label.values)
    foreign = {name for name in scrape.families if not name.startswith((declared.PREFIX, "process_"))}
    assert foreign == set()


def test_the_numbers_are_those_of_this_federation(scrapes: dict[str, Scrape]) -> None:
    ours, silo = scrapes["coordinator"], scrapes["participant"]
    prefix, silo_prefix = coordinator.metrics.declared.PREFIX, participant.metrics.declared.PREFIX
    assert ours.value(f"{prefix}_ready") == silo.value(f"{silo_prefix}_ready") == 1
    assert ours.value(f"{prefix}_round_number", job=JOB) == STOPS_IN_ROUND
    assert ours.value(f"{prefix}_rounds_committed_total", purpose="train") == STOPS_IN_ROUND - 1
    assert ours.value(f"{prefix}_job_quorum_margin", job=JOB) == 0
    assert ours.value(f"{prefix}_connected_participants") == len(SILOS)
    assert ours.value(f"{prefix}_transfer_threads") == 8
    begun = ours.value(f"{prefix}_round_phase_start_time_seconds", job=JOB)
    ends = ours.value(f"{prefix}_round_deadline_time_seconds", job=JOB)
    committed = ours.value(f"{prefix}_last_commit_time_seconds", job=JOB)
    assert begun
    assert ends
    assert committed
    assert committed <= begun < ends <= begun + 121
    entries = ours.value(f"{prefix}_audit_entries")
    assert entries
    assert entries >= 5  # the start, the model, the job and its beginning, two rounds
    assert silo.value(f"{silo_prefix}_training_duration_seconds_count") >= STOPS_IN_ROUND - 1  # type: ignore[operator]
    assert silo.value(f"{silo_prefix}_sent_bytes_total", kind="update") > 0  # type: ignore[operator]


def test_the_coordinator_says_nothing_of_one_silos_training(scrapes: dict[str, Scrape]) -> None:
    """Who is called by name: who is connected, since when, and whom a round waits on."""
    ours, silo = scrapes["coordinator"], scrapes["participant"]
    named = {
        name.removeprefix("consilo_coordinator_")
        for name, series in ours.samples.items()
        if any(value in SILOS for labels in series for _, value in labels)
    }
    assert named == {"participant_connected", "session_start_time_seconds", "round_waiting_on"}
    local = set(silo.samples["consilo_participant_local_metric"].values())
    assert local
    assert WATCHED in SILOS
    assert not local & {value for series in ours.samples.values() for value in series.values()}


def asked_for() -> dict[str, str]:
    """Every expression of rules, dashboards and documents, by where it stands."""
    found = {
        f"{rule.get('alert') or rule['record']}, rule {number}": rule["expr"] for number, rule in enumerate(rules())
    }
    for path in FILES:
        found |= {f"{path.stem}: {where}": expression for where, expression in expressions(read(path))}
    return found | all_queries()


ASKED_FOR = asked_for()


def labels_of(*pages: Scrape) -> Mapping[str, frozenset[str]]:
    """Of every sample its labels."""
    return {name: frozenset(page.labels(name)) for page in pages for name in page.samples}


def missed(samples: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """What is asked for in vain, by who asks."""
    known = with_recorded(dict(samples))
    found = {where: complaints(expression, known) for where, expression in ASKED_FOR.items()}
    return {where: said for where, said in found.items() if said}


def test_all_that_is_asked_for_is_there(scrapes: dict[str, Scrape]) -> None:
    assert missed(labels_of(*scrapes.values())) == {}


def test_whatever_is_renamed_is_missed(scrapes: dict[str, Scrape]) -> None:
    samples = labels_of(*scrapes.values())
    names = {name for expression in ASKED_FOR.values() for name in asked(expression).selected} - OF_PROMETHEUS.keys()
    in_scrapes = {name for name in names if not name.startswith(("job:", "instance:"))}
    assert len(in_scrapes) > 60
    for name in in_scrapes:
        renamed = {f"{other}_renamed" if other == name else other: labels for other, labels in samples.items()}
        assert f"no metric {name}" in {said for each in missed(renamed).values() for said in each}
