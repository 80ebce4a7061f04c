"""The samples that both daemons can expose: of each name that a query may use its labels, as the code declares them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from coordinator.metrics import CoordinatorMetrics
from participant.metrics import ParticipantMetrics
from shared.build import build_info

ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
"""How a query calls them: a counter has `_total` at its end, a histogram one of these three, an info `_info`."""
INFO_LABELS = frozenset({"version", "revision", "python"})
PROCESS = frozenset(
    {
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
    }
)
"""prometheus_client's own collector, which both registries have."""


def declared_samples() -> dict[str, frozenset[str]]:
    build = build_info(environment={})
    coordinator = CoordinatorMetrics(build=build)
    coordinator.log_values_refused(lambda: 0)
    found = dict.fromkeys(PROCESS, frozenset[str]())
    for registry in (coordinator.registry, ParticipantMetrics(build=build).registry):
        found |= _samples(registry)
    return found


def _samples(registry: CollectorRegistry) -> dict[str, frozenset[str]]:
    given = {"_bucket": {"le"}, "_info": INFO_LABELS}
    return {
        metric._name + ending: frozenset(metric._labelnames) | frozenset(given.get(ending, ()))
        for metric in registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
        for ending in ENDINGS[metric._type or ""]
    }
