"""Run the documents' commands: `python -m tests.documents [SCRIPT ...]`, all scripts when none is named.

The tutorial is one of them; its pictures are not drawn (`make tutorial` does that). Several are run two at a time, in
processes of their own.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from tests.documents.compare import DiffersError
from tests.documents.marks import ROOT
from tests.documents.runner import perform
from tests.documents.scripts import script_names

TUTORIAL = "tutorial"
AT_ONCE = 2
NEEDED = ("bash", "curl", "git", "openssl")  # beside what every Linux has


class Together:
    """Scripts in processes of their own; what each says comes when it is over."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def passes(self, name: str) -> bool:
        command = [sys.executable, "-m", "tests.documents", name]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._running.append(process)
        said, _ = process.communicate()
        say(said.rstrip("\n"))
        return process.returncode == 0

    def end(self, _number: int, _frame: FrameType | None) -> None:
        """Told to end: each ends what it started."""
        for process in self._running:
            process.terminate()
        sys.exit(1)


def main() -> int:
    names = [*script_names(), TUTORIAL]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("script", nargs="*", help=f"of {', '.join(names)}")
    chosen = options.parse_args().script or names
    if unknown := sorted(set(chosen) - set(names)):
        options.error(f"expected scripts of {', '.join(names)}, got {', '.join(unknown)}")
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        options.error(f"expected {', '.join(NEEDED)} on this machine, as the documents use them; missing: {missing}")
    if len(chosen) == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return 0 if passes(chosen[0]) else 1
    together = Together()
    signal.signal(signal.SIGTERM, together.end)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [name for name, right in zip(chosen, pool.map(together.passes, chosen), strict=True) if not right]
    say(f"\nfailed: {', '.join(failed)}" if failed else "\nthe documents' commands do what the documents say")
    return 1 if failed else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def passes(name: str) -> bool:
    began = time.monotonic()
    say(name)
    right = tutorial_passes() if name == TUTORIAL else script_passes(name)
    say(f"{'ok' if right else 'FAIL':<5} {name} ({time.monotonic() - began:.0f} s)")
    return right


def tutorial_passes() -> bool:
    command = [sys.executable, "-m", "tests.documents.tutorial", "--check"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def script_passes(name: str) -> bool:
    try:
        for told in perform(name):
            say(told)
    except DiffersError as differs:
        say(str(differs))
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
