"""Run the documents' commands: `python -m tests.documents [SCRIPT ...]`, all scripts when none is named.

The tutorial is one of them; its pictures are not drawn (`make tutorial` does that).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

from tests.documents.compare import DiffersError
from tests.documents.marks import ROOT
from tests.documents.runner import perform
from tests.documents.scripts import script_names

TUTORIAL = "tutorial"


def main() -> int:
    names = [*script_names(), TUTORIAL]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("script", nargs="*", choices=[*names, []], help="one of them, or several")
    failed = [name for name in options.parse_args().script or names if not passes(name)]
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nthe documents' commands do what the documents say")
    return 1 if failed else 0


def passes(name: str) -> bool:
    began = time.monotonic()
    print(f"{name}", flush=True)
    right = tutorial_passes() if name == TUTORIAL else script_passes(name)
    print(f"{'ok' if right else 'FAIL':<5} {name} ({time.monotonic() - began:.0f} s)", flush=True)
    return right


def tutorial_passes() -> bool:
    command = [sys.executable, "-m", "tests.documents.tutorial", "--check"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def script_passes(name: str) -> bool:
    try:
        for told in perform(name):
            print(told, flush=True)
    except DiffersError as differs:
        print(differs, flush=True)
        return False
    return True


if __name__ == "__main__":
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    raise SystemExit(main())
