"""A real Prometheus collects from both daemons: by plain HTTP on loopback, and by mutual TLS; without a certificate it
gets nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from participant.tasks.state_dict import write_model
from tests.cluster.tasks.regression_task import build
from tests.containers.engine import awaited, telling
from tests.containers.prometheus import Prometheus, prometheus, scrape
from tests.support.federation import Federation, job_spec, write_toml
from tests.support.http_peers import Scrapers
from tests.support.queries import queries

pytestmark = [pytest.mark.containers, pytest.mark.cluster, pytest.mark.timeout(600)]

MEMBERS = ("hospital-a", "hospital-b")
SCRAPES = {"coordinator": "consilo-coordinator", "hospital-a": "consilo-participant"}


@contextmanager
def federation(folder: Path, metrics: Mapping[str, str]) -> Iterator[Federation]:
    """Two rounds of two silos. `metrics`: what [metrics] of the coordinator and one silo says besides `listen`."""
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    options = {member: {"silo": index, "rows": 24} for index, member in enumerate(MEMBERS)}
    with (
        Federation(folder, entry="regression_task:RegressionTask", options=options, metrics=True) as running,
        telling("the federation", running.said),
    ):
        for path in (folder / "coordinator.toml", folder / "hospital-a" / "participant.toml"):
            settings = tomllib.loads(path.read_text())
            settings["metrics"] |= metrics
            write_toml(path, settings)
        running.start()
        spec = job_spec(MEMBERS, initial, rounds=2, training={"learning_rate": 0.05})
        running.finish(running.submit("heart-1", spec, initial))
        yield running


def scrapes(running: Federation, *, prefix: str = "", **more: Any) -> Sequence[dict[str, Any]]:
    """Of both sides; with a prefix by another name than the rules know."""
    ports = running.metrics_ports
    return [scrape(f"{prefix}{name}", f"127.0.0.1:{ports[side]}", **more) for side, name in SCRAPES.items()]


def await_the_rounds(found: Prometheus) -> None:
    found.await_health(*SCRAPES.values())
    committed = 'consilo_coordinator_rounds_committed_total{purpose="train"}'
    awaited("the rounds are collected", lambda: found.value(committed) == 2)
    assert found.value("consilo_participant_session_open") == 1


def test_plain_on_loopback_and_the_queries_of_the_guide(tmp_path: Path) -> None:
    with federation(tmp_path, {}) as running, prometheus(tmp_path, scrapes(running)) as found:
        await_the_rounds(found)
        (number,) = found.query("consilo_coordinator_round_number")
        assert number["job"] == "heart-1"  # and not the name of the scrape
        asked = queries("guide-dashboards")
        assert len(asked) > 20
        for query in asked:
            found.query(query)  # an HTTPError for one that Prometheus does not take


def test_mutual_tls_and_nothing_for_whoever_shows_no_certificate(tmp_path: Path) -> None:
    scrapers, others = Scrapers(tmp_path / "scrapers"), Scrapers(tmp_path / "others")
    own = scrapers.tls
    metrics = {"certificate": str(own.certificate), "key": str(own.key), "clients_ca": str(own.clients_ca)}
    trusting = {"ca_file": str(own.clients_ca), "server_name": "localhost"}
    with federation(tmp_path, metrics) as running:
        ways = [
            *scrapes(running, scheme="https", tls_config=shown(scrapers) | trusting),
            *scrapes(running, prefix="nobody-", scheme="https", tls_config=trusting),
            *scrapes(running, prefix="stranger-", scheme="https", tls_config=shown(others) | trusting),
            *scrapes(running, prefix="plain-"),
        ]
        with prometheus(tmp_path, ways) as found:
            await_the_rounds(found)
            refused = [f"{way}-{name}" for way in ("nobody", "stranger", "plain") for name in SCRAPES.values()]
            found.await_health(*refused, health="down")
            errors = {job: each["lastError"] for (job, _), each in found.targets().items()}
            for name in SCRAPES.values():
                assert "certificate" in errors[f"nobody-{name}"]
                assert "certificate" in errors[f"stranger-{name}"]
                assert errors[name] == ""


def shown(scrapers: Scrapers) -> dict[str, str]:
    """What a scrape shows of itself."""
    tls = scrapers.prometheus.tls
    return {"cert_file": str(tls.certificate), "key_file": str(tls.key)}
