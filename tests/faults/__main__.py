"""Faults drawn by seed, on a federation of real processes.

    python -m tests.faults --faults 500 --seed 1 [--only K] [--report FILE] [--folder DIR]

Prints a line for each fault, then a table of what was met. Exit code 1 when anything that is promised did not hold;
then the folder of the federation is kept, and the line says how to draw the same fault again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Campaign
from tests.faults.cells import drawn, one_of_each
from tests.faults.disks import may_mount
from tests.faults.report import markdown, text

_INSIDE = "--inside"  # its own mount namespace


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=500, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="each fault once")
    parser.add_argument("--only", type=int, help="the number of one draw of that seed, alone")
    parser.add_argument("--report", type=Path, help="write the table to this file, as Markdown")
    parser.add_argument("--folder", type=Path, help="where federations live; a temporary folder unless said")
    parser.add_argument("--no-mounts", action="store_true", help="do as if no disk could be mounted")
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if not (chosen.inside or chosen.no_mounts) and _may_unshare():
        inside = [*_unshare(), sys.executable, "-m", "tests.faults", _INSIDE, *arguments]
        return subprocess.run(inside, check=False).returncode
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="consilo-faults-"))
    small_disks = chosen.inside and may_mount(folder / "probe")
    draws = one_of_each(chosen.seed) if chosen.short else drawn(chosen.faults, chosen.seed)
    if chosen.only is not None:
        draws = [draw for draw in draws if draw.number == chosen.only]
    say(f"{len(draws)} faults, seed {chosen.seed}, {_disks(small=small_disks)}, in {folder}")
    began = time.monotonic()
    campaign = Campaign(folder, small_disks=small_disks, say=say)
    done = campaign.run(draws)
    say(text(done))
    say(f"{len(done)} faults, {campaign.rounds} rounds, {time.monotonic() - began:.0f} s")
    if chosen.report:
        chosen.report.write_text(markdown(done, seed=chosen.seed, disks=_disks(small=small_disks)))
    failed = [kept for kept in done if kept.failure]
    for kept in failed:
        say(
            f"failed: {kept.failure}\n  again: make faults N={chosen.faults} SEED={chosen.seed} ONLY={kept.draw.number}"
        )
    return 1 if failed else 0


def say(line: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _unshare() -> list[str]:
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


def _may_unshare() -> bool:
    try:
        return subprocess.run([*_unshare(), "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _disks(*, small: bool) -> str:
    return "full disks: a small tmpfs each" if small else "full disks: stood in for by a limit on files"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
