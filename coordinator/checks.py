"""What `consilo coordinator check` looks at: everything that would keep a coordinator from starting, before it starts.

Nothing is made and nothing is changed: a data folder that is not there yet is fine when it could be made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from coordinator.audit import compare, verify_entry, verify_lines
from coordinator.retention import KEEP_ALL
from coordinator.settings import CoordinatorSettings
from coordinator.startup import (
    check_consortium,
    check_identity,
    open_allowlist,
    require_whole,
)
from coordinator.storage.database import schema_of
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.interface import AuditEntry
from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE, published_in
from coordinator.storage.migrations import copy_path
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from shared.certificates import hosts_of
from shared.clock import Clock
from shared.config import OFF, split_address
from shared.consortium import Consortium
from shared.errors import AuditError, ConfigError, StorageError
from shared.expiry import AUTHORITY, beginnings, lifetimes, plausible
from shared.findings import Caution, Finding, Look, found_in_order
from shared.identity import Allowlist, Identity, Role
from shared.listeners import LOCAL, NO_STATUS_PAGE, check_metrics
from shared.tls import leaf_in

# What a data folder should have free. The records and the audit log are small, but a round keeps an update of each
# member and the model that it makes: four members with a model of 13 million parameters, at 4 bytes, need this much.
ROOM_WANTED_BYTES = 256 * 1024 * 1024

# How many more versions of the largest model's size should fit beside what a round keeps: at a round an hour, a day.
VERSIONS_WANTED = 24
_NEEDS = {
    "consortium": ("credentials",),
    "allow-list": ("credentials",),
    "members": ("consortium", "allow-list"),
    "database": ("data folder",),
    "audit log": ("credentials", "database"),
    "retention": ("data folder",),
}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_RENEWAL = (
    "have the authority sign the coordinator's request.pem again (`consilo pki sign`, which keeps the signing key), "
    "and put the files in the place of the old ones: the TLS certificate needs no restart, the signing certificate one"
)


def run_checks(settings: CoordinatorSettings, clock: Clock) -> Iterator[Finding]:
    """Look at everything, in the order in which a start would meet it."""
    looks: dict[str, Look] = {
        "credentials": lambda: _credentials(settings, clock),
        "names": lambda: _names(settings),
        "consortium": lambda: _consortium(settings, clock),
        "allow-list": lambda: _allowlist(settings, clock),
        "members": lambda: _members(settings),
        "data folder": lambda: _data_folder(settings.coordinator.data_dir),
        "database": lambda: _database(settings.coordinator.data_dir),
        "audit log": lambda: _audit(settings, clock),
        "clock": lambda: _time(settings, clock),
        "retention": lambda: _retention(settings),
        **{f"listen {address}": _port_check(address) for address in settings.coordinator.listen},
        "metrics": lambda: _metrics(settings),
        "status": lambda: _status(settings),
    }
    yield from found_in_order(looks, _NEEDS)


def _credentials(settings: CoordinatorSettings, clock: Clock) -> str | Caution:
    found = check_identity(settings, clock)
    ends = {"TLS": found.tls.expires, "signing": found.signing.expires, AUTHORITY: found.tls.authority_expires}
    return lifetimes(ends, now=clock.now(), who=found.tls.identity.uri, advice=_RENEWAL)


def _names(settings: CoordinatorSettings) -> str | Caution:
    """Under which names silos may dial, against where this coordinator listens."""
    hosts = hosts_of(leaf_in(settings.tls.certificate))
    remedy = "have it signed with each name and address that silos dial (`consilo pki sign ... --dns NAME`)"
    if not hosts:
        raise ConfigError(f"{settings.tls.certificate} is for no host, so no silo takes it: {remedy}")
    shown = f"silos may dial {', '.join(hosts)}"
    listens = {split_address(address)[0] for address in settings.coordinator.listen}
    if not listens - _LOOPBACK:
        return f"{shown}; it listens on loopback alone, which no other machine reaches"
    if not set(hosts) - _LOOPBACK:
        return Caution(f"{shown}, and it listens for other machines, which dial another name", remedy)
    return shown


def _consortium(settings: CoordinatorSettings, clock: Clock) -> str:
    signing = check_identity(settings, clock).signing if settings.consortium else None
    consortium = check_consortium(settings, signing) if signing else None
    if consortium is None:
        return "no manifest under [consortium]: masked jobs wait"
    return f"{consortium.name}; {consortium.participants} participants; digest {consortium.digest}"


def _allowlist(settings: CoordinatorSettings, clock: Clock) -> str:
    open_allowlist(settings, check_identity(settings, clock))
    roles = [identity.role for identity in Allowlist.load(settings.access.allowlist).entries]
    return f"participants: {roles.count(Role.PARTICIPANT)}, operators: {roles.count(Role.OPERATOR)}"


def _members(settings: CoordinatorSettings) -> str | Caution:
    """Whether those who are let in are those whose keys the silos believe."""
    if settings.consortium is None:
        return "no manifest to compare the allow-list with"
    manifest = Consortium.load(settings.consortium.manifest, pinned=None)
    allowed = Allowlist.load(settings.access.allowlist).entries
    unlisted = _named(identity for identity in allowed if identity not in manifest.members)
    kept_out = _named(identity for identity in manifest.members if identity not in allowed)
    troubles = []
    if unlisted:
        troubles.append(f"on the allow-list and not in the manifest, for plain jobs alone: {unlisted}")
    if kept_out:
        troubles.append(f"in the manifest and not on the allow-list, so that they cannot connect: {kept_out}")
    if troubles:
        return Caution(
            "; ".join(troubles),
            "take the authority's newest allowlist.toml and consortium.json; every silo pins a new manifest's digest",
        )
    return "the allow-list and the manifest have the same participants"


def _named(members: Iterable[Identity]) -> str:
    return ", ".join(sorted(member.name for member in members if member.role is Role.PARTICIPANT))


def _data_folder(data_dir: Path) -> str | Caution:
    existing = data_dir
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"coordinator.data_dir: {existing} is not a folder: name one, or move that file aside")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"coordinator.data_dir: {existing} cannot be written by this user: change its owner or mode")
    require_whole(data_dir)
    free = shutil.disk_usage(existing).free
    if not free:
        raise ConfigError(f"coordinator.data_dir: the disk of {existing} is full: make room there, or use a larger one")
    place = f"{data_dir}" if existing == data_dir else f"{data_dir} will be made in {existing}"
    if free < ROOM_WANTED_BYTES:
        return Caution(
            f"{place}, {free / 2**20:.1f} MiB free, expected {ROOM_WANTED_BYTES >> 20} MiB or more: a round keeps an "
            "update of each member and a model",
            "make room there, or put coordinator.data_dir on a larger disk",
        )
    return f"{place}, {free / 1e9:.1f} GB free"


def _database(data_dir: Path) -> str:
    path = data_dir / DATABASE_FILE
    if not path.exists():
        return f"{path} will be made"
    found = schema_of(path)
    if found < SCHEMA_VERSION:
        copy = copy_path(path)
        return f"{path} has schema version {found}: a start copies it to {copy.name} and brings it to {SCHEMA_VERSION}"
    SqlStore(url=f"sqlite:///{path.absolute()}").close()
    return f"{path} is of this version"


def _audit(settings: CoordinatorSettings, clock: Clock) -> str:
    path = settings.coordinator.data_dir / DATABASE_FILE
    if not path.exists():
        return "none yet"
    key = check_identity(settings, clock).signing.certificate.verifying_key
    content = _audit_file(settings)
    try:
        behind = _entries_behind(path, content) if schema_of(path) == SCHEMA_VERSION else 0  # a look migrates nothing
        verified = verify_lines(_whole_lines(content), verifying_key=key)
    except AuditError as error:
        raise AuditError(
            f"{error}. Keep the folder as it is, find out who or what changed the file, and restore a backup"
        ) from None
    more = f", {behind} more in the database" if behind else ""
    return f"entries that verify: {verified.size}{more}; head {verified.head}"


def _audit_file(settings: CoordinatorSettings) -> bytes:
    path = settings.coordinator.data_dir / AUDIT_FILE
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None


def _whole_lines(content: bytes) -> bytes:
    """Without a last line that a crash left half: the next start completes it."""
    return content[: content.rfind(b"\n") + 1]


def _entries_behind(path: Path, content: bytes) -> int:
    store = SqlStore(url=f"sqlite:///{path.absolute()}")
    try:
        return compare(store.audit_entries, content)
    finally:
        store.close()


def _time(settings: CoordinatorSettings, clock: Clock) -> str:
    past = beginnings((settings.tls.certificate, settings.signing.certificate, settings.tls.ca))
    *_, last = [b"", *_whole_lines(_audit_file(settings)).split(b"\n")[:-1]]
    with contextlib.suppress(ConfigError, AuditError):  # of credentials and of the log, other rows say so
        key = check_identity(settings, clock).signing.certificate.verifying_key
        written = verify_entry(AuditEntry(0, last), verifying_key=key).time
        past["the last entry of the audit log"] = datetime.fromisoformat(written)
    return plausible(clock.now(), past)


def _retention(settings: CoordinatorSettings) -> str | Caution:
    """How many more versions fit on the disk."""
    kept = settings.retention.keep_versions
    rule = "every version is kept" if kept == KEEP_ALL else f"each job keeps its {kept} newest versions"
    try:
        sizes = [model.size for model in published_in(settings.coordinator.data_dir, FileCalls())]
        free = shutil.disk_usage(settings.coordinator.data_dir).free
    except FileNotFoundError:
        return f"{rule}; there is none yet"
    if not sizes:
        return f"{rule}; there is none yet"
    fit = free // max(*sizes, 1)
    shown = f"{rule}; {len(sizes)} take {sum(sizes) / 1e9:.1f} GB, and {fit} more would fit"
    if kept == KEEP_ALL and fit < VERSIONS_WANTED:
        return Caution(shown, "set keep_versions under [retention], or put coordinator.data_dir on a larger disk")
    return shown


def _port_check(address: str) -> Callable[[], str]:
    return lambda: _port_is_free(address, "coordinator.listen")


def _metrics(settings: CoordinatorSettings) -> str:
    shown = check_metrics(settings.metrics, consortium_ca=settings.tls.ca)
    if settings.metrics.address is not None:
        _port_is_free(settings.metrics.listen, "metrics.listen")
    return shown


def _status(settings: CoordinatorSettings) -> str | Caution:
    listen = settings.status.listen
    if settings.status.address is None:
        return OFF
    try:
        _port_is_free(listen, "status.listen")
    except ConfigError as error:
        if settings.status_wanted:
            raise
        return Caution(f"{error}", f"{NO_STATUS_PAGE}: name an address under [status] to have it")
    return f"{listen}, {LOCAL}"


def _port_is_free(address: str, key: str) -> str:
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in found[:1]:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC: past connections do not count
                listener.bind(place)
                listener.listen(1)
    except OSError as error:
        raise ConfigError(f"{key}: cannot listen on {address}: {error.strerror}. {_port_advice(error)}") from None
    return f"{address} is free"


def _port_advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "If no coordinator runs here, another process has the port: `ss -ltnp` shows which. Or take another port"
    return "Name an address of this machine, 0.0.0.0 or [::] for all of them, and a port that this user may take"
