"""`consilo participant gc` removes what no round needs, says what a person must say, and leaves the journal alone."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from participant.cli import participant
from participant.disk_use import COPY_PREFIX, DiskKind, disk_use
from participant.journal import SqliteJournal
from participant.journal_file import JOURNAL_FILE
from participant.spool import Spool
from participant.startup import lock_folder
from shared.clock import SystemClock
from shared.errors import ConfigError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.job import jobspec_digest
from tests.support.credentials import Consortium
from tests.support.owners import belong_to_another
from tests.support.rounds import JOB, make_plan, make_spec

PLAN = make_plan(make_spec())
OLD = Digest.of(b"a model of before")
OTHER = JobId("lung-1")
MONTH_S = 31 * 86400


class Silo:
    """A data folder with an open round of one job, what a job left, and nobody who runs it."""

    def __init__(self, folder: Path) -> None:
        credentials = Consortium(folder / "pki").participant("hospital-a")
        self.data, self.config = folder / "data", folder / "participant.toml"
        tls = credentials.tls
        self.config.write_text(
            f'[participant]\nid = "hospital-a"\ncoordinators = ["localhost:1"]\ndata_dir = "{self.data}"\n'
            f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
            f'[signing]\ncertificate = "{credentials.signing_certificate}"\nkey = "{credentials.signing_key_path}"\n'
            '[tasks.study]\nentry = "study:Study"\n'
        )
        self.spool = Spool(self.data)
        with closing(SqliteJournal(self.data / JOURNAL_FILE)) as journal:
            journal.record_plan(PLAN, jobspec_digest(PLAN.value.jobspec))
        self.needed = [
            self.write(self.spool.model(PLAN.value.model), 100),
            self.write(self.spool.partial_model(PLAN.value.model), 100),
            self.write(self.spool.deltas(PLAN.value.key), 100),
            self.write(self.data / "task-logs" / "study.log", 100),
            self.write(self.data / "task-logs" / "study.log.1", 100),
        ]
        self.left = [
            self.write(self.spool.model(OLD), 1),
            self.write(self.spool.deltas(RoundKey(OTHER, RoundNumber(3))), 2),
            self.write(self.data / "task-logs" / "gone.log.1", 4),
        ]
        self.state = self.write(self.spool.state(OTHER, RoundNumber(3)), 8)
        self.copy = self.write(self.data / f"{COPY_PREFIX}2", 16)

    def write(self, path: Path, size: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        return path

    def grow_old(self, path: Path) -> None:
        then = SystemClock().now().timestamp() - MONTH_S
        os.utime(path, (then, then))

    def try_to(self, *options: str) -> Result:
        return CliRunner().invoke(participant, ["gc", "--config", str(self.config), *options])

    def run(self, *options: str) -> dict[str, Any]:
        ran = self.try_to(*options, "--json")
        assert ran.exit_code == 0, ran.output
        return dict(json.loads(ran.stdout))

    def there(self) -> set[Path]:
        return {path for path in self.data.rglob("*") if path.is_file() and "lock" not in path.name}


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def test_a_dry_run_says_what_would_go_and_changes_nothing(silo: Silo) -> None:
    before = silo.there()
    found = silo.run("--dry-run")
    assert [(each["what"], *each["names"], each["bytes"], each["goes"]) for each in found["found"]] == [
        ("models", f"models/{OLD}.safetensors", 1, True),
        ("spools", f"spool/{OTHER}/3", 2, True),
        ("journal_copies", f"{COPY_PREFIX}2", 16, False),
        ("states", f"states/{OTHER}", 8, False),
        ("task_logs", "task-logs/gone.log.1", 4, True),
    ]
    assert (found["dry_run"], found["bytes"]) == (True, 7)
    assert silo.there() == before
    assert f"--states-of {OTHER} removes it" in silo.try_to("--dry-run").output


def test_what_a_round_needs_stays(silo: Silo) -> None:
    assert silo.run()["bytes"] == 7
    assert silo.there() == {*silo.needed, silo.state, silo.copy, silo.data / JOURNAL_FILE}
    silo.grow_old(silo.copy)
    assert silo.run("--states-of", OTHER)["bytes"] == 24
    assert silo.there() == {*silo.needed, silo.data / JOURNAL_FILE}
    assert silo.run() == {"dry_run": False, "bytes": 0, "found": []}


@pytest.mark.parametrize(
    ("job", "why"), [(str(JOB), "has an open round here"), ("never-1", f"there are states of: {OTHER}")]
)
def test_a_state_that_is_needed_or_not_there_is_refused_before_anything_goes(silo: Silo, job: str, why: str) -> None:
    before = silo.there()
    ran = silo.try_to("--states-of", job)
    assert isinstance(ran.exception, ConfigError)
    assert why in str(ran.exception)
    assert silo.there() == before


def test_the_journal_of_another_user_is_refused_before_anything_goes(silo: Silo) -> None:
    belong_to_another(silo.data / JOURNAL_FILE)
    before = silo.there()
    ran = silo.try_to()
    assert isinstance(ran.exception, ConfigError)
    assert "run this as the user that the daemon runs as" in str(ran.exception)
    assert silo.there() == before


def test_a_daemon_that_runs_keeps_its_folder(silo: Silo) -> None:
    with lock_folder(silo.data):
        ran = silo.try_to()
    assert isinstance(ran.exception, ConfigError)
    assert "stop the daemon" in str(ran.exception)


def test_where_no_daemon_ran_nothing_is_made(silo: Silo, tmp_path: Path) -> None:
    silo.data.rename(tmp_path / "elsewhere")
    assert isinstance(silo.try_to().exception, ConfigError)
    assert not silo.data.exists()


def test_a_start_leaves_no_folder_of_a_job_without_a_round(silo: Silo) -> None:
    silo.spool.keep_only_rounds({PLAN.value.key})
    assert [path.name for path in (silo.data / "spool").iterdir()] == [JOB]


def test_every_file_of_the_folder_has_its_kind(silo: Silo) -> None:
    with lock_folder(silo.data), closing(SqliteJournal(silo.data / JOURNAL_FILE)):
        use = disk_use(silo.data)
    expected = {
        DiskKind.MODELS: 201,
        DiskKind.SPOOL: 102,
        DiskKind.STATES: 8,
        DiskKind.TASK_LOGS: 204,
        DiskKind.COPIES: 16,
        DiskKind.OTHER: 0,  # the lock
        DiskKind.JOURNAL: (silo.data / JOURNAL_FILE).stat().st_size,
    }
    assert {kind: use.sizes[kind] for kind in expected} == expected
    assert use.files[DiskKind.JOURNAL_LOG] > 0
    assert use.free > 0
