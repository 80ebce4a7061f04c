"""A disk that fills up under a running process, on either side: it says so, breaks nothing, and goes on with room.

On a small tmpfs, which needs the right to mount one: without it these are skipped, and say so. What each single call
does on a full disk is tested everywhere, in tests/unit (`test_files`, `test_sql`, `test_full_disk`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from consilo.demo.moment import Blow, Moment
from coordinator.audit import verify_lines
from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE
from participant.journal_file import JOURNAL_FILE
from shared.ids import Digest
from tests.support.federation import Federation, Process, job_spec, rounds_of
from tests.support.links import constant_federation
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PARAMETERS = 300_000  # a model of 1.2 MB, an update of 2.4 MB in the first round and 1.2 MB after it
DISK_BYTES = 48 << 20
SILO_DISK_BYTES = 160 << 20  # a silo leaves 64 MiB for its journal and the task's log
SILO = "hospital-b"


@contextmanager
def disk_of(federation: Federation, name: str) -> Iterator[SmallDisk]:
    """The data folder of this process is a disk of its own."""
    coordinator = name == "coordinator"
    folder = federation.folder / "coordinator-data" if coordinator else federation.folder / name / "data"
    with small_disk(folder, size=DISK_BYTES if coordinator else SILO_DISK_BYTES) as disk:
        yield disk


def require_said(federation: Federation, name: str, *events: str) -> None:
    """Its log says that there was no room, and it never stumbled."""
    text = (federation.folder / f"{name}.log").read_text()
    assert "Traceback" not in text, text[-4000:]
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    said = [line for line in lines if line["event"] in events]
    assert said, f"none of {events} in {sorted({line['event'] for line in lines})}"
    assert any("free" in str(line) or "space" in str(line) or "full" in str(line) for line in said), said


def require_whole_database(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def require_whole(federation: Federation, models: list[str]) -> None:
    """Of a coordinator that has ended: its records, its log, and the files of its models."""
    data = federation.folder / "coordinator-data"
    require_whole_database(data / DATABASE_FILE)
    with (data / AUDIT_FILE).open("rb") as log:
        verify_lines(log, verifying_key=federation.consortium.coordinator().signing_key.verifying_key)
    for model in models:
        (file,) = data.rglob(f"{model}*")
        assert str(Digest.of(file.read_bytes())) == model


# For each round, where the coordinator's disk fills up, how many bytes are left then, and what it says.
FILLED = [
    ("Uploading", 400_000, ("own_trouble",)),  # updates, and their synced records
    ("Recruiting", 0, ("storage_failed", "own_trouble", "job_cannot_go_on")),  # the journal and the audit log
    ("Unmasking", 400_000, ("fold_storage_failed",)),  # the next model
]
# The same of a silo; it says what it waits for in each of them. The first is before it fetches its model.
SILO_FILLED = ["Working", "Ready"]  # update and journal
SILO_SAYS = ("disk_waits", "journal_waits", "session_waits")


def test_a_disk_without_room_is_waited_out_on_either_side(tmp_path: Path) -> None:
    federation, initial = constant_federation(tmp_path, parameters=PARAMETERS)
    rounds = len(FILLED) + len(SILO_FILLED)
    at_coordinator = [Moment(number, state, Blow.STOP) for number, (state, _, _) in enumerate(FILLED, start=1)]
    at_silo = [Moment(len(FILLED) + place, state, Blow.STOP) for place, state in enumerate(SILO_FILLED, start=1)]
    with disk_of(federation, "coordinator") as disk, disk_of(federation, SILO) as disk_of_silo:
        with federation:
            coordinator = federation.start_doomed_coordinator(*at_coordinator)
            federation.start_participants([name for name in federation.members if name != SILO])
            silo = federation.start_doomed(SILO, *at_silo)
            disk_of_silo.leave(1 << 20)
            spec = job_spec(federation.members, initial, rounds=rounds, metrics=())
            job = federation.submit("study-1", spec, initial)
            silo.wait_for_any(*SILO_SAYS)
            disk_of_silo.make_room()
            for _, left_bytes, events in FILLED:
                fill_while_it_stands(coordinator, disk, left_bytes, *events)
            for _ in SILO_FILLED:
                fill_while_it_stands(silo, disk_of_silo, 0, *SILO_SAYS)
            committed = rounds_of(federation.finish(job))
        assert [summary["survivors"] for summary in committed] == [federation.members] * rounds
        for _, _, events in FILLED:
            require_said(federation, "coordinator", *events)
        require_said(federation, SILO, *SILO_SAYS)
        require_whole(federation, [summary["next_model"] for summary in committed])
        require_whole_database(disk_of_silo.folder / JOURNAL_FILE)


def fill_while_it_stands(process: Process, disk: SmallDisk, left_bytes: int, *events: str) -> None:
    """And make room as soon as the process says that there is none."""
    process.wait_until_stopped()
    disk.leave(left_bytes)
    process.go_on()
    process.wait_for_any(*events)
    disk.make_room()
