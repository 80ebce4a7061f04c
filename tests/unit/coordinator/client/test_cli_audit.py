"""`consilo audit`, on files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator.audit import head_of
from coordinator.client.cli_audit import audit
from coordinator.storage.interface import AuditEntry
from shared.errors import ConfigError, IdentityError
from tests.support.audit_log import as_file, some_entries
from tests.support.credentials import Consortium, Credentials


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="module")
def coordinator(consortium: Consortium) -> Credentials:
    return consortium.coordinator()


@pytest.fixture(scope="module")
def entries(coordinator: Credentials) -> list[AuditEntry]:
    return some_entries(4, key=coordinator.signing_key)


@pytest.fixture
def log(tmp_path: Path, entries: list[AuditEntry]) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(as_file(entries))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(audit, [str(argument) for argument in arguments])


def test_a_log_verifies_with_the_certificate_and_the_authority(
    log: Path, coordinator: Credentials, entries: list[AuditEntry]
) -> None:
    head = head_of(entries[-1])
    certificate = ("--certificate", coordinator.signing_certificate)
    result = run("verify", "--log", log, *certificate)
    assert result.exit_code == 0
    assert str(head) in result.stdout
    assert "tail is unproven" in result.stderr
    proven = run("verify", "--log", log, *certificate, "--ca", coordinator.tls.ca, "--head", head, "--json")
    assert proven.exit_code == 0
    assert proven.stderr == ""
    assert json.loads(proven.stdout) == {
        "verified": True,
        "entries": 4,
        "head": str(head),
        "tail_proven": True,
        "entries_after_head": 0,
    }
    earlier = run("verify", "--log", log, *certificate, "--head", head_of(entries[0]))
    assert "entries after the given head" in earlier.stdout


def test_a_der_certificate_will_do(log: Path, coordinator: Credentials, tmp_path: Path) -> None:
    der = tmp_path / "signing.der"
    der.write_bytes(coordinator.signing_certificate_der)
    assert run("verify", "--log", log, "--certificate", der).exit_code == 0


def test_a_log_that_was_changed_or_cut_does_not_verify(
    log: Path, coordinator: Credentials, entries: list[AuditEntry]
) -> None:
    arguments = ("verify", "--log", log, "--certificate", coordinator.signing_certificate)
    log.write_bytes(as_file(entries[:3]))
    cut = run(*arguments, "--head", head_of(entries[3]))
    assert cut.exit_code == 1
    assert "tail was cut" in str(cut.exception)
    log.write_bytes(as_file(entries).replace(b'"round":2', b'"round":3'))
    changed = run(*arguments, "--json")
    assert changed.exit_code == 1
    assert "the audit log does not verify: line 3: the signature does not verify" in str(changed.exception)
    assert json.loads(changed.stdout)["verified"] is False


def test_only_the_coordinators_signing_certificate_is_accepted(
    log: Path, consortium: Consortium, coordinator: Credentials, tmp_path: Path
) -> None:
    def refused(certificate: Path, *more: object) -> BaseException | None:
        return run("verify", "--log", log, "--certificate", certificate, *more).exception

    hospital = consortium.participant("hospital-a")
    stranger = Consortium(tmp_path / "other").coordinator()
    ca = ("--ca", coordinator.tls.ca)
    assert "is this the TLS certificate?" in str(refused(coordinator.tls.certificate))
    assert isinstance(refused(hospital.signing_certificate, *ca), IdentityError)
    assert isinstance(refused(stranger.signing_certificate, *ca), IdentityError)
    assert isinstance(refused(log), ConfigError)


def test_a_head_that_is_none_is_a_usage_error(log: Path, coordinator: Credentials) -> None:
    result = run("verify", "--log", log, "--certificate", coordinator.signing_certificate, "--head", "ABC")
    assert result.exit_code == 2


def test_entries_are_shown_and_chosen(log: Path, coordinator: Credentials) -> None:
    whole = run("show", "--log", log, "--certificate", coordinator.signing_certificate)
    assert whole.exit_code == 0
    assert whole.stdout.count("round_committed") == 4
    assert whole.stderr == ""
    chosen = run("show", "--log", log, "--job", "heart-1", "--kind", "round_committed", "--json")
    assert "nothing was verified" in chosen.stderr
    records = [json.loads(line) for line in chosen.stdout.split("\n") if line]
    assert [record["seq"] for record in records] == [1, 3]
    assert run("show", "--log", log, "--kind", "job_submitted", "--json").stdout == ""


def test_a_log_that_does_not_verify_is_shown_up_to_there(
    log: Path, coordinator: Credentials, entries: list[AuditEntry]
) -> None:
    log.write_bytes(as_file([*entries[:2], entries[3]]))
    result = run("show", "--log", log, "--certificate", coordinator.signing_certificate)
    assert result.exit_code == 1
    assert result.stdout.count("round_committed") == 2
    assert "line 3: expected entry 2, found entry 3" in str(result.exception)
