"""The systemd units hold what the code relies on. systemd itself looks at them in tests/containers."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from shared.signals import LIMIT_S

UNITS = Path(__file__).parents[2] / "deploy/systemd"
SIDES = ["coordinator", "participant"]
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictNamespaces": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "UMask": "0077",
    "LimitCORE": "0",
}

Unit = dict[str, list[str]]


def unit_of(side: str) -> Unit:
    settings: Unit = defaultdict(list)
    for line in (UNITS / f"consilo-{side}.service").read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            settings[name].append(value)
    return settings


@pytest.mark.parametrize("side", SIDES)
def test_is_hardened(side: str) -> None:
    unit = unit_of(side)
    assert {name: unit[name] for name in HARDENED} == {name: [value] for name, value in HARDENED.items()}
    assert unit["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
    # A participant writes the mark of its journal beside its signing key.
    assert unit["ReadWritePaths"] == {"coordinator": [], "participant": ["/etc/consilo/participant/credentials"]}[side]
    assert "ConfigurationDirectory" not in unit  # systemd would let the daemon write there


@pytest.mark.parametrize("side", SIDES)
def test_starts_the_daemon_and_gives_it_its_folder(side: str) -> None:
    unit = unit_of(side)
    assert unit["ExecStart"] == [f"/opt/consilo/bin/consilo {side} run --config /etc/consilo/{side}/{side}.toml"]
    assert unit["WorkingDirectory"] == [f"/etc/consilo/{side}"]
    assert unit["StateDirectory"] == [f"consilo/{side}"]
    assert unit["StateDirectoryMode"] == ["0700"]
    assert unit["Type"] == ["notify"]


@pytest.mark.parametrize(("side", "other"), [SIDES, SIDES[::-1]])
def test_is_apart_from_the_other_role_on_one_machine(side: str, other: str) -> None:
    """A task is code that the participant's user runs: the coordinator's keys and updates are not for it."""
    unit = unit_of(side)
    assert unit["User"] == unit["Group"] == [f"consilo-{side}"]
    hidden = {path for line in unit["InaccessiblePaths"] for path in line.split()}
    assert {f"-/etc/consilo/{other}", f"-/var/lib/consilo/{other}"} <= hidden
    made = (UNITS / "consilo.tmpfiles.conf").read_text("utf-8")
    assert f"d /etc/consilo/{side}/credentials 0700 consilo-{side} consilo-{side} -" in made.splitlines()
    assert f"u consilo-{side} " in (UNITS / "consilo.sysusers.conf").read_text("utf-8")


@pytest.mark.parametrize("side", SIDES)
def test_waits_longer_than_a_daemon_takes_to_end_and_starts_it_again(side: str) -> None:
    unit = unit_of(side)
    assert 2 * LIMIT_S < float(unit["TimeoutStopSec"][0]) <= 30
    assert unit["KillMode"] == ["mixed"]  # the daemon ends its own processes
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert unit["StartLimitIntervalSec"] == ["0"]
