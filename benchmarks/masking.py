"""What masking costs: a masked round beside a plain one, and beside the same bytes over bare streams.

`python benchmarks/masking.py [--parameters N] [--participants N] [--passes N] [--rounds N] [--folder FOLDER]`

Real processes on this machine, as an operator starts them. In every pass a plain and a masked job run one after the
other in the same daemons, of the same task, members, model and number of rounds, in an order that turns; after each
the bare streams of `floor.py` carry the bytes of such rounds. A job's first rounds are warm-up, and its first one,
whose masked words are of 64 bits, is told apart. With 25,000,000 parameters and 4 participants, as by default, the
exit code is 1 when a masked round takes more than 1.5 plain ones.

The machine's clock is shared with whoever else works on it. So beside the seconds stand the processor seconds of all
processes of the federation together, and how many cores somebody else used meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import floor
from federation import TASKS, Federation, Measured, Mode, Running, lay_out, running

PARAMETERS = 25_000_000
PARTICIPANTS = 4
PASSES = 3
ROUNDS = 7
WARM_UP_ROUNDS = 2  # the first, and one in which files of the new size are made
RATIO_LIMIT = 1.5
PLAIN_BYTES = 4  # of a parameter, in the model, in a plain update and in a masked one of u32
WIDE_BYTES = 8  # in the first round of a masked job
PHASES = ("recruiting", "advertising", "sharing", "uploading", "confirming", "unmasking", "folding")


@dataclass(slots=True)
class Pass:
    """What one pass found."""

    jobs: dict[Mode, Measured] = field(default_factory=dict)
    floor_s: list[float] = field(default_factory=list)
    wide_floor_s: list[float] = field(default_factory=list)

    def rounds(self, mode: Mode) -> list[dict[str, Any]]:
        return list(self.jobs[mode].summaries[WARM_UP_ROUNDS:])

    def median_s(self, mode: Mode) -> float:
        return statistics.median(map(_seconds, self.rounds(mode)))

    def cpu_s(self, mode: Mode) -> float:
        """Of one round after the warm-up."""
        told = self.jobs[mode].cpu_s[WARM_UP_ROUNDS - 1 :]
        return (told[-1] - told[0]) / (len(told) - 1)


def measure(root: Path, *, parameters: int, participants: int, passes: int, rounds: int) -> bool:
    federation = lay_out(root, parameters=parameters, participants=participants)
    print(f"{participants} participants, {parameters:,} parameters; {passes} passes of {rounds} rounds in each mode")
    done: list[Pass] = []
    with running(federation) as daemons, floor.bare_streams(federation) as bare:
        for number in range(passes):
            # The masked job is first in the first pass: what a daemon keeps of its memory is then not of a plain one.
            order: tuple[Mode, Mode] = ("plain", "masked") if number % 2 else ("masked", "plain")
            done.append(_pass(daemons, bare, federation, order, rounds))
            _print_pass(number + 1, done[-1])
        _print_memory(daemons, done[0].jobs["masked"])
    return _print_all(done, judged=(parameters, participants) == (PARAMETERS, PARTICIPANTS))


def _pass(
    daemons: Running, bare: floor.BareStreams, federation: Federation, order: tuple[Mode, Mode], rounds: int
) -> Pass:
    done = Pass()
    down, wide = PLAIN_BYTES * federation.parameters, WIDE_BYTES * federation.parameters
    for mode in order:
        done.jobs[mode] = daemons.run_job(mode, rounds=rounds)
        done.floor_s += [bare.exchange_s(down_bytes=down, up_bytes=down) for _ in range(rounds - WARM_UP_ROUNDS)]
        done.wide_floor_s.append(bare.exchange_s(down_bytes=down, up_bytes=wide))
    return done


# --- what is said -----------------------------------------------------------------------------------------------------


def _print_pass(number: int, done: Pass) -> None:
    plain, masked = done.median_s("plain"), done.median_s("masked")
    print(f"  pass {number}: masked / plain {masked / plain:.2f}, bare streams {statistics.median(done.floor_s):.3f} s")
    for mode, job in done.jobs.items():
        taken = " ".join(f"{summary['duration_s']:.2f}" for summary in job.summaries)
        cpu = f"{done.cpu_s(mode):.2f} processor seconds a round"
        print(f"    {mode:<7} {taken}   {cpu}, others used {job.others_cores:.2f} cores", flush=True)


def _print_all(done: Sequence[Pass], *, judged: bool) -> bool:
    pooled: dict[Mode, list[float]] = {mode: _durations(done, mode) for mode in ("plain", "masked")}
    median = {mode: statistics.median(taken) for mode, taken in pooled.items()}
    bare = [taken for one in done for taken in one.floor_s]
    floor_s = statistics.median(bare)
    ratio = median["masked"] / median["plain"]
    ratios = [one.median_s("masked") / one.median_s("plain") for one in done]
    print("  rounds after the warm-up: median (quartiles)")
    for mode, taken in pooled.items():
        cpu = statistics.median(one.cpu_s(mode) for one in done)
        print(f"    {mode:<24} {spread(taken)}   {median[mode] / floor_s:.1f} bare   {cpu:.2f} processor seconds")
    print(f"    {'bare streams':<24} {spread(bare)}")
    print(f"    masked / plain           {ratio:.2f}   in each pass {', '.join(f'{one:.2f}' for one in ratios)}")
    _print_first(done)
    _print_phases(done)
    if judged:
        good = ratio <= RATIO_LIMIT
        print(f"{'ok' if good else 'FAIL'}: masked / plain {ratio:.2f}, expected {RATIO_LIMIT} at most", flush=True)
        return good
    return True


def _print_first(done: Sequence[Pass]) -> None:
    print("  the first round of a job (masked: words of 64 bits)")
    wide_s = statistics.median(taken for one in done for taken in one.wide_floor_s)
    for mode in ("plain", "masked"):
        taken = [one.jobs[mode].summaries[0]["duration_s"] for one in done]
        print(f"    {mode:<24} {statistics.median(taken):8.3f} s   {', '.join(f'{each:.2f}' for each in taken)}")
    print(f"    bare streams, 8 bytes up {wide_s:8.3f} s")


def _print_phases(done: Sequence[Pass]) -> None:
    print(f"  where a round is, medians in s {'plain':>13} {'masked':>10} {'first masked':>14}")
    columns = [
        [summary for one in done for summary in one.rounds("plain")],
        [summary for one in done for summary in one.rounds("masked")],
        [one.jobs["masked"].summaries[0] for one in done],
    ]
    rows: list[tuple[str, Callable[[dict[str, float]], float]]] = [
        *((phase, lambda spent, name=phase: spent.get(name, 0.0)) for phase in PHASES),
        ("all after the training", lambda spent: sum(spent.values()) - spent["recruiting"]),
    ]
    for name, of in rows:
        cells = [statistics.median(of(summary["phases_s"]) for summary in column) for column in columns]
        print(f"    {name:<26}" + "".join(f"{cell:>14.3f}" for cell in cells))


def _print_memory(daemons: Running, masked: Measured) -> None:
    """Of the first job, which is a masked one: later ones find what it left."""
    for who, idle, peak in (
        ("coordinator", daemons.coordinator_idle_bytes, masked.coordinator_peak_bytes),
        ("participant", daemons.participant_idle_bytes, masked.participant_peak_bytes),
    ):
        print(f"  memory of the {who}: idle {idle / 1e6:.0f} MB, peak {(peak - idle) / 1e6:.0f} MB above that")


def _durations(done: Sequence[Pass], mode: Mode) -> list[float]:
    return [_seconds(summary) for one in done for summary in one.rounds(mode)]


def _seconds(summary: dict[str, Any]) -> float:
    """From plan to commit."""
    return float(summary["duration_s"])


def spread(taken: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
    return f"{middle:8.3f} s ({low:.3f} to {high:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--participants", type=int, default=PARTICIPANTS)
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each job; two of them are warm-up")
    parser.add_argument("--folder", type=Path, help="where the federation is made: the disk that is measured")
    chosen = parser.parse_args()
    if chosen.rounds < WARM_UP_ROUNDS + 2 or chosen.participants < 3 or chosen.passes < 1:
        parser.error(f"expected {WARM_UP_ROUNDS + 2} rounds, 3 participants and a pass at least")
    os.environ["PYTHONPATH"] = str(TASKS)  # where the task processes find the task
    with tempfile.TemporaryDirectory(prefix="consilo-benchmark-", dir=chosen.folder) as folder:
        good = measure(
            Path(folder),
            parameters=chosen.parameters,
            participants=chosen.participants,
            passes=chosen.passes,
            rounds=chosen.rounds,
        )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
