"""The system calls that the systemd units leave to the daemons, by systemd's own lists, as an engine takes them."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from tests.containers.engine import built, once

ALLOWED, TAKEN_OUT = "@system-service", ("@privileged", "@resources")  # SystemCallFilter= of both units
ALWAYS = "@default"  # what systemd leaves to every unit with a filter
EPERM = 1  # SystemCallErrorNumber= of both units


@functools.cache
def _listed() -> dict[str, list[str]]:
    """Every set, with the calls and the other sets that stand in it."""
    said = once(built("systemd"), "systemd-analyze", "syscall-filter", "--no-pager")
    sets: dict[str, list[str]] = {}
    calls: list[str] = []
    for line in said.splitlines():
        if line.startswith("@"):
            calls = sets.setdefault(line.strip(), [])
        elif line.startswith(" ") and not line.strip().startswith("#"):
            calls.append(line.strip())
    return sets


def _set(name: str) -> frozenset[str]:
    """A set in full: those of other sets that are in it, too."""
    words = _listed()[name]
    own = frozenset(word for word in words if not word.startswith("@"))
    return own.union(*(_set(word) for word in words if word.startswith("@")))


def allowed_system_calls() -> list[str]:
    taken_out = frozenset[str]().union(*(_set(name) for name in TAKEN_OUT))
    return sorted((_set(ALLOWED) - taken_out) | _set(ALWAYS))


def write_profile(path: Path) -> None:
    """For `docker run --security-opt seccomp=PATH`."""
    allowed = {"names": allowed_system_calls(), "action": "SCMP_ACT_ALLOW"}
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": [allowed]}
    path.write_text(json.dumps(profile), encoding="utf-8")
