"""docs/metrics.md lists every metric of the code with its type and labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from coordinator.metrics import CoordinatorMetrics
from participant.metrics import ParticipantMetrics
from shared.build import build_info

DOCUMENT = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
BUILD = build_info(environment={})


def coordinator_registry() -> CollectorRegistry:
    metrics = CoordinatorMetrics(build=BUILD)
    metrics.log_values_refused(lambda: 0)
    return metrics.registry


def participant_registry() -> CollectorRegistry:
    return ParticipantMetrics(build=BUILD).registry


@pytest.mark.parametrize(
    ("house", "registry"), [("coordinator", coordinator_registry()), ("participant", participant_registry())]
)
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
