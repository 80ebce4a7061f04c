"""The authority: what it issues, and what it refuses."""

from __future__ import annotations

import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from consilo.pki import Authority, create_authority, write_file
from consilo.pki_cli import pki
from shared.certificates import MESSAGE_SIGNING
from shared.errors import ConfigError
from shared.identity import Allowlist, Identity, Role

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "pki", consortium="hearts.example", now=NOW)


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority(authority: Authority) -> None:
    again = Authority.load(authority.folder)
    assert again.consortium == "hearts.example"
    key = again.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"
    constraints = again.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert stat.S_IMODE((authority.folder / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700


def test_an_authority_is_never_replaced(authority: Authority) -> None:
    before = (authority.folder / "ca.key").read_bytes()
    (authority.folder / "ca.crt").unlink()
    with pytest.raises(ConfigError, match="exists"):
        create_authority(authority.folder, consortium="other.example", now=NOW)
    assert (authority.folder / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("role", "hosts", "purposes"),
    [
        (Role.PARTICIPANT, [], [ExtendedKeyUsageOID.CLIENT_AUTH]),
        (Role.OPERATOR, [], [ExtendedKeyUsageOID.CLIENT_AUTH]),
        (
            Role.COORDINATOR,
            ["localhost", "127.0.0.1", "::1"],
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        ),
    ],
)
def test_what_a_member_gets(
    authority: Authority, tmp_path: Path, role: Role, hosts: list[str], purposes: list[x509.ObjectIdentifier]
) -> None:
    issued = authority.issue(role, "somebody", out=tmp_path / "out", now=NOW, hosts=hosts)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in issued.folder.iterdir()}
    assert modes == {"tls.crt": 0o644, "tls.key": 0o600, "signing.crt": 0o644, "signing.key": 0o600, "ca.crt": 0o644}
    tls, signing = _certificate(issued.folder / "tls.crt"), _certificate(issued.folder / "signing.crt")
    assert isinstance(tls.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(signing.public_key(), ed25519.Ed25519PublicKey)
    for certificate, expected in ((tls, purposes), (signing, [MESSAGE_SIGNING])):
        assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == expected
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uris == [Identity("hearts.example", role, "somebody").uri]
        addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        dialled = names.get_values_for_type(x509.DNSName) + addresses
        assert dialled == (hosts if certificate is tls else [])
    assert issued.tls_expires == NOW + timedelta(days=30)
    assert issued.signing_expires == NOW + timedelta(days=365)


def test_a_new_certificate_takes_the_place_of_the_old(authority: Authority, tmp_path: Path) -> None:
    first = authority.issue(Role.PARTICIPANT, "hospital-a", out=tmp_path / "a", now=NOW)
    authority.issue(Role.OPERATOR, "hospital-a", out=tmp_path / "b", now=NOW)
    second = authority.issue(Role.PARTICIPANT, "hospital-a", out=tmp_path / "a", now=NOW)
    allowlist = Allowlist.load(authority.allowlist_path)
    assert len(allowlist.entries) == 2
    assert allowlist.entries[second.entry.identity] == second.entry
    assert first.entry != second.entry


def test_a_leaf_does_not_outlive_its_authority(tmp_path: Path) -> None:
    short = create_authority(tmp_path / "pki", consortium="c", now=NOW, days=10)
    issued = short.issue(Role.PARTICIPANT, "a", out=tmp_path / "a", now=NOW)
    assert issued.tls_expires == short.certificate.not_valid_after_utc
    with pytest.raises(ConfigError, match="expired"):
        short.issue(Role.PARTICIPANT, "b", out=tmp_path / "b", now=NOW + timedelta(days=11))


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ((Role.PARTICIPANT, "Hospital", [], 30), "a name has"),
        ((Role.PARTICIPANT, "hospital-a", ["localhost"], 30), "nobody dials a participant"),
        ((Role.COORDINATOR, "c", [], 30), "--dns"),
        ((Role.COORDINATOR, "c", ["kö"], 30), "DNS name"),
        ((Role.PARTICIPANT, "hospital-a", [], 0), "valid for 1 to"),
    ],
)
def test_what_is_not_issued(
    authority: Authority, tmp_path: Path, wanted: tuple[Role, str, list[str], int], complaint: str
) -> None:
    role, name, hosts, days = wanted
    with pytest.raises(ConfigError, match=complaint):
        authority.issue(role, name, out=tmp_path / "out", now=NOW, hosts=hosts, tls_days=days)
    assert not (tmp_path / "out").exists()
    assert not Allowlist.load(authority.allowlist_path).entries


