"""What both daemons expose of themselves as processes: the declarations that they share, and what feeds these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from shared.build import BuildInfo
from shared.disk_use import DiskUse
from shared.expiry import CERTIFICATES
from shared.log_sink import lines_lost
from shared.metrics import LAG_SECONDS, Kind, Label, Metric, Registered, counter, gauge, histogram

BUILD = Metric("build", Kind.INFO, "Version, revision and Python of this process.")
EVENT_LOOP_LAG = histogram(
    "event_loop_lag_seconds", "How late the event loop woke from a sleep of a second, once a second.",
    buckets=LAG_SECONDS,
)  # fmt: skip
CERTIFICATE_END = gauge(
    "certificate_not_after_time_seconds",
    "Unix time at which a certificate ends.",
    Label(
        "certificate",
        CERTIFICATES,
        said="tls (the file), signing (the one that this process started with), ca (the authority that issued tls)",
    ),
)
LOG_LINES_LOST = counter(
    "log_lines_lost",
    "Lines of the log that could not be written: nobody read the pipe behind standard error, or its disk was full.",
    read=True,
)
DISK_SIZE = gauge(
    "disk_size_bytes", "The whole of that disk, without what its file system keeps for others.", read=True
)

K = TypeVar("K", bound=StrEnum)


class ProcessMetrics(Generic[K]):
    """The part of each house's metrics that is the same in both."""

    def __init__(
        self,
        metrics: Iterable[Metric],
        *,
        prefix: str,
        build: BuildInfo,
        ready: Metric,
        disk: Metric,
        disk_free: Metric,
    ) -> None:
        """`ready`, `disk`, `disk_free`: the house's own declarations of these."""
        registered = self._registered = Registered(metrics, prefix=prefix)
        self.registry = registered.registry
        self._ready, self._disk_free = ready, disk_free
        self._lag = registered.histogram(EVENT_LOOP_LAG)
        self._certificates = registered.gauge(CERTIFICATE_END)
        self._disk = registered.gauge(disk)
        registered.inform(BUILD, {"version": build.version, "revision": build.revision, "python": build.python})
        registered.read(ready, lambda: 0.0)
        registered.read(LOG_LINES_LOST, lines_lost)

    def readiness(self, ready: Callable[[], bool]) -> None:
        """Follow whether the daemon can do its part; until then it cannot."""
        self._registered.read(self._ready, lambda: float(ready()))

    def loop_lag(self, seconds: float) -> None:
        """How late a sleep of a second woke."""
        self._lag.observe(seconds)

    def certificates(self, ends: Mapping[str, datetime]) -> None:
        """When each ends; of one that cannot be read now, what was known stays."""
        for certificate, end in ends.items():
            self._certificates.labels(certificate).set(end.timestamp())

    def disk(self, use: DiskUse[K]) -> None:
        """What the last look at the data folder saw."""
        for kind, size in use.sizes.items():
            self._disk.labels(kind).set(size)
        self._registered.read(self._disk_free, lambda: use.free)
        self._registered.read(DISK_SIZE, lambda: use.size)
