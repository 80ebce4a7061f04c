"""The alert rules and their unit tests, as the repository has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.promql import FROM_SCRAPES, asked

PROMETHEUS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULE_FILES = tuple(sorted((PROMETHEUS / "rules").glob("*.yml")))
TEST_FILES = tuple(sorted((PROMETHEUS / "tests").glob("*.yml")))


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file, in order."""
    for path in RULE_FILES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def with_recorded(samples: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """What rules record, besides: it has the labels of what it is made of."""
    known = dict(samples)
    for rule in rules():
        if "record" in rule:
            found = asked(rule["expr"]).selected
            known[rule["record"]] = FROM_SCRAPES.union(*(known.get(name, ()) for name in found))
    return known


def asserted() -> list[tuple[str, bool]]:
    """Of every question of the unit tests, which alert it is about, and whether that has to fire there."""
    found: list[tuple[str, bool]] = []
    for path in TEST_FILES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for test in group["promql_expr_test"]:
                name = test["expr"].partition('alertname="')[2].partition('"')[0]
                found.append((name, bool(test["exp_samples"])))
    return found
