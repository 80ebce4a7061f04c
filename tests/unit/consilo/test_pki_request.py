"""Certificates for keys that never leave their silo."""

from __future__ import annotations

import json
from base64 import encodebytes
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from consilo.pki import Authority, create_authority
from consilo.pki_cli import pki
from consilo.pki_request import make_request, read_request
from shared.errors import ConfigError
from shared.identity import Identity, Role
from shared.ids import Digest
from shared.tls import TlsPaths, check_credentials, check_signing_credentials

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "pki", consortium="hearts.example", now=NOW)


def test_the_whole_way(authority: Authority, tmp_path: Path) -> None:
    run, silo = CliRunner().invoke, tmp_path / "silo"
    made = json.loads(run(pki, ["request", str(silo), "--json"]).stdout)
    assert sorted(path.name for path in silo.iterdir()) == ["request.pem", "signing.key", "tls.key"]
    arguments = ["sign", str(authority.folder), "participant", "hospital-a", made["request"], "--json"]
    signed = run(pki, [*arguments, "--sha256", made["sha256"], "--out", str(tmp_path / "back")])
    assert signed.exit_code == 0, signed.output
    back = Path(json.loads(signed.stdout)["folder"])
    assert sorted(path.name for path in back.iterdir()) == ["ca.crt", "signing.crt", "tls.crt"]
    for path in back.iterdir():
        (silo / path.name).write_bytes(path.read_bytes())
    me = Identity("hearts.example", Role.PARTICIPANT, "hospital-a")
    tls = TlsPaths(silo / "tls.crt", silo / "tls.key", silo / "ca.crt")
    assert check_credentials(tls, expected_role=Role.PARTICIPANT, now=datetime.now(UTC)).identity == me
    check_signing_credentials(
        certificate=silo / "signing.crt", key=silo / "signing.key", ca=tls.ca, expected=me, now=datetime.now(UTC)
    )
    assert isinstance(run(pki, [*arguments, "--sha256", "0" * 64]).exception, ConfigError)
    assert run(pki, [*arguments, "--sha256", "short"]).exit_code == 2


def test_keys_in_use_are_not_replaced(tmp_path: Path) -> None:
    make_request(tmp_path / "silo")
    with pytest.raises(ConfigError, match="may be in use"):
        make_request(tmp_path / "silo")


def _request(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    # It asks to be the coordinator and an authority: nobody listens.
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://hearts.example/coordinator/main")])
    signed = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "main")]))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return signed.public_bytes(Encoding.PEM)


def test_a_request_cannot_choose_who_it_is(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "request.pem"
    path.write_bytes(_request(ec.generate_private_key(ec.SECP256R1())) + _request(ed25519.Ed25519PrivateKey.generate()))
    keys = read_request(path, expected=Digest.of(path.read_bytes()))
    authority.certify(
        Role.PARTICIPANT, "hospital-a", tls_key=keys.tls, signing_key=keys.signing, out=tmp_path / "out", now=NOW
    )
    for name in ("tls.crt", "signing.crt"):
        certificate = x509.load_pem_x509_certificate((tmp_path / "out" / name).read_bytes())
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
            "spiffe://hearts.example/participant/hospital-a"
        ]


def _tampered() -> bytes:
    signed = x509.load_pem_x509_csr(_request(ec.generate_private_key(ec.SECP256R1())))
    other = x509.load_pem_x509_csr(_request(ec.generate_private_key(ec.SECP256R1())))
    der = signed.public_bytes(Encoding.DER)
    body = encodebytes(der.replace(_point(signed), _point(other)))
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def _point(request: x509.CertificateSigningRequest) -> bytes:
    return request.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "expected two requests"),
        ([_request(ec.generate_private_key(ec.SECP256R1()))], "expected two requests"),
        ([_request(ed25519.Ed25519PrivateKey.generate())] * 2, "P-256 or P-384 key first"),
        ([_request(ec.generate_private_key(ec.SECP521R1()))] * 2, "P-256 or P-384 key first"),
        ([_request(ec.generate_private_key(ec.SECP256R1()))] * 2, "Ed25519 key second"),
        ([b"junk\n-----END CERTIFICATE REQUEST-----\n"] * 2, "PEM form"),
        ([_tampered(), _request(ed25519.Ed25519PrivateKey.generate())], "not signed by the key"),
    ],
)
def test_requests_that_are_refused(tmp_path: Path, parts: list[bytes], complaint: str) -> None:
    path = tmp_path / "request.pem"
    path.write_bytes(b"".join(parts))
    with pytest.raises(ConfigError, match=complaint):
        read_request(path, expected=Digest.of(path.read_bytes()))


def test_an_absent_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_request(tmp_path / "absent", expected=Digest.of(b""))
