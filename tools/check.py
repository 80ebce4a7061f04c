"""The one door before a commit: `make check`. Runs every check, shows what failed, ends with 1 when something did.

Checks are commands, so that each can be run alone: copy the line that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent  # not resolved: in an environment, python is a link
PROTOS_AT_RELEASE = Path("protos/release.binpb")  # `tools/release.py prepare` writes it at each release

CHECKS: dict[str, list[str]] = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    # PyTorch has no types for some of its methods, `backward` among them; an example stays as a reader would write it.
    "types of scripts": ["mypy", "--allow-untyped-calls", "benchmarks", "examples", "tools", "deploy"],
    "generated code is current": ["python", "tools/generate_protos.py", "--check"],
    "protos": ["buf", "lint", "protos"],
    "protos against the last release": ["buf", "breaking", "protos", "--against", str(PROTOS_AT_RELEASE)],
    "architecture": ["python", "-m", "pytest", "-p", "no:cacheprovider", "tests/architecture"],
    "samples parse": ["python", "tools/check_samples.py"],
    "command line documentation is current": ["python", "tools/render_cli_docs.py", "--check"],
    "schemas of configurations are current": ["python", "tools/configuration_schemas.py", "--check"],
    "configuration reference is current": ["python", "tools/render_configuration_docs.py", "--check"],
    "reference of metrics is current": ["python", "tools/render_metrics_docs.py", "--check"],
}


def main() -> int:
    checks = dict(CHECKS)
    if not (ROOT / PROTOS_AT_RELEASE).exists():
        del checks["protos against the last release"]
        print(f"skip  protos against the last release: no {PROTOS_AT_RELEASE} before the first one", flush=True)
    failed = [name for name, command in checks.items() if not passes(name, command)]
    if failed:
        print(f"\n{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}", flush=True)
    else:
        print(f"\nall {len(checks)} checks passed", flush=True)
    return 1 if failed else 0


def passes(name: str, command: list[str]) -> bool:
    started = time.monotonic()
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - started
    print(f"{'ok' if done.returncode == 0 else 'FAIL':<5} {name} ({took_s:.1f} s)", flush=True)
    if done.returncode != 0:
        print(f"      {' '.join(command)}", flush=True)
        print("".join(f"      {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
    return done.returncode == 0


def environment() -> dict[str, str]:
    """Ours, with a home for the caches of tools that insist on one."""
    return {"XDG_CACHE_HOME": str(ROOT / ".venv" / "cache"), **os.environ}


if __name__ == "__main__":
    raise SystemExit(main())
