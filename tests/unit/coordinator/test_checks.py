"""What `consilo coordinator check` warns of: a coordinator would start, and a person should know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.checks import run_checks
from coordinator.settings import CoordinatorSettings
from coordinator.startup import check_identity, open_records
from coordinator.storage.listing import MODELS
from shared.clock import SystemClock
from shared.config import load_config
from shared.findings import Finding
from shared.ids import Digest
from tests.support.credentials import Consortium, Credentials
from tests.support.small_disk import small_disk


@dataclass(frozen=True, slots=True)
class Later(SystemClock):
    """A clock that is ahead, or behind."""

    by: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by


def settings_for(
    folder: Path, consortium: Consortium, member: Credentials, *, listen: str = "127.0.0.1:0", more: str = ""
) -> CoordinatorSettings:
    tls = member.tls
    (folder / "coordinator.toml").write_text(
        f'[coordinator]\nid = "coordinator"\ndata_dir = "data"\nlisten = "{listen}"\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
        f'[signing]\ncertificate = "{member.signing_certificate}"\nkey = "{member.signing_key_path}"\n'
        f'[access]\nallowlist = "{consortium.allowlist}"\n[metrics]\nlisten = "off"\n{more}'
    )
    return load_config(folder / "coordinator.toml", CoordinatorSettings, environment={})


def row(settings: CoordinatorSettings, name: str, clock: SystemClock | None = None) -> Finding:
    return next(found for found in run_checks(settings, clock or SystemClock()) if found.name == name)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path / "pki")


@pytest.mark.parametrize(("days", "warned"), [(20, False), (24, True)])
def test_credentials_that_soon_end(days: int, warned: bool, consortium: Consortium, tmp_path: Path) -> None:  # noqa: FBT001
    settings = settings_for(tmp_path, consortium, consortium.coordinator())
    found = row(settings, "credentials", Later(timedelta(days=days)))
    assert (found.ok, found.warning) == (True, warned)
    assert f"({29 - days} days left), signing until" in found.detail
    assert ("`consilo pki sign`" in found.advice) == warned


@pytest.mark.parametrize(
    ("hosts", "listen", "result", "said"),
    [
        (("localhost", "127.0.0.1"), "127.0.0.1:0", "ok", "listens on loopback alone"),
        (("coordinator.example", "localhost"), "0.0.0.0:0", "ok", "silos may dial coordinator.example, localhost"),
        (("localhost", "::1"), "[::]:0", "warning", "listens for other machines, which dial another name"),
    ],
)
def test_names_against_where_it_listens(
    *, hosts: tuple[str, ...], listen: str, result: str, said: str, consortium: Consortium, tmp_path: Path
) -> None:
    found = row(settings_for(tmp_path, consortium, consortium.coordinator(hosts=hosts), listen=listen), "names")
    assert found.result == result
    assert said in found.detail
    assert bool(found.advice) == (result == "warning")


def test_who_is_let_in_against_whose_keys_are_believed(consortium: Consortium, tmp_path: Path) -> None:
    member = consortium.coordinator()
    consortium.participant("hospital-a")
    consortium.operator()
    table = f'[consortium]\nmanifest = "{consortium.manifest().path}"\n'
    settings = settings_for(tmp_path, consortium, member, more=table)
    assert row(settings, "members").result == "ok"
    consortium.participant("hospital-b")
    listed = consortium.allowlist.read_text()
    consortium.allowlist.write_text(listed.replace('"hospital-a"', '"hospital-c"'))
    found = row(settings, "members")
    assert found.result == "warning"
    assert "not in the manifest, for plain jobs alone: hospital-b, hospital-c" in found.detail
    assert "not on the allow-list, so that they cannot connect: hospital-a" in found.detail
    assert "operator" not in found.detail
    assert found.advice


def test_a_clock_before_the_last_entry_of_the_audit_log(consortium: Consortium, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, consortium, consortium.coordinator())
    ahead = Later(timedelta(hours=5))
    key = check_identity(settings, SystemClock()).signing.key
    with open_records(settings.coordinator.data_dir, signing_key=key, clock=ahead) as records:
        entry = records.audit.entry("coordinator_started", {})
        records.store.append_audit(entry)
        records.audit.accept(entry)
        records.catch_up()
    assert row(settings, "clock", ahead).result == "ok"
    found = row(settings, "clock")
    assert found.result == "FAILED"
    assert "the last entry of the audit log is of" in found.detail
    assert "at least 4 hours behind" in found.detail
    assert "let a time service set it" in found.detail


@pytest.mark.parametrize(("keep", "result"), [(0, "warning"), (3, "ok")])
def test_versions_that_soon_fill_the_disk(keep: int, result: str, consortium: Consortium, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size=8 << 20):
        more = f"[retention]\nkeep_versions = {keep}\n"
        settings = settings_for(tmp_path / "disk", consortium, consortium.coordinator(), more=more)
        assert row(settings, "retention").detail.endswith("there is none yet")
        models = settings.coordinator.data_dir / MODELS
        models.mkdir(parents=True)
        (models / f"{Digest(bytes(32))}.safetensors").write_bytes(bytes(1 << 20))
        (models / "of-somebody-else").write_bytes(bytes(1 << 10))
        found = row(settings, "retention")
    assert found.result == result
    assert found.detail.endswith("and 6 more would fit")
    assert bool(found.advice) == (result == "warning")


def test_a_port_that_is_taken_says_how_to_find_who_has_it(consortium: Consortium, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, consortium, consortium.coordinator(), listen="192.0.2.1:8443")
    found = row(settings, "listen 192.0.2.1:8443")
    assert found.result == "FAILED"
    assert "Name an address of this machine" in found.detail


def test_what_needs_a_row_that_failed_is_skipped(consortium: Consortium, tmp_path: Path) -> None:
    """One cause is one row: a person would look for the others in vain."""
    member = consortium.coordinator()
    table = f'[consortium]\nmanifest = "{consortium.manifest().path}"\n'
    settings = settings_for(tmp_path, consortium, member, more=table)
    member.signing_key_path.chmod(0o644)
    found = {row.name: row for row in run_checks(settings, SystemClock())}
    assert [name for name, row in found.items() if not row.ok] == ["credentials"]
    assert [name for name, row in found.items() if row.skipped] == [
        "consortium", "allow-list", "members", "audit log",
    ]  # fmt: skip
    assert found["members"].detail == "not looked at: it needs the row 'consortium'"
