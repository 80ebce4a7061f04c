"""docs/metrics.md lists every metric of the code with its type and labels, and no other; the guide asks for these."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from coordinator.metrics import CoordinatorMetrics
from participant.metrics import ParticipantMetrics
from shared.build import build_info
from shared.reasons import AbortReason, DropReason

DOCUMENTS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCUMENTS / "metrics.md").read_text(encoding="utf-8")
GUIDE = (DOCUMENTS / "guide-dashboards.md").read_text(encoding="utf-8")
BUILD = build_info(environment={})


def coordinator_registry() -> CollectorRegistry:
    metrics = CoordinatorMetrics(build=BUILD)
    metrics.log_values_refused(lambda: 0)
    return metrics.registry


def participant_registry() -> CollectorRegistry:
    return ParticipantMetrics(build=BUILD).registry


REGISTRIES = {"coordinator": coordinator_registry(), "participant": participant_registry()}
# How a query calls them: a counter has `_total` at its end, a histogram one of these three, an info `_info`.
ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
# Labels of Prometheus itself, and of a histogram's buckets.
GIVEN = {"job", "instance", "le"}


def samples() -> dict[str, set[str]]:
    """The labels of every sample that the code can expose, by the name that a query has for it."""
    return {
        metric._name + ending: set(metric._labelnames)
        for registry in REGISTRIES.values()
        for metric in registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
        for ending in ENDINGS[metric._type or ""]
    }


def queries() -> list[str]:
    """The queries of the guide; a line that begins with blanks goes on with the one before."""
    blocks = re.findall(r"^```promql\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return [query for block in blocks for query in re.sub(r"\n +", " ", block).splitlines()]


@pytest.mark.parametrize(("house", "registry"), REGISTRIES.items())
def test_the_document_lists_the_metrics_of_the_code(house: str, registry: CollectorRegistry) -> None:
    in_code = {
        (metric._name, metric._type, tuple(metric._labelnames))
        for metric in registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
    }
    said = {
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
        if name.startswith(f"consilo_{house}_")
    }
    assert said == in_code


def test_the_guide_names_metrics_of_the_code() -> None:
    named = set(re.findall(r"consilo_(?:coordinator|participant)_\w+", GUIDE))
    assert named <= samples().keys()
    assert len(queries()) > 20


@pytest.mark.parametrize("query", queries())
def test_a_query_of_the_guide_uses_labels_that_are_there(query: str) -> None:
    names = re.findall(r"consilo_\w+", query)
    known = set.union(GIVEN, *(samples()[name] for name in names))
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= known
    for name, matchers in re.findall(r"(consilo_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*[!=]", matchers)) <= samples()[name]


@pytest.mark.parametrize(("heading", "reasons"), [("### 3", set(AbortReason)), ("### 5", set(DropReason))])
def test_the_guide_explains_every_reason(heading: str, reasons: set[str]) -> None:
    section = GUIDE.split(heading)[1].split("\n### ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) - {"reason"} == reasons
