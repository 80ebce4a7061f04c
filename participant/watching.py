"""What the daemon looks at regularly, because nobody tells of it when it changes: its disk, its certificates, and
whether its own event loop still goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from participant.disk_use import DiskKind, disk_use
from participant.health import DaemonHealth
from participant.metrics import ParticipantMetrics
from participant.settings import ParticipantSettings
from shared.disk_use import DiskUse, keep_looking
from shared.expiry import own_ends
from shared.heartbeat import keep_beating
from shared.tls import CheckedSigning


class Watching:
    """The looks of one run, and what the last ones saw."""

    def __init__(
        self,
        settings: ParticipantSettings,
        *,
        signing: CheckedSigning,
        metrics: ParticipantMetrics,
        health: DaemonHealth,
    ) -> None:
        self.disk_sizes: Mapping[DiskKind, int] = {}
        """What the data folder is made of; nothing before the first look."""
        self.certificates = partial(own_ends, settings.tls.paths, signing=signing.expires)
        """When our own end, whenever somebody asks."""
        self._data_dir = settings.participant.data_dir
        self._metrics = metrics
        self._health = health

    async def look_around(self) -> None:
        """Until cancelled."""
        await asyncio.gather(
            keep_looking(partial(disk_use, self._data_dir), self._seen_on_disk),
            keep_looking(self.certificates, self._metrics.certificates),
        )

    async def beat(self) -> None:
        """The event loop's heart, until cancelled."""
        await keep_beating(self._health.loop, self._metrics.loop_lag)

    def _seen_on_disk(self, use: DiskUse[DiskKind]) -> None:
        self.disk_sizes = use.sizes
        self._metrics.disk(use)
