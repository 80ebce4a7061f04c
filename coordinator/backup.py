"""A backup: a folder that `consilo coordinator restore` makes a data folder of, made while the coordinator runs or not.

    coordinator.db                  the records, as they were at one moment
    audit.log                       the audit log, as those records have it
    models/<digest>.safetensors     every model version that they name and that was not pruned
    backup.json                     what this is: when, of what, and size and SHA-256 of every file

*Order.* The database first: a model is published before the records name it, so each model that the copy names is
there to be copied after it. Retention may remove one in between; then the records say so by now, and the database is
copied once more. `backup.json` is written last, after everything else is synced: a folder without it is a backup that
was interrupted, and nobody restores it.

*What is not in it.* No spools: the updates in them belong to open rounds, and an open round of a backup is never gone
on with. No shares of silos' secrets, for the same reason (`coordinator.storage.copying`). No keys: a backup lies in
other places than the data folder, under other eyes, and whoever has the signing key can write an audit log.

Files are copied and never linked: a link shares its bytes with what it is meant to outlive.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, TypedDict

from pydantic import Field, ValidationError

from coordinator.audit import Verified, verify_lines
from coordinator.round.journal import PLAN
from coordinator.round.recording import SHARES
from coordinator.storage.copying import CopiedDatabase, copy_database, reading
from coordinator.storage.database import require_database
from coordinator.storage.filecalls import Fate, FileCalls, writing
from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE
from coordinator.storage.schema import SCHEMA_VERSION
from shared.build import BuildInfo
from shared.complaints import first_complaint
from shared.errors import ConfigError, StorageError
from shared.identity import VerifyingKey
from shared.ids import Digest
from shared.job import Table

MANIFEST_FILE = "backup.json"
MODELS_FOLDER = "models"
MANIFEST_MAX_BYTES = 64 * 1024 * 1024  # 200 bytes a model version: more of them than any disk holds
CHUNK_BYTES = 1024 * 1024
COPIES_OF_RECORDS_MAX = 3  # retention removes versions after a commit: it does not do so again and again meanwhile

_MODEL_PATH = re.compile(rf"{MODELS_FOLDER}/([0-9a-f]{{64}})\.safetensors")

Step = Callable[[str], None]
"""Told what comes next, before it is done."""


class BackedUpFile(Table):
    """One file of a backup."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BackupManifest(Table):
    """`backup.json`."""

    format: Literal["consilo-backup/1"]
    made_at: str
    """RFC 3339, UTC: no later than the moment that the records are of."""
    coordinator: str
    version: str
    """Of the program that made it."""
    schema_version: int = Field(ge=1)
    audit_entries: int = Field(ge=0)
    audit_head: str = Field(pattern=r"^[0-9a-f]{64}$")
    files: tuple[BackedUpFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def models(self) -> frozenset[Digest]:
        return frozenset(Digest.parse(found[1]) for file in self.files if (found := _MODEL_PATH.fullmatch(file.path)))


class _Written(TypedDict):
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOrder:
    """What to back up, and what is said of it."""

    data_dir: Path
    destination: Path
    coordinator: str
    verifying_key: VerifyingKey
    """That of the audit log."""
    now: datetime
    build: BuildInfo


def make_backup(order: BackupOrder, *, step: Step = lambda _: None) -> BackupManifest:
    """Raises ConfigError (a destination that is not empty, or is in the data folder), AuditError, StorageError or
    DurabilityUnknown; then the destination has no `backup.json`.
    """
    made_at = order.now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    folder = order.destination
    if folder.resolve().is_relative_to(order.data_dir.resolve()):
        raise ConfigError(
            f"{folder} is in the data folder {order.data_dir} and would be lost with it: name a folder on another disk"
        )
    require_database(order.data_dir / DATABASE_FILE)  # before a folder is made for nothing
    _make_empty(folder)
    step("records")
    files = _copy_records_and_models(order, step)
    database = folder / DATABASE_FILE
    step(AUDIT_FILE)
    with reading(database) as records:
        audit, verified = _write_audit(records, folder / AUDIT_FILE, order.verifying_key)
    manifest = BackupManifest(
        format="consilo-backup/1",
        made_at=made_at,
        coordinator=order.coordinator,
        version=order.build.version,
        schema_version=SCHEMA_VERSION,
        audit_entries=verified.size,
        audit_head=str(verified.head),
        files=(_described(database, DATABASE_FILE), audit, *files),
    )
    step("sync")
    fate, calls = Fate(), FileCalls()
    for each in (folder / MODELS_FOLDER, folder, folder.absolute().parent):
        fate.sync_folder(calls, each)
    step(MANIFEST_FILE)
    aside = folder / f"{MANIFEST_FILE}.new"
    write_new(aside, [json.dumps(manifest.model_dump(mode="json"), indent=2).encode() + b"\n"])
    with writing(f"writing {folder / MANIFEST_FILE}"):
        aside.replace(folder / MANIFEST_FILE)
    fate.sync_folder(calls, folder)
    return manifest


def load_manifest(folder: Path) -> BackupManifest:
    """Raises ConfigError: no backup, an interrupted one, or one with files that a backup does not have."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no {MANIFEST_FILE}: it is no backup, or one that was interrupted: take another"
        )
    try:
        data = path.read_bytes() if path.stat().st_size <= MANIFEST_MAX_BYTES else b""
        manifest = BackupManifest.model_validate_json(data)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is no description of a backup of this version: {first_complaint(error)}") from None
    paths = [file.path for file in manifest.files]
    expected = {DATABASE_FILE, AUDIT_FILE} | {path for path in paths if _MODEL_PATH.fullmatch(path)}
    if set(paths) != expected or len(paths) != len(expected):
        strange = sorted({*paths} ^ expected) or ["one of them twice"]
        raise ConfigError(f"{path}: expected {DATABASE_FILE}, {AUDIT_FILE} and models, got {strange[0]!r} as well")
    return manifest


# --- copying ----------------------------------------------------------------------------------------------------------


def _make_empty(folder: Path) -> None:
    with writing(f"making {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: a backup goes into a folder of its own, which may be absent")
        folder.chmod(0o700)
        (folder / MODELS_FOLDER).mkdir(mode=0o700)


def _copy_records_and_models(order: BackupOrder, step: Step) -> list[BackedUpFile]:
    source, target = order.data_dir / DATABASE_FILE, order.destination / DATABASE_FILE
    copied: dict[Digest, BackedUpFile] = {}
    missing: list[Digest] = []
    for _ in range(COPIES_OF_RECORDS_MAX):
        target.unlink(missing_ok=True)
        copy_database(source, target, plan=PLAN, shares=SHARES)
        with reading(target) as records:
            named = records.models()
        step("models")
        _require_room(order, [digest for digest in named if digest not in copied])
        missing = [digest for digest in named if digest not in copied and not _copy_model(order, digest, copied, step)]
        if not missing:
            for digest in copied.keys() - set(named):  # removed by retention after it was copied
                (order.destination / copied.pop(digest).path).unlink()
            return list(copied.values())
    raise StorageError(
        f"the records name model {missing[0]}, and {order.data_dir / model_path(missing[0])} is not there: bring it "
        "back from an earlier backup"
    )


def _copy_model(order: BackupOrder, digest: Digest, copied: dict[Digest, BackedUpFile], step: Step) -> bool:
    """Whether it was there."""
    path = model_path(digest)
    step(path)
    try:
        found = copy_file(order.data_dir / path, order.destination / path, path)
    except FileNotFoundError:
        return False
    if found.sha256 != str(digest):
        raise StorageError(
            f"{order.data_dir / path} is damaged: its bytes have the digest {found.sha256}. Bring it back from an "
            "earlier backup; without it there is no whole one"
        )
    copied[digest] = found
    return True


def _require_room(order: BackupOrder, models: Iterable[Digest]) -> None:
    needed = 0
    for digest in models:
        path = order.data_dir / model_path(digest)
        needed += path.stat().st_size if path.is_file() else 0
    require_room(order.destination, needed)


def require_room(folder: Path, needed: int) -> None:
    """Raises StorageError when a disk is too full for what is to be copied."""
    with writing(f"looking at {folder}"):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(f"{needed} bytes are to be copied to {folder}, and {free} are free: make room")


def model_path(digest: Digest) -> str:
    """Where a version lies, in a data folder as in a backup."""
    return f"{MODELS_FOLDER}/{digest}.safetensors"


def _write_audit(records: CopiedDatabase, path: Path, verifying_key: VerifyingKey) -> tuple[BackedUpFile, Verified]:
    def lines() -> Iterable[bytes]:
        start = 0
        while page := records.audit_entries(start):
            yield from (entry.line + b"\n" for entry in page)
            start = page[-1].seq + 1

    written = write_new(path, lines())
    with writing(f"reading {path}"), path.open("rb") as log:
        return BackedUpFile(path=AUDIT_FILE, **written), verify_lines(log, verifying_key=verifying_key, head=None)


def _described(path: Path, name: str) -> BackedUpFile:
    digest = hashlib.sha256()
    size = 0
    with writing(f"reading {path}"), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return BackedUpFile(path=name, bytes=size, sha256=digest.hexdigest())


def copy_file(source: Path, target: Path, name: str) -> BackedUpFile:
    """Copy to a new file, durably, and say what was copied. Raises FileNotFoundError, StorageError."""
    with source.open("rb") as file:
        return BackedUpFile(path=name, **write_new(target, _chunks(file, source)))


def _chunks(file: BinaryIO, source: Path) -> Iterator[bytes]:
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        raise StorageError(f"{source} cannot be read: {error.strerror}") from error


def write_new(path: Path, content: Iterable[bytes]) -> _Written:
    """Write a file that was not there, readable by this user alone, and sync it. Raises StorageError."""
    digest, size = hashlib.sha256(), 0
    with writing(f"writing {path}"):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            for chunk in content:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(fd)
    return {"bytes": size, "sha256": digest.hexdigest()}
