"""Dashboards and their provisioning, as far as they can be judged without Grafana: of the form that it documents, about
metrics that the code declares, and with every name that they point to.
"""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.dashboards import DASHBOARDS, FILES, expressions, marks, read, variables
from tests.support.declared import declared_samples
from tests.support.promql import complaints
from tests.support.rules import alerts

ROOT = Path(__file__).resolve().parents[2]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
BOARDS = {path.stem: read(path) for path in FILES}
SAMPLES = declared_samples()
WIDTH = 24  # of Grafana's grid
SCHEMA = (
    41  # of Grafana 11.5 and later; an older Grafana takes what it knows of it, and a newer one brings it up to date
)
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
KINDS = {"stat", "timeseries", "state-timeline", "table", "text", "row"}
UNITS = {"none", "short", "s", "bytes", "Bps", "percentunit"}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    found = board["panels"]
    assert isinstance(found, list)
    return found


def cells(place: dict[str, int]) -> set[tuple[int, int]]:
    return {
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    }


def test_the_three_dashboards_are_there() -> None:
    assert set(BOARDS) == {"consilo-federation", "consilo-job", "consilo-participant"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == name  # what links and bookmarks name: it never changes
    assert board["id"] is None  # a number of one installation
    assert board["schemaVersion"] == SCHEMA
    assert board["refresh"] == "30s"
    assert board["timezone"] == "browser"
    assert "style" not in board  # light or dark is the reader's choice
    assert board["description"]
    assert "consilo" in board["tags"]
    assert board["links"][0]["tags"] == ["consilo"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_numbers_and_places_of_their_own(name: str) -> None:
    found = panels(BOARDS[name])
    identities = [panel["id"] for panel in found]
    assert len(set(identities)) == len(identities)
    for one, other in combinations(found, 2):
        assert not cells(one["gridPos"]) & cells(other["gridPos"]), (one["title"], other["title"])
    for panel in found:
        assert 0 <= panel["gridPos"]["x"] <= panel["gridPos"]["x"] + panel["gridPos"]["w"] <= WIDTH


@pytest.mark.parametrize("name", BOARDS)
def test_a_panel_says_what_it_shows_and_where_its_data_comes_from(name: str) -> None:
    for panel in panels(BOARDS[name]):
        assert panel["type"] in KINDS
        assert panel["title"]
        if panel["type"] in {"row", "text"}:
            continue
        assert panel["description"].endswith((".", ")")), panel["title"]
        assert panel["datasource"] == DATASOURCE
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"].get("unit", "none") in UNITS
        thresholds = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert thresholds[0]["value"] is None
        above = [step["value"] for step in thresholds[1:]]
        assert above == sorted(above)


@pytest.mark.parametrize("name", BOARDS)
def test_variables_are_declared_and_the_data_source_is_the_first(name: str) -> None:
    board = BOARDS[name]
    first, *others = board["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert all(variable["datasource"] == DATASOURCE and variable["type"] == "query" for variable in others)
    assert all(annotation["datasource"] == DATASOURCE for annotation in marks(board))
    left = [expression for _, expression in expressions(board) if "$" in expression]
    assert left == []
    text = (DASHBOARDS / f"{name}.json").read_text(encoding="utf-8")
    assert all(f"${variable}" in text or f"${{{variable}}}" in text for variable in variables(board))


@pytest.mark.parametrize("name", BOARDS)
def test_an_expression_asks_for_what_is_there(name: str) -> None:
    found = {where: complaints(expression, SAMPLES) for where, expression in expressions(BOARDS[name])}
    assert {where: said for where, said in found.items() if said} == {}


def test_aborts_starts_and_alerts_are_marked_in_every_graph() -> None:
    marked = {name: {each["name"] for each in marks(board)} for name, board in BOARDS.items()}
    assert marked["consilo-federation"] == {"Rounds aborted", "Coordinator started", "Alerts"}
    assert marked["consilo-job"] == {"Rounds aborted", "Coordinator started"}
    assert marked["consilo-participant"] == {"Left rounds", "Daemon started", "Alerts"}


@pytest.mark.parametrize("name", BOARDS)
def test_what_a_dashboard_points_to_is_there(name: str) -> None:
    text = (DASHBOARDS / f"{name}.json").read_text(encoding="utf-8")
    known = {rule["alert"] for rule in alerts()}
    assert set(re.findall(r"\bConsilo[A-Z]\w+", text)) <= known
    assert all((ROOT / document).is_file() for document in re.findall(r"docs/[\w./-]+\.md", text))


def test_a_dashboard_of_a_silo_asks_its_own_daemon_alone() -> None:
    for name, other in [("consilo-participant", "consilo_coordinator"), ("consilo-federation", "consilo_participant")]:
        assert other not in (DASHBOARDS / f"{name}.json").read_text(encoding="utf-8")


def test_grafana_is_told_where_dashboards_and_data_lie() -> None:
    data = yaml.safe_load((PROVISIONING / "datasources" / "consilo.yml").read_text(encoding="utf-8"))
    folder = yaml.safe_load((PROVISIONING / "dashboards" / "consilo.yml").read_text(encoding="utf-8"))
    assert data["apiVersion"] == folder["apiVersion"] == 1
    (source,) = data["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    (provider,) = folder["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    scrapes = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]
