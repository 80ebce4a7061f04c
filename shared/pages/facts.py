"""What both sides' pages say of the process and its machine: who it is, certificates, the disk, what needs a person."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shared.build import BuildInfo
from shared.consortium import Consortium
from shared.expiry import AUTHORITY, CA, RENEW_WITHIN, REPLACE_WITHIN, SIGNING, TLS
from shared.identity import Identity

LOW_SHARE = 0.05
LOW_BYTES = 2_000_000_000  # whichever comes first: a round needs room for its updates and a version
BAD = "bad"
WARN = "warn"
_SAID = {TLS: "TLS", SIGNING: "signing", CA: AUTHORITY}  # as `check` does


@dataclass(frozen=True, slots=True)
class About:
    """Who this process is."""

    who: str
    consortium: str
    manifest: str
    """Digest of the consortium's manifest; empty where there is none."""
    version: str
    revision: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that a person should look at."""

    level: str
    """`bad`: it does not work. `warn`: it will not, or somebody should know."""
    text: str
    path: str = ""
    """The page that says more."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One of our own."""

    name: str
    ends: datetime
    days_left: int
    level: str
    """Empty, `warn` or `bad`."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of the data folder."""

    free: int
    total: int
    kinds: tuple[tuple[str, int], ...]
    """What the folder is made of, once a minute; kinds with nothing are left out."""
    low: bool


def about_of(identity: Identity, *, consortium: Consortium | None, build: BuildInfo, now: datetime) -> About:
    """A process that started now."""
    return About(
        who=identity.name,
        consortium=identity.consortium,
        manifest=str(consortium.digest) if consortium is not None else "",
        version=build.version,
        revision=build.revision,
        started_at=now,
    )


def certificates(ends: Mapping[str, datetime], now: datetime) -> tuple[Certificate, ...]:
    """Those that are known to end some time, by the names that metrics have for them."""
    made = []
    for name, end in ends.items():
        left = end - now
        within = REPLACE_WITHIN if name == CA else RENEW_WITHIN
        level = BAD if end <= now else WARN if left < within else ""
        made.append(Certificate(_SAID[name], end, left.days, level))
    return tuple(made)


def disk(data_dir: Path, sizes: Iterable[tuple[str, int]]) -> Disk | None:
    """None where it cannot be looked at."""
    try:
        usage = shutil.disk_usage(data_dir)
    except OSError:
        return None
    whole = usage.used + usage.free  # as the metric has it: without what the file system keeps for others
    low = usage.free < min(LOW_BYTES, whole * LOW_SHARE)
    named = tuple((str(kind), size) for kind, size in sizes if size)
    return Disk(usage.free, whole, named, low)


def of_machine(certificates: tuple[Certificate, ...], disk: Disk | None) -> tuple[Attention, ...]:
    """What of these needs a person."""
    said = [
        Attention(
            each.level,
            f"The {each.name} certificate {'ended' if each.level == BAD else 'ends'} on {each.ends:%Y-%m-%d}"
            + ("" if each.level == BAD else f": {each.days_left} days left"),
        )
        for each in certificates
        if each.level
    ]
    if disk is not None and disk.low:
        said.append(Attention(WARN, "The disk of the data folder is nearly full"))
    return tuple(said)
