"""How either daemon declares its metrics, once: name, type, labels, what they mean, which values a label may have.

Theory of operation. A `Metric` is data. `Registered` makes what prometheus_client needs of it, and gives every series
that can be foreseen its zero: `increase()` sees a first event only where a zero was scraped before it. The page
docs/metrics.md is written from the same declarations (`tools/render_metrics_docs.py`), so a metric without a
declaration, or a declaration without its row, cannot be.

Labels are bounded: a closed list, or names of which the help says how many there can be. Nothing that a peer writes
freely becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import assert_never

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from shared.ids import JobId

_leave_out_creation_times: Callable[[], None] = disable_created_metrics  # the library forgot to say its type

LAG_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets for how late an event loop is: from what is always so to what ends sessions."""


class Kind(StrEnum):
    """As Prometheus calls them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and what it may say."""

    name: str
    values: tuple[str, ...] = ()
    """All of them, where the list is closed; empty where it is not."""
    said: str = ""
    """For the page: which these are, or what bounds them. Empty where the values say it."""

    @property
    def closed(self) -> bool:
        return bool(self.values)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, without the prefix of its house."""

    name: str
    kind: Kind
    help: str
    """With the unit where the name has none. One sentence or two: it is read in a table, and in a browser's tooltip."""
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    page: str = ""
    """What the page says instead of `help`, where it has more to say, or a link."""
    starts: bool | None = None
    """Whether all series are there from the start. None: those of counters and histograms with closed labels are."""
    read: bool = False
    """Nobody sets it: its value is asked for at each scrape."""

    @property
    def starts_whole(self) -> bool:
        events = self.kind in {Kind.COUNTER, Kind.HISTOGRAM}
        return all(label.closed for label in self.labels) and (events if self.starts is None else self.starts)


def counter(name: str, text: str, *labels: Label, page: str = "", read: bool = False) -> Metric:
    return Metric(name, Kind.COUNTER, text, labels, page=page, read=read)


def gauge(
    name: str, text: str, *labels: Label, page: str = "", starts: bool | None = None, read: bool = False
) -> Metric:
    return Metric(name, Kind.GAUGE, text, labels, page=page, starts=starts, read=read)


def histogram(name: str, text: str, *labels: Label, buckets: tuple[float, ...], page: str = "") -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, labels, buckets, page)


class Registered:
    """The declarations of one house, in a registry of their own; each metric is asked for by its declaration."""

    def __init__(self, metrics: Iterable[Metric], *, prefix: str) -> None:
        # A second series for each counter, with the time at which it began: nothing here asks for it, and it doubles
        # what is scraped.
        _leave_out_creation_times()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._prefix = prefix
        self._counters: dict[Metric, Counter] = {}
        self._gauges: dict[Metric, Gauge] = {}
        self._histograms: dict[Metric, Histogram] = {}
        self._read: dict[Metric, _Read] = {}
        for metric in metrics:
            self._add(metric)

    def counter(self, metric: Metric) -> Counter:
        return self._counters[metric]

    def gauge(self, metric: Metric) -> Gauge:
        return self._gauges[metric]

    def histogram(self, metric: Metric) -> Histogram:
        return self._histograms[metric]

    def read(self, metric: Metric, value: Callable[[], float | None]) -> None:
        """Ask for the value at each scrape, on the thread that answers it; None: there is none now."""
        self._read[metric].value = value

    def inform(self, metric: Metric, facts: Mapping[str, str]) -> None:
        """The one series of a metric that says what runs here."""
        self._info(metric).info(dict(facts))

    def _info(self, metric: Metric) -> Info:
        return Info(f"{self._prefix}_{metric.name}", metric.help, registry=self.registry)

    def _add(self, metric: Metric) -> None:
        name, labels = f"{self._prefix}_{metric.name}", [label.name for label in metric.labels]
        if metric.read:
            self._read[metric] = _Read(name, metric)
            self.registry.register(self._read[metric])
            return
        match metric.kind:
            case Kind.COUNTER:
                made = self._counters[metric] = Counter(name, metric.help, labels, registry=self.registry)
                self._start(metric, made)
            case Kind.GAUGE:
                gauge = self._gauges[metric] = Gauge(name, metric.help, labels, registry=self.registry)
                self._start(metric, gauge)
            case Kind.HISTOGRAM:
                self._histograms[metric] = Histogram(
                    name, metric.help, labels, registry=self.registry, buckets=metric.buckets
                )
                self._start(metric, self._histograms[metric])
            case Kind.INFO:
                pass  # there once it is said
            case _:
                assert_never(metric.kind)

    def _start(self, metric: Metric, made: Counter | Gauge | Histogram) -> None:
        if metric.labels and metric.starts_whole:
            for values in product(*(label.values for label in metric.labels)):
                made.labels(*values)


class _Read(Collector):
    """What somebody else counts or knows; asked at each scrape."""

    def __init__(self, name: str, metric: Metric) -> None:
        self._name = name
        self._metric = metric
        self.value: Callable[[], float | None] = _nothing

    def describe(self) -> Iterator[Family]:
        yield self._family(None)

    def collect(self) -> Iterator[Family]:
        yield self._family(self.value())

    def _family(self, value: float | None) -> Family:
        made = CounterMetricFamily if self._metric.kind is Kind.COUNTER else GaugeMetricFamily
        return made(self._name, self._metric.help, value=value)


def _nothing() -> None:
    return None


class JobSeries:
    """The series of jobs: of each with something open, and of so many others as moved last. A daemon that runs for
    months has had any number of jobs.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._shown: dict[JobId, dict[tuple[Gauge, tuple[str, ...]], float]] = {}
        """Of each job its series with their values, the job that moved last at the end."""
        self._open: set[JobId] = set()

    def show(self, gauge: Gauge, value: float, job: JobId, *labels: str) -> None:
        """Set one; one that has that value already costs a look into a table."""
        series = self._shown.setdefault(job, {})
        if series.get((gauge, labels)) != value:
            series[gauge, labels] = value
            gauge.labels(job, *labels).set(value)

    def hide(self, gauge: Gauge, job: JobId, *labels: str) -> None:
        """Take one away, if it is there."""
        if self._shown.get(job, {}).pop((gauge, labels), None) is not None:
            gauge.remove(job, *labels)

    def hide_all(self, gauge: Gauge, job: JobId) -> None:
        """Take away all that a gauge has of a job."""
        for shown, labels in [*self._shown.get(job, {})]:
            if shown is gauge:
                self.hide(gauge, job, *labels)

    def moved(self, job: JobId, *, still_open: bool) -> None:
        """It is the newest now. Of more jobs than are shown, those go that moved longest ago and have nothing open."""
        self._shown[job] = self._shown.pop(job, {})
        if still_open:
            self._open.add(job)
        else:
            self._open.discard(job)
        idle = [name for name in self._shown if name not in self._open]
        for name in idle[: max(0, len(self._shown) - self._most)]:
            for gauge, labels in self._shown.pop(name):
                gauge.remove(name, *labels)
