"""No daemon leaves its memory, with the secrets of an attempt in it, in a file, and no command a key that it loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[3] / "deploy" / "samples"
COORDINATOR = """
from coordinator.app import run
from coordinator.settings import CoordinatorSettings
from shared.config import load_config
from shared.errors import ConfigError
from pathlib import Path
import sys
try:
    run(load_config(Path(sys.argv[1]), CoordinatorSettings, environment={}))
except ConfigError as error:
    assert "credentials" in str(error), error
"""
COMMAND = """
from consilo.start import main
import sys
sys.argv[1:] = ["coordinator", "gc", "--help"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended
"""
PARTICIPANT = """
from click.testing import CliRunner
from participant.cli import participant
import sys
result = CliRunner().invoke(participant, ["run", "--config", sys.argv[1]])
assert "credentials" in str(result.exception), result.exception
"""


@pytest.mark.parametrize(
    ("start", "sample"),
    [
        ("from shared.dumps import forbid_core_dumps; forbid_core_dumps(); forbid_core_dumps()", "none"),
        (COORDINATOR, "coordinator.minimal.toml"),
        (COMMAND, "none"),
        (PARTICIPANT, "participant.minimal.toml"),
    ],
    ids=["the call itself", "coordinator", "a command", "participant"],
)
def test_no_core_file_is_written(start: str, sample: str) -> None:
    """In a process of its own: the limit cannot be raised again."""
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))\n{start}\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE))"
    made = subprocess.run(
        [sys.executable, "-c", code, str(SAMPLES / sample)], capture_output=True, text=True, check=False, timeout=60
    )
    assert made.stdout.splitlines()[-1:] == ["(0, 0)"], made.stderr
