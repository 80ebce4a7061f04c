"""`consilo coordinator disk` tells what lies there, and `gc` removes what no record needs and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coordinator.audit import verify_lines
from coordinator.cli import coordinator
from coordinator.disk_report import report_records
from coordinator.disk_use import DiskKind, disk_use
from coordinator.pruning import PRUNED_AT_ONCE
from coordinator.retention import KEEP_ALL
from coordinator.startup import Records, open_records
from coordinator.storage.beside import RecordsBeside
from coordinator.storage.interface import JobRecord, JournalEntry, ModelRecord, RoundCommit, SetBack
from coordinator.storage.listing import AUDIT_FILE, COPY_PREFIX, DATABASE_FILE
from coordinator.storage.migrations import copy_path
from shared.clock import SystemClock
from shared.errors import ConfigError, StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.reasons import JobState, Purpose
from shared.wire.sealed import encode_envelope
from tests.support.credentials import Consortium
from tests.support.migration_crash import make_database
from tests.support.owners import belong_to_another
from tests.support.rounds import JOB, A, initial_model, make_plan, make_spec, result_of, start_of
from tests.unit.coordinator.storage.test_migrations import VERSION_1

VERSIONS = [initial_model(), *(bytes([number]) * 1000 for number in range(1, 5))]
DIGESTS = [Digest.of(content) for content in VERSIONS]
STRAY = Digest.of(b"stray")
MONTH_S = 31 * 86400


class Silent:
    """A coordinator's folder with four committed rounds and an open one, and nobody who runs it."""

    def __init__(self, folder: Path, *, keep_versions: int = KEEP_ALL) -> None:
        consortium = Consortium(folder / "pki")
        member = consortium.coordinator()
        self.data = folder / "data"
        self.key = member.signing_key
        self.config = folder / "coordinator.toml"
        self.config.write_text(
            '[coordinator]\nid = "coordinator"\ndata_dir = "data"\n'
            f'[tls]\ncertificate = "{member.tls.certificate}"\nkey = "{member.tls.key}"\nca = "{member.tls.ca}"\n'
            f'[signing]\ncertificate = "{member.signing_certificate}"\nkey = "{member.signing_key_path}"\n'
            f'[access]\nallowlist = "{consortium.allowlist}"\n[retention]\nkeep_versions = {keep_versions}\n'
        )
        with self.opened() as records:
            self._fill(records)

    @contextmanager
    def opened(self) -> Iterator[Records]:
        with open_records(self.data, signing_key=self.key, clock=SystemClock()) as records:
            yield records
            records.blobs.finish_erasing()
            records.catch_up()

    def run(self, command: str, *options: str) -> dict[str, Any]:
        ran = self.try_to(command, *options, "--json")
        assert ran.exit_code == 0, ran.output
        return dict(json.loads(ran.stdout))

    def try_to(self, command: str, *options: str) -> Result:
        return CliRunner().invoke(coordinator, [command, "--config", str(self.config), *options])

    def kinds(self, *options: str) -> dict[str, tuple[int, bool]]:
        """What gc finds: how many files of each kind, and whether they go."""
        found = self.run("gc", *options)["found"]
        return {each["what"]: (each["files"], each["goes"]) for each in found if each["files"]}

    def entries(self) -> list[dict[str, Any]]:
        """Of the audit log, of what gc removed."""
        log = (self.data / AUDIT_FILE).read_bytes()
        verify_lines(log, verifying_key=self.key.verifying_key)
        bodies = [json.loads(line[129:]) for line in log.splitlines()]
        return [body["data"] for body in bodies if body["kind"] == "garbage_removed"]

    def models(self) -> set[Digest]:
        return {Digest.parse(path.stem) for path in (self.data / "models").iterdir()}

    def _fill(self, records: Records) -> None:
        self.publish(records, VERSIONS[0])
        entry = records.audit.entry("model_added", {})
        records.store.add_model(ModelRecord(DIGESTS[0], b"{}"), entry)
        records.audit.accept(entry)
        entry = records.audit.entry("job_submitted", {})
        job = JobRecord(JOB, make_spec(rounds=9).to_bytes(), "dana", "2026-11-23T06:00:00Z", JobState.RUNNING, "")
        records.store.submit_job(job, entry)
        records.audit.accept(entry)
        for number in range(1, len(VERSIONS)):
            self._commit(records, RoundKey(JOB, RoundNumber(number)), VERSIONS[number])
        records.store.open_round(RoundKey(JOB, RoundNumber(len(VERSIONS))), Purpose.TRAIN, JournalEntry("plan", b""))

    def _commit(self, records: Records, key: RoundKey, content: bytes) -> None:
        self.publish(records, content)
        records.store.open_round(key, Purpose.TRAIN, JournalEntry("plan", b""))
        digest = Digest.of(content)
        spec = make_spec(rounds=9)
        result = result_of(start_of(make_plan(spec), spec), (1, 2, 3), key=key, next_model=digest)
        entry = records.audit.entry("round_committed", {})
        records.store.commit_round(
            RoundCommit(
                key, b"{}", encode_envelope(result.envelope), ModelRecord(digest, b"{}"), JobState.RUNNING, entry
            )
        )
        records.audit.accept(entry)

    def publish(self, records: Records, content: bytes) -> None:
        staged = records.blobs.stage("model")
        staged.allocate(len(content))
        staged.write_at(0, memoryview(content))
        records.blobs.publish(staged, Digest.of(content))

    def spool(self, number: int, content: bytes) -> Path:
        path = self.data / "spools" / JOB / str(number) / "1" / f"{A}.update"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return path

    def copy(self, name: str, *, age_s: float) -> Path:
        path = self.data / name
        path.write_bytes(bytes(500))
        then = SystemClock().now().timestamp() - age_s
        os.utime(path, (then, then))
        return path

    def stray(self) -> None:
        with self.opened() as records:
            self.publish(records, b"stray")


