"""Certificates for keys that never leave their silo.

The silo makes both keys (`make_request`) and sends one file with a signing request for each. The authority takes
nothing from them but the public keys: who somebody is comes from the person who runs `consilo pki sign`, because a
request may ask for anything, the coordinator's name included. That the file is the silo's is what its SHA-256 is for:
the silo reads it out over another channel (a telephone), and signing needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from consilo.pki import make_folder, private_pem, write_file
from shared.errors import ConfigError
from shared.identity import same_digest
from shared.ids import Digest

REQUEST_FILE = "request.pem"
REQUEST_MAX_BYTES = 64 * 1024

_END = b"-----END CERTIFICATE REQUEST-----"


@dataclass(frozen=True, slots=True)
class RequestedKeys:
    """All that the authority takes from a request."""

    tls: ec.EllipticCurvePublicKey
    signing: ed25519.Ed25519PublicKey


def make_request(folder: Path) -> Digest:
    """Make `tls.key`, `signing.key` and `request.pem`; returns the request's SHA-256. Raises ConfigError."""
    for name in ("tls.key", "signing.key"):
        if (folder / name).exists():
            raise ConfigError(f"{folder / name} exists and may be in use: make the request in a new folder")
    make_folder(folder)
    tls, signing = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    write_file(folder / "tls.key", private_pem(tls).reveal(), mode=0o600)
    write_file(folder / "signing.key", private_pem(signing).reveal(), mode=0o600)
    # The name says nothing, and is not read: the authority knows whom it asked.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "consilo request")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = b"".join(
        signed.public_bytes(Encoding.PEM)
        for signed in (builder.sign(tls, hashes.SHA256()), builder.sign(signing, None))
    )
    write_file(folder / REQUEST_FILE, request, mode=0o644)
    return Digest.of(request)


def read_request(path: Path, *, expected: Digest) -> RequestedKeys:
    """The keys of a request whose SHA-256 is `expected`. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(REQUEST_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    if not same_digest(Digest.of(data), expected):
        raise ConfigError(f"{path}: expected SHA-256 {expected}, got {Digest.of(data)}: this is not what the silo made")
    parts = [part + _END + b"\n" for part in data.split(_END)[:-1]]
    if len(parts) != 2:
        raise ConfigError(f"{path}: expected two requests, for TLS and for signing, got {len(parts)}")
    tls, signing = (_public_key(path, part) for part in parts)
    if not isinstance(tls, ec.EllipticCurvePublicKey) or tls.curve.name not in {"secp256r1", "secp384r1"}:
        raise ConfigError(f"{path}: expected a P-256 or P-384 key first, for TLS, got another kind")
    if not isinstance(signing, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 key second, for signing, got another kind")
    return RequestedKeys(tls, signing)


def _public_key(path: Path, pem: bytes) -> object:
    try:
        request = x509.load_pem_x509_csr(pem)
        proven = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: expected signing requests in PEM form, got something else") from None
    if not proven:  # else somebody could have a certificate made for a key that is not theirs
        raise ConfigError(f"{path}: the request is not signed by the key that it is for")
    return key
