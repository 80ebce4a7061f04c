"""docs/metrics.md is what the declarations say, daemons register these and no others, and documents ask for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import coordinator.metrics.declared
import participant.metrics.declared
from coordinator.metrics import CoordinatorMetrics
from coordinator.round.phases import OpenState
from participant.metrics import ParticipantMetrics
from participant.round.phases import RoundState
from shared.build import build_info
from shared.metrics import Kind, Metric
from shared.reasons import AbortReason, DropReason
from tests.support.declared import declared_samples
from tests.support.promql import complaints
from tests.support.queries import DOCUMENTS, all_queries, queries

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
GUIDE = DOCUMENTS["guide-dashboards"]
SAMPLES = declared_samples()
BUILD = build_info(environment={})
REGISTRIES = {
    "consilo_coordinator": CoordinatorMetrics(build=BUILD).registry,
    "consilo_participant": ParticipantMetrics(build=BUILD, local_metrics=True).registry,
}
DECLARED = {
    declared.PREFIX: declared.METRICS for declared in (coordinator.metrics.declared, participant.metrics.declared)
}
ALL = [(prefix, metric) for prefix, metrics in DECLARED.items() for metric in metrics]
# Names that say a moment, or how often, or how much of what: by the conventions of Prometheus.
UNITS = ("_seconds", "_bytes")


def test_the_document_is_what_the_declarations_say() -> None:
    command = [sys.executable, str(ROOT / "tools" / "render_metrics_docs.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
    listed = re.findall(r"^\| `(consilo_\w+)` \|", DOCUMENT, re.MULTILINE)
    assert listed == [f"{prefix}_{metric.name}" for prefix, metric in ALL]


@pytest.mark.parametrize(("prefix", "registry"), REGISTRIES.items())
def test_what_is_declared_is_registered_and_nothing_else(prefix: str, registry: CollectorRegistry) -> None:
    families = {family.name: family for family in registry.collect() if not family.name.startswith("process_")}
    assert families.keys() == {f"{prefix}_{metric.name}" for metric in DECLARED[prefix]}
    for metric in DECLARED[prefix]:
        family = families[f"{prefix}_{metric.name}"]
        assert (family.type, family.documentation) == (metric.kind, metric.help)


@pytest.mark.parametrize(("prefix", "registry"), REGISTRIES.items())
def test_each_series_that_can_be_foreseen_is_there_from_the_start(prefix: str, registry: CollectorRegistry) -> None:
    found = {family.name: family.samples for family in registry.collect()}
    for metric in DECLARED[prefix]:
        events = metric.kind in {Kind.COUNTER, Kind.HISTOGRAM} and not metric.read
        if events and all(label.closed for label in metric.labels):
            series = {
                tuple(sample.labels[label.name] for label in metric.labels)
                for sample in found[f"{prefix}_{metric.name}"]
            }
            expected = 1
            for label in metric.labels:
                expected *= len(label.values)
            assert len(series) == expected, metric.name
            assert all(sample.value == 0 for sample in found[f"{prefix}_{metric.name}"])
        if events:
            assert metric.labels == () or metric.starts_whole, f"{metric.name}: an open label hides its first event"


@pytest.mark.parametrize(("prefix", "metric"), ALL, ids=lambda each: getattr(each, "name", str(each)))
def test_a_declaration_follows_the_conventions(prefix: str, metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert not metric.name.endswith(("_total", "_info", "_count", "_sum", "_ms", "_mb"))
    assert metric.help.endswith(".")
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith(UNITS)
        assert list(metric.buckets) == sorted(set(metric.buckets))
    if "Unix time" in metric.help or metric.name.endswith("_time_seconds"):
        assert metric.name.endswith("_time_seconds")
        assert "Unix time" in metric.help
    for label in metric.labels:
        assert label.closed or label.said, f"{prefix}_{metric.name}: what bounds {label.name}?"
        assert len(set(label.values)) == len(label.values)


def test_phases_are_those_of_the_rounds() -> None:
    assert {kind.__name__.lower() for kind in OpenState.__args__} == set(coordinator.metrics.declared.PHASES)
    silo = {kind.__name__.lower() for kind in RoundState.__args__} - {"out", "finished"}
    assert silo == set(participant.metrics.declared.PHASES)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_metrics_of_the_code(document: str) -> None:
    named = set(re.findall(r"consilo_(?:coordinator|participant)_\w*[a-z]\b", DOCUMENTS[document]))
    assert named <= SAMPLES.keys()
    assert len(queries(document)) > 15


@pytest.mark.parametrize("query", all_queries().values(), ids=all_queries())
def test_a_query_of_a_document_asks_for_what_is_there(query: str) -> None:
    assert complaints(query, SAMPLES) == []


@pytest.mark.parametrize(("heading", "reasons"), [("### 3", set(AbortReason)), ("### 5", set(DropReason))])
def test_the_guide_explains_every_reason(heading: str, reasons: set[str]) -> None:
    section = GUIDE.split(heading)[1].split("\n### ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) - {"reason"} == reasons
