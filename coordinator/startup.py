"""What a start looks at before anything runs: who this process is, who is let in, and what its records say.

`consilo coordinator check` looks at the same things with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coordinator.audit import AuditLog, AuditProjection, resume, verify_entry
from coordinator.settings import CoordinatorSettings
from coordinator.storage.files import AppendFile, FileBlobs
from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE
from coordinator.storage.sql import SqlStore
from shared.build import BuildInfo
from shared.clock import Clock
from shared.consortium import Consortium
from shared.errors import AuditError, ConfigError
from shared.identity import AllowlistFile, Role, SigningKey
from shared.tls import CheckedSigning, OwnCredentials, check_own_credentials

RESTORING_FILE = "restoring"  # in a data folder that a restore has not finished


@dataclass(frozen=True, slots=True)
class Records:
    """What lies in the data folder, opened and found to be in order."""

    store: SqlStore
    blobs: FileBlobs
    audit: AuditLog
    projection: AuditProjection

    def catch_up(self) -> None:
        """Bring the audit file level with the database. Raises DurabilityUnknown in a folder that was taken away."""
        self.blobs.require_in_place()
        self.projection.project(self.store.audit_entries)


def check_identity(settings: CoordinatorSettings, clock: Clock) -> OwnCredentials:
    """Raises ConfigError for credentials that do not work, or are somebody else's."""
    return check_own_credentials(
        settings.tls.paths,
        signing_certificate=settings.signing.certificate,
        signing_key=settings.signing.key,
        role=Role.COORDINATOR,
        name=settings.coordinator.id,
        now=clock.now(),
    )


def check_consortium(settings: CoordinatorSettings, signing: CheckedSigning) -> Consortium | None:
    """The manifest of [consortium], in which this coordinator is; None without one. Raises ConfigError.

    Nothing is pinned here: a coordinator with another manifest than the silos' is one that every silo declines.
    """
    if settings.consortium is None:
        return None
    consortium = Consortium.load(settings.consortium.manifest, pinned=None)
    consortium.require_own(
        signing.certificate.identity, signing.certificate.verifying_key, source=str(settings.consortium.manifest)
    )
    return consortium


def open_allowlist(settings: CoordinatorSettings, credentials: OwnCredentials) -> AllowlistFile:
    """Raises ConfigError for a list that cannot be used: at start somebody is there to mend it."""
    allowlist, ours = AllowlistFile(settings.access.allowlist), credentials.tls.identity.consortium
    if allowlist.problem is not None:
        raise ConfigError(f"access.allowlist: {allowlist.problem}")
    if allowlist.consortium != ours:
        raise ConfigError(
            f"access.allowlist: {settings.access.allowlist}: expected the allow-list of {ours}, as in the "
            f"certificates, got that of {allowlist.consortium}: nobody of {ours} would be let in"
        )
    return allowlist


def _require_same_signer(store: SqlStore, signing_key: SigningKey, *, size: int) -> None:
    """One key signs one log: with another, nobody could verify the whole of it with one certificate."""
    for last in store.audit_entries(size - 1) if size else ():
        try:
            verify_entry(last, verifying_key=signing_key.verifying_key)
        except AuditError:
            raise ConfigError(
                "the audit log in data_dir was signed with another key than [signing] key: take the key that it was "
                "begun with back into use (a renewed certificate may keep its key: `consilo pki request`)"
            ) from None


def require_whole(data_dir: Path) -> None:
    """Raises ConfigError for a folder into which a restore was begun and not finished."""
    if (data_dir / RESTORING_FILE).exists():
        raise ConfigError(
            f"coordinator.data_dir: a restore into {data_dir} was interrupted, or is going on: what is in there is not "
            "whole. Run `consilo coordinator restore` again"
        )


@contextmanager
def open_records(data_dir: Path, *, signing_key: SigningKey, clock: Clock) -> Iterator[Records]:
    """Open the data folder, with the audit file level. Raises ConfigError, AuditError, StorageError."""
    require_whole(data_dir)
    if data_dir.exists() and not data_dir.is_dir():
        raise ConfigError(f"coordinator.data_dir: expected a folder, {data_dir} is a file: name another folder")
    with ExitStack() as closing:
        blobs = FileBlobs(root=data_dir)
        closing.callback(blobs.close)
        require_whole(data_dir)  # now that no restore can begin here: one may have, after the first look
        store = SqlStore(url=f"sqlite:///{data_dir.absolute() / DATABASE_FILE}")
        closing.callback(store.close)
        file = AppendFile(path=data_dir / AUDIT_FILE)
        closing.callback(file.close)
        audit = resume(store.audit_entries, sign=partial(signing_key.sign, "audit"), clock=clock)
        _require_same_signer(store, signing_key, size=audit.size)
        records = Records(store, blobs, audit, AuditProjection(file=file))
        records.catch_up()
        yield records


def record_start(records: Records, credentials: OwnCredentials, build: BuildInfo) -> None:
    """The first entry of each run in the audit log."""
    facts = {
        "coordinator": credentials.tls.identity.uri,
        "signing_sha256": str(credentials.signing.certificate.fingerprint),
        "version": build.version,
        "revision": build.revision,
    }
    entry = records.audit.entry("coordinator_started", facts)
    records.store.append_audit(entry)
    records.audit.accept(entry)
