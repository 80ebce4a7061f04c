"""Write docs/metrics.md, every metric of both daemons, or say that it is stale (`--check`).

The tables are made from the declarations that the daemons register (`coordinator.metrics.declared`,
`participant.metrics.declared`); what people wrote around them is in metrics_template.md. By `make docs`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import coordinator.metrics.declared
import participant.metrics.declared
from shared.metrics import Kind, Label, Metric

TEMPLATE = Path(__file__).resolve().parent / "metrics_template.md"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
COLUMNS = "| metric | type | labels | meaning | values of labels |\n|---|---|---|---|---|"
HOUSES = {"coordinator": coordinator.metrics.declared, "participant": participant.metrics.declared}


def page() -> str:
    text = TEMPLATE.read_text("utf-8")
    for house, declared in HOUSES.items():
        text = text.replace(f"<!-- table: {house} -->", table(declared.METRICS, declared.PREFIX))
    return text


def table(metrics: Iterable[Metric], prefix: str) -> str:
    return "\n".join([COLUMNS, *(row(metric, prefix) for metric in metrics)])


def row(metric: Metric, prefix: str) -> str:
    labels = ", ".join(f"`{label.name}`" for label in metric.labels)
    values = "; ".join(filter(None, (values_of(label, alone=len(metric.labels) == 1) for label in metric.labels)))
    meaning = metric.page or metric.help
    if metric.kind is Kind.HISTOGRAM:
        meaning += f" Buckets up to {', '.join(f'{bound:g}' for bound in metric.buckets)} s."
    return f"| `{prefix}_{metric.name}` | {metric.kind} | {labels} | {meaning} | {values} |"


def values_of(label: Label, *, alone: bool) -> str:
    said = label.said or ", ".join(label.values)
    return said if alone else f"`{label.name}`: {said}"


def check() -> int:
    kept = PAGE.read_text("utf-8") if PAGE.exists() else ""
    if kept == page():
        return 0
    print("docs/metrics.md is stale: run `make docs` and commit the result", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        raise SystemExit(check())
    PAGE.write_text(page(), "utf-8")
