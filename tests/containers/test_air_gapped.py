"""A wheelhouse made here is installed where there is no network at all, as docs/guide-air-gapped.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.engine import BUILD_LIMIT_S, ROOT, EngineError, once, run
from tests.support.credentials import Consortium

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

BASE = "python:3.11-slim-bookworm"
VERIFY = "cd /wheelhouse && sha256sum --check --strict --quiet SHA256SUMS"
INSTALL = """
    python3 -m venv /opt/consilo
    /opt/consilo/bin/python -m pip install -q --no-index --find-links /wheelhouse --require-hashes \\
        -r /wheelhouse/requirements.txt
"""


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("air-gapped") / "wheelhouse"
    run([sys.executable, "tools/wheelhouse.py", "coordinator", str(folder)], limit_s=BUILD_LIMIT_S)
    return folder


def without_network(script: str, *mounts: str) -> str:
    """What a script says in a container that has loopback and no more. Raises EngineError."""
    options = [part for mount in mounts for part in ("--volume", mount)]
    return once(BASE, "sh", "-euc", script, options=options, limit_s=600)


def test_a_coordinator_is_installed_and_checked_without_a_network(wheelhouse: Path, tmp_path: Path) -> None:
    configuration = deployment(tmp_path)
    script = f"""
        {VERIFY}
        {INSTALL}
        /opt/consilo/bin/consilo version
        cp -r /given /etc/consilo && /opt/consilo/bin/consilo coordinator check --config /etc/consilo/coordinator.toml
    """
    said = without_network(script, f"{wheelhouse}:/wheelhouse:ro", f"{configuration}:/given:ro")
    assert re.search(r"version +│ 0\.", said), said
    assert "✗" not in said


def test_a_wheel_that_was_changed_is_not_installed(wheelhouse: Path) -> None:
    change = """
        cp -r /given /wheelhouse && cd /wheelhouse
        printf 'x' >> "$(ls structlog-*.whl)"
    """
    given = f"{wheelhouse}:/given:ro"
    with pytest.raises(EngineError, match=r"structlog-\S+: FAILED"):
        without_network(f"{change} {VERIFY}", given)
    # Whoever changes the sums too does not change what was noted of requirements.txt.
    with pytest.raises(EngineError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        without_network(f"{change} {INSTALL}", given)


def test_a_wheel_that_is_missing_is_named(wheelhouse: Path) -> None:
    script = f"cp -r /given /wheelhouse && rm /wheelhouse/structlog-*.whl; {INSTALL}"
    with pytest.raises(EngineError, match="No matching distribution found for structlog"):
        without_network(script, f"{wheelhouse}:/given:ro")


def deployment(folder: Path) -> Path:
    """A coordinator's folder as its operator has it, with paths that count from its configuration."""
    consortium = Consortium(folder / "consortium")
    credentials = consortium.coordinator().folder
    placed = folder / "etc"
    (placed / "data").mkdir(parents=True)
    subprocess.run(["cp", "-r", str(credentials), str(placed / "credentials")], check=True)
    (placed / "allowlist.toml").write_bytes(consortium.allowlist.read_bytes())
    text = (ROOT / "deploy/samples/coordinator.minimal.toml").read_text("utf-8")
    (placed / "coordinator.toml").write_text(text.partition("[consortium]")[0], encoding="utf-8")
    return placed
