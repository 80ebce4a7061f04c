"""What a Prometheus would collect: one scrape, read; and the scrapes of a live federation in the middle of a round."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from consilo.demo.moment import Moment
from participant.tasks.state_dict import write_model
from tests.cluster.tasks.regression_task import build
from tests.support.federation import Federation, job_spec

SILOS = {"hospital-a": 24, "hospital-b": 40}
WATCHED, STILL = SILOS
STOPS_IN_ROUND = 3


@dataclass(frozen=True, slots=True)
class Scrape:
    """One page of metrics."""

    samples: Mapping[str, Mapping[frozenset[tuple[str, str]], float]]
    """By the name that a query has for it, then by its labels."""
    families: Mapping[str, str]
    """The type of each metric that the page declares, with samples or without; a counter's name has no `_total`."""

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get(name, {}).get(frozenset(labels.items()))

    def labels(self, name: str) -> set[str]:
        """The names of all labels with which samples of that name come."""
        return {label for each in self.samples.get(name, {}) for label, _ in each}


def scrape(port: int) -> Scrape:
    """Of the daemon that answers on this port of loopback."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return read_page(answer.read().decode())


def read_page(text: str) -> Scrape:
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    families = {}
    for family in text_string_to_metric_families(text):
        families[family.name] = family.type
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Scrape(samples, families)


@contextmanager
def federation_in_a_round(folder: Path) -> Iterator[Federation]:
    """Two silos and a masked job with two rounds behind it. The third stays open: one silo stands still in it, so that
    also what is there only while a round is open can be scraped, for as long as it takes.
    """
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    options = {member: {"silo": index, "rows": rows} for index, (member, rows) in enumerate(SILOS.items())}
    with Federation(folder, entry="regression_task:RegressionTask", options=options, metrics=True) as federation:
        federation.start_coordinator()
        federation.start_participant(WATCHED)
        still = federation.start_doomed(STILL, Moment.parse(f"{STOPS_IN_ROUND}:Working:STOP"))
        federation.submit(
            "heart-1", job_spec(list(SILOS), initial, rounds=100, training={"learning_rate": 0.05}), initial
        )
        still.wait_until_stopped()
        yield federation


def live_scrapes(folder: Path) -> dict[str, Scrape]:
    """A scrape of the coordinator and one of a silo, by `coordinator` and `participant`, of such a federation."""
    with federation_in_a_round(folder) as federation:
        return {
            "coordinator": scrape(federation.metrics_ports["coordinator"]),
            "participant": scrape(federation.metrics_ports[WATCHED]),
        }
