"""The compose demo's renewal: hospitals that run go on, or are said to need a restart."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from consilo.pki import Authority, create_authority
from consilo.pki_request import make_request
from shared.certificates import fingerprint_of
from shared.identity import AllowedEntry, Allowlist, Identity, Role
from shared.tls import leaf_in

SCRIPT = Path(__file__).parents[4] / "deploy/compose/demo/set_up.py"
MADE = datetime(2026, 3, 1, tzinfo=UTC)
HOSPITAL = Identity("hospitals.example", Role.PARTICIPANT, "hospital-a")


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with everybody certified at MADE."""
    spec = importlib.util.spec_from_file_location("compose_demo_set_up", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FEDERATION", tmp_path)
    authority = create_authority(tmp_path / "authority", consortium="hospitals.example", now=MADE)
    for role, name, hosts in script.MEMBERS:
        make_request(tmp_path / name / "credentials")
        script.certify(authority, role, name, hosts, MADE)
    script.hand_out_allowlist(authority)
    return script


def _entry(folder: Path) -> AllowedEntry:
    """What the coordinator is handed out, and what lies with the hospital: both say the same."""
    entry = Allowlist.load(folder / "coordinator" / "allowlist.toml").entries[HOSPITAL]
    credentials = folder / "hospital-a" / "credentials"
    assert entry.tls_fingerprint == fingerprint_of(leaf_in(credentials / "tls.crt"))
    assert entry.signing_fingerprint == fingerprint_of(leaf_in(credentials / "signing.crt"))
    return entry


def _go_on(demo: ModuleType, folder: Path, days: int) -> None:
    demo.go_on(Authority.load(folder / "authority"), MADE + timedelta(days=days))


def test_nothing_is_renewed_that_lasts(demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _entry(tmp_path)
    _go_on(demo, tmp_path, 9)
    assert _entry(tmp_path) == before
    assert capsys.readouterr().out.endswith("renewed: nobody, all certificates last\n")


def test_a_hospital_that_runs_is_still_known_by_its_signing_certificate(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _entry(tmp_path)
    _go_on(demo, tmp_path, 11)
    after = _entry(tmp_path)
    assert after.signing_fingerprint == before.signing_fingerprint
    assert after.tls_fingerprint != before.tls_fingerprint
    assert leaf_in(tmp_path / "hospital-a/credentials/tls.crt").not_valid_after_utc == MADE + timedelta(days=41)
    said = capsys.readouterr().out
    assert "renewed: coordinator, operator, hospital-a" in said
    assert "restart" not in said


def test_it_says_who_is_to_be_restarted_when_signing_certificates_end(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _entry(tmp_path)
    _go_on(demo, tmp_path, 350)
    assert _entry(tmp_path).signing_fingerprint != before.signing_fingerprint
    assert "docker compose restart coordinator hospital-a hospital-b hospital-c hospital-d\n" in capsys.readouterr().out
