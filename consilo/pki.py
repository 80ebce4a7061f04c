"""A consortium's authority: who it is, and the credentials that it issues.

Theory of operation. One folder holds the authority: `ca.crt`, `ca.key`, `allowlist.toml`, and in `signing/` a copy of
each member's signing certificate, from which `consilo.pki_manifest` makes the consortium's manifest. The authority
names its consortium in its own certificate, so that a leaf for another consortium cannot come from it by a slip. For
each member it issues two certificates with the same name and different keys:

* `tls.crt`, P-256, for connections. Thirty days: gRPC in Python cannot check revocation lists, so the allow-list and a
  short life stand in for them. Participants and operators may only dial (clientAuth): a stolen silo key cannot pose as
  the coordinator to the other silos. The coordinator is dialled (serverAuth), and dials itself to ask how it is
  (clientAuth): it lets a coordinator in to that alone.
* `signing.crt`, Ed25519, for messages. One year: signatures are read long after connections are gone.

Its own certificate lives ten years: replacing an authority means visiting every silo, and the consortium's whole audit
log is to be checked under one root. It is P-384, as what lives long should have margin; leaves never outlive it.

Whoever holds `ca.key` can make anybody. It belongs on a machine that runs nothing else. `issue` makes the member's keys
too, which suits a demo and a small consortium where one person sets everything up; with `consilo.pki_request` a silo
makes its keys itself and they never leave it.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from shared.certificates import (
    CLIENT_AUTH,
    MESSAGE_SIGNING,
    SERVER_AUTH,
    check_validity,
    fingerprint_of,
    read_authorities,
    read_private_key,
    trust_domain_of,
)
from shared.errors import ConfigError, IdentityError
from shared.identity import AllowedEntry, Allowlist, Identity, Role
from shared.secret import Secret

AUTHORITY_DAYS = 3650
TLS_DAYS = 30
SIGNING_DAYS = 365
CLOCK_SKEW = timedelta(minutes=5)  # silos' clocks differ; a fresh certificate must work at once everywhere

AUTHORITY_CERTIFICATE = "ca.crt"
AUTHORITY_KEY = "ca.key"
ALLOWLIST = "allowlist.toml"
SIGNING_FOLDER = "signing"

_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")

LeafKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """What `issue` made: where it lies, and its entry on the allow-list."""

    folder: Path
    entry: AllowedEntry
    tls_expires: datetime
    signing_expires: datetime


def create_authority(folder: Path, *, consortium: str, now: datetime, days: int = AUTHORITY_DAYS) -> Authority:
    """Make a new authority with an empty allow-list. Raises ConfigError, also when one is there already."""
    try:
        Identity(consortium, Role.OPERATOR, "x")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name in (AUTHORITY_CERTIFICATE, AUTHORITY_KEY, ALLOWLIST):
        if (folder / name).exists():
            raise ConfigError(
                f"{folder / name} exists: a new authority would make every certificate of the old one worthless. "
                "Choose another folder"
            )
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, "Consilo authority"),
        ]
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{consortium}")])
    certificate = (
        _builder(subject, subject, now=now, until=now + timedelta(days=days))
        .public_key(key.public_key())
        # It issues leaves and nothing else: no authority below it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    make_folder(folder)
    write_file(folder / AUTHORITY_KEY, private_pem(key).reveal(), mode=0o600)
    write_file(folder / AUTHORITY_CERTIFICATE, _pem(certificate), mode=0o644)
    write_file(folder / ALLOWLIST, render_allowlist(Allowlist(consortium, {})), mode=0o644)
    return Authority(folder=folder, certificate=certificate, key=key, consortium=consortium)


class Authority:
    """The authority in a folder, ready to issue."""

    def __init__(
        self, *, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, consortium: str
    ) -> None:
        self.folder = folder
        self.certificate = certificate
        self.consortium = consortium
        self._key = key

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read what `create_authority` wrote. Raises ConfigError."""
        pem = _read(folder / AUTHORITY_CERTIFICATE)
        try:
            certificates = read_authorities(pem)
        except ConfigError as error:
            raise ConfigError(f"{folder / AUTHORITY_CERTIFICATE}: {error}") from None
        consortium = trust_domain_of(certificates[0])
        if consortium is None:
            raise ConfigError(
                f"{folder / AUTHORITY_CERTIFICATE}: expected an authority made by `consilo pki init`, got one that "
                "names no consortium"
            )
        key = read_private_key(_read(folder / AUTHORITY_KEY), path=folder / AUTHORITY_KEY)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificates[0].public_key():
            raise ConfigError(f"{folder / AUTHORITY_KEY} is not the key of {folder / AUTHORITY_CERTIFICATE}")
        return cls(folder=folder, certificate=certificates[0], key=key, consortium=consortium)

    @property
    def allowlist_path(self) -> Path:
        return self.folder / ALLOWLIST

    @property
    def ca_pem(self) -> bytes:
        return _pem(self.certificate)

    def issue(
        self,
        role: Role,
        name: str,
        *,
        out: Path,
        now: datetime,
        hosts: Sequence[str] = (),
        tls_days: int = TLS_DAYS,
        signing_days: int = SIGNING_DAYS,
    ) -> Issued:
        """Make both keys and certificates in `out` and put them on the allow-list, in the place of older ones.

        `hosts` are the DNS names and IP addresses under which the coordinator is dialled. Raises ConfigError.
        """
        self._check(role, name, hosts=hosts, now=now, days=(tls_days, signing_days))
        tls_key = ec.generate_private_key(ec.SECP256R1())
        signing_key = ed25519.Ed25519PrivateKey.generate()
        make_folder(out)
        # The keys first: a daemon that re-reads in between sees a pair that does not match, and keeps the old one.
        write_file(out / "tls.key", private_pem(tls_key).reveal(), mode=0o600)
        write_file(out / "signing.key", private_pem(signing_key).reveal(), mode=0o600)
        return self.certify(
            role,
            name,
            tls_key=tls_key.public_key(),
            signing_key=signing_key.public_key(),
            out=out,
            now=now,
            hosts=hosts,
            tls_days=tls_days,
            signing_days=signing_days,
        )

    def certify(
        self,
        role: Role,
        name: str,
        *,
        tls_key: ec.EllipticCurvePublicKey,
        signing_key: ed25519.Ed25519PublicKey,
        out: Path,
        now: datetime,
        hosts: Sequence[str] = (),
        tls_days: int = TLS_DAYS,
        signing_days: int = SIGNING_DAYS,
    ) -> Issued:
        """As `issue`, for keys that the member made and keeps. Raises ConfigError."""
        identity = self._check(role, name, hosts=hosts, now=now, days=(tls_days, signing_days))
        tls = self._tls_leaf(identity, tls_key, hosts=hosts, now=now, days=tls_days)
        signing = self.sign_leaf(
            signing_key,
            uris=[identity.uri],
            purposes=[MESSAGE_SIGNING],
            start=now - CLOCK_SKEW,
            end=now + timedelta(days=signing_days),
        )
        make_folder(out)
        write_file(out / "tls.crt", _pem(tls), mode=0o644)
        write_file(out / "signing.crt", _pem(signing), mode=0o644)
        write_file(out / AUTHORITY_CERTIFICATE, self.ca_pem, mode=0o644)
        kept = signing_certificate_path(self.folder, identity)
        make_folder(kept.parent)
        write_file(kept, _pem(signing), mode=0o644)
        entry = AllowedEntry(identity, fingerprint_of(tls), fingerprint_of(signing))
        self.allow(entry)
        return Issued(out, entry, tls.not_valid_after_utc, signing.not_valid_after_utc)

    def renew_tls(
        self,
        role: Role,
        name: str,
        *,
        tls_key: ec.EllipticCurvePublicKey,
        out: Path,
        now: datetime,
        hosts: Sequence[str] = (),
        tls_days: int = TLS_DAYS,
    ) -> AllowedEntry:
        """A new TLS certificate alone, for a member who is on the allow-list. Raises ConfigError.

        The signing certificate stays: a silo's daemon reads its own at its start, and would be refused as soon as the
        allow-list had another.
        """
        identity = self._check(role, name, hosts=hosts, now=now, days=(tls_days, SIGNING_DAYS))
        known = self._allowed().get(identity)
        if known is None:
            raise ConfigError(f"{self.allowlist_path}: {identity.uri} is not on it: certify it first")
        tls = self._tls_leaf(identity, tls_key, hosts=hosts, now=now, days=tls_days)
        entry = AllowedEntry(identity, fingerprint_of(tls), known.signing_fingerprint)
        # The list first: cut short here, the file still ends soon, and the next renewal makes both agree.
        self.allow(entry)
        write_file(out / "tls.crt", _pem(tls), mode=0o644)
        return entry

    def _tls_leaf(
        self, identity: Identity, key: ec.EllipticCurvePublicKey, *, hosts: Sequence[str], now: datetime, days: int
    ) -> x509.Certificate:
        return self.sign_leaf(
            key,
            uris=[identity.uri],
            purposes=[SERVER_AUTH, CLIENT_AUTH] if identity.role is Role.COORDINATOR else [CLIENT_AUTH],
            hosts=hosts,
            start=now - CLOCK_SKEW,
            end=now + timedelta(days=days),
        )

    def allow(self, entry: AllowedEntry) -> None:
        """Put an entry on the allow-list, in the place of one of the same identity. Raises ConfigError."""
        with _locked(self.folder):
            entries = {**self._allowed(), entry.identity: entry}
            write_file(self.allowlist_path, render_allowlist(Allowlist(self.consortium, entries)), mode=0o644)

    def _allowed(self) -> Mapping[Identity, AllowedEntry]:
        """Who is on the allow-list. Raises ConfigError."""
        if not self.allowlist_path.exists():
            return {}
        known = Allowlist.load(self.allowlist_path)
        if known.consortium != self.consortium:
            raise ConfigError(
                f"{self.allowlist_path}: expected the allow-list of {self.consortium}, got that of {known.consortium}: "
                "put back the one that was written here"
            )
        return known.entries

    def sign_leaf(
        self,
        public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
        *,
        uris: Sequence[str],
        purposes: Sequence[x509.ObjectIdentifier],
        start: datetime,
        end: datetime,
        hosts: Sequence[str] = (),
    ) -> x509.Certificate:
        """One leaf certificate. It checks nothing: tests make hostile ones with it."""
        names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.consortium[:64]),
                x509.NameAttribute(NameOID.COMMON_NAME, uris[0].rpartition("/")[2][:64] if uris else "unnamed"),
            ]
        )
        end = min(end, self.certificate.not_valid_after_utc)
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, self.certificate.subject, now=start + CLOCK_SKEW, until=end)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(authority_id, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA384())

    def _check(self, role: Role, name: str, *, hosts: Sequence[str], now: datetime, days: tuple[int, int]) -> Identity:
        """Everything that can be wrong with a wish, before anything is written."""
        if role is Role.COORDINATOR and not hosts:
            raise ConfigError("a coordinator needs the names under which it is dialled: give --dns at least once")
        if role is not Role.COORDINATOR and hosts:
            raise ConfigError(f"nobody dials a {role}: leave --dns out")
        for host in hosts:
            _host(host)
        for what, wanted in zip(("TLS", "signing"), days, strict=True):
            if not 1 <= wanted <= AUTHORITY_DAYS:
                raise ConfigError(f"a {what} certificate is valid for 1 to {AUTHORITY_DAYS} days, got {wanted}")
        try:
            check_validity(self.certificate, now=now, what="authority")
        except IdentityError as error:
            raise ConfigError(f"{self.folder / AUTHORITY_CERTIFICATE}: {error}") from None
        self._allowed()
        try:
            return Identity(self.consortium, role, name)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def signing_certificate_path(folder: Path, identity: Identity) -> Path:
    """Where an authority's folder keeps a member's signing certificate."""
    return folder / SIGNING_FOLDER / identity.role / f"{identity.name}.crt"


