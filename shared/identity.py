"""Who somebody is, how that is proven, and who is let in.

Theory of operation. An `Identity` is a role and a name within one consortium. It is proven in two ways that never mix:

* A connection proves it with its TLS certificate (`shared.tls.caller_of`), whose URI SAN is the identity. No field of a
  message ever is.
* A message that others must be able to check later carries an Ed25519 signature (`SigningKey`, `VerifyingKey`) under a
  `SigningCertificate` with the same URI. TLS keys rotate in weeks and may live in a proxy; signatures are checked years
  later, so they have a key of their own.

A proven identity is still not let in: the coordinator's `Allowlist` says who is, by the fingerprints of both
certificates. It is the revocation list as well (Python's gRPC has no other), so it is looked up for each call, re-read
when the file changes, and an allow-list that cannot be read lets nobody in.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Never, SupportsIndex, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.certificates import (
    MESSAGE_SIGNING,
    check_leaf,
    read_authorities,
    read_der,
    read_private_key,
    require_purpose,
)
from shared.edwards import check_point
from shared.errors import ConfigError, IdentityError
from shared.hashing import signing_input
from shared.ids import LABEL_MAX_CHARS, Digest
from shared.secret import Secret
from shared.toml import read_toml

TRUST_DOMAIN_MAX_CHARS = 255  # SPIFFE-ID specification, section 2.1
SIGNATURE_BYTES = 64
VERIFYING_KEY_BYTES = 32
ALLOWLIST_MAX_BYTES = 4 * 1024 * 1024  # about 300 bytes an entry; a file beyond this is not an allow-list

_LABEL = rf"(?=[a-z0-9-]{{1,{LABEL_MAX_CHARS}}}(?![a-z0-9-]))[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_TRUST_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(_LABEL)
_SPIFFE = re.compile(r"spiffe://([^/]*)/([^/]*)/([^/]*)")


class Role(StrEnum):
    """What somebody is allowed to be. A certificate carries exactly one."""

    PARTICIPANT = "participant"
    COORDINATOR = "coordinator"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A name with its role in a consortium. Raises ValueError when made of parts that are not names."""

    consortium: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        if len(self.consortium) > TRUST_DOMAIN_MAX_CHARS or not _TRUST_DOMAIN.fullmatch(self.consortium):
            raise ValueError(
                f"a consortium has a name like a DNS name (a-z, 0-9, '-' and '.', at most {TRUST_DOMAIN_MAX_CHARS} "
                f"characters), got {self.consortium[:LABEL_MAX_CHARS]!r}"
            )
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a name has 1 to {LABEL_MAX_CHARS} characters a-z, 0-9 and '-', none of them '-' at an end; "
                f"got {self.name[:LABEL_MAX_CHARS]!r}"
            )

    @property
    def uri(self) -> str:
        return f"spiffe://{self.consortium}/{self.role}/{self.name}"

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


def parse_spiffe(uri: str) -> Identity:
    """`spiffe://<consortium>/<role>/<name>`. Raises IdentityError."""
    parts = _SPIFFE.fullmatch(uri)
    if parts is None or parts[2] not in set(Role):
        roles = "|".join(Role)
        raise IdentityError(f"expected spiffe://<consortium>/<{roles}>/<name>, got {_shown(uri)}")
    try:
        return Identity(parts[1], Role(parts[2]), parts[3])
    except ValueError as error:
        raise IdentityError(f"in {_shown(uri)}: {error}") from None


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """The public half of a signing key: 32 bytes. Raises ValueError for bytes under which anybody could sign."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != VERIFYING_KEY_BYTES:
            raise ValueError(f"a verifying key has {VERIFYING_KEY_BYTES} bytes, got {len(self.raw)}")
        check_point(self.raw)

    @property
    def fingerprint(self) -> Digest:
        return Digest.of(self.raw)

    def verify(self, message_type: str, payload: bytes, signature: bytes) -> None:
        """Raises IdentityError unless `signature` was made over these very bytes, for this type of message."""
        if len(signature) != SIGNATURE_BYTES:
            raise IdentityError(f"expected a signature of {SIGNATURE_BYTES} bytes, got {len(signature)}")
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, signing_input(message_type, payload))
        except InvalidSignature:
            raise IdentityError(f"the signature over this {message_type} was not made by the expected key") from None


@final
class SigningKey:
    """A long-term Ed25519 key. Like a Secret it neither prints nor pickles; unlike one it has no way out."""

    __slots__ = ("_private", "verifying_key")

    def __init__(self, *, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.verifying_key = VerifyingKey(private.public_key().public_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read an unencrypted PKCS#8 PEM file. Raises ConfigError."""
        try:
            private = read_private_key(path.read_bytes(), path=path)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}): check the path and who runs this process"
            ) from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(
                f"{path}: expected an Ed25519 signing key, got another kind: is this the TLS key? "
                "`consilo pki issue` writes both"
            )
        return cls(private=private)

    @classmethod
    def from_seed(cls, seed: Secret) -> SigningKey:
        """The key that 32 bytes stand for, so that a simulation has the same keys each time."""
        return cls(private=Ed25519PrivateKey.from_private_bytes(seed.reveal()))

    def sign(self, message_type: str, payload: bytes) -> bytes:
        """64 bytes that bind this key to `payload` as a message of this type."""
        return self._private.sign(signing_input(message_type, payload))

    def __repr__(self) -> str:
        return f"<signing key {self.verifying_key.fingerprint}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError("a SigningKey cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """A checked statement of the authority: this identity signs with this key. `der` is as received."""

    identity: Identity
    verifying_key: VerifyingKey
    der: bytes

    @property
    def fingerprint(self) -> Digest:
        return Digest.of(self.der)


