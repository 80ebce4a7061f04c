"""What `consilo coordinator check` looks at: everything that would keep a coordinator from starting, before it starts.

Nothing is made and nothing is changed: a data folder that is not there yet is fine when it could be made.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.audit import compare, verify_lines
from coordinator.settings import CoordinatorSettings
from coordinator.startup import (
    AUDIT_FILE,
    DATABASE_FILE,
    check_consortium,
    check_identity,
    open_allowlist,
    require_whole,
)
from coordinator.storage.database import schema_of
from coordinator.storage.migrations import copy_path
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from shared.clock import Clock
from shared.config import split_address
from shared.errors import ConfigError, FederationError, StorageError
from shared.identity import Allowlist, Role

# What a data folder should have free. The records and the audit log are small, but a round keeps an update of each
# member and the model that it makes: four members with a model of 13 million parameters, at 4 bytes, need this much.
ROOM_WANTED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    warning: bool = False
    """A coordinator would start with this, and a person should know."""


@dataclass(frozen=True, slots=True)
class _Caution:
    detail: str


def run_checks(settings: CoordinatorSettings, clock: Clock) -> Iterator[Finding]:
    """Look at everything, in the order in which a start would meet it."""
    checks: dict[str, Callable[[], str | _Caution]] = {
        "credentials": lambda: _credentials(settings, clock),
        "consortium": lambda: _consortium(settings, clock),
        "allow-list": lambda: _allowlist(settings),
        "data folder": lambda: _data_folder(settings.coordinator.data_dir),
        "database": lambda: _database(settings.coordinator.data_dir),
        "audit log": lambda: _audit(settings, clock),
        **{f"listen {address}": _port_check(address) for address in settings.coordinator.listen},
        "metrics": lambda: _metrics(settings),
    }
    for name, look in checks.items():
        try:
            found = look()
        except FederationError as error:
            yield Finding(name, ok=False, detail=str(error))
            continue
        if isinstance(found, _Caution):
            yield Finding(name, ok=True, detail=found.detail, warning=True)
        else:
            yield Finding(name, ok=True, detail=found)


def _credentials(settings: CoordinatorSettings, clock: Clock) -> str:
    credentials = check_identity(settings, clock)
    tls, signing = credentials.tls.expires.date(), credentials.signing.expires.date()
    return f"{credentials.tls.identity.uri}; TLS until {tls}, signing until {signing}"


def _consortium(settings: CoordinatorSettings, clock: Clock) -> str:
    signing = check_identity(settings, clock).signing if settings.consortium else None
    consortium = check_consortium(settings, signing) if signing else None
    if consortium is None:
        return "no manifest under [consortium]: masked jobs wait"
    return f"{consortium.name}; {consortium.participants} participants; digest {consortium.digest}"


def _allowlist(settings: CoordinatorSettings) -> str:
    open_allowlist(settings)
    roles = [identity.role for identity in Allowlist.load(settings.access.allowlist).entries]
    return f"participants: {roles.count(Role.PARTICIPANT)}, operators: {roles.count(Role.OPERATOR)}"


def _data_folder(data_dir: Path) -> str | _Caution:
    existing = data_dir
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"coordinator.data_dir: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"coordinator.data_dir: {existing} cannot be written by this user: change its owner or mode")
    require_whole(data_dir)
    free = shutil.disk_usage(existing).free
    if not free:
        raise ConfigError(f"coordinator.data_dir: the disk of {existing} is full: make room there, or use a larger one")
    place = f"{data_dir}" if existing == data_dir else f"{data_dir} will be made in {existing}"
    if free < ROOM_WANTED_BYTES:
        return _Caution(
            f"{place}, {free / 2**20:.1f} MiB free, expected {ROOM_WANTED_BYTES >> 20} MiB or more: a round keeps an "
            "update of each member and a model. Make room there, or put coordinator.data_dir on a larger disk"
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
    try:
        content = (settings.coordinator.data_dir / AUDIT_FILE).read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise StorageError(f"the audit file cannot be read: {error.strerror}") from None
    behind = _entries_behind(path, content) if schema_of(path) == SCHEMA_VERSION else 0  # a look migrates nothing
    whole = content[: content.rfind(b"\n") + 1]  # a last line that a crash left half is completed at the start
    verified = verify_lines(whole, verifying_key=key)
    more = f", {behind} more in the database" if behind else ""
    return f"entries that verify: {verified.size}{more}; head {verified.head}"


def _entries_behind(path: Path, content: bytes) -> int:
    store = SqlStore(url=f"sqlite:///{path.absolute()}")
    try:
        return compare(store.audit_entries, content)
    finally:
        store.close()


def _port_check(address: str) -> Callable[[], str]:
    return lambda: _port_is_free(address, "coordinator.listen")


def _metrics(settings: CoordinatorSettings) -> str:
    if settings.metrics.address is None:
        return "off"
    return _port_is_free(settings.metrics.listen, "metrics.listen")


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
        raise ConfigError(f"{key}: cannot listen on {address}: {error.strerror}") from None
    return f"{address} is free"
