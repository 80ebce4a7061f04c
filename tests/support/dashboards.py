"""The dashboards as Grafana reads them, and what their panels, variables and annotations ask of Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
FILES = tuple(sorted(DASHBOARDS.glob("*.json")))

_OF_GRAFANA = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "6h"}
_LABEL_VALUES = re.compile(r"label_values\((?P<expression>.+), (?P<label>\w+)\)")


def read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def variables(board: dict[str, Any]) -> list[str]:
    return [variable["name"] for variable in board["templating"]["list"]]


def marks(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of ours; the first of every dashboard is Grafana's own."""
    return [each for each in board["annotations"]["list"] if not each.get("builtIn")]


def expressions(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where each expression stands, and what it says, with the variables as Grafana puts them in."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']}, {target['refId']}", substituted(target["expr"], board)
    for annotation in marks(board):
        yield f"annotation {annotation['name']}", substituted(annotation["expr"], board)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found, variable["query"]["query"]
            asked = f"count by ({found['label']}) ({found['expression']})"
            yield f"variable {variable['name']}", substituted(asked, board)


def substituted(expression: str, board: dict[str, Any]) -> str:
    for name, value in _OF_GRAFANA.items():
        expression = expression.replace(name, value)
    for name in variables(board):
        expression = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", "some-value", expression)
    return expression
