"""Names, signatures, signing certificates and the allow-list."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from shared.certificates import CLIENT_AUTH, MESSAGE_SIGNING, fingerprint_of
from shared.errors import ConfigError, IdentityError
from shared.identity import (
    Allowlist,
    AllowlistFile,
    Identity,
    Role,
    SigningKey,
    VerifyingKey,
    parse_spiffe,
    verify_signing_certificate,
)
from shared.ids import Digest
from shared.secret import Secret
from tests.support.credentials import CONSORTIUM, Consortium

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSPITAL = Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-a")


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"), now=NOW)


def test_an_identity_survives_its_uri() -> None:
    assert HOSPITAL.uri == "spiffe://hearts.example/participant/hospital-a"
    assert parse_spiffe(HOSPITAL.uri) == HOSPITAL
    assert str(HOSPITAL) == "participant hospital-a"


@given(st.text(max_size=80))
def test_any_text_is_an_identity_or_refused(text: str) -> None:
    for uri in (text, f"spiffe://{text}/participant/a", f"spiffe://c/participant/{text}", f"spiffe://c/{text}/a"):
        try:
            assert parse_spiffe(uri).uri == uri
        except IdentityError:
            continue


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://hearts.example/participant/a",
        "spiffe://hearts.example/participant",
        "spiffe://hearts.example/participant/a/b",
        "spiffe://hearts.example/participant/a/",
        "spiffe://hearts.example/participant/a\n",
        "spiffe://hearts.example/owner/a",
        "spiffe://hearts.example/PARTICIPANT/a",
        "spiffe://hearts.example/participant/-a",
        "spiffe://hearts.example/participant/" + "a" * 64,
        "spiffe://hearts..example/participant/a",
        "spiffe://.hearts/participant/a",
        "spiffe://Hearts/participant/a",
        "spiffe://user@hearts/participant/a",
        "spiffe://hearts:443/participant/a",
        "spiffe:///participant/a",
        "spiffe://" + "a." * 127 + "abc/participant/a",
    ],
)
def test_what_is_no_identity(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_spiffe(uri)


def _key(seed: int = 1) -> SigningKey:
    return SigningKey.from_seed(Secret(bytes([seed]) * 32))


def test_a_signature_holds_for_its_bytes_and_type_only() -> None:
    key = _key()
    signature = key.sign("ready", b"payload")
    key.verifying_key.verify("ready", b"payload", signature)
    wrong = [
        ("commit", b"payload", signature),
        ("ready", b"payload!", signature),
        ("ready", b"payload", bytes([signature[0] ^ 1]) + signature[1:]),
        ("ready", b"payload", signature[:-1]),
        ("ready", b"payload", b""),
        ("ready", b"payload", _key(2).sign("ready", b"payload")),
    ]
    for message_type, payload, bad in wrong:
        with pytest.raises(IdentityError):
            key.verifying_key.verify(message_type, payload, bad)


_FIELD = 2**255 - 19
_ORDER_8 = (
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
)
WEAK_KEYS = {
    "order 1": (1, "small order"),
    "order 2": (_FIELD - 1, "small order"),
    "order 4": (0, "small order"),
    **{f"order 8, {text[:2]}": (int.from_bytes(bytes.fromhex(text), "little"), "small order") for text in _ORDER_8},
    "order 1 in another spelling": (_FIELD + 1, "canonical"),
    "order 4 in another spelling": (_FIELD, "canonical"),
    "the last of all spellings": (2**255 - 1, "canonical"),
}


@pytest.mark.parametrize("sign", [0, 1 << 255])
@pytest.mark.parametrize(("y", "complaint"), WEAK_KEYS.values(), ids=WEAK_KEYS)
def test_a_key_for_which_anybody_can_sign_is_none(y: int, complaint: str, sign: int) -> None:
    with pytest.raises(ValueError, match=complaint):
        VerifyingKey((y + sign).to_bytes(32, "little"))


def test_the_library_alone_would_believe_such_a_key() -> None:
    """Why it is refused: one signature that nobody made holds for every message."""
    neutral = (1).to_bytes(32, "little")
    ed25519.Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"anything")


@given(st.binary(min_size=32, max_size=32))
def test_a_key_that_was_made_from_a_seed_is_one(seed: bytes) -> None:
    key = SigningKey.from_seed(Secret(seed)).verifying_key
    assert VerifyingKey(key.raw) == key


def test_a_signing_key_does_not_leak() -> None:
    key = _key()
    assert str(key.verifying_key.fingerprint) in repr(key)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(key)
    with pytest.raises(ValueError, match="32 bytes"):
        VerifyingKey(b"short")


def test_loading_a_signing_key(consortium: Consortium, tmp_path: Path) -> None:
    credentials = consortium.participant("hospital-a")
    certificate = verify_signing_certificate(credentials.signing_certificate_der, ca_pem=consortium.ca_pem, now=NOW)
    assert credentials.signing_key.verifying_key == certificate.verifying_key
    with pytest.raises(ConfigError, match="is this the TLS key"):
        SigningKey.load(credentials.tls.key)
    with pytest.raises(ConfigError, match="cannot be read"):
        SigningKey.load(tmp_path / "absent")
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="private key in PEM form"):
        SigningKey.load(tmp_path / "junk")


def test_a_signing_certificate_of_the_consortium(consortium: Consortium) -> None:
    der = consortium.participant("hospital-a").signing_certificate_der
    certificate = verify_signing_certificate(der, ca_pem=consortium.ca_pem, now=NOW)
    assert certificate.identity == HOSPITAL
    assert certificate.fingerprint == Digest.of(der)


def _made(consortium: Consortium, **changes: object) -> bytes:
    fields = {
        "uris": [HOSPITAL.uri],
        "purposes": [MESSAGE_SIGNING],
        "start": NOW - timedelta(days=1),
        "end": NOW + timedelta(days=1),
        **changes,
    }
    key = fields.pop("key", None) or ed25519.Ed25519PrivateKey.generate().public_key()
    return consortium.authority.sign_leaf(key, **fields).public_bytes(Encoding.DER)  # type: ignore[arg-type] # a table of deviations


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"uris": []}, "exactly one URI"),
        ({"uris": [HOSPITAL.uri, "spiffe://hearts.example/operator/hospital-a"]}, "exactly one URI"),
        ({"uris": ["https://hearts.example/participant/a"]}, "consortium"),
        ({"uris": ["spiffe://other.example/participant/a"]}, "consortium"),
        ({"uris": ["spiffe://hearts.example/owner/a"]}, "expected spiffe"),
        ({"purposes": [CLIENT_AUTH]}, "for signing"),
        ({"key": ec.generate_private_key(ec.SECP256R1()).public_key()}, "Ed25519"),
        ({"key": ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))}, "small order"),
        ({"end": NOW - timedelta(seconds=1)}, "expired"),
        ({"start": NOW + timedelta(seconds=1)}, "valid from"),
    ],
)
def test_a_signing_certificate_that_deviates(
    consortium: Consortium, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(IdentityError, match=complaint):
        verify_signing_certificate(_made(consortium, **changes), ca_pem=consortium.ca_pem, now=NOW)


def test_a_signing_certificate_from_elsewhere(consortium: Consortium, tmp_path: Path) -> None:
    other = Consortium(tmp_path, now=NOW)  # the same names, another key
    der = other.participant("hospital-a").signing_certificate_der
    with pytest.raises(IdentityError, match="issued by"):
        verify_signing_certificate(der, ca_pem=consortium.ca_pem, now=NOW)
    both = consortium.ca_pem + other.ca_pem  # an authority being replaced
    assert verify_signing_certificate(der, ca_pem=both, now=NOW).identity == HOSPITAL


def test_the_authority_is_no_member(consortium: Consortium) -> None:
    der = consortium.authority.certificate.public_bytes(Encoding.DER)
    with pytest.raises(IdentityError, match="CA:FALSE"):
        verify_signing_certificate(der, ca_pem=consortium.ca_pem, now=NOW)


def test_a_leaf_is_no_authority(consortium: Consortium) -> None:
    credentials = consortium.participant("hospital-a")
    with pytest.raises(ConfigError, match="authority's certificate"):
        verify_signing_certificate(
            credentials.signing_certificate_der, ca_pem=credentials.tls.certificate.read_bytes(), now=NOW
        )
    with pytest.raises(ConfigError, match="PEM"):
        verify_signing_certificate(credentials.signing_certificate_der, ca_pem=b"junk", now=NOW)


@given(st.data())
def test_a_damaged_signing_certificate(consortium: Consortium, data: st.DataObject) -> None:
    der = bytearray(consortium.participant("hospital-a").signing_certificate_der)
    position = data.draw(st.integers(0, len(der) - 1))
    der[position] ^= data.draw(st.integers(1, 255))
    end = data.draw(st.sampled_from([len(der), len(der), position]))
    with pytest.raises(IdentityError):
        verify_signing_certificate(bytes(der[:end]), ca_pem=consortium.ca_pem, now=NOW)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_certificate(consortium: Consortium, junk: bytes) -> None:
    with pytest.raises(IdentityError):
        verify_signing_certificate(junk, ca_pem=consortium.ca_pem, now=NOW)


ENTRY = f"""
[[allowed]]
role = "participant"
id = "hospital-a"
tls_sha256 = "{"a" * 64}"
signing_sha256 = "{"b" * 64}"
"""
HEAD = f'consortium = "{CONSORTIUM}"\n'
TLS = Digest.parse("a" * 64)


def test_the_allow_list_denies_by_default() -> None:
    allowlist = Allowlist.parse((HEAD + ENTRY).encode(), source="test")
    assert allowlist.check(HOSPITAL, TLS).signing_fingerprint == Digest.parse("b" * 64)
    strangers = [
        (Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-b"), TLS),
        (Identity(CONSORTIUM, Role.OPERATOR, "hospital-a"), TLS),
        (Identity("other.example", Role.PARTICIPANT, "hospital-a"), TLS),
        (HOSPITAL, Digest.parse("b" * 64)),
    ]
    for identity, fingerprint in strangers:
        with pytest.raises(IdentityError):
            allowlist.check(identity, fingerprint)
    with pytest.raises(IdentityError):
        Allowlist.parse(HEAD.encode(), source="test").check(HOSPITAL, TLS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "consortium"),
        ("consortium = [", "not TOML"),
        ("\xff", "not TOML"),
        (HEAD + "allow = []", "unknown key 'allow'"),
        (HEAD + "allowed = 3", "tables"),
        (HEAD + "allowed = [3]", "number 1: expected a table"),
        (HEAD + ENTRY + ENTRY, "twice"),
        (HEAD + ENTRY.replace("participant", "owner"), "number 1: role: expected one of .*, got 'owner'"),
        (HEAD + ENTRY.replace('"participant"', '["participant"]'), r"number 1: role: .*, got \['participant'\]"),
        (HEAD + ENTRY.replace("hospital-a", "Hospital"), "number 1: a name"),
        (HEAD + ENTRY.replace("a" * 64, "a" * 63), "number 1: expected 64"),
        (HEAD + ENTRY.replace("signing_sha256", "signing"), "unknown key 'signing'"),
        (HEAD + ENTRY.replace("role", "#"), "'role' is missing"),
    ],
)
def test_an_allow_list_with_a_mistake(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Allowlist.parse(text.encode("latin-1"), source="test")


def test_the_allow_list_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.toml"
    followed = AllowlistFile(path)
    assert "cannot be read" in str(followed.problem)
    with pytest.raises(IdentityError):
        followed.check(HOSPITAL, TLS)

    path.write_text(HEAD + ENTRY)
    assert followed.problem is None
    assert followed.check(HOSPITAL, TLS).identity == HOSPITAL

    path.write_text(HEAD + ENTRY.replace("participant", "own"))
    with pytest.raises(IdentityError) as caught:
        followed.check(HOSPITAL, TLS)
    assert str(path) not in str(caught.value)  # a peer learns nothing of our files
    assert "'own'" in str(followed.problem)

    path.write_text(HEAD + ENTRY.replace('"participant"', '["participant"]'))
    with pytest.raises(IdentityError):
        followed.check(HOSPITAL, TLS)
    assert "['participant']" in str(followed.problem)
    stranger = Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-b")
    assert followed.lacking([HOSPITAL, stranger]) == [], "one that cannot be used takes nobody off"

    path.write_text(HEAD)
    with pytest.raises(IdentityError, match="not on"):
        followed.check(HOSPITAL, TLS)
    assert followed.lacking([HOSPITAL, stranger]) == [HOSPITAL, stranger]

    path.write_text(HEAD + ENTRY)
    followed.check(HOSPITAL, TLS)
    assert followed.lacking([HOSPITAL, stranger]) == [stranger]
    path.unlink()
    with pytest.raises(IdentityError):
        followed.check(HOSPITAL, TLS)


def test_a_replaced_file_of_the_same_size_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.toml"
    path.write_text(HEAD + ENTRY)
    followed = AllowlistFile(path)
    followed.check(HOSPITAL, TLS)
    (tmp_path / "new").write_text(HEAD + ENTRY.replace("hospital-a", "hospital-b"))
    (tmp_path / "new").replace(path)
    with pytest.raises(IdentityError, match="not on"):
        followed.check(HOSPITAL, TLS)


def test_what_was_issued_is_allowed(consortium: Consortium) -> None:
    credentials = consortium.participant("hospital-a")
    certificate = load_pem_x509_certificate(credentials.tls.certificate.read_bytes())
    entry = AllowlistFile(consortium.allowlist).check(HOSPITAL, fingerprint_of(certificate))
    assert entry.tls_fingerprint == Digest.of(certificate.public_bytes(Encoding.DER))
    assert entry.signing_fingerprint == Digest.of(credentials.signing_certificate_der)
