"""What both sides' pages say of the process and its machine: who it is, certificates, the disk, what needs a person."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shared.expiry import AUTHORITY, RENEW_WITHIN, REPLACE_WITHIN, endings
from shared.tls import TlsPaths

LOW_SHARE = 0.05
LOW_BYTES = 2_000_000_000  # whichever comes first: a round needs room for its updates and a version
BAD = "bad"
WARN = "warn"


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


def own_certificates(tls: TlsPaths, signing: Path) -> Mapping[str, Path]:
    """Which files, by the names that `check` gives them."""
    return {"TLS": tls.certificate, "signing": signing, AUTHORITY: tls.ca}


def certificates(files: Mapping[str, Path], now: datetime) -> tuple[Certificate, ...]:
    """As the files are now, so that a renewal shows at once. One that cannot be read is left out."""
    made = []
    for name, ends in endings(files).items():
        left = ends - now
        within = REPLACE_WITHIN if name == AUTHORITY else RENEW_WITHIN
        level = BAD if ends <= now else WARN if left < within else ""
        made.append(Certificate(name, ends, left.days, level))
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
