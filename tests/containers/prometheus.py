"""A real Prometheus in a container on this machine's network, and what it knows: targets, queries, alerts.

Rules that wait for minutes are rendered with short windows: `for` and ranges are scaled, and the expressions stay.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from promql_parser import parse_duration

from tests.containers.engine import Container, awaited, built, container
from tests.support.federation import free_port
from tests.support.rules import RULE_FILES

SCRAPE_S = 1
RANGE_LEAST_S = 5 * SCRAPE_S  # a rate needs two samples, on a slow machine too

_RANGE = re.compile(r"\[(?P<range>\w+)\](?:, (?P<ahead>\d+)\))?|\boffset (?P<offset>\w+)")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    address: str
    container: Container

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The labels and the value of each series that an expression gives now."""
        found = self._get(f"query?{urllib.parse.urlencode({'query': expression})}")
        return [{**each["metric"], "value": float(each["value"][1])} for each in found["result"]]

    def value(self, expression: str) -> float | None:
        found = self.query(expression)
        return found[0]["value"] if found else None

    def answers(self) -> bool:
        """Whether it has started. Raises AssertionError when it never will."""
        if not self.container.running:
            raise AssertionError(f"Prometheus ended:\n{self.container.logs()[-4000:]}")
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False

    def targets(self) -> dict[tuple[str, str], dict[str, Any]]:
        """By scrape and address."""
        active = self._get("targets?state=active")["activeTargets"]
        return {(each["labels"]["job"], each["labels"]["instance"]): each for each in active}

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self.alerts() if each["state"] == "firing"}

    def alerts(self) -> list[dict[str, Any]]:
        found = self._get("alerts")["alerts"]
        assert isinstance(found, list)
        return found

    def await_health(self, *expected: str, health: str = "up") -> None:
        """Until each of these scrapes has targets, all of this health."""

        def reached() -> bool:
            seen = {(job, each["health"]) for (job, _), each in self.targets().items() if job in expected}
            return seen == {(job, health) for job in expected}

        awaited(f"{expected} {health}", reached)

    def await_firing(self, *names: str) -> None:
        awaited(f"{names} fire", lambda: set(names) <= self.firing(), limit_s=180)

    def await_quiet(self, *names: str) -> None:
        awaited(f"{names} are over", lambda: not set(names) & self.firing(), limit_s=180)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]


def write_configuration(
    folder: Path, scrapes: Sequence[Mapping[str, Any]], rules: Mapping[str, Mapping[str, Any]]
) -> None:
    """prometheus.yml and the rules beside it, by the names of their files."""
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": ["rules-*.yml"],
        "scrape_configs": [dict(scrape) for scrape in scrapes],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for name, content in rules.items():
        (folder / f"rules-{name}.yml").write_text(yaml.safe_dump(content))


@contextmanager
def prometheus(
    folder: Path, scrapes: Sequence[Mapping[str, Any]], *, rules: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[Prometheus]:
    """Start one with these scrapes, and rules by the names of their files. `folder`: it reads what lies there, by the
    same path, so that a scrape may name files of certificates.
    """
    write_configuration(folder, scrapes, rules or {})
    address = f"127.0.0.1:{free_port()}"
    options = ["--network", "host", "--user", f"{os.getuid()}:{os.getgid()}", "--tmpfs", "/data:mode=1777"]
    command = [f"--config.file={folder}/prometheus.yml", "--storage.tsdb.path=/data", f"--web.listen-address={address}"]
    with container(built("prometheus"), *command, options=[*options, "--volume", f"{folder}:{folder}:ro"]) as running:
        found = Prometheus(address, running)
        awaited("Prometheus answers", found.answers)
        yield found


def scrape(job: str, *targets: str, **more: Any) -> dict[str, Any]:
    return {"job_name": job, "honor_labels": True, "static_configs": [{"targets": list(targets)}], **more}


def hurried_rules(factor: float) -> dict[str, dict[str, Any]]:
    """The rules of the repository with all times multiplied."""
    return {path.stem: hurried(yaml.safe_load(path.read_text(encoding="utf-8")), factor) for path in RULE_FILES}


def hurried(rules: dict[str, Any], factor: float) -> dict[str, Any]:
    """Of one file. Numbers in expressions stay: they are thresholds. How far predict_linear looks ahead is a time."""

    def shorter(found: re.Match[str]) -> str:
        if found["offset"]:
            return f"offset {_scaled(found['offset'], factor)}s"
        ahead = f", {_scaled(found['ahead'] + 's', factor)})" if found["ahead"] else ""
        return f"[{max(RANGE_LEAST_S, _scaled(found['range'], factor))}s]{ahead}"

    groups = []
    for group in rules["groups"]:
        changed = [{**rule, "expr": _RANGE.sub(shorter, rule["expr"])} for rule in group["rules"]]
        for rule in changed:
            if "for" in rule:
                rule["for"] = f"{_scaled(rule['for'], factor)}s"
        groups.append({**group, "rules": changed})
    return {"groups": groups}


def _scaled(duration: str, factor: float) -> int:
    return max(1, round(parse_duration(duration).total_seconds() * factor))
