"""What Consilo costs beside the training: `python benchmarks/round.py [--small | --large] [--folder FOLDER]`.

Real processes on this machine: one coordinator and four participants, as an operator starts them, each participant
with a task process that adds a constant. The job is a plain one; `masking.py` compares it with a masked one. *Small*:
100,000 parameters; how long a round takes, beside the same bytes over bare streams and one sync of the disk. *Large*:
100,000,000 parameters (400 MB); how much memory the coordinator needs above what it has when idle.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import floor
from federation import TASKS, Federation, Measured, lay_out, running

PARTICIPANTS = 4
SMALL_PARAMETERS = 100_000
SMALL_ROUNDS = 40
WARM_UP_ROUNDS = 3  # task processes start, files are made
SMALL_LIMIT_S = 0.150
LARGE_PARAMETERS = 100_000_000
LARGE_ROUNDS = 2
LARGE_LIMIT_BYTES = 256_000_000


def run_plain(federation: Federation, *, rounds: int) -> tuple[Measured, int]:
    """A plain job, and the coordinator's memory before it."""
    with running(federation) as daemons:
        return daemons.run_job("plain", rounds=rounds), daemons.coordinator_idle_bytes


def small(root: Path) -> bool:
    federation = lay_out(root, parameters=SMALL_PARAMETERS, participants=PARTICIPANTS)
    measured, _idle_bytes = run_plain(federation, rounds=SMALL_ROUNDS)
    durations = [summary["duration_s"] for summary in measured.summaries][WARM_UP_ROUNDS:]
    median = statistics.median(durations)
    seen = measured.finished_at[WARM_UP_ROUNDS:SMALL_ROUNDS]
    per_round_s = (seen[-1] - seen[0]) / (len(seen) - 1)  # the watch tells several short rounds at once
    with floor.bare_streams(federation) as bare:
        model_bytes = 4 * SMALL_PARAMETERS
        stream_s = statistics.median(
            bare.exchange_s(down_bytes=model_bytes, up_bytes=model_bytes) for _ in range(SMALL_ROUNDS)
        )
    sync_s = floor.sync_s(root)
    print(f"small: {PARTICIPANTS} participants, {SMALL_PARAMETERS:,} parameters, {len(durations)} rounds")
    line("round, from plan to commit", median, f"p90 {ms(statistics.quantiles(durations, n=10)[8])}")
    line("  from one commit to the next, mean, as an operator sees it", per_round_s, "")
    for phase in measured.summaries[-1]["phases_s"]:
        line(f"  of it {phase}", statistics.median(s["phases_s"].get(phase, 0.0) for s in measured.summaries), "")
    line("the same bytes over bare mutual-TLS streams", stream_s, f"the round is {median / stream_s:.1f} of these")
    line("one sync of the disk (4 KiB, fdatasync)", sync_s, f"the round is {median / sync_s:.1f} of these")
    return verdict("median round", ms(median), ms(SMALL_LIMIT_S), good=median < SMALL_LIMIT_S)


def large(root: Path) -> bool:
    federation = lay_out(root, parameters=LARGE_PARAMETERS, participants=PARTICIPANTS)
    measured, idle_bytes = run_plain(federation, rounds=LARGE_ROUNDS)
    above = measured.coordinator_peak_bytes - idle_bytes
    print(f"large: {PARTICIPANTS} participants, {LARGE_PARAMETERS:,} parameters, {LARGE_ROUNDS} rounds")
    for number, summary in enumerate(measured.summaries, 1):
        line(f"round {number}, from plan to commit", summary["duration_s"], "")
        for phase, seconds in summary["phases_s"].items():
            line(f"  of it {phase}", seconds, "")
    print(f"  the coordinator's memory: idle {mb(idle_bytes)}, peak {mb(measured.coordinator_peak_bytes)}")
    return verdict("peak above idle", mb(above), mb(LARGE_LIMIT_BYTES), good=above < LARGE_LIMIT_BYTES)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def line(what: str, seconds: float, note: str) -> None:
    print(f"  {what:<54} {ms(seconds):>12}   {note}".rstrip())


def verdict(what: str, got: str, limit: str, *, good: bool) -> bool:
    print(f"{'ok' if good else 'FAIL'}: {what} {got}, expected under {limit}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the small one")
    parser.add_argument("--large", action="store_true", help="only the large one; it needs 10 GB of disk and of memory")
    parser.add_argument("--folder", type=Path, help="where the federations are made: the disk that is measured")
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = str(TASKS)  # where the task processes find the task
    wanted = [run for run, alone in ((small, chosen.small), (large, chosen.large)) if alone] or [small, large]
    results = []
    for run in wanted:
        with tempfile.TemporaryDirectory(prefix="consilo-benchmark-", dir=chosen.folder) as folder:
            results.append(run(Path(folder)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
