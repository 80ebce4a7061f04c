"""Fuzz by hand, for as long as one likes: `python -m tests.fuzz --seconds 60 --target jobspec --seed 1`.

Without a target, all of them take turns. The first finding ends the run with exit code 1; its input is kept as a line
of `corpus/<target>.found` once the decoder is mended. `--write` makes the valid inputs anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice

from tests.fuzz.engine import Finding, check, check_memory, corpus_of, inputs
from tests.fuzz.samples import write_corpus
from tests.fuzz.targets import all_targets

TURN = 2000  # inputs of one target before the next has its turn


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--target", help="one of them; all of them when left out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the valid inputs of all targets, and end")
    said = parser.parse_args()
    targets = all_targets()
    if said.write:
        write_corpus(targets)
        return 0
    if said.target is not None:
        targets = {said.target: targets[said.target]}
    streams = {name: inputs(corpus_of(name), said.seed) for name in targets}
    began, tried = time.monotonic(), dict.fromkeys(targets, 0)
    taken = dict.fromkeys(targets, 0)
    try:
        while time.monotonic() - began < said.seconds:
            for name, stream in streams.items():
                for data in islice(stream, TURN):
                    taken[name] += check(name, targets[name], data)
                    tried[name] += 1
                    if tried[name] % 500 == 0:
                        check_memory(name, targets[name], data)
                if time.monotonic() - began >= said.seconds:
                    break
    except Finding as found:
        sys.stderr.write(f"{found}\n")
        return 1
    lines = [f"{name:32} {count:9} inputs, {taken[name]:8} taken" for name, count in tried.items()]
    spent = time.monotonic() - began
    lines.append(f"{sum(tried.values())} inputs of {len(targets)} targets in {spent:.0f} s, seed {said.seed}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
