"""TLS credentials from files, and who is at the other end of a connection.

Theory of operation. Credentials are paths, never bytes in a configuration. The coordinator's are looked at again on
each new connection, so that a certificate is rotated by replacing files; when what it finds does not fit together
(half-way through a rotation, or broken) it keeps serving with what it had and says so in the log. Connections that are
open keep the identity with which they were made. A participant makes a new channel to use a new certificate.

Facts about gRPC that this module rests on, each tried: Ed25519 and P-521 leaves fail in the handshake, so start-up
refuses them with a sentence; TLS 1.2 is accepted when asked for, so `caller_of` refuses it; a certificate with two URI
names has no `peer_spiffe_id`, so an ambiguous identity is no identity.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from shared.certificates import (
    CLIENT_AUTH,
    SERVER_AUTH,
    check_leaf,
    fingerprint_of,
    issuer_of,
    read_authorities,
    read_der,
    read_private_key,
    require_purpose,
)
from shared.errors import ConfigError, IdentityError
from shared.identity import Identity, Role, SigningCertificate, SigningKey, parse_spiffe, verify_signing_certificate
from shared.ids import Digest

_REQUIRED_TLS = b"TLSv1.3"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """Where the certificate (leaf), its key and the consortium's authorities lie, all in PEM form."""

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a connection, proven by its certificate."""

    identity: Identity
    tls_fingerprint: Digest


@dataclass(frozen=True, slots=True)
class CheckedTls:
    """TLS credentials that passed every check."""

    identity: Identity
    fingerprint: Digest
    expires: datetime
    authority_expires: datetime


@dataclass(frozen=True, slots=True)
class CheckedSigning:
    """A signing key and its certificate, which belong together."""

    key: SigningKey
    certificate: SigningCertificate
    expires: datetime


def server_credentials(paths: TlsPaths) -> grpc.ServerCredentials:
    """What the coordinator listens with: client certificates required, files re-read when they change.

    Raises ConfigError when the files cannot be used now.
    """
    source = _ServerCertificates(paths)
    return grpc.dynamic_ssl_server_credentials(
        source.initial,
        source.fetch,  # type: ignore[arg-type] # the stubs forget that None means "no change"
        require_client_authentication=True,
    )


def channel_credentials(paths: TlsPaths) -> grpc.ChannelCredentials:
    """What a participant or operator dials with, as the files are now. Raises ConfigError."""
    files = _read_pair(paths)
    return grpc.ssl_channel_credentials(
        root_certificates=files.ca, private_key=files.key, certificate_chain=files.certificate
    )


def caller_of(auth_context: Mapping[str, Iterable[bytes]]) -> Caller:
    """Who is at the other end of a connection, from gRPC's `auth_context()`. Raises IdentityError."""
    if _values(auth_context, "transport_security_type") != [b"ssl"]:
        raise IdentityError("expected a connection with mutual TLS, got one without")
    versions = _values(auth_context, "ssl_tls_version")
    if versions != [_REQUIRED_TLS]:
        raise IdentityError(
            f"expected {_REQUIRED_TLS.decode()}, got {b', '.join(versions)[:40].decode(errors='replace')}"
        )
    names = _values(auth_context, "peer_spiffe_id")
    if len(names) != 1:
        raise IdentityError(
            f"expected a certificate with exactly one URI name, a SPIFFE id, got {len(names)}: "
            "use the certificate that `consilo pki` issued"
        )
    certificates = _values(auth_context, "x509_pem_cert")
    if len(certificates) != 1:
        raise IdentityError(f"expected one client certificate, got {len(certificates)}")
    try:
        identity = parse_spiffe(names[0].decode())
        certificate = x509.load_pem_x509_certificate(certificates[0])
    except ValueError:
        raise IdentityError("expected a client certificate in PEM form, got something else") from None
    return Caller(identity, fingerprint_of(certificate))


def check_credentials(paths: TlsPaths, *, expected_role: Role, now: datetime) -> CheckedTls:
    """Find at start-up what would otherwise be a handshake failure without a reason. Raises ConfigError."""
    files = _read_pair(paths)
    require_private(paths.key)
    leaf = files.leaf
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in {"secp256r1", "secp384r1"}
    ):
        raise ConfigError(
            f"{paths.certificate}: expected a P-256, P-384 or RSA key, which gRPC can use for TLS, got another kind: "
            "is this the signing certificate?"
        )
    authorities = read_authorities(files.ca)
    try:
        identity = parse_spiffe(check_leaf(leaf, authorities=authorities, now=now))
        if identity.role is not expected_role:
            raise IdentityError(f"expected a certificate with the role {expected_role}, got that of {identity}")
        require_purpose(leaf, SERVER_AUTH if expected_role is Role.COORDINATOR else CLIENT_AUTH)
    except IdentityError as error:
        raise ConfigError(f"{paths.certificate}: {error}") from None
    return CheckedTls(
        identity,
        fingerprint_of(leaf),
        leaf.not_valid_after_utc,
        issuer_of(leaf, authorities).not_valid_after_utc,
    )


