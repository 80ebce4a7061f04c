"""A short campaign of each fault, and that what looks after it would see what it looks for."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.ids import RoundKey, parse_job_id, parse_round_number
from shared.job import canonical_json
from shared.reasons import Purpose
from shared.wire.operations import RoundStatus
from tests.faults.arithmetic import PERIOD, WEIGHTS, delta, fold
from tests.faults.campaign import Done
from tests.faults.cells import Cell, Draw, Fault, Mode, Side, all_cells, blocks, drawn, one_of_each
from tests.faults.federation import ROOT, SILOS
from tests.faults.processes import Failure
from tests.faults.promises import Ledgers, Logs, outcome_promised
from tests.faults.report import empty_cells, markdown, text
from tests.faults.strikes import Struck

CELLS = 80
SEED = 1


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_each_fault_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "--short", "--seed", str(SEED), "--folder", str(tmp_path / "f")]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


# --- the draw ---------------------------------------------------------------------------------------------------------


def test_as_many_draws_as_cells_leave_no_cell_empty() -> None:
    cells = all_cells()
    met = Counter(draw.cell for draw in drawn(2 * len(cells), seed=5))
    assert met == dict.fromkeys(cells, 2)
    assert len(cells) <= 500


def test_a_seed_draws_the_same_again_and_another_does_not() -> None:
    assert drawn(100, seed=5) == drawn(100, seed=5)
    assert drawn(100, seed=5) != drawn(100, seed=6)


def test_blocks_lose_no_draw() -> None:
    draws = drawn(230, seed=5)
    assert [draw for block in blocks(draws) for draw in block.draws] == draws
    assert {draw for block in blocks(draws) for mode in Mode for draw in block.of(mode)} == set(draws)


def test_the_short_campaign_has_each_fault_once() -> None:
    assert [draw.cell.fault for draw in one_of_each(SEED)] == list(Fault)


# --- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("survivors", [(0, 1, 2, 3), (0, 1, 2), (1, 2, 3), (0, 2, 3), (0, 1, 3)])
def test_every_wrong_sum_shows(survivors: tuple[int, ...]) -> None:
    right = fold(survivors, 3, CELLS)
    for silo in range(len(WEIGHTS)):
        others = [other for other in survivors if other != silo]
        wrongs = [others] if silo in survivors else [[*survivors, silo]]
        assert all((fold(wrong, 3, CELLS) != right).any() for wrong in wrongs)
        twice = [*survivors, silo]
        total = np.sum([WEIGHTS[one] * delta(one, 3, CELLS) for one in twice], axis=0)
        assert (total != right * sum(WEIGHTS[one] for one in twice)).any()
        assert (delta(silo, 3, CELLS) != delta(silo, 4, CELLS)).any()


def test_no_model_comes_twice() -> None:
    changes = [fold(range(len(WEIGHTS)), number, CELLS) for number in range(1, PERIOD + 1)]
    assert np.sum(changes, axis=0).any()


# --- what must hold ---------------------------------------------------------------------------------------------------


def test_a_training_after_the_update_is_on_disk_is_seen(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.write_text("Working a-1 1\ntrain a-1 1\ntrain a-1 1\nReady a-1 1\ntrain a-1 2\n")
    ledgers = Ledgers({"hospital-a": ledger})
    ledgers.look({})
    assert ledgers.trainings == 3
    with ledger.open("a") as more:
        more.write("train a-1 1\n")
    with pytest.raises(Failure, match="trained again"):
        ledgers.look({})
    ledgers.look({("hospital-a", "a-1", 1): "spoiled"})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"event": "internal_error"}', "internal_error"),
        ("Traceback (most recent call last):", "Traceback"),
        ('{"loss": 0.61803399}', "a secret"),
        ("k" * 64, "a secret"),
    ],
)
def test_a_log_that_says_too_much_is_seen(tmp_path: Path, line: str, what: str) -> None:
    key, log = tmp_path / "key", tmp_path / "log"
    key.write_text(f"-----BEGIN-----\n{'k' * 64}\n-----END-----\n")
    log.write_text('{"event": "fine"}\n')
    logs = Logs({"hospital-a": log}, {"hospital-a": key})
    logs.look()
    with log.open("a") as more:
        more.write(f"{line}\n")
    with pytest.raises(Failure, match=what):
        logs.look()


def status(outcome: str, dropped: dict[str, str]) -> RoundStatus:
    survivors = [silo for silo in SILOS if silo not in dropped]
    summary = canonical_json({"survivors": survivors, "dropped": dropped, "reason": outcome})
    key = RoundKey(parse_job_id("a-1"), parse_round_number(4))
    return RoundStatus(key=key, purpose=Purpose.TRAIN, outcome=outcome, summary=summary)


KILLED = Draw(1, Cell(Mode.MASKED, Side.PARTICIPANT, "Uploading", Fault.KILL), 0)
STRUCK = Struck("hospital-b", 4, "")


def test_who_was_struck_may_be_left_out_and_nobody_else() -> None:
    outcome_promised(KILLED, STRUCK, status("committed", {}))
    outcome_promised(KILLED, STRUCK, status("committed", {"hospital-b": "attempt_left"}))
    with pytest.raises(Failure, match="others were left out"):
        outcome_promised(KILLED, STRUCK, status("committed", {"hospital-c": "not_ready"}))
    taken = replace(KILLED, cell=replace(KILLED.cell, phase="Committed"))
    with pytest.raises(Failure, match="it was left out"):
        outcome_promised(taken, STRUCK, status("committed", {"hospital-b": "attempt_left"}))


def test_only_a_spoiled_update_may_abort_a_round() -> None:
    with pytest.raises(Failure, match="aborted"):
        outcome_promised(KILLED, STRUCK, status("below_floor", {}))
    corrupt = Draw(1, Cell(Mode.MASKED, Side.COORDINATOR, "Received", Fault.CORRUPT), 0)
    outcome_promised(corrupt, STRUCK, status("damaged", {}))
    with pytest.raises(Failure, match="aborted"):
        outcome_promised(corrupt, STRUCK, status("fold_failed", {}))


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_shows_empty_cells() -> None:
    done = [Done(draw, "", 1.0, "") for draw in drawn(len(all_cells()), seed=5)]
    assert not empty_cells(done)
    assert " 0 " not in text(done)
    assert " 0 " in text(done[1:])
    assert empty_cells(done[1:]) == [done[0].draw.cell]
    failed = [replace(done[0], failure="it broke"), *done[1:]]
    assert "1 failures" in markdown(failed, seed=5, disks="small")
    assert "| 0 |" in markdown(failed, seed=5, disks="small")