def test_folders_that_hold_no_authority(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="consilo pki init"):
        Authority.load(tmp_path / "absent")
    other = create_authority(tmp_path / "other", consortium="hearts.example", now=NOW)
    (authority.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="is not the key of"):
        Authority.load(authority.folder)
    (authority.folder / "ca.key").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="private key in PEM form"):
        Authority.load(authority.folder)
    with pytest.raises(ConfigError, match="a-z"):
        create_authority(tmp_path / "third", consortium="Hearts Example", now=NOW)


def test_issuing_at_once_loses_no_entry(authority: Authority, tmp_path: Path) -> None:
    names = [f"hospital-{number}" for number in range(8)]
    threads = [
        threading.Thread(
            target=authority.issue, args=(Role.PARTICIPANT, name), kwargs={"out": tmp_path / name, "now": NOW}
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {identity.name for identity in Allowlist.load(authority.allowlist_path).entries} == set(names)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_file(tmp_path / "absent" / "key", b"", mode=0o600)


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = str(tmp_path / "pki")
    made = json.loads(run(pki, ["init", folder, "--consortium", "hearts.example", "--json"]).stdout)
    assert made["consortium"] == "hearts.example"
    shown = run(pki, ["issue", folder, "coordinator", "main", "--dns", "localhost"])
    assert shown.exit_code == 0
    assert "spiffe://hearts.example/coordinator/main" in shown.stdout
    issued = json.loads(run(pki, ["issue", folder, "participant", "hospital-a", "--json"]).stdout)
    assert issued["folder"].endswith("pki/issued/participant/hospital-a")
    listed = json.loads(run(pki, ["list", folder, "--json"]).stdout)
    assert [entry["id"] for entry in listed["allowed"]] == ["main", "hospital-a"]
    assert "hospital-a" in run(pki, ["list", folder]).stdout
    assert isinstance(run(pki, ["init", folder, "--consortium", "hearts.example"]).exception, ConfigError)
    assert run(pki, ["issue", folder, "owner", "x"]).exit_code == 2


def test_a_tls_certificate_is_renewed_alone(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue(Role.PARTICIPANT, "hospital-a", out=tmp_path / "a", now=NOW)
    key = _certificate(tmp_path / "a" / "tls.crt").public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signing = (tmp_path / "a" / "signing.crt").read_bytes()
    later = NOW + timedelta(days=20)
    entry = authority.renew_tls(Role.PARTICIPANT, "hospital-a", tls_key=key, out=tmp_path / "a", now=later)
    assert Allowlist.load(authority.allowlist_path).entries[entry.identity] == entry
    assert entry.signing_fingerprint == issued.entry.signing_fingerprint
    assert entry.tls_fingerprint != issued.entry.tls_fingerprint
    assert _certificate(tmp_path / "a" / "tls.crt").public_key() == key
    assert (tmp_path / "a" / "signing.crt").read_bytes() == signing


def test_nobody_is_let_in_by_a_renewal(authority: Authority, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(ConfigError, match=r"participant/hospital-a is not on it: certify it first"):
        authority.renew_tls(Role.PARTICIPANT, "hospital-a", tls_key=key, out=tmp_path, now=NOW)
    assert not (tmp_path / "tls.crt").exists()
