"""Alert rules: whole, about metrics that exist, each with its section of the runbook and its unit tests.

That they fire and end is tested by promtool (tests/containers/test_rules.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.declared import declared_samples
from tests.support.promql import FROM_SCRAPES, OF_PROMETHEUS, asked, complaints
from tests.support.rules import PROMETHEUS, RULE_FILES, alerts, asserted, rules, with_recorded

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = {**OF_PROMETHEUS, **with_recorded(declared_samples())}
NAMES = {rule["alert"] for rule in alerts()}


def title(rule: dict[str, Any]) -> str:
    return str(rule.get("alert", rule.get("record")))


@pytest.mark.parametrize("rule", list(rules()), ids=title)
def test_a_rule_asks_for_what_is_there(rule: dict[str, Any]) -> None:
    assert complaints(rule["expr"], SAMPLES) == []


@pytest.mark.parametrize("rule", alerts(), ids=title)
def test_an_alert_says_what_is_wrong_for_whom_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["labels"]["team"] in {"operators", "silo-it"}
    said = rule["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert said["runbook_url"] == f"docs/RUNBOOK.md#{rule['alert'].lower()}"
    assert len(said["summary"]) < 120
    found = asked(rule["expr"])
    there = FROM_SCRAPES.union(*(SAMPLES[name] for name in found.selected))
    assert set(re.findall(r"\$labels\.(\w+)", " ".join(said.values()))) <= there


def test_every_alert_has_its_section_of_the_runbook_and_no_section_is_of_another() -> None:
    headings = re.findall(
        r"^#+ (Consilo\w+)$", (ROOT / "docs" / "RUNBOOK.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(headings) == sorted(NAMES)


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    seen = set(asserted())
    assert seen == {(name, fires) for name in NAMES for fires in (True, False)}


def test_a_silo_has_its_alerts_and_the_coordinator_has_the_others() -> None:
    for path in RULE_FILES:
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        mine, team, other = (
            ("consilo_participant", "silo-it", "consilo_coordinator")
            if path.stem == "silo"
            else ("consilo_coordinator", "operators", "consilo_participant")
        )
        assert mine in path.read_text(encoding="utf-8")
        assert other not in path.read_text(encoding="utf-8")
        assert {rule["labels"]["team"] for group in groups for rule in group["rules"] if "alert" in rule} == {team}


def test_prometheus_scrapes_by_the_names_that_the_rules_know() -> None:
    scrapes = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    names = {scrape["job_name"] for scrape in scrapes}
    known = {name for rule in rules() for name in re.findall(r'up\{job="([\w-]+)"\}', rule["expr"])}
    assert names == known
    assert all(scrape["honor_labels"] for scrape in scrapes)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("up{job=", "no PromQL"),
        ("consilo_coordinator_renamed > 0", "no metric consilo_coordinator_renamed"),
        ('up{state="gone"}', "up has no label state"),
        ("sum by (silo) (up)", "nothing here has the label silo"),
        ("up unless on (silo) up", "nothing here has the label silo"),
        ("rate(consilo_coordinator_rounds_committed[5m])", "no metric consilo_coordinator_rounds_committed"),
    ],
)
def test_a_rule_about_something_else_is_noticed(expression: str, complaint: str) -> None:
    assert any(said.startswith(complaint) for said in complaints(expression, SAMPLES))
