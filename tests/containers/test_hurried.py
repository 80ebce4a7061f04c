"""Rules with short windows are the same rules."""

from __future__ import annotations

import pytest

from tests.containers.prometheus import hurried, hurried_rules
from tests.support.promql import asked
from tests.support.rules import RULE_FILES, rules

pytestmark = pytest.mark.containers


def test_times_are_scaled_and_nothing_else() -> None:
    asked = "rate(a[10m] offset 2h) > 300 and b[5s] and predict_linear(c[6h], 86400) < 0"
    shorter = "rate(a[10s] offset 120s) > 300 and b[5s] and predict_linear(c[360s], 1440) < 0"
    rule = {"alert": "A", "expr": asked, "for": "10m", "labels": {"severity": "x"}}
    assert hurried({"groups": [{"name": "g", "rules": [rule]}]}, 1 / 60) == {
        "groups": [{"name": "g", "rules": [{**rule, "expr": shorter, "for": "10s"}]}]
    }


def test_every_rule_still_asks_for_the_same() -> None:
    shorter = [
        rule for path in RULE_FILES for group in hurried_rules(1 / 60)[path.stem]["groups"] for rule in group["rules"]
    ]
    assert [asked(rule["expr"]) for rule in shorter] == [asked(rule["expr"]) for rule in rules()]
