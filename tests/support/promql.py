"""What PromQL asks for: names of metrics, labels that it selects by, labels that it groups or joins by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from promql_parser import AggregateExpr, BinaryExpr, Expr, MatrixSelector, VectorSelector, parse, walk

FROM_SCRAPES = frozenset({"job", "instance"})
"""Labels that Prometheus gives to everything that it scrapes."""
OF_PROMETHEUS: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "team"}),
}
"""Series that Prometheus makes itself."""


@dataclass
class Asked:
    """What one expression asks for."""

    selected: dict[str, set[str]] = field(default_factory=dict)
    """By metric the labels that are matched."""
    grouped: set[str] = field(default_factory=set)
    """Labels of by, without, on, ignoring, group_left and group_right."""

    def _visit(self, expression: Expr) -> bool:
        match expression:
            case VectorSelector():
                self._select(expression)
            case MatrixSelector():
                self._select(expression.vector_selector)
            case AggregateExpr() if expression.modifier:
                self.grouped.update(expression.modifier.labels)
            case BinaryExpr() if expression.modifier:
                if expression.modifier.matching:
                    self.grouped.update(expression.modifier.matching.labels)
                self.grouped.update(expression.modifier.group_labels or ())
        return True

    def _select(self, selector: VectorSelector) -> None:
        matched = {matcher.name for matcher in selector.matchers.matchers}
        self.selected.setdefault(selector.name or "", set()).update(matched)


def asked(expression: str) -> Asked:
    """Raises ValueError for what is no PromQL."""
    found = Asked()
    walk(parse(expression), pre_visit=found._visit)
    return found


def complaints(expression: str, samples: Mapping[str, Iterable[str]]) -> list[str]:
    """What an expression asks for that is not there. `samples`: of each sample's name its labels."""
    try:
        found = asked(expression)
    except ValueError as error:
        return [f"no PromQL: {error}"]
    known = {**OF_PROMETHEUS, **samples}
    said = [f"no metric {name or '(without a name)'}" for name in found.selected if name not in known]
    for name, labels in found.selected.items():
        there = FROM_SCRAPES | set(known.get(name, labels))
        said += [f"{name} has no label {label}" for label in sorted(labels - there)]
    anywhere = FROM_SCRAPES.union(*(known.get(name, ()) for name in found.selected))
    return said + [f"nothing here has the label {label}" for label in sorted(found.grouped - anywhere)]
