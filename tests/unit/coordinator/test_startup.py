"""What lies in a data folder is opened by the key that began its log, and by no other; and who a coordinator is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator import startup
from coordinator.checks import run_checks
from coordinator.cli import coordinator
from coordinator.settings import CoordinatorSettings
from coordinator.startup import RESTORING_FILE, check_consortium, check_identity, open_records
from coordinator.storage.files import FileBlobs
from coordinator.storage.listing import DATABASE_FILE
from shared.clock import SystemClock
from shared.config import load_config
from shared.errors import ConfigError
from shared.identity import Role
from tests.support.credentials import Consortium
from tests.support.migration_crash import make_database
from tests.support.rounds import key_of
from tests.support.small_disk import SmallDisk, small_disk
from tests.unit.coordinator.storage.test_migrations import VERSION_1


def test_another_signing_key_is_refused_before_it_writes_a_line(tmp_path: Path) -> None:
    clock = SystemClock()
    with open_records(tmp_path / "data", signing_key=key_of("coordinator"), clock=clock) as records:
        entry = records.audit.entry("coordinator_started", {})
        records.store.append_audit(entry)
        records.audit.accept(entry)
        records.catch_up()
    log = (tmp_path / "data" / "audit.log").read_bytes()
    with (
        pytest.raises(ConfigError, match="signed with another key"),
        open_records(tmp_path / "data", signing_key=key_of("renewed"), clock=clock),
    ):
        pass
    with open_records(tmp_path / "data", signing_key=key_of("coordinator"), clock=clock) as records:
        assert records.audit.size == 1
    assert (tmp_path / "data" / "audit.log").read_bytes() == log


def test_a_restore_that_began_and_was_killed_after_the_first_look_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(FileBlobs):
        """Gets the folder's lock after a restore had it."""

        def __init__(self, *, root: Path) -> None:
            root.mkdir()
            (root / RESTORING_FILE).touch()
            super().__init__(root=root)

    monkeypatch.setattr(startup, "FileBlobs", Late)
    with (
        pytest.raises(ConfigError, match="is not whole"),
        open_records(tmp_path / "data", signing_key=key_of("coordinator"), clock=SystemClock()),
    ):
        pass
    assert not (tmp_path / "data" / DATABASE_FILE).exists()


def test_a_look_at_an_old_database_says_what_a_start_would_do_and_does_not_do_it(tmp_path: Path) -> None:
    settings = _settings(Consortium(tmp_path / "pki"), tmp_path, manifest=None)
    settings.coordinator.data_dir.mkdir()
    database = make_database(VERSION_1, settings.coordinator.data_dir)
    before = database.read_bytes()
    found = {found.name: found for found in run_checks(settings, SystemClock())}
    assert "schema version 1: a start copies it to coordinator.db.before-v3" in found["database"].detail
    assert found["database"].ok
    assert found["audit log"].ok
    assert database.read_bytes() == before


@pytest.mark.parametrize("size", [None, 128 << 20, 1 << 20])
def test_a_data_folder_without_room_is_not_simply_fine(tmp_path: Path, size: int | None) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, size=size) if size else contextlib.nullcontext() as disk:
        folder.mkdir(exist_ok=True)
        settings = _settings(Consortium(tmp_path / "pki"), folder, manifest=None)
        if size == 1 << 20:
            assert isinstance(disk, SmallDisk)
            disk.fill()
        found = next(found for found in run_checks(settings, SystemClock()) if found.name == "data folder")
        shown = CliRunner().invoke(coordinator, ["check", "--config", str(folder / "coordinator.toml")])
    (row,) = [line for line in shown.stdout.splitlines() if line.startswith("│ data folder")]
    if size is None:
        assert (found.ok, found.warning) == (True, False)
        assert "GB free" in found.detail
        assert "│ ok" in row
    elif size == 128 << 20:
        assert (found.ok, found.warning) == (True, True)
        assert "MiB free, expected 256 MiB or more" in found.detail
        assert "│ warning" in row
    else:
        assert not found.ok
        assert "is full: make room" in found.detail
        assert "│ FAILED" in row
        assert shown.exit_code == 1


def _settings(consortium: Consortium, folder: Path, *, manifest: Path | None) -> CoordinatorSettings:
    tls, member = consortium.coordinator().tls, consortium.coordinator()
    table = f'[consortium]\nmanifest = "{manifest}"\n' if manifest else ""
    (folder / "coordinator.toml").write_text(
        '[coordinator]\nid = "coordinator"\ndata_dir = "data"\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
        f'[signing]\ncertificate = "{member.signing_certificate}"\nkey = "{member.signing_key_path}"\n'
        f'[access]\nallowlist = "{consortium.allowlist}"\n{table}'
    )
    return load_config(folder / "coordinator.toml", CoordinatorSettings, environment={})


def _found(settings: CoordinatorSettings) -> tuple[bool, str]:
    return next((found.ok, found.detail) for found in run_checks(settings, SystemClock()) if found.name == "consortium")


def test_a_coordinator_is_in_the_manifest_that_it_was_given(tmp_path: Path) -> None:
    consortium, clock = Consortium(tmp_path / "pki"), SystemClock()
    consortium.participant("hospital-a")
    without = _settings(consortium, tmp_path, manifest=None)
    assert check_consortium(without, check_identity(without, clock).signing) is None
    assert _found(without) == (True, "no manifest under [consortium]: masked jobs wait")

    written = consortium.manifest()
    settings = _settings(consortium, tmp_path, manifest=written.path)
    assert check_consortium(settings, check_identity(settings, clock).signing) == written.consortium
    assert _found(settings) == (True, f"hearts.example; 1 participants; digest {written.consortium.digest}")

    listed = check_identity(settings, clock).signing.certificate.verifying_key.fingerprint
    consortium.reissue(Role.COORDINATOR, "coordinator")
    signing = check_identity(settings, clock).signing
    with pytest.raises(ConfigError, match=f"{listed} .*got {signing.certificate.verifying_key.fingerprint}"):
        check_consortium(settings, signing)
    assert not _found(settings)[0]
    with pytest.raises(ConfigError, match=r"absent\.json: expected the consortium's manifest"):
        check_consortium(_settings(consortium, tmp_path, manifest=tmp_path / "absent.json"), signing)