@pytest.fixture
def silent(tmp_path: Path) -> Silent:
    return Silent(tmp_path)


def test_a_dry_run_says_what_would_go_and_changes_nothing(silent: Silent) -> None:
    silent.spool(1, bytes(300))
    needed = silent.spool(len(VERSIONS), bytes(200))
    silent.copy(f"{COPY_PREFIX}2", age_s=MONTH_S)
    silent.stray()
    (silent.data / "staging" / "half").write_bytes(bytes(700))
    before = everything(silent.data)
    found = silent.run("gc", "--dry-run")
    assert {each["what"]: (each["files"], each["bytes"], each["goes"]) for each in found["found"] if each["files"]} == {
        "spools": (1, 300, True),
        "unfinished_files": (1, 700, True),
        "database_copies": (1, 500, True),
        "unrecorded_models": (1, 5, False),
    }
    assert (found["dry_run"], found["bytes"]) == (True, 1500)
    assert everything(silent.data) == before
    shown = silent.try_to("gc", "--dry-run")
    assert "would go" in shown.output
    assert "--unrecorded-models removes them" in shown.output
    assert needed.exists()


def test_what_goes_is_in_the_audit_log_and_what_a_record_needs_stays(silent: Silent) -> None:
    gone = silent.spool(1, bytes(300))
    needed = silent.spool(len(VERSIONS), bytes(200))
    old, young = silent.copy(f"{COPY_PREFIX}2", age_s=MONTH_S), silent.copy(f"{COPY_PREFIX}3", age_s=60)
    silent.stray()
    left = silent.data / "staging" / "half"
    left.write_bytes(bytes(700))
    found = silent.run("gc", "--unrecorded-models")
    assert found["bytes"] == 300 + 700 + 500 + 5
    assert not any(path.exists() for path in (gone, old, left, *(silent.data / "removed").iterdir()))
    assert needed.exists()
    assert young.exists()
    assert silent.models() == set(DIGESTS)
    entries = silent.entries()
    assert [(entry["what"], entry["files"], entry["bytes"]) for entry in entries] == [
        ("spools", 1, 300),
        ("unfinished_files", 1, 700),
        ("database_copies", 1, 500),
        ("unrecorded_models", 1, 5),
    ]
    assert entries[2]["names"] == [old.name]
    assert entries[3]["names"] == [str(STRAY)]
    assert silent.kinds() == {"database_copies": (1, False)}, "the young one: a second run has nothing to do"
    assert silent.entries() == entries


