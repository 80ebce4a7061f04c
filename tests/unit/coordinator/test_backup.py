"""A backup holds what a new start needs and no share of anybody's; a restore believes none of it unchecked."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.audit import verify_lines
from coordinator.backup import MANIFEST_FILE, BackupManifest, BackupOrder, make_backup
from coordinator.checks import _data_folder
from coordinator.restoring import Restored, RestoreOrder, restore
from coordinator.startup import RESTORING_FILE, Records, open_records
from coordinator.storage.interface import COMMITTED, JobRecord, JournalEntry, ModelRecord, RoundCommit, SetBack
from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE
from coordinator.storage.sql import SqlStore
from shared.build import BuildInfo
from shared.clock import ManualClock
from shared.errors import AuditError, ConfigError, FederationError, StorageError
from shared.identity import SigningKey
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.reasons import JobState, Purpose
from tests.support.rounds import COORDINATOR_KEY, A, key_of

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
MADE_AT = "2026-11-23T06:30:00Z"
JOB, OVER = JobId("heart-2"), JobId("heart-1")
FIRST, OPEN = RoundKey(JOB, RoundNumber(1)), RoundKey(JOB, RoundNumber(2))
INITIAL, TRAINED = b"initial model" * 1000, b"trained model" * 1000
SEALED, OPENED, SPOOLED = b"a sealed share of somebody", b"an opened share of somebody", b"the update of a silo"
ROSTER = b"the keys of an attempt that is open"
PLAN = JournalEntry("plan", b"the signed plan")


class Folder:
    """A data folder with one committed round, and one that is open and has everything in its journal."""

    def __init__(self, root: Path) -> None:
        self.path = root / "data"
        self.clock = ManualClock(start=NOW)
        with self.opened() as records:
            self.add_model(records, INITIAL)
            for job in (OVER, JOB):
                record = JobRecord(job, b"spec", "olga", "2026-11-23T06:00:00Z", JobState.QUEUED, "")
                self.audited(
                    records,
                    "job_submitted",
                    {"job": job},
                    lambda entry, new=record: records.store.submit_job(new, entry),
                )
            self.end_job(records, OVER)
            for key in (FIRST, OPEN):
                records.store.open_round(key, Purpose.TRAIN, PLAN)
                for kind, body in (("roster_fixed", ROSTER), ("shares_fixed", SEALED), ("shares_revealed", OPENED)):
                    records.store.journal(key, JournalEntry(kind, body + str(key).encode()))
                if key == FIRST:
                    self.commit(records)
            spool = self.path / "spools" / JOB / "2" / "1"
            spool.mkdir(parents=True)
            (spool / "hospital-a.update").write_bytes(SPOOLED)

    @contextmanager
    def opened(self) -> Iterator[Records]:
        with open_records(self.path, signing_key=COORDINATOR_KEY, clock=self.clock) as records:
            yield records
            records.catch_up()

    def audited(self, records: Records, kind: str, data: dict[str, object], write: Callable[..., object]) -> None:
        entry = records.audit.entry(kind, data)
        write(entry)
        records.audit.accept(entry)

    def publish(self, records: Records, content: bytes) -> Digest:
        digest = Digest.of(content)
        staged = records.blobs.stage("model")
        staged.allocate(len(content))
        staged.write_at(0, memoryview(content))
        records.blobs.publish(staged, digest)
        return digest

    def add_model(self, records: Records, content: bytes) -> Digest:
        digest = self.publish(records, content)
        model = ModelRecord(digest, b"{}")
        self.audited(
            records, "model_added", {"model": str(digest)}, lambda entry: records.store.add_model(model, entry)
        )
        return digest

    def end_job(self, records: Records, job: JobId) -> None:
        ended = lambda entry: records.store.set_job_state(job, JobState.COMPLETED, "", entry)  # noqa: E731
        self.audited(records, "job_aborted", {"job": job}, ended)

    def commit(self, records: Records) -> None:
        digest = self.publish(records, TRAINED)
        forgotten = frozenset({"shares_fixed", "shares_revealed"})

        def write(entry: object) -> None:
            model = ModelRecord(digest, b"{}")
            commit = RoundCommit(FIRST, b"{}", b"result", model, JobState.RUNNING, entry, forgotten)  # type: ignore[arg-type]
            assert records.store.commit_round(commit)

        self.audited(records, "round_committed", {"job": JOB, "next_model": str(digest)}, write)

    def prune(self, records: Records, content: bytes) -> None:
        """As retention does: the records first."""
        digest = Digest.of(content)
        self.audited(records, "job_aborted", {"job": "x"}, lambda entry: records.store.prune_models([digest], entry))
        (self.path / "models" / f"{digest}.safetensors").unlink()

    def back_up(self, destination: Path, *, step: Callable[[str], None] = lambda _: None) -> BackupManifest:
        order = BackupOrder(
            data_dir=self.path,
            destination=destination,
            coordinator="coordinator",
            verifying_key=COORDINATOR_KEY.verifying_key,
            now=NOW,
            build=BuildInfo("0.1", "abc", "3.11"),
        )
        return make_backup(order, step=step)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def backup(folder: Folder, tmp_path: Path) -> Path:
    folder.back_up(tmp_path / "backup")
    return tmp_path / "backup"


def take_up(
    source: Path, data_dir: Path, *, key: SigningKey = COORDINATOR_KEY, step: Callable[[str], None] = lambda _: None
) -> Restored:
    order = RestoreOrder(source=source, data_dir=data_dir, signing_key=key, clock=ManualClock(start=NOW))
    return restore(order, step=step)


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def model_file(digest: Digest) -> str:
    return f"models/{digest}.safetensors"


# --- backing up -------------------------------------------------------------------------------------------------------


def test_a_backup_beside_a_running_coordinator_has_its_records_its_log_and_its_models(
    folder: Folder, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    with folder.opened() as records:
        manifest = folder.back_up(target)
        entries = records.store.audit_entries(0)
    assert manifest.made_at == MADE_AT
    assert manifest.models == {Digest.of(INITIAL), Digest.of(TRAINED)}
    assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} == {
        DATABASE_FILE, AUDIT_FILE, MANIFEST_FILE, model_file(Digest.of(INITIAL)), model_file(Digest.of(TRAINED)),
    }  # fmt: skip
    assert (target / AUDIT_FILE).read_bytes() == b"".join(entry.line + b"\n" for entry in entries)
    assert json.loads((target / MANIFEST_FILE).read_text())["audit_entries"] == len(entries)
    for path in (target, *target.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_byte_of_a_backup_is_a_share_or_of_an_open_attempt(folder: Folder, tmp_path: Path) -> None:
    held = everything_below(folder.path)
    assert all(secret in held for secret in (SEALED, OPENED, ROSTER, SPOOLED))  # else this test shows nothing
    assert SEALED + str(FIRST).encode() not in held  # of the committed one they were deleted
    folder.back_up(tmp_path / "backup")
    copied = everything_below(tmp_path / "backup")
    assert SEALED not in copied
    assert OPENED not in copied
    assert ROSTER + str(OPEN).encode() not in copied
    assert ROSTER + str(FIRST).encode() in copied  # what is no secret of a round that is over stays on record
    assert SPOOLED not in copied


def test_an_open_round_is_in_a_backup_as_its_plan(backup: Path) -> None:
    with closing(SqlStore(url=f"sqlite:///{backup / DATABASE_FILE}")) as store:
        assert store.journal_of(OPEN) == (PLAN,)
        assert [entry.kind for entry in store.journal_of(FIRST)] == ["plan", "roster_fixed"]
        assert [record.outcome for record in store.rounds(JOB)] == [COMMITTED, ""]


def test_a_model_that_retention_removes_meanwhile_is_not_missed(folder: Folder, tmp_path: Path) -> None:
    with folder.opened() as records:
        struck: list[str] = []

        def prune(next_step: str) -> None:
            if next_step == "models" and not struck:
                struck.append(next_step)
                folder.prune(records, INITIAL)

        manifest = folder.back_up(tmp_path / "backup", step=prune)
    assert manifest.models == {Digest.of(TRAINED)}
    assert take_up(tmp_path / "backup", tmp_path / "restored").manifest == manifest


def test_one_that_is_removed_after_it_was_copied_is_left_out(folder: Folder, tmp_path: Path) -> None:
    with folder.opened() as records:
        copied: list[str] = []

        def prune(next_step: str) -> None:
            if not next_step.startswith("models/"):
                return
            copied.append(next_step)
            if len(copied) == 2:
                folder.prune(records, INITIAL)
                folder.prune(records, TRAINED)

        manifest = folder.back_up(tmp_path / "backup", step=prune)
    assert manifest.models == frozenset()
    assert list((tmp_path / "backup/models").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.unlink(), "is not there: bring it back"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "is damaged"),
    ],
)
def test_a_lost_or_damaged_model_is_said(
    folder: Folder, tmp_path: Path, change: Callable[[Path], object], why: str
) -> None:
    change(folder.path / model_file(Digest.of(TRAINED)))
    with pytest.raises(StorageError, match=why):
        folder.back_up(tmp_path / "backup")
    with pytest.raises(ConfigError, match="interrupted"):
        take_up(tmp_path / "backup", tmp_path / "restored")


def test_a_log_that_does_not_verify_is_not_backed_up(folder: Folder, tmp_path: Path) -> None:
    with closing(sqlite3.connect(folder.path / DATABASE_FILE)) as database:
        changed = "CAST(replace(CAST(line AS TEXT), 'heart', 'heard') AS BLOB)"
        database.execute(f"UPDATE audit SET line = {changed} WHERE seq = 1")  # noqa: S608 - a test
        database.commit()
    with pytest.raises(AuditError, match="line 2"):
        folder.back_up(tmp_path / "backup")


def test_a_backup_replaces_nothing(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup/letters").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        folder.back_up(tmp_path / "backup")
    with pytest.raises(ConfigError, match=r"is in the data folder .* would be lost with it"):
        folder.back_up(folder.path / "backup")
    with pytest.raises(ConfigError, match="which is not there"):
        Folder.back_up(_elsewhere(folder, tmp_path / "nowhere"), tmp_path / "other")


def _elsewhere(folder: Folder, path: Path) -> Folder:
    folder.path = path
    return folder


def test_a_database_of_another_schema_is_left_to_its_own_program(folder: Folder, tmp_path: Path) -> None:
    with closing(sqlite3.connect(folder.path / DATABASE_FILE)) as database:
        database.execute("UPDATE schema_version SET version = 1")
        database.commit()
    with pytest.raises(ConfigError, match="start the coordinator of this version once"):
        folder.back_up(tmp_path / "backup")


class _Struck(BaseException):
    """The process is gone at this moment."""


def steps_of(play: Callable[[Callable[[str], None]], object]) -> list[str]:
    seen: list[str] = []
    play(seen.append)
    return seen


def strike_at(number: int) -> Callable[[str], None]:
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if len(seen) > number:
            raise _Struck(name)

    return step


def test_a_backup_that_ends_at_any_step_is_recognised(folder: Folder, tmp_path: Path) -> None:
    steps = steps_of(lambda step: folder.back_up(tmp_path / "whole", step=step))
    assert steps[-1] == MANIFEST_FILE
    for number, name in enumerate(steps):
        target = tmp_path / f"struck-{number}"
        with pytest.raises(_Struck, match=name):
            folder.back_up(target, step=strike_at(number))
        with pytest.raises(ConfigError, match="no backup, or one that was interrupted"):
            take_up(target, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()


# --- restoring --------------------------------------------------------------------------------------------------------


def test_a_restored_folder_is_the_one_that_was_backed_up_and_says_so(backup: Path, tmp_path: Path) -> None:
    restored = take_up(backup, tmp_path / "restored")
    assert restored.open_jobs == (JOB,)
    with open_records(tmp_path / "restored", signing_key=COORDINATOR_KEY, clock=ManualClock(start=NOW)) as records:
        assert [record.job for record in records.store.jobs()] == [OVER, JOB]
        assert bytes(records.blobs.model(Digest.of(TRAINED)).read_at(0, len(TRAINED))) == TRAINED
        assert records.store.set_backs() == (SetBack(f"the records were restored from the backup of {MADE_AT}"),)
        last = json.loads(records.store.audit_entries(records.audit.size - 1)[0].line[129:])
    assert last["kind"] == "records_restored"
    manifest = restored.manifest
    expected = {"backup": MADE_AT, "entries": manifest.audit_entries, "head": manifest.audit_head}
    assert last["data"] == expected
    log = (tmp_path / "restored" / AUDIT_FILE).read_bytes()
    kept = Digest.parse(manifest.audit_head)
    assert verify_lines(log, verifying_key=COORDINATOR_KEY.verifying_key, head=kept).entries_after_head == 1
    for path in (tmp_path / "restored").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_restore_replaces_nothing(backup: Path, tmp_path: Path, folder: Folder) -> None:
    before = everything_below(folder.path)
    with pytest.raises(ConfigError, match="is not empty"):
        take_up(backup, folder.path)
    assert everything_below(folder.path) == before
    with folder.opened(), pytest.raises(ConfigError, match="in use by another coordinator"):
        take_up(backup, folder.path)


def test_an_empty_folder_of_a_disk_is_empty(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted/lost+found").mkdir(parents=True)
    take_up(backup, tmp_path / "mounted")


def test_a_restore_that_ends_at_any_step_leaves_what_nobody_starts_from_and_can_be_repeated(
    backup: Path, tmp_path: Path
) -> None:
    steps = steps_of(lambda step: take_up(backup, tmp_path / "whole", step=step))
    assert (steps[0], steps[-1]) == (RESTORING_FILE, "end")
    for number, name in enumerate(steps):
        target = tmp_path / f"struck-{number}"
        with pytest.raises(_Struck, match=name):
            take_up(backup, target, step=strike_at(number))
        if number:  # before the first one nothing is there
            with pytest.raises(ConfigError, match="interrupted"), _opened(target):
                pass
        take_up(backup, target)
        with _opened(target) as records:
            assert len(records.store.set_backs()) == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
from coordinator.restoring import RestoreOrder, restore
from shared.clock import SystemClock
from tests.support.rounds import COORDINATOR_KEY

def step(name):
    if name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

restore(RestoreOrder(source=Path(sys.argv[1]), data_dir=Path(sys.argv[2]), signing_key=COORDINATOR_KEY,
    clock=SystemClock()), step=step)
"""


