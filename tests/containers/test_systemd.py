"""What systemd itself says of the units.

No container here has systemd as its first process: what systemd-analyze says without one is what is asked. The list of
allowed system calls is tried in test_no_phone_home.py, where the engine applies it to the daemons.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.containers.engine import ROOT, EngineError, built, once
from tests.containers.system_calls import allowed_system_calls

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

UNITS = ROOT / "deploy/systemd"
SERVICES = ["consilo-coordinator.service", "consilo-participant.service"]
EXPOSURE = 20  # of 100: systemd-analyze calls up to 2.0 of 10 "OK"
# A drop-in beside the unit, and a program where the unit says that it is: verify looks for it.
PLACE = """
    mkdir -p /etc/systemd/system /opt/consilo/bin && cp /units/*.service /etc/systemd/system
    printf '#!/bin/sh\\n' > /opt/consilo/bin/consilo && chmod +x /opt/consilo/bin/consilo
    cp /units/consilo.sysusers.conf /usr/lib/sysusers.d/consilo.conf
    cp /units/consilo.tmpfiles.conf /usr/lib/tmpfiles.d/consilo.conf
    systemd-sysusers && systemd-tmpfiles --create consilo.conf
"""


def said(script: str) -> str:
    """What commands beside systemd's programs say, with the units in place. Raises EngineError."""
    return once(built("systemd"), "sh", "-euc", script, options=("--volume", f"{UNITS}:/units:ro"))


@pytest.mark.parametrize("service", SERVICES)
def test_the_unit_is_one_that_systemd_understands(service: str) -> None:
    assert said(f"{PLACE} systemd-analyze verify --man=no /etc/systemd/system/{service} 2>&1").strip() == ""


@pytest.mark.parametrize("service", SERVICES)
def test_little_is_exposed(service: str) -> None:
    report = said(f"{PLACE} systemd-analyze security --offline=true --threshold={EXPOSURE} --no-pager /units/{service}")
    assert re.search(r"Overall exposure level for \S+: [01]\.\d ", report), report


def test_more_exposure_than_that_would_be_seen() -> None:
    """The threshold is a test: a unit without hardening fails it."""
    bare = "printf '[Service]\\nExecStart=/bin/true\\n' > /tmp/bare.service"
    with pytest.raises(EngineError, match=r"Overall exposure level for bare\.service: 9"):
        said(f"{bare}; systemd-analyze security --offline=true --threshold={EXPOSURE} --no-pager /tmp/bare.service")


EXAMPLES = sorted((UNITS / "consilo-participant.service.d").iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_a_drop_in_is_understood(example: Path) -> None:
    folder = "/etc/systemd/system/consilo-participant.service.d"
    place = f"{PLACE} mkdir {folder}; cp /units/{example.parent.name}/{example.name} {folder}/{example.stem}"
    unit = "/etc/systemd/system/consilo-participant.service"
    assert said(f"{place}; systemd-analyze verify --man=no {unit} 2>&1").strip() == ""


def test_users_and_folders_are_made() -> None:
    folders = "/etc/consilo /etc/consilo/*/ /etc/consilo/*/credentials"
    listed = said(f"{PLACE} stat -c '%a %U %G %n' {folders}")
    assert listed.splitlines() == [
        "755 root root /etc/consilo",
        "750 root consilo-coordinator /etc/consilo/coordinator/",
        "750 root consilo-participant /etc/consilo/participant/",
        "700 consilo-coordinator consilo-coordinator /etc/consilo/coordinator/credentials",
        "700 consilo-participant consilo-participant /etc/consilo/participant/credentials",
    ]


def test_the_list_of_system_calls_is_worth_having() -> None:
    """Under it a whole federation trains: test_no_phone_home.py."""
    calls = set(allowed_system_calls())
    assert calls.isdisjoint(
        {"mount", "ptrace", "bpf", "init_module", "kexec_load", "setuid", "chown", "chroot", "reboot"}
    )
    assert {"connect", "mmap", "prlimit64", "renameat2", "fdatasync", "clone3"} <= calls
