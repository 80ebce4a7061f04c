"""No daemon leaves its memory, with the secrets of an attempt in it, in a file, and no command a key that it loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[3] / "deploy" / "samples"
CALL = "from shared.dumps import forbid_core_dumps; forbid_core_dumps(); forbid_core_dumps()"
COMMAND = "from consilo.start import main\ntry:\n    main()\nexcept SystemExit as ended:\n    print('code', ended.code)"
MISSING = "credentials"  # which the samples name; so a daemon ends at once


@pytest.mark.parametrize(
    ("start", "arguments", "says"),
    [
        (CALL, [], ""),
        (COMMAND, ["coordinator", "run", "--config", str(SAMPLES / "coordinator.minimal.toml")], MISSING),
        (COMMAND, ["coordinator", "gc", "--help"], ""),
        (COMMAND, ["participant", "run", "--config", str(SAMPLES / "participant.minimal.toml")], MISSING),
    ],
    ids=["the call itself", "coordinator", "a command", "participant"],
)
def test_no_core_file_is_written(start: str, arguments: list[str], says: str) -> None:
    """In a process of its own: the limit cannot be raised again."""
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))\n{start}\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE))"
    made = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert says in made.stderr, made.stderr
    assert made.stdout.splitlines()[-1:] == ["(0, 0)"], made.stderr