@pytest.mark.parametrize("moment", [AUDIT_FILE, "mark", "end"])
def test_a_process_that_is_killed_in_a_restore_leaves_what_can_be_repeated(
    backup: Path, tmp_path: Path, moment: str
) -> None:
    target = tmp_path / "restored"
    command = [sys.executable, "-c", _KILLED, str(backup), str(target), moment]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60.0).returncode == -signal.SIGKILL
    with pytest.raises(ConfigError, match="interrupted"), _opened(target):
        pass
    with pytest.raises(ConfigError, match="Run `consilo coordinator restore` again"):
        _data_folder(target)  # as `consilo coordinator check` looks at it
    take_up(backup, target)
    with _opened(target) as records:
        assert len(records.store.set_backs()) == 1


@contextmanager
def _opened(path: Path) -> Iterator[Records]:
    with open_records(path, signing_key=COORDINATOR_KEY, clock=ManualClock(start=NOW)) as records:
        yield records


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _with_manifest(backup: Path, change: Callable[[dict[str, object]], object]) -> None:
    said = json.loads((backup / MANIFEST_FILE).read_text())
    change(said)
    (backup / MANIFEST_FILE).write_text(json.dumps(said))


def _describe_again(backup: Path, name: str) -> None:
    """What somebody who changes a file changes besides."""
    content = (backup / name).read_bytes()

    def change(said: dict[str, object]) -> None:
        files = said["files"]
        assert isinstance(files, list)
        for file in files:
            if file["path"] == name:
                file["bytes"], file["sha256"] = len(content), str(Digest.of(content))

    _with_manifest(backup, change)