def leaf_in(path: Path) -> x509.Certificate:
    """The certificate in a file. Raises ConfigError."""
    return _leaf(path, _read(path))


def check_signing_credentials(
    *, certificate: Path, key: Path, ca: Path, expected: Identity, now: datetime
) -> CheckedSigning:
    """The same for the signing key, which must carry the same name as the TLS certificate. Raises ConfigError."""
    signing_key = SigningKey.load(key)
    require_private(key)
    leaf = _leaf(certificate, _read(certificate))
    try:
        checked = verify_signing_certificate(leaf.public_bytes(Encoding.DER), ca_pem=_read(ca), now=now)
    except IdentityError as error:
        raise ConfigError(f"{certificate}: {error}") from None
    if checked.verifying_key != signing_key.verifying_key:
        raise ConfigError(f"{key} is not the key of {certificate}: take both from the same `consilo pki issue`")
    if checked.identity != expected:
        raise ConfigError(
            f"{certificate}: expected {expected.uri}, as in the TLS certificate, got {checked.identity.uri}"
        )
    return CheckedSigning(signing_key, checked, leaf.not_valid_after_utc)


@dataclass(frozen=True, slots=True)
class OwnCredentials:
    """Who a daemon proved to itself to be."""

    tls: CheckedTls
    signing: CheckedSigning


def check_own_credentials(
    paths: TlsPaths, *, signing_certificate: Path, signing_key: Path, role: Role, name: str, now: datetime
) -> OwnCredentials:
    """Both are good, and of the daemon that has this name in its configuration. Raises ConfigError."""
    tls = check_credentials(paths, expected_role=role, now=now)
    if tls.identity.name != name:
        raise ConfigError(
            f"{role}.id is {name!r}, but {paths.certificate} is the certificate of {tls.identity}: change one of the "
            "two"
        )
    signing = check_signing_credentials(
        certificate=signing_certificate, key=signing_key, ca=paths.ca, expected=tls.identity, now=now
    )
    return OwnCredentials(tls, signing)


@dataclass(frozen=True, slots=True)
class _Pair:
    """What the three files hold, once the key fits the certificate."""

    certificate: bytes
    key: bytes
    ca: bytes
    leaf: x509.Certificate

    def __repr__(self) -> str:
        return "<TLS credentials>"  # a private key is among them


class _ServerCertificates:
    """Follows the files of a server's credentials. gRPC calls `fetch` from its own thread, one call at a time."""

    def __init__(self, paths: TlsPaths) -> None:
        self._paths = paths
        self._stamp = _stamp_of(paths)
        self.initial = _configuration(_read_pair(paths))

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """For each new connection: a configuration when the files changed, None to go on with the last one."""
        stamp = _stamp_of(self._paths)
        if stamp == self._stamp:
            return None
        self._stamp = stamp  # also when it is refused: one line in the log for each change, not for each connection
        try:
            pair = _read_pair(self._paths)
        except ConfigError as error:
            _log.warning("tls_files_refused", problem=str(error))
            return None
        _log.info("tls_files_reloaded", fingerprint=str(fingerprint_of(pair.leaf)))
        return _configuration(pair)


def _configuration(pair: _Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], root_certificates=pair.ca)


def _read_pair(paths: TlsPaths) -> _Pair:
    certificate, key_pem, ca = _read(paths.certificate), _read(paths.key), _read(paths.ca)
    leaf = _leaf(paths.certificate, certificate)
    try:
        read_authorities(ca)
    except ConfigError as error:
        raise ConfigError(f"{paths.ca}: {error}") from None
    if read_private_key(key_pem, path=paths.key).public_key() != leaf.public_key():
        raise ConfigError(
            f"{paths.key} is not the key of {paths.certificate}: take both from the same `consilo pki issue`"
        )
    return _Pair(certificate, key_pem, ca, leaf)


def _leaf(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return read_der(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    except (ValueError, IdentityError):
        raise ConfigError(f"{path}: expected a certificate in PEM form, got something else") from None


def require_private(path: Path) -> None:
    """Raises ConfigError for the file of a key that others than its owner can read."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path}: expected a key that only its owner can read, got mode {mode:04o}: chmod 600 {path}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): check the path and who runs this process"
        ) from None


def _stamp_of(paths: TlsPaths) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(file_stamp(path) for path in (paths.certificate, paths.key, paths.ca))


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """Changes whenever the file does; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _values(auth_context: Mapping[str, Iterable[bytes]], key: str) -> list[bytes]:
    return list(auth_context.get(key, ()))
