"""The samples that both daemons can expose: of each name that a query may use its labels, as the code declares them."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.metrics import declared as of_coordinator
from participant.metrics import declared as of_participant
from shared.metrics import Kind, Metric

ENDINGS = {
    Kind.COUNTER: ("_total",),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
    Kind.INFO: ("_info",),
    Kind.GAUGE: ("",),
}
"""How a query calls them: a counter has `_total` at its end, a histogram one of these three, an info `_info`."""
GIVEN = {"_bucket": {"le"}, "_info": {"version", "revision", "python"}}
"""Labels that are not declared, since every metric of that kind has them."""
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
"""prometheus_client's own, which both registries have."""


def declared_samples() -> dict[str, frozenset[str]]:
    found = dict.fromkeys(PROCESS, frozenset[str]())
    found |= _samples(of_coordinator.PREFIX, of_coordinator.METRICS)
    return found | _samples(of_participant.PREFIX, of_participant.METRICS)


def _samples(prefix: str, metrics: Iterable[Metric]) -> dict[str, frozenset[str]]:
    return {
        f"{prefix}_{metric.name}{ending}": frozenset(label.name for label in metric.labels)
        | frozenset(GIVEN.get(ending, ()))
        for metric in metrics
        for ending in ENDINGS[metric.kind]
    }
