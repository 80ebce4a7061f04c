"""The manifest that an authority writes: of whom, with which keys, and what stops it."""

from __future__ import annotations

import json
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consilo.pki import Authority, create_authority, signing_certificate_path
from consilo.pki_cli import pki
from consilo.pki_manifest import aloud, officer_key, write_manifest
from consilo.pki_request import REQUEST_FILE, make_request, read_request
from shared.consortium import Consortium
from shared.errors import ConfigError
from shared.identity import Identity, Role, SigningKey
from shared.ids import Digest, ParticipantId

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CONSORTIUM = "hearts.example"
HOSPITAL = ParticipantId("hospital-a")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = create_authority(tmp_path / "pki", consortium=CONSORTIUM, now=NOW)
    made.issue(Role.COORDINATOR, "main", out=tmp_path / "main", now=NOW, hosts=["localhost"])
    made.issue(Role.OPERATOR, "somebody", out=tmp_path / "somebody", now=NOW)
    made.issue(Role.PARTICIPANT, HOSPITAL, out=tmp_path / HOSPITAL, now=NOW)
    return made


def written(authority: Authority, path: Path) -> Consortium:
    write_manifest(authority, out=path, now=NOW)
    return Consortium.load(path, pinned=None)


def test_the_manifest_has_the_keys_of_who_signs_messages(authority: Authority, tmp_path: Path) -> None:
    consortium = written(authority, tmp_path / "consortium.json")
    keys = {name: SigningKey.load(tmp_path / name / "signing.key").verifying_key for name in ("main", HOSPITAL)}
    assert consortium.name == CONSORTIUM
    assert consortium.members == {
        Identity(CONSORTIUM, Role.COORDINATOR, "main"): keys["main"],
        Identity(CONSORTIUM, Role.PARTICIPANT, HOSPITAL): keys[HOSPITAL],
    }
    assert consortium.officers == (officer_key(authority.folder).verifying_key,)
    assert stat.S_IMODE((authority.folder / "officer.key").stat().st_mode) == 0o600


def test_renewing_a_certificate_moves_no_pin(authority: Authority, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    request = read_request(keys / REQUEST_FILE, expected=make_request(keys))

    def certify(days: int) -> Consortium:
        authority.certify(
            Role.PARTICIPANT,
            "hospital-b",
            tls_key=request.tls,
            signing_key=request.signing,
            out=keys,
            now=NOW,
            signing_days=days,
        )
        return written(authority, tmp_path / "consortium.json")

    first = certify(30)
    file = (tmp_path / "consortium.json").read_bytes()
    again = write_manifest(authority, out=tmp_path / "consortium.json", now=NOW)
    assert again.before == first.digest
    assert certify(60) == first
    assert (tmp_path / "consortium.json").read_bytes() == file
    authority.issue(Role.PARTICIPANT, "hospital-b", out=keys, now=NOW)
    assert written(authority, tmp_path / "consortium.json").digest != first.digest, "a new key moves it"


def test_who_is_off_the_allowlist_is_off_the_manifest(authority: Authority, tmp_path: Path) -> None:
    listed = authority.allowlist_path.read_text()
    entry = listed.index('[[allowed]]\nrole = "participant"')
    authority.allowlist_path.write_text(listed[:entry])
    assert written(authority, tmp_path / "consortium.json").participant_key(HOSPITAL) is None


def test_an_authority_without_members(tmp_path: Path) -> None:
    empty = create_authority(tmp_path / "pki", consortium=CONSORTIUM, now=NOW)
    with pytest.raises(ConfigError, match="expected participants and a coordinator, got none"):
        write_manifest(empty, out=tmp_path / "consortium.json", now=NOW)
    assert not (tmp_path / "pki" / "officer.key").exists()


def test_a_kept_certificate_that_is_missing_or_anothers(authority: Authority, tmp_path: Path) -> None:
    kept = signing_certificate_path(authority.folder, Identity(CONSORTIUM, Role.PARTICIPANT, HOSPITAL))
    out = tmp_path / "consortium.json"
    kept.unlink()
    with pytest.raises(
        ConfigError, match=r"signing certificate of participant hospital-a.*copy its signing\.crt there"
    ):
        write_manifest(authority, out=out, now=NOW)
    shutil.copy(tmp_path / "main" / "signing.crt", kept)
    with pytest.raises(ConfigError, match=r"as on the allow-list, got .* of coordinator main"):
        write_manifest(authority, out=out, now=NOW)
    shutil.copy(tmp_path / HOSPITAL / "tls.crt", kept)
    with pytest.raises(ConfigError, match="signing Consilo messages"):
        write_manifest(authority, out=out, now=NOW)
    kept.write_bytes(b"junk")
    with pytest.raises(ConfigError, match="expected the signing certificate of participant hospital-a"):
        write_manifest(authority, out=out, now=NOW)
    shutil.copy(tmp_path / HOSPITAL / "signing.crt", kept)
    with pytest.raises(ConfigError, match="expired"):
        write_manifest(authority, out=out, now=NOW + timedelta(days=400))
    assert not out.exists()
    write_manifest(authority, out=out, now=NOW)


def test_what_is_no_manifest_is_not_written_over(authority: Authority, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        write_manifest(authority, out=precious, now=NOW)
    assert precious.read_text() == "precious"


def test_an_officers_key_that_others_can_read_is_refused(authority: Authority, tmp_path: Path) -> None:
    officer_key(authority.folder)
    (authority.folder / "officer.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        write_manifest(authority, out=tmp_path / "consortium.json", now=NOW)


def test_a_digest_read_aloud() -> None:
    digest = Digest.of(b"")
    assert aloud(digest).startswith("e3b0 c442 98fc ")
    assert aloud(digest).replace(" ", "") == str(digest)


def test_the_command(tmp_path: Path) -> None:
    folder = str(tmp_path / "pki")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(pki, [arguments[0], folder, *arguments[1:]])

    run("init", "--consortium", CONSORTIUM)
    assert isinstance(run("manifest").exception, ConfigError)
    run("issue", "coordinator", "main", "--dns", "localhost")
    run("issue", "participant", HOSPITAL)
    made = json.loads(run("manifest", "--json").stdout)
    assert made["manifest"] == f"{folder}/consortium.json"
    assert (made["participants"], made["coordinators"], made["changed"]) == (1, 1, True)
    consortium = Consortium.load(Path(made["manifest"]), pinned=Digest.parse(made["digest"]))
    assert consortium.participant_key(HOSPITAL)
    again = run("manifest")
    assert aloud(consortium.digest) in again.stdout
    assert str(consortium.digest) in again.stdout
    assert again.stderr == ""
    run("issue", "participant", "hospital-b")
    assert f"took the place of {consortium.digest}" in run("manifest").stderr
    out = tmp_path / "elsewhere.json"
    assert json.loads(run("manifest", "--out", str(out), "--json").stdout)["changed"]
    assert out.exists()