def verify_signing_certificate(der: bytes, *, ca_pem: bytes, now: datetime) -> SigningCertificate:
    """Check everything about a signing certificate but its place on the allow-list. Raises IdentityError.

    A file of authorities that cannot be used is our own side's fault, and a ConfigError.
    """
    authorities = read_authorities(ca_pem)
    certificate = read_der(der)
    identity = parse_spiffe(check_leaf(certificate, authorities=authorities, now=now))
    require_purpose(certificate, MESSAGE_SIGNING)
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("expected a signing certificate with an Ed25519 key, got one with another kind of key")
    try:
        return SigningCertificate(identity, VerifyingKey(key.public_bytes_raw()), der)
    except ValueError as error:
        raise IdentityError(f"in the signing certificate of {identity}: {error}") from None


@dataclass(frozen=True, slots=True)
class AllowedEntry:
    """Somebody who is let in, and the two certificates that prove it."""

    identity: Identity
    tls_fingerprint: Digest
    signing_fingerprint: Digest


@dataclass(frozen=True, slots=True)
class Allowlist:
    """Everybody who is let in."""

    consortium: str
    entries: Mapping[Identity, AllowedEntry]

    @classmethod
    def load(cls, path: Path) -> Allowlist:
        """Read an allow-list. Raises ConfigError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: expected an allow-list, it cannot be read ({error.strerror})") from None
        return cls.parse(data, source=str(path))

    @classmethod
    def parse(cls, data: bytes, *, source: str) -> Allowlist:
        """Read an allow-list from its bytes; `source` names them in errors. Raises ConfigError."""
        if len(data) > ALLOWLIST_MAX_BYTES:
            raise ConfigError(f"{source}: expected an allow-list of at most {ALLOWLIST_MAX_BYTES} bytes")
        document = read_toml(data, source=source)
        _expect_keys(document, {"consortium", "allowed"}, optional={"allowed"}, where=source)
        if not isinstance(document["consortium"], str):
            raise ConfigError(f"{source}: consortium: expected text, got {document['consortium']!r}")
        tables = document.get("allowed", [])
        if not isinstance(tables, list):
            raise ConfigError(f"{source}: allowed: expected [[allowed]] tables, got {tables!r:.80}")
        entries: dict[Identity, AllowedEntry] = {}
        for position, fields in enumerate(tables, start=1):
            entry = _entry(document["consortium"], fields, where=f"{source}: [[allowed]] number {position}")
            if entry.identity in entries:
                raise ConfigError(f"{source}: {entry.identity} stands there twice; remove the entry that is old")
            entries[entry.identity] = entry
        return cls(str(document["consortium"]), entries)

    def check(self, identity: Identity, tls_fingerprint: Digest) -> AllowedEntry:
        """The entry of a connection's identity and certificate. Raises IdentityError when it is not let in."""
        entry = self.entries.get(identity)
        if entry is None:
            raise IdentityError(f"{identity} is not on the coordinator's allow-list")
        if not same_digest(entry.tls_fingerprint, tls_fingerprint):
            raise IdentityError(
                f"the TLS certificate of {identity} (SHA-256 {tls_fingerprint}) is not the one on the coordinator's "
                "allow-list: an old certificate, or the allow-list was not updated"
            )
        return entry


