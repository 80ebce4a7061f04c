"""A throw-away consortium in a folder: an authority, its members, and what an attacker would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from consilo.pki import Authority, Issued, create_authority, write_file
from consilo.pki_manifest import WrittenManifest, write_manifest
from shared.certificates import CLIENT_AUTH
from shared.identity import Role, SigningKey
from shared.tls import TlsPaths

CONSORTIUM = "hearts.example"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One member's folder, as `consilo pki issue` leaves it."""

    folder: Path

    @property
    def tls(self) -> TlsPaths:
        return TlsPaths(self.folder / "tls.crt", self.folder / "tls.key", self.folder / "ca.crt")

    @property
    def signing_certificate(self) -> Path:
        return self.folder / "signing.crt"

    @property
    def signing_certificate_der(self) -> bytes:
        return der_of(self.signing_certificate)

    @property
    def signing_key_path(self) -> Path:
        return self.folder / "signing.key"

    @property
    def signing_key(self) -> SigningKey:
        return SigningKey.load(self.signing_key_path)


class Consortium:
    """An authority in `folder`; members are issued when they are first asked for."""

    def __init__(self, folder: Path, *, consortium: str = CONSORTIUM, now: datetime | None = None) -> None:
        self.folder = folder
        self.now = now or datetime.now(UTC)
        self.authority: Authority = create_authority(folder / "authority", consortium=consortium, now=self.now)

    @property
    def ca_pem(self) -> bytes:
        return self.authority.ca_pem

    @property
    def allowlist(self) -> Path:
        return self.authority.allowlist_path

    def coordinator(self, name: str = "coordinator", *, hosts: Sequence[str] = LOCAL_HOSTS) -> Credentials:
        return self._member(Role.COORDINATOR, name, hosts)

    def participant(self, name: str) -> Credentials:
        return self._member(Role.PARTICIPANT, name)

    def operator(self, name: str = "operator") -> Credentials:
        return self._member(Role.OPERATOR, name)

    def reissue(self, role: Role, name: str) -> Issued:
        """New keys in the same folder, and on the allow-list."""
        hosts = LOCAL_HOSTS if role is Role.COORDINATOR else ()
        return self.authority.issue(role, name, out=self._folder(role, name), now=self.now, hosts=hosts)

    def manifest(self) -> WrittenManifest:
        """The manifest of everybody who was issued so far, in the authority's folder; the same file each time."""
        return write_manifest(self.authority, out=self.folder / "authority" / "consortium.json", now=self.now)

    def expired(self, name: str = "expired") -> Credentials:
        """A participant's TLS leaf that ended yesterday."""
        return self.leaf(name, start=self.now - timedelta(days=31), end=self.now - timedelta(days=1))

    def not_yet_valid(self, name: str = "early") -> Credentials:
        """A participant's TLS leaf that begins tomorrow."""
        return self.leaf(name, start=self.now + timedelta(days=1), end=self.now + timedelta(days=31))

    def two_names(self, name: str = "two-faced") -> Credentials:
        """A TLS leaf that claims to be a participant and an operator."""
        domain = self.authority.consortium
        return self.leaf(name, uris=[f"spiffe://{domain}/participant/{name}", f"spiffe://{domain}/operator/{name}"])

    def leaf(
        self,
        name: str,
        *,
        uris: Sequence[str] | None = None,
        hosts: Sequence[str] = (),
        purpose: x509.ObjectIdentifier = CLIENT_AUTH,
        start: datetime | None = None,
        end: datetime | None = None,
        key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | None = None,
    ) -> Credentials:
        """A TLS leaf with anything in it, which nobody put on the allow-list."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = self.authority.sign_leaf(
            key.public_key(),
            uris=[f"spiffe://{self.authority.consortium}/participant/{name}"] if uris is None else uris,
            purposes=[purpose],
            hosts=hosts,
            start=start or self.now - timedelta(minutes=5),
            end=end or self.now + timedelta(days=1),
        )
        folder = self.folder / "leaves" / name
        folder.mkdir(parents=True, exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_file(folder / "tls.key", private, mode=0o600)
        write_file(folder / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        write_file(folder / "ca.crt", self.ca_pem, mode=0o644)
        return Credentials(folder)

    def _member(self, role: Role, name: str, hosts: Sequence[str] = ()) -> Credentials:
        folder = self._folder(role, name)
        if not folder.exists():
            self.authority.issue(role, name, out=folder, now=self.now, hosts=hosts)
        return Credentials(folder)

    def _folder(self, role: Role, name: str) -> Path:
        return self.folder / role / name


def der_of(path: Path) -> bytes:
    """A certificate file's DER bytes."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.public_bytes(serialization.Encoding.DER)
