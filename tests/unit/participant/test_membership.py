"""Before a participant dials, the manifest that it pinned has it and a coordinator in it, with their own keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from participant.cli import participant
from participant.membership import check_consortium
from participant.settings import ParticipantSettings
from shared.clock import SystemClock
from shared.config import load_config
from shared.consortium import Consortium as Manifest
from shared.errors import ConfigError
from shared.identity import Identity, Role
from shared.ids import Digest
from shared.tls import CheckedSigning, check_signing_credentials
from tests.support.credentials import CONSORTIUM, Consortium

NAME = "hospital-a"


class Silo:
    """A participant's credentials and configuration, and the consortium that it is in."""

    def __init__(self, folder: Path, *, coordinated: bool = True) -> None:
        self.folder = folder
        self.consortium = Consortium(folder / "pki")
        self.credentials = self.consortium.participant(NAME)
        if coordinated:
            self.consortium.coordinator()
        self.digest = self.consortium.manifest().consortium.digest
        self.config = folder / "participant.toml"

    def settings(self, *, digest: Digest | None = None, pins: bool = True) -> ParticipantSettings:
        tls, manifest = self.credentials.tls, self.consortium.folder / "authority" / "consortium.json"
        pinned = f'[consortium]\nmanifest = "{manifest}"\ndigest = "{digest or self.digest}"\n' if pins else ""
        self.config.write_text(
            f'[participant]\nid = "{NAME}"\ncoordinators = ["localhost:1"]\ndata_dir = "data"\n'
            f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
            f'[signing]\ncertificate = "{self.credentials.signing_certificate}"\n'
            f'key = "{self.credentials.signing_key_path}"\n{pinned}'
        )
        return load_config(self.config, ParticipantSettings, environment={})

    @property
    def signing(self) -> CheckedSigning:
        return check_signing_credentials(
            certificate=self.credentials.signing_certificate,
            key=self.credentials.signing_key_path,
            ca=self.credentials.tls.ca,
            expected=Identity(CONSORTIUM, Role.PARTICIPANT, NAME),
            now=SystemClock().now(),
        )

    def check(self) -> dict[str, dict[str, Any]]:
        result = CliRunner().invoke(participant, ["check", "--config", str(self.config), "--json"])
        return {found["check"]: found for found in json.loads(result.output)}


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def test_a_silo_that_is_in_its_manifest(silo: Silo) -> None:
    found = check_consortium(silo.settings(), silo.signing)
    assert isinstance(found, Manifest)
    assert found.digest == silo.digest


def test_a_silo_that_pins_nothing(silo: Silo) -> None:
    assert check_consortium(silo.settings(pins=False), silo.signing) is None


def test_another_manifest_than_the_pinned_one(silo: Silo) -> None:
    pinned = silo.digest
    silo.consortium.participant("hospital-b")
    now = silo.consortium.manifest().consortium.digest
    with pytest.raises(ConfigError, match=f"digest {pinned}, as pinned, got {now}: ask an officer"):
        check_consortium(silo.settings(), silo.signing)


def test_a_manifest_with_an_older_key_of_this_silo(silo: Silo) -> None:
    listed = silo.signing.certificate.verifying_key.fingerprint
    silo.consortium.reissue(Role.PARTICIPANT, NAME)
    new = silo.signing.certificate.verifying_key.fingerprint
    with pytest.raises(ConfigError, match=f"expected signing key {listed} .*got {new}.*pki manifest"):
        check_consortium(silo.settings(), silo.signing)


def test_a_manifest_without_this_silo(silo: Silo) -> None:
    manifest = silo.consortium.allowlist.read_text().replace(f'id = "{NAME}"', 'id = "gone"')
    silo.consortium.allowlist.write_text(manifest.replace('role = "participant"', 'role = "operator"'))
    digest = silo.consortium.manifest().consortium.digest
    with pytest.raises(ConfigError, match=rf"/participant/{NAME} is not in the consortium's manifest"):
        check_consortium(silo.settings(digest=digest), silo.signing)


def test_a_manifest_without_a_coordinator(tmp_path: Path) -> None:
    silo = Silo(tmp_path, coordinated=False)
    with pytest.raises(ConfigError, match="expected a member with the role coordinator, got none"):
        check_consortium(silo.settings(), silo.signing)


def test_the_check_command_says_it(silo: Silo) -> None:
    silo.settings()
    found = silo.check()["consortium"]
    assert (found["ok"], found["detail"]) == (True, f"{CONSORTIUM}, 1 participants, digest {silo.digest} as pinned")
    silo.settings(digest=Digest.of(b"another"))
    found = silo.check()["consortium"]
    assert not found["ok"]
    assert str(silo.digest) in found["detail"]
    silo.settings(pins=False)
    found = silo.check()["consortium"]
    assert (found["ok"], "masked jobs are declined" in found["detail"]) == (True, True)