def test_the_policy_of_now_is_done_as_a_start_does_it(tmp_path: Path) -> None:
    silent = Silent(tmp_path, keep_versions=2)
    assert silent.kinds("--dry-run") == {"versions": (2, True)}
    assert silent.models() == set(DIGESTS)
    silent.run("gc")
    assert silent.models() == {DIGESTS[0], *DIGESTS[3:]}, "the initial model of a job that is not over stays"
    assert silent.entries() == [], "model_pruned says it"
    with silent.opened() as records:
        assert [model.digest for model in records.store.models() if model.pruned] == DIGESTS[1:3]
        silent.publish(records, VERSIONS[1])  # as after a crash between the mark and the removal
    assert silent.kinds() == {"pruned_versions": (1, True)}
    assert silent.models() == {DIGESTS[0], *DIGESTS[3:]}


def test_a_start_leaves_no_folder_of_a_job_without_updates(silent: Silent) -> None:
    (silent.data / "spools" / "over-1").mkdir()
    needed = silent.spool(len(VERSIONS), bytes(200))
    with silent.opened():
        assert [path.name for path in (silent.data / "spools").iterdir()] == [JOB]
    assert needed.exists()


def test_where_records_were_set_back_unrecorded_models_stay(silent: Silent) -> None:
    silent.stray()
    with silent.opened() as records:
        entry = records.audit.entry("records_restored", {})
        records.store.note_set_back(SetBack("a backup was restored"), entry)
        records.audit.accept(entry)
    assert silent.kinds("--unrecorded-models") == {"unrecorded_models": (1, False)}
    assert STRAY in silent.models()


def test_an_entry_counts_the_files_that_it_names(silent: Silent) -> None:
    for number in range(PRUNED_AT_ONCE + 1):
        silent.copy(f"{COPY_PREFIX}{number}", age_s=MONTH_S)
    assert silent.run("gc")["bytes"] == 500 * (PRUNED_AT_ONCE + 1)
    told = [(entry["files"], entry["bytes"], len(entry["names"])) for entry in silent.entries()]
    assert told == [(PRUNED_AT_ONCE, 500 * PRUNED_AT_ONCE, PRUNED_AT_ONCE), (1, 500, 1)]


def test_what_could_not_be_removed_is_not_said_to_have_gone(tmp_path: Path) -> None:
    silent = Silent(tmp_path, keep_versions=2)
    (silent.data / "removed" / f"{DIGESTS[1]}.safetensors").mkdir()  # nothing can be renamed to it
    (silent.data / "staging" / "half").write_bytes(bytes(700))
    ran = silent.try_to("gc", "--json")
    assert ran.exit_code == 1
    told = json.loads(ran.stdout)
    found = [(each["what"], each["files"], each["goes"]) for each in told["found"] if each["files"]]
    assert found == [
        ("unfinished_files", 1, True),
        ("pruned_versions", 2, False),
        ("unfinished_files", 1, False),
    ], "on record they are pruned; their files are there"
    assert told["bytes"] == 700
    assert DIGESTS[1] in silent.models()
    (silent.data / "removed" / f"{DIGESTS[1]}.safetensors").rmdir()
    assert silent.kinds() == {"pruned_versions": (2, True)}
    assert DIGESTS[1] not in silent.models()


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
def test_records_of_another_user_are_refused_before_anything_is_made(silent: Silent, option: str) -> None:
    belong_to_another(silent.data / DATABASE_FILE)
    before = sorted(silent.data.rglob("*"))
    ran = silent.try_to("gc", option)
    assert isinstance(ran.exception, ConfigError)
    assert "run this as the user that the daemon runs as" in str(ran.exception)
    assert sorted(silent.data.rglob("*")) == before


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_folder_in_use_is_refused(silent: Silent, options: tuple[str, ...]) -> None:
    with silent.opened():
        ran = silent.try_to("gc", *options)
    assert isinstance(ran.exception, ConfigError)
    assert "in use by another coordinator" in str(ran.exception)


@pytest.mark.parametrize(("command", "option"), [("gc", "--json"), ("gc", "--dry-run"), ("disk", "--json")])
def test_records_of_another_version_are_not_brought_up_to_date(silent: Silent, command: str, option: str) -> None:
    for path in silent.data.glob(f"{DATABASE_FILE}*"):
        path.unlink()
    make_database(VERSION_1, silent.data).rename(silent.data / DATABASE_FILE)
    ran = silent.try_to(command, option)
    assert isinstance(ran.exception, ConfigError)
    assert "has schema version 1, this program" in str(ran.exception)
    assert not list(silent.data.glob(f"{COPY_PREFIX}*"))