@dataclass(frozen=True, slots=True)
class _Reading:
    """What an allow-list's file held, or why it cannot be used."""

    stamp: tuple[int, ...] | None
    found: Allowlist | ConfigError


class AllowlistFile:
    """An allow-list that follows its file. A check costs one stat; a change is read at the next check. Any thread: a
    reading is replaced as a whole, and whoever asks answers from the one that it looked at.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = self._read(None)

    @property
    def problem(self) -> str | None:
        """Why nobody is let in now, for our own log and start-up; None when the file is in order."""
        found = self._now()
        return str(found) if isinstance(found, ConfigError) else None

    def check(self, identity: Identity, tls_fingerprint: Digest) -> AllowedEntry:
        """As `Allowlist.check`, against the file as it is now."""
        found = self._now()
        if isinstance(found, ConfigError):
            # The cause names our files and perhaps other peers: it stays in `problem`.
            raise IdentityError("the coordinator's allow-list cannot be used now: nobody is let in until it is mended")
        return found.check(identity, tls_fingerprint)

    @property
    def consortium(self) -> str | None:
        """Whose list it is; None while it cannot be used."""
        found = self._now()
        return found.consortium if isinstance(found, Allowlist) else None

    def participants(self) -> Sequence[str]:
        """The names of all participants that it lets in, in order; nobody while it cannot be used."""
        found = self._now()
        entries = found.entries if isinstance(found, Allowlist) else {}
        return sorted(identity.name for identity in entries if identity.role is Role.PARTICIPANT)

    def lacks(self, identity: Identity) -> bool:
        """Whether the list is in order and has no entry for `identity`: taken off, and not merely kept out for now."""
        found = self._now()
        return isinstance(found, Allowlist) and identity not in found.entries

    def lacking(self, identities: Iterable[Identity]) -> Sequence[Identity]:
        """Those that the list `lacks`, all looked up in the list as it is at one moment."""
        found = self._now()
        return [] if isinstance(found, ConfigError) else [each for each in identities if each not in found.entries]

    def _now(self) -> Allowlist | ConfigError:
        last = self._last
        reading = self._read(last)
        if reading is not last:
            self._last = reading
        return reading.found

    def _read(self, last: _Reading | None) -> _Reading:
        """`last` itself while the file is as it was."""
        try:
            # The stamp is taken before the reading: a file that changes meanwhile is seen at the next check.
            stamp = _stamp_of(self._path)
            if last is not None and last.stamp == stamp:
                return last
            with self._path.open("rb") as file:
                data = file.read(ALLOWLIST_MAX_BYTES + 1)
        except OSError as error:
            problem = ConfigError(
                f"{self._path}: the allow-list cannot be read ({error.strerror}): `consilo pki` writes it in the "
                "authority's folder; copy it from there"
            )
            return _Reading(None, problem)
        try:
            return _Reading(stamp, Allowlist.parse(data, source=str(self._path)))
        except ConfigError as error:
            return _Reading(stamp, error)


def same_digest(left: Digest, right: Digest) -> bool:
    """Equality in constant time."""
    return hmac.compare_digest(left.raw, right.raw)


def _stamp_of(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _entry(consortium: Any, fields: Any, *, where: str) -> AllowedEntry:
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: expected a table, got {fields!r:.80}")
    _expect_keys(fields, {"role", "id", "tls_sha256", "signing_sha256"}, optional=set(), where=where)
    if fields["role"] not in tuple(Role):  # in a set, a list is a TypeError
        raise ConfigError(f"{where}: role: expected one of {', '.join(Role)}, got {fields['role']!r:.80}")
    try:
        return AllowedEntry(
            Identity(str(consortium), Role(fields["role"]), str(fields["id"])),
            Digest.parse(str(fields["tls_sha256"])),
            Digest.parse(str(fields["signing_sha256"])),
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _expect_keys(fields: dict[str, Any], known: set[str], *, optional: set[str], where: str) -> None:
    if unknown := sorted(fields.keys() - known):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; expected {', '.join(sorted(known))}")
    if missing := sorted(known - optional - fields.keys()):
        raise ConfigError(f"{where}: the key {missing[0]!r} is missing")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")
