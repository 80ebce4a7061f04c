"""A coordinator whose data folder was set back, by a restore or by hand: old jobs end, and a new one goes on.

Real processes. The backup is made in the middle of a masked round, while one silo stands still.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consilo.demo.moment import Blow, Moment
from coordinator.audit import read_entries
from participant.tasks.state_dict import write_model
from shared.reasons import AbortReason, AttemptAbortReason, JobState
from shared.wire.operations import JobDetail
from tests.cluster.tasks.regression_task import build
from tests.support.federation import CONSILO, Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 64, "hospital-d": 16}
*OTHERS, SLOW = ROWS
OPEN_IN, LOST = 2, 4  # the round that is open in the backup, and the last one that silos verify
TRAINING = {"learning_rate": 0.05}
OLD, NEW = "study-1", "study-2"


class Restorable(Federation):
    """With the commands that people run beside it."""

    @property
    def data(self) -> Path:
        return self.folder / "coordinator-data"

    def consilo(self, *arguments: str) -> Any:
        """A command with --json; what it printed."""
        done = subprocess.run(
            [*CONSILO, *arguments, "--json"], capture_output=True, text=True, check=False, timeout=60.0
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def coordinator(self, command: str, *arguments: str) -> Any:
        return self.consilo("coordinator", command, "--config", str(self.folder / "coordinator.toml"), *arguments)

    def allow(self, member: str, job: str) -> Any:
        return self.consilo("participant", "allow", job, "--yes", "--config", str(self._config(member)))

    def until(self, job: str, reached: Callable[[JobDetail], bool]) -> JobDetail:
        for seen in self.watch(job):  # type: ignore[arg-type] # a parsed id is a str
            if reached(seen):
                return seen
        raise AssertionError(f"job {job} ended before")

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """Of the audit log, which has to verify."""
        key = self.consortium.coordinator().signing_key.verifying_key
        with (self.data / "audit.log").open("rb") as log:
            return [entry.data for entry in read_entries(log, verifying_key=key) if entry.kind == kind]


@pytest.fixture
def federation(tmp_path: Path) -> Restorable:
    options = {member: {"silo": silo, "rows": rows} for silo, (member, rows) in enumerate(ROWS.items())}
    return Restorable(tmp_path, entry="regression_task:RegressionTask", options=options)


def up_to_the_open_round(federation: Restorable, initial: Path) -> None:
    """One round is committed; in the next one everybody dealt shares, and one silo stands still."""
    write_model(build(), initial)
    federation.start_coordinator()
    federation.start_participants(OTHERS)
    moments = [Moment(OPEN_IN, "Uploading", Blow.STOP), Moment(LOST + 1, "Advertised", Blow.STOP)]
    silo = federation.start_doomed(SLOW, *moments)
    federation.submit(OLD, job_spec(list(ROWS), initial, rounds=9, training=TRAINING), initial)
    silo.wait_until_stopped()
    federation.process("coordinator").wait_for("round_moved", round=OPEN_IN, phase="uploading")


def on_to_the_lost_round(federation: Restorable) -> None:
    """Silos verify what the records are about to lose; then the coordinator is gone."""
    silo = federation.process(SLOW)
    silo.go_on()
    silo.wait_until_stopped()
    federation.process("coordinator").wait_for("round_moved", round=LOST + 1, phase="advertising")
    federation.kill("coordinator")
    silo.go_on()


def goes_on_from(federation: Restorable, initial: Path, start: str) -> None:
    """A new job from a model that was totalled before, without one of the silos that were in that total."""
    federation.kill(SLOW)
    spec = job_spec(list(ROWS), initial, rounds=1, start=start, quorum=3, training=TRAINING, aborted_rounds_allowed=500)
    federation.submit(NEW, spec, initial)
    for member in OTHERS:
        alarm = federation.process(member).wait_for("alarm", what=AttemptAbortReason.REPEATED_TOTAL)
        assert f"`consilo participant allow {NEW}`" in alarm["detail"]
    for member in OTHERS:
        assert federation.allow(member, NEW) == [{"job": NEW, "by": "this command"}]
    (committed,) = rounds_of(federation.finish(NEW))  # type: ignore[arg-type] # as above
    assert committed["survivors"] == OTHERS
    assert committed["model"] == start
    for member in OTHERS:
        assert federation.process(member).wait_for("repeat_opened", job=NEW)["model"] == start


def test_a_backup_of_a_running_coordinator_is_restored_and_a_new_job_goes_on(
    federation: Restorable, tmp_path: Path
) -> None:
    initial, backup = tmp_path / "initial.safetensors", tmp_path / "backup"
    with federation:
        up_to_the_open_round(federation, initial)
        said = federation.coordinator("backup", str(backup))
        assert said["models"] == 2
        assert b"shares_fixed" in b"".join(path.read_bytes() for path in federation.data.glob("coordinator.db*"))
        assert b"shares_fixed" not in (backup / "coordinator.db").read_bytes()
        on_to_the_lost_round(federation)
        shutil.rmtree(federation.data)
        restored = federation.coordinator("restore", str(backup))
        assert restored["ends_at_start"] == [OLD]

        process = federation.start_coordinator()
        old = federation.until(OLD, lambda seen: seen.job.state is JobState.ABORTED)
        assert [status.outcome for status in old.rounds] == ["committed", AbortReason.RESTORED]
        newest = rounds_of(old)[-1]["next_model"]
        assert f'initial = "model:{newest}"' in old.job.reason
        (note,) = federation.entries("records_restored")
        assert (note["backup"], note["head"]) == (said["made_at"], said["audit_head"])
        for _ in ROWS:  # each shows what it verified, and the first one is news
            process.wait_for("session_opened")
        assert [(lost["job"], lost["round"]) for lost in federation.entries("result_lost")] == [(OLD, LOST)]
        goes_on_from(federation, initial, newest)


@pytest.mark.long
def test_a_folder_that_was_set_back_by_hand_is_recognised_by_what_silos_verified(
    federation: Restorable, tmp_path: Path
) -> None:
    initial, copy = tmp_path / "initial.safetensors", tmp_path / "copy"
    with federation:
        up_to_the_open_round(federation, initial)
        process = federation.process("coordinator")
        os.kill(process.pid, signal.SIGSTOP)  # as a snapshot of the machine would find it
        process.wait_until_stopped()
        shutil.copytree(federation.data, copy)
        process.go_on()
        on_to_the_lost_round(federation)
        shutil.rmtree(federation.data)
        shutil.copytree(copy, federation.data)

        process = federation.start_coordinator()
        lost = process.wait_for("result_lost", job=OLD, round=LOST)
        assert lost["ends_jobs"]
        assert process.wait_for("older_records")["jobs_ended"] == [OLD]
        old = federation.until(OLD, lambda seen: seen.job.state is JobState.ABORTED)
        assert [status.outcome for status in old.rounds] == ["committed", AbortReason.RESTORED]
        (note,) = federation.entries("records_rolled_back")
        assert (note["job"], note["round"]) == (OLD, LOST)
        goes_on_from(federation, initial, rounds_of(old)[-1]["next_model"])