@pytest.mark.parametrize("command", ["gc", "disk"])
def test_where_no_coordinator_ran_nothing_is_made(tmp_path: Path, command: str) -> None:
    silent = Silent(tmp_path)
    silent.data.rename(tmp_path / "elsewhere")
    ran = silent.try_to(command)
    assert isinstance(ran.exception, ConfigError)
    assert "has a coordinator run" in str(ran.exception)
    assert not silent.data.exists()


# --- disk -------------------------------------------------------------------------------------------------------------


def test_the_disk_is_told_beside_a_coordinator_that_runs(tmp_path: Path) -> None:
    silent = Silent(tmp_path, keep_versions=1)
    silent.spool(len(VERSIONS), bytes(200))
    silent.copy(f"{COPY_PREFIX}2", age_s=60)
    silent.stray()
    with silent.opened():
        told = silent.run("disk")
    kinds = {each["kind"]: (each["files"], each["bytes"]) for each in told["kinds"]}
    assert kinds["models"] == (6, sum(map(len, VERSIONS)) + 5)
    assert kinds["spools"] == (1, 200)
    assert kinds["copies"] == (1, 500)
    assert kinds["database"][1] == (silent.data / DATABASE_FILE).stat().st_size
    size = sum(map(len, VERSIONS))
    assert told["jobs"] == [
        {"job": JOB, "state": "running", "versions": 5, "files": 5, "size": size, "prunable": 3},
    ]
    assert told["retention"] == {"keep_versions": 1, "would_free_files": 3, "would_free_bytes": 3000}
    assert told["unrecorded_models"] == {"files": 1, "bytes": 5}
    assert told["free_bytes"] > 0


class Interrupted(RecordsBeside):
    """Beside a coordinator to which a job is submitted after each look at its jobs."""

    def __init__(self, path: Path, own: Records) -> None:
        super().__init__(path)
        self._own = own
        self._submitted = 0

    def jobs(self) -> Sequence[JobRecord]:
        seen = super().jobs()
        self._submitted += 1
        entry = self._own.audit.entry("job_submitted", {})
        job = replace(seen[0], job=JobId(f"late-{self._submitted}"))
        self._own.store.submit_job(job, entry)
        self._own.audit.accept(entry)
        return seen


def test_a_job_that_is_submitted_meanwhile_disturbs_nothing(silent: Silent) -> None:
    with silent.opened() as own, closing(Interrupted(silent.data / DATABASE_FILE, own)) as records:
        told = report_records(records, disk_use(silent.data), dict.fromkeys(DIGESTS, 1), keep_versions=1)
        assert [(job.job, job.state, job.prunable) for job in told.jobs] == [(JOB, "running", 3)]
        assert len(own.store.jobs()) == 2, "the jobs were looked at once"


def test_another_policy_can_be_tried(silent: Silent) -> None:
    assert silent.run("disk")["retention"] == {"keep_versions": 0, "would_free_files": 0, "would_free_bytes": 0}
    assert silent.run("disk", "--keep-versions", "3")["retention"]["would_free_bytes"] == 1000
    assert silent.models() == set(DIGESTS)
    shown = silent.try_to("disk", "--keep-versions", "3").output
    assert "keep_versions = 3 would free" in shown
    assert "1000 bytes in 1 versions" in shown


def test_every_file_of_the_folder_has_its_kind(silent: Silent) -> None:
    silent.copy(copy_path(silent.data / DATABASE_FILE).name, age_s=0)
    with silent.opened():
        use = disk_use(silent.data)
    assert use.files[DiskKind.COPIES] == 1
    assert use.files[DiskKind.DATABASE_LOG] == 2
    assert use.files[DiskKind.OTHER] == 2, "the two locks"
    assert use.sizes[DiskKind.AUDIT_LOG] == (silent.data / AUDIT_FILE).stat().st_size


def test_what_is_read_beside_cannot_be_written(silent: Silent) -> None:
    with closing(RecordsBeside(silent.data / DATABASE_FILE)) as records, silent.opened() as own:
        entry = own.audit.entry("job_ended", {})
        with pytest.raises(StorageError, match="readonly"):
            records.append_audit(entry)
        own.store.append_audit(entry)
        own.audit.accept(entry)
        assert len(records.audit_entries(0)) == own.audit.size, "what was written since is seen"


def everything(folder: Path) -> dict[str, bytes]:
    """All files but the lock's, which has the number of whoever locked last, and SQLite's two."""
    passing = {f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm", "coordinator.lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in passing
    }