def _swap_database(backup: Path, statement: str) -> None:
    with closing(sqlite3.connect(backup / DATABASE_FILE)) as database:
        database.execute(statement)
        database.commit()
    _describe_again(backup, DATABASE_FILE)


def _invent_model(backup: Path) -> None:
    content = b"a model of somebody else"
    digest = Digest.of(content)
    (backup / model_file(digest)).write_bytes(content)
    _with_manifest(
        backup,
        lambda said: said["files"].append({"path": model_file(digest), "bytes": len(content), "sha256": str(digest)}),  # type: ignore[attr-defined]
    )
    _swap_database(backup, f"INSERT INTO models VALUES (99, '{digest}', x'7b7d', 0, 0)")  # noqa: S608


def _exchange_model(backup: Path) -> None:
    (backup / model_file(Digest.of(TRAINED))).write_bytes(b"another model")
    _describe_again(backup, model_file(Digest.of(TRAINED)))


def _link(backup: Path) -> None:
    path = backup / model_file(Digest.of(TRAINED))
    moved = backup.parent / "moved"
    shutil.move(path, moved)
    path.symlink_to(moved)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of a model": (lambda backup: _flip(backup / model_file(Digest.of(TRAINED))), "is damaged"),
    "a byte of the database": (lambda backup: _flip(backup / DATABASE_FILE), "is damaged"),
    "a byte of the log": (lambda backup: _flip(backup / AUDIT_FILE), "is damaged"),
    "a model is gone": (lambda backup: (backup / model_file(Digest.of(TRAINED))).unlink(), "is not whole"),
    "a link": (_link, "is not whole"),
    "another model, described": (_exchange_model, "another digest than its name says"),
    "a model that nobody trained": (_invent_model, "signed audit log does not name"),
    "a model is not named": (
        lambda backup: _swap_database(backup, "DELETE FROM models"),
        "other models than its records name",
    ),
    "a cut log": (
        lambda backup: _swap_database(backup, "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)"),
        "where the database ends",
    ),
    "another head": (lambda backup: _with_manifest(backup, lambda said: said.update(audit_entries=2)), "another size"),
    "another format": (
        lambda backup: _with_manifest(backup, lambda said: said.update(format="zip")),
        "no description of a backup",
    ),
    "a newer schema": (
        lambda backup: _with_manifest(backup, lambda said: said.update(schema_version=99)),
        "install Consilo 0.1 or newer",
    ),
    "a file elsewhere": (
        lambda backup: _with_manifest(
            backup,
            lambda said: said["files"].append({"path": "../data/x", "bytes": 1, "sha256": "0" * 64}),  # type: ignore[attr-defined]
        ),
        "got '../data/x' as well",
    ),
    "a file twice": (
        lambda backup: _with_manifest(backup, lambda said: said["files"].append(said["files"][0])),  # type: ignore[attr-defined,index]
        "twice",
    ),
    "no manifest": (lambda backup: (backup / MANIFEST_FILE).unlink(), "interrupted"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_backup_is_refused_and_leaves_an_empty_folder(backup: Path, tmp_path: Path, what: str) -> None:
    change, why = WRONG[what]
    change(backup)
    with pytest.raises(FederationError, match=why):
        take_up(backup, tmp_path / "restored")
    left = {path.name for path in (tmp_path / "restored").glob("*")} - {"coordinator.lock"}
    assert left == set()


def test_a_backup_of_a_coordinator_with_another_key_is_refused(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="another key signed it"):
        take_up(backup, tmp_path / "restored", key=key_of(A))


def test_room_is_asked_for_before_anything_is_copied(backup: Path, tmp_path: Path) -> None:
    def grow(said: dict[str, object]) -> None:
        files = said["files"]
        assert isinstance(files, list)
        files[-1]["bytes"] = 2**60

    _with_manifest(backup, grow)
    with pytest.raises(StorageError, match="make room"):
        take_up(backup, tmp_path / "restored")
