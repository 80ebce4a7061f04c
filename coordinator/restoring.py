"""A data folder made of a backup.

Restoring goes into a folder that is absent or empty, and nowhere else: what lies in a data folder is never replaced.
A file (`RESTORING_FILE`) stands in the folder from before the first byte until after the last is synced. While it is
there, no coordinator starts in the folder, and a restore may begin again there; so a crash at any moment leaves nothing
that could be taken for a data folder. A restore that finds its backup wrong leaves the folder empty.

Nothing of a backup is believed because it is there. Every file has the size and digest of `backup.json`; every line of
the audit log is signed with the key of *this* configuration, and its head is the one that `backup.json` says; the log
is the one of the records; the models are those of the records, each with its own digest, and each named in the signed
log. Not proven is that the backup is the newest one: silos do that (`coordinator.older_copy`).

The records are then marked as an older copy, with the entry `records_restored` in the audit log, so that the first
start ends what is open in them before it does anything else.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree

from coordinator.audit import MESSAGE_TYPE, AuditProjection, compare, read_entries, resume, verify_lines
from coordinator.backup import (
    MANIFEST_FILE,
    MODELS_FOLDER,
    BackedUpFile,
    BackupManifest,
    Step,
    copy_file,
    load_manifest,
    require_room,
    write_new,
)
from coordinator.startup import RESTORING_FILE
from coordinator.storage.filecalls import Fate, FileCalls, writing
from coordinator.storage.files import AppendFile
from coordinator.storage.interface import SetBack
from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE
from coordinator.storage.lock import LOCK_FILE, ProcessLock
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from shared.clock import Clock
from shared.errors import AuditError, ConfigError, DurabilityUnknown, FederationError, StorageError
from shared.identity import SigningKey

_NAMES_A_MODEL = {"model_added": "model", "round_committed": "next_model"}
_MAY_BE_THERE = frozenset({LOCK_FILE, "lost+found"})  # in an empty folder: of a command that found nothing, of a disk


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOrder:
    """From where to where, and as whom."""

    source: Path
    data_dir: Path
    signing_key: SigningKey
    clock: Clock


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored."""

    manifest: BackupManifest
    open_jobs: tuple[str, ...]
    """Those that the first start will end."""


