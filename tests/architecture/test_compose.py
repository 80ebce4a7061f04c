"""What Dockerfiles and compose files promise and no engine is needed to see. tests/containers runs them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILES = [
    *ROOT.glob("Dockerfile.*"),
    *ROOT.glob("deploy/compose/**/Dockerfile"),
    *ROOT.glob("tests/containers/images/*/Dockerfile"),
]
COMPOSE_FILES = [ROOT / "docker-compose.yml", *ROOT.glob("deploy/compose/*/docker-compose.yml")]
DAEMONS = {"coordinator", "hospital-a", "hospital-b", "hospital-c", "hospital-d"}


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["services"]
    return services


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


DEMO = services_of(ROOT / "docker-compose.yml")


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_bases_are_pinned_and_no_frontend_is_pulled(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"^# *syntax=", text, re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    bases = {base for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if base not in stages and "$" not in base}
    assert bases
    assert all(re.fullmatch(r"[a-z/]+:[0-9][\w.-]*", base) for base in bases), bases


@pytest.mark.parametrize("side", ["coordinator", "participant"])
def test_the_version_of_an_image_is_the_version_of_the_code(side: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nARG VERSION={version}\n" in (ROOT / f"Dockerfile.{side}").read_text("utf-8")


def test_a_build_takes_what_is_named_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    named = [rule for rule in rules if rule.startswith("!")]
    assert all((ROOT / rule[1:]).exists() for rule in named)
    # The last rule that fits decides: keys inside a folder that is named stay out.
    assert {"**/*.key", "**/*.pem", "**/credentials"} <= set(rules[rules.index(named[-1]) + 1 :])


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=name_of)
def test_every_container_may_do_little(path: Path) -> None:
    for name, service in services_of(path).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith(("0", "root")), name
        assert service["pids_limit"], name
        assert service["mem_limit"], name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service), name
        if service["restart"] != "no" and name not in {"prometheus", "grafana"}:
            assert service["stop_grace_period"] == "30s", name


def test_the_demo_publishes_on_loopback_and_no_daemon_publishes() -> None:
    assert set(DEMO) == DAEMONS | {"certificates", "job", "prometheus", "grafana"}
    for name, service in DEMO.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not (name in DAEMONS and "ports" in service), name


def test_a_silo_publishes_nothing() -> None:
    silo = services_of(ROOT / "deploy/compose/participant/docker-compose.yml")["participant"]
    assert not {"ports", "expose", "network_mode"} & set(silo)


def test_no_volume_is_shared_but_with_the_one_that_fills_it() -> None:
    seen: dict[str, str] = {}
    for name, service in DEMO.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if name == "certificates" or source.startswith("."):
                continue
            assert seen.setdefault(source, name) == name, f"{source} is seen by {seen[source]} and {name}"
    assert "authority" not in seen


def test_prometheus_asks_the_daemons_and_grafana_finds_its_files() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    targets = {target for job in scraped for group in job["static_configs"] for target in group["targets"]}
    assert {target.partition(":")[0] for target in targets} == DAEMONS
    mounts = dict(volume.split(":")[:2] for volume in DEMO["grafana"]["volumes"] + DEMO["prometheus"]["volumes"])
    assert all((ROOT / source).is_dir() for source in mounts if source.startswith("."))
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/consilo.yml").read_text("utf-8"))[
        "providers"
    ]
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]


@pytest.mark.parametrize("variant", ["coordinator.toml", "participant.toml.in"])
def test_the_demo_says_that_its_metrics_are_on_an_internal_network(variant: str) -> None:
    text = (ROOT / "deploy/compose/demo" / variant).read_text("utf-8")
    assert "internal_network = true" in text
    networks = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["networks"]
    assert networks["federation"] == networks["monitoring"] == {"internal": True}
