"""The consortium's manifest, from what the authority knows.

The authority keeps a copy of every signing certificate that it makes. The manifest names the participants and the
coordinators that are on the allow-list now, each with the key of the certificate that stands there; operators sign
nothing that a silo has to believe. Renewing a certificate for the same key leaves the manifest as it is, byte for byte,
so no silo has to change its pin; admitting a member, or giving one a new key, changes it.

One officer signs, with a key that is made on first use and stays in the authority's folder. Whoever holds that folder
is the authority and the officer in one person. That person must be nobody who runs a coordinator.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from consilo.pki import Authority, private_pem, signing_certificate_path, write_file
from shared.consortium import MANIFEST_MAX_BYTES, Consortium, make_manifest
from shared.errors import ConfigError, IdentityError
from shared.identity import (
    AllowedEntry,
    Allowlist,
    Role,
    SigningKey,
    VerifyingKey,
    same_digest,
    verify_signing_certificate,
)
from shared.ids import Digest

OFFICER_KEY = "officer.key"
MANIFEST = "consortium.json"
SIGNING_ROLES = frozenset({Role.PARTICIPANT, Role.COORDINATOR})
DIGITS_ALOUD = 4  # as many as a listener repeats without a mistake


@dataclass(frozen=True, slots=True)
class WrittenManifest:
    """What `write_manifest` wrote, and what it took the place of."""

    path: Path
    consortium: Consortium
    officer: Digest
    before: Digest | None
    """The digest of the manifest that lay there; None when none did."""


def write_manifest(authority: Authority, *, out: Path, now: datetime) -> WrittenManifest:
    """Write the manifest of everybody who is on the allow-list, signed by the officer. Raises ConfigError."""
    allowlist = Allowlist.load(authority.allowlist_path)
    signers = [entry for entry in allowlist.entries.values() if entry.identity.role in SIGNING_ROLES]
    members = {entry.identity: _key_of(authority, entry, now) for entry in signers}
    if not members:
        raise ConfigError(
            f"{authority.allowlist_path}: expected participants and a coordinator, got none: `consilo pki issue` or "
            "`consilo pki sign` admits them"
        )
    officer = officer_key(authority.folder)
    made = make_manifest(consortium=authority.consortium, members=members, officers=[officer])
    before = _digest_of(out)
    write_file(out, made, mode=0o644)
    consortium = Consortium.parse(made, source=str(out))
    return WrittenManifest(out, consortium, officer.verifying_key.fingerprint, before)


def officer_key(folder: Path) -> SigningKey:
    """The officer's key in the authority's folder, made on first use. Raises ConfigError."""
    path = folder / OFFICER_KEY
    if not path.exists():
        write_file(path, private_pem(Ed25519PrivateKey.generate()).reveal(), mode=0o600)
    key = SigningKey.load(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path}: expected a key that only its owner can read, got mode {mode:04o}: chmod 600 {path}")
    return key


def aloud(digest: Digest) -> str:
    """A digest in groups that can be read out and repeated."""
    digits = str(digest)
    return " ".join(digits[start : start + DIGITS_ALOUD] for start in range(0, len(digits), DIGITS_ALOUD))


def _key_of(authority: Authority, entry: AllowedEntry, now: datetime) -> VerifyingKey:
    """The key of the very certificate that the allow-list names."""
    path = signing_certificate_path(authority.folder, entry.identity)
    try:
        der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        certificate = verify_signing_certificate(der, ca_pem=authority.ca_pem, now=now)
    except OSError as error:
        raise ConfigError(
            f"{path}: expected the signing certificate of {entry.identity}, it cannot be read ({error.strerror}): "
            "copy its signing.crt there, or sign its request again"
        ) from None
    except (ValueError, IdentityError) as error:
        raise ConfigError(f"{path}: expected the signing certificate of {entry.identity}: {error}") from None
    if certificate.identity != entry.identity or not same_digest(certificate.fingerprint, entry.signing_fingerprint):
        raise ConfigError(
            f"{path}: expected the signing certificate {entry.signing_fingerprint} of {entry.identity}, as on the "
            f"allow-list, got {certificate.fingerprint} of {certificate.identity}: copy the right signing.crt there"
        )
    return certificate.verifying_key


def _digest_of(path: Path) -> Digest | None:
    try:
        with path.open("rb") as file:
            return Consortium.parse(file.read(MANIFEST_MAX_BYTES + 1), source=str(path)).digest
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