def restore(order: RestoreOrder, *, step: Step = lambda _: None) -> Restored:
    """Raises ConfigError (no backup, or a folder that is not empty), AuditError, StorageError or DurabilityUnknown."""
    manifest = load_manifest(order.source)
    if manifest.schema_version > SCHEMA_VERSION:
        raise ConfigError(
            f"{order.source} has schema version {manifest.schema_version}, this program knows {SCHEMA_VERSION} and "
            f"older: install Consilo {manifest.version} or newer"
        )
    folder = order.data_dir
    with writing(f"making the data folder {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(ProcessLock(path=folder / LOCK_FILE, guards=f"the data folder {folder}")):
        _require_empty(folder)
        require_room(folder, manifest.total_bytes)
        step(RESTORING_FILE)
        fate, calls = Fate(), FileCalls()
        _begin(folder)
        fate.sync_folder(calls, folder)
        fate.sync_folder(calls, folder.absolute().parent)
        try:
            restored = _fill(order, manifest, step)
        except DurabilityUnknown:
            raise
        except FederationError:
            with suppress(OSError):  # whatever stays is behind `RESTORING_FILE`
                _clear(folder)
                (folder / RESTORING_FILE).unlink()
            raise
        step("sync")
        for each in (folder / MODELS_FOLDER, folder):
            fate.sync_folder(calls, each)
        step("end")
        with writing(f"removing {folder / RESTORING_FILE}"):
            (folder / RESTORING_FILE).unlink()
        fate.sync_folder(calls, folder)
    return restored


def _require_empty(folder: Path) -> None:
    with writing(f"looking into {folder}"):
        there = {path.name for path in folder.iterdir()} - _MAY_BE_THERE
    if there and RESTORING_FILE not in there:
        raise ConfigError(
            f"coordinator.data_dir: {folder} is not empty (it has {min(there)!r}): a backup is restored into an "
            "empty or absent folder and replaces nothing. Move the old one aside, and keep it"
        )


def _begin(folder: Path) -> None:
    """What an interrupted restore left is thrown away."""
    with writing(f"preparing {folder}"):
        if (folder / RESTORING_FILE).exists():
            _clear(folder)
        else:
            write_new(folder / RESTORING_FILE, [b"consilo coordinator restore\n"])
        (folder / MODELS_FOLDER).mkdir(mode=0o700)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name in _MAY_BE_THERE | {RESTORING_FILE}:
            continue
        if path.is_dir() and not path.is_symlink():
            rmtree(path)
        else:
            path.unlink()


def _fill(order: RestoreOrder, manifest: BackupManifest, step: Step) -> Restored:
    folder = order.data_dir
    for file in manifest.files:
        step(file.path)
        _take(order.source, folder, file)
    step("check")
    with writing("reading the restored audit log"), (folder / AUDIT_FILE).open("rb") as log:
        try:
            verified = verify_lines(log, verifying_key=order.signing_key.verifying_key, head=None)
        except AuditError as error:
            raise AuditError(
                f"{order.source / AUDIT_FILE}: {error}. Expected a log that [signing] key signed: take the key of the "
                "coordinator that the backup is of"
            ) from None
    if (verified.size, str(verified.head)) != (manifest.audit_entries, manifest.audit_head):
        raise AuditError(f"{order.source}: the audit log verifies, but {MANIFEST_FILE} says another size or head of it")
    with closing(SqlStore(url=f"sqlite:///{(folder / DATABASE_FILE).absolute()}")) as store:
        _check_records(store, folder, manifest)
        step("mark")
        return Restored(manifest, _mark(store, order, manifest))


def _take(source: Path, folder: Path, file: BackedUpFile) -> None:
    path = source / file.path
    if path.is_symlink() or not path.is_file():
        raise ConfigError(f"{path} is not there, but {MANIFEST_FILE} has it: the backup is not whole")
    copied = copy_file(path, folder / file.path, file.path)
    if copied != file:
        raise StorageError(
            f"{path} is damaged: expected {file.bytes} bytes with digest {file.sha256}, got {copied.bytes} with "
            f"{copied.sha256}. Take another backup"
        )


def _check_records(store: SqlStore, folder: Path, manifest: BackupManifest) -> None:
    """The records, the log and the files are of one moment, and every model is one that the signed log names."""
    with writing("reading the restored audit log"):
        content = (folder / AUDIT_FILE).read_bytes()
    if missing := compare(store.audit_entries, content):
        raise AuditError(f"the backup's audit log lacks {missing} entries that its records have")
    named = {record.digest for record in store.models() if not record.pruned}
    if named != manifest.models:
        (other, *_) = sorted(map(str, named ^ manifest.models))
        raise ConfigError(f"the backup has other models than its records name: {other} is in one of them only")
    signed = {
        entry.data[_NAMES_A_MODEL[entry.kind]]
        for entry in read_entries(content, verifying_key=None)  # signatures were verified before
        if entry.kind in _NAMES_A_MODEL
    }
    if strange := sorted({str(digest) for digest in named} - signed):
        raise AuditError(f"the backup has model {strange[0]}, which its signed audit log does not name")
    for file in manifest.files:
        if file.path.startswith(f"{MODELS_FOLDER}/") and file.sha256 not in file.path:
            raise StorageError(f"the backup's {file.path} has another digest than its name says")


def _mark(store: SqlStore, order: RestoreOrder, manifest: BackupManifest) -> tuple[str, ...]:
    audit = resume(store.audit_entries, sign=partial(order.signing_key.sign, MESSAGE_TYPE), clock=order.clock)
    facts = {"backup": manifest.made_at, "entries": manifest.audit_entries, "head": manifest.audit_head}
    entry = audit.entry("records_restored", facts)
    store.note_set_back(SetBack(f"the records were restored from the backup of {manifest.made_at}"), entry)
    with closing(AppendFile(path=order.data_dir / AUDIT_FILE)) as file:
        AuditProjection(file=file).project(store.audit_entries)
    return tuple(record.job for record in store.jobs() if not record.state.over)