def render_allowlist(allowlist: Allowlist) -> bytes:
    """An allow-list as its file: sorted, so that two of them can be compared line by line."""
    lines = [
        "# Who may connect to the coordinator. `consilo pki issue` writes it; removing an entry locks its owner out",
        "# at once, also from connections that are open. Each fingerprint is the SHA-256 of a certificate in DER form.",
        f'consortium = "{allowlist.consortium}"',
    ]
    for entry in sorted(allowlist.entries.values(), key=lambda entry: entry.identity):
        lines += [
            "",
            "[[allowed]]",
            f'role = "{entry.identity.role}"',
            f'id = "{entry.identity.name}"',
            f'tls_sha256 = "{entry.tls_fingerprint}"',
            f'signing_sha256 = "{entry.signing_fingerprint}"',
        ]
    return ("\n".join(lines) + "\n").encode()


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Replace `path` at once and for good: a reader sees the old file or the new one. Raises ConfigError.

    The file has its mode before its first byte: a key is never readable by others, not even for a moment.
    """
    try:
        descriptor, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(staged).replace(path)
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two `pki issue` at once must not lose each other's entry."""
    path = folder / ".lock"
    try:
        lock = path.open("w")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): only one who writes there may issue") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _builder(subject: x509.Name, issuer: x509.Name, *, now: datetime, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - CLOCK_SKEW).astimezone(UTC))
        .not_valid_after(until.astimezone(UTC))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(text):
        raise ConfigError(
            f"expected a DNS name or an IP address under which the coordinator is dialled, without a scheme or a port, "
            f"got {text!r}"
        )
    return x509.DNSName(text)


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror})") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): is this a folder of `consilo pki init`?"
        ) from None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: LeafKey) -> Secret:
    return Secret(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
