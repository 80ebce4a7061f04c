"""What makes a certificate one of this consortium's, whichever key it carries.

Both kinds of leaf (P-256 for TLS, Ed25519 for signing) pass through `check_leaf`, so that there is one reading of
"issued by our authority, valid now, for exactly one name". TLS itself checks the chain again during the handshake; this
module is what start-up checks, `... check` commands and signing certificates rest on, none of which see a handshake.

Chains have one level: the authority signs leaves. A file of authorities may hold several, which is how an authority is
replaced: both are trusted while leaves move over.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from shared.errors import ConfigError, IdentityError
from shared.ids import Digest

# The purpose "signs Consilo protocol messages". Under 2.25 every UUID is an object identifier that nobody has to apply
# for (ITU-T X.667), which suits a project without an arc of its own; this one is
# c10727a9-97a2-4440-a52c-46604f858b59, drawn at random for this purpose. Without a purpose of its own, a certificate
# issued for something else with an Ed25519 key would sign rounds.
MESSAGE_SIGNING = x509.ObjectIdentifier("2.25.256578153714960919368869159811867315033")
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
_PURPOSES = {
    MESSAGE_SIGNING: "signing Consilo messages",
    SERVER_AUTH: "being dialled (TLS server)",
    CLIENT_AUTH: "dialling (TLS client)",
}

CERTIFICATE_MAX_BYTES = 16 * 1024  # ours have under 1 KiB; what comes over the wire is parsed before it is trusted

_SPIFFE = "spiffe://"
# What parsing raises; the last four share no base below Exception.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
# The extensions whose meaning is checked here or by TLS. An unknown critical one must be refused (RFC 5280, 4.2).
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def read_der(der: bytes) -> x509.Certificate:
    """One certificate. Raises IdentityError."""
    if len(der) > CERTIFICATE_MAX_BYTES:
        raise IdentityError(f"expected a certificate of at most {CERTIFICATE_MAX_BYTES} bytes, got {len(der)}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # These are parsed when they are first read: whatever is wrong with them is found here.
        _ = (certificate.issuer, certificate.subject, certificate.extensions, certificate.public_key())
    except _UNREADABLE as error:
        raise IdentityError(f"expected a DER certificate, got {len(der)} bytes that are none ({error})") from None
    return certificate


def read_authorities(ca_pem: bytes) -> tuple[x509.Certificate, ...]:
    """The consortium's authorities, one or more. Raises ConfigError: the file is our own side's."""
    try:
        authorities = tuple(x509.load_pem_x509_certificates(ca_pem))
        extensions = [authority.extensions for authority in authorities]
    except _UNREADABLE:
        raise ConfigError("expected the authority's certificate in PEM form, got something else") from None
    for authority, found in zip(authorities, extensions, strict=True):
        if not _is_authority(found):
            raise ConfigError(
                f"expected an authority's certificate, got that of {authority.subject.rfc4514_string()!r}, which may "
                "not issue others: is this a leaf certificate?"
            )
    return authorities


def read_private_key(pem: bytes, *, path: Path) -> PrivateKeyTypes:
    """A private key of our own side; `path` names it in errors. Raises ConfigError."""
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigError(
            f"{path}: expected a private key without a passphrase, which nobody types when a daemon starts, got an "
            f"encrypted one: `openssl pkey -in {path} -out NEW` writes it without"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: expected a private key in PEM form, got something else") from None


def check_leaf(leaf: x509.Certificate, *, authorities: tuple[x509.Certificate, ...], now: datetime) -> str:
    """The leaf's SPIFFE URI, once everything but its purpose and key holds. Raises IdentityError."""
    check_validity(leaf, now=now)
    issuer = issuer_of(leaf, authorities)
    check_validity(issuer, now=now, what="authority")
    for extension in leaf.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise IdentityError(f"the certificate has a critical extension {extension.oid.dotted_string} unknown here")
    if _is_authority(leaf.extensions):
        raise IdentityError("expected a leaf certificate (CA:FALSE), got an authority's")
    uri = _only_uri(leaf)
    domain = trust_domain_of(issuer)
    if domain is not None and not uri.startswith(f"{_SPIFFE}{domain}/"):
        raise IdentityError(f"expected a name in consortium {domain}, got {uri!r}")
    return uri


def check_validity(certificate: x509.Certificate, *, now: datetime, what: str = "certificate") -> None:
    """Raises IdentityError unless `now` is within the certificate's period."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        raise IdentityError(f"the {what} is valid from {_second(start)}, now is {_second(now)}: check the clock")
    if now > end:
        raise IdentityError(
            f"the {what} expired at {_second(end)}, now is {_second(now)}: issue a new one, or check the clock"
        )


def require_purpose(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> None:
    """Raises IdentityError unless the extended key usage names `purpose`."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = None
    if usages is None or purpose not in usages:
        got = "no purpose" if usages is None else " and ".join(map(_purpose, usages))
        raise IdentityError(f"expected a certificate for {_purpose(purpose)}, got one for {got}")


def _purpose(purpose: x509.ObjectIdentifier) -> str:
    return _PURPOSES.get(purpose, purpose.dotted_string)


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def trust_domain_of(authority: x509.Certificate) -> str | None:
    """The consortium that an authority names in its own URI SAN; None when it names none."""
    uris = uris_of(authority)
    return uris[0].removeprefix(_SPIFFE) if len(uris) == 1 and uris[0].startswith(_SPIFFE) else None


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The hosts, by name and by address, that a server's certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def fingerprint_of(certificate: x509.Certificate) -> Digest:
    """The SHA-256 of the DER form: what the allow-list pins."""
    return Digest.of(certificate.public_bytes(serialization.Encoding.DER))


def issuer_of(leaf: x509.Certificate, authorities: tuple[x509.Certificate, ...]) -> x509.Certificate:
    """The authority that signed the leaf. Raises IdentityError when none of these did."""
    for authority in authorities:
        try:
            leaf.verify_directly_issued_by(authority)
        except (*_UNREADABLE, InvalidSignature):
            continue
        return authority
    names = [repr(authority.subject.rfc4514_string()) for authority in authorities]
    issuer = repr(leaf.issuer.rfc4514_string())
    if issuer in names:
        raise IdentityError(
            f"expected a certificate issued by the authority {issuer} at hand, got one by another authority of that "
            "name: take ca.crt from where the certificate came from"
        )
    raise IdentityError(
        f"expected a certificate issued by {' or '.join(names)}, got one by {issuer}: take the certificate and ca.crt "
        "from the same consortium"
    )


def _only_uri(leaf: x509.Certificate) -> str:
    uris = uris_of(leaf)
    if len(uris) != 1:
        raise IdentityError(f"expected exactly one URI among the certificate's names, got {len(uris)}")
    return uris[0]


def uris_of(certificate: x509.Certificate) -> list[str]:
    """The identities that a certificate claims; of one that is not of this system, mostly none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _is_authority(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
