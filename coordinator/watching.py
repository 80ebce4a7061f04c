"""What the coordinator looks at regularly, because nobody tells of it when it changes: its disk, its certificates, its
allow-list, and whether its own event loop and conductor still go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

from coordinator.conducting import ConductorThread
from coordinator.disk_use import DiskKind, disk_use
from coordinator.health import Health
from coordinator.metrics import CoordinatorMetrics
from coordinator.settings import CoordinatorSettings
from shared.disk_use import DiskUse, keep_looking
from shared.expiry import own_ends
from shared.heartbeat import keep_beating
from shared.identity import AllowlistFile
from shared.ids import ParticipantId
from shared.tls import CheckedSigning

ALLOWLIST_S = 5.0  # between two looks at who is on the allow-list, for the metrics; each call looks for itself
CONDUCTOR_BEAT_S = 5.0  # each makes the conductor look at the database, as any work does


class Watching:
    """The looks of one run, and what the last ones saw."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        signing: CheckedSigning,
        allowlist: AllowlistFile,
        metrics: CoordinatorMetrics,
        health: Health,
    ) -> None:
        self.disk_sizes: Mapping[DiskKind, int] = {}
        """What the data folder is made of; nothing before the first look."""
        self.certificates = partial(own_ends, settings.tls.paths, signing=signing.expires)
        """When our own end, whenever somebody asks."""
        self._data_dir = settings.coordinator.data_dir
        self._allowlist = allowlist
        self._metrics = metrics
        self._health = health

    async def look_around(self, threads: Executor) -> None:
        """Until cancelled."""
        disk = partial(disk_use, self._data_dir)
        await asyncio.gather(
            keep_looking(disk, self._seen_on_disk, threads=threads),
            keep_looking(self.certificates, self._metrics.certificates, threads=threads),
            keep_looking(self._allowlist.participants, self._show_allowed, threads=threads, every_s=ALLOWLIST_S),
        )

    async def beat(self) -> None:
        """The event loop's heart, until cancelled."""
        await keep_beating(self._health.loop, self._metrics.loop_lag)

    async def follow(self, conductor: ConductorThread) -> None:
        """The conductor's heart, which beats when it has done what was asked of it."""
        while True:
            await conductor.call(self._health.conductor.beat)
            await asyncio.sleep(CONDUCTOR_BEAT_S)

    def _seen_on_disk(self, use: DiskUse[DiskKind]) -> None:
        self.disk_sizes = use.sizes
        self._metrics.disk(use)

    def _show_allowed(self, participants: Sequence[str]) -> None:
        if self._allowlist.problem is None:  # a list that cannot be used now takes nobody off
            self._metrics.allowed([ParticipantId(participant) for participant in participants])
