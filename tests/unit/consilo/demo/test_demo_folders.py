from __future__ import annotations

import shlex
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from consilo.cli import main as consilo
from consilo.demo.cli import demo, line_writer, program, report
from consilo.demo.folders import Federation, claim_folder, free_ports, lay_out
from consilo.demo.outcome import Outcome
from coordinator.client.job_file import load_job_file
from coordinator.client.settings import load_operator
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.config import load_config
from shared.consortium import Consortium
from shared.errors import ConfigError
from shared.identity import Allowlist, Role
from shared.ids import Digest, JobId
from shared.reasons import JobState
from shared.terminal import stdout_console
from shared.tls import check_credentials, check_signing_credentials
from shared.wire.operations import JobDetail
from tests.support.fake_operations import committed, live, status

NOW = datetime.now(UTC)
JOB = JobId("tumour-00112233")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    root = tmp_path_factory.mktemp("demo")
    return lay_out(root, hospitals=3, rounds=5, seed=11, now=NOW)


def test_every_configuration_is_accepted(federation: Federation) -> None:
    coordinator = load_config(federation.coordinator_config, CoordinatorSettings, environment={})
    operator = load_operator(federation.operator_config, environment={})
    assert coordinator.coordinator.listen == (operator.operator.coordinator,)
    identities = {
        check_credentials(coordinator.tls.paths, expected_role=Role.COORDINATOR, now=NOW).identity,
        check_credentials(operator.tls.paths, expected_role=Role.OPERATOR, now=NOW).identity,
    }
    for name in federation.hospitals:
        silo = load_config(federation.participant_config(name), ParticipantSettings, environment={})
        assert silo.participant.id == name
        assert silo.participant.coordinators == (operator.operator.coordinator,)
        checked = check_credentials(silo.tls.paths, expected_role=Role.PARTICIPANT, now=NOW)
        check_signing_credentials(
            certificate=silo.signing.certificate,
            key=silo.signing.key,
            ca=silo.tls.ca,
            expected=checked.identity,
            now=NOW,
        )
        identities.add(checked.identity)
    assert Allowlist.load(coordinator.access.allowlist).entries.keys() == identities


def test_a_hospital_names_only_its_own_folder(federation: Federation) -> None:
    for name in federation.hospitals:
        text = federation.participant_config(name).read_text()
        document = tomllib.loads(text)
        path = Path(document["tasks"]["tumour"]["options"]["rows"])
        assert path.parent == federation.hospital(name)
        assert path.is_file()
        others = [str(federation.hospital(other)) for other in federation.hospitals if other != name]
        assert not any(other in text for other in (*others, str(federation.comparison)))
        assert ".." not in text


def test_the_job_is_ready_but_for_its_model(federation: Federation) -> None:
    federation.initial_model.write_bytes(b"a model")
    spec = load_job_file(federation.job_file).spec
    assert (spec.members, spec.rounds, spec.seed) == (federation.hospitals, 5, 11)
    assert (spec.round.quorum, spec.round.min_survivors) == (3, 3)
    assert spec.metrics == ("loss", "accuracy")
    assert (spec.masking.mode, spec.masking.encoding, spec.masking.max_colluding, spec.threshold) == (
        "masked",
        "u32",
        1,
        3,
    )


def test_every_hospital_pins_the_manifest_that_the_coordinator_has(federation: Federation) -> None:
    coordinator = load_config(federation.coordinator_config, CoordinatorSettings, environment={})
    assert coordinator.consortium is not None
    manifest = Consortium.parse(coordinator.consortium.manifest.read_bytes(), source="manifest")
    for name in federation.hospitals:
        silo = load_config(federation.participant_config(name), ParticipantSettings, environment={})
        assert silo.consortium is not None
        assert silo.consortium.manifest.parent == federation.hospital(name)
        assert (
            Consortium.parse(silo.consortium.manifest.read_bytes(), source="manifest").digest
            == silo.consortium.pinned
            == manifest.digest
        )
        assert manifest.participant_key(silo.participant.id) is not None
        assert not silo.policy.allow_plain


def test_a_plain_demo_is_allowed_by_its_hospitals(tmp_path: Path) -> None:
    federation = lay_out(tmp_path, hospitals=3, rounds=1, seed=1, now=NOW, mode="plain")
    federation.initial_model.write_bytes(b"a model")
    assert not load_job_file(federation.job_file).spec.masking.masked
    silo = load_config(federation.participant_config("hospital-a"), ParticipantSettings, environment={})
    assert silo.policy.allow_plain


def test_the_readme_names_files_that_are_there(federation: Federation) -> None:
    text = (federation.root / "README.txt").read_text()
    named = [word for word in text.split() if word.endswith((".toml", ".crt")) and "/" in word]
    assert len(named) >= 5
    for word in named:
        path = word.rpartition("=")[2]
        assert (federation.root / path).is_file(), path


def test_the_readmes_way_to_renew_keeps_the_keys(federation: Federation) -> None:
    text = (federation.root / "README.txt").read_text()
    command = text.partition("    consilo pki sign ")[2].partition("\n\n")[0].replace("\\\n", "")
    words = shlex.split("pki sign " + command)
    request = federation.hospital("hospital-a") / "credentials" / "request.pem"
    words[words.index("--sha256") + 1] = str(Digest.of(request.read_bytes()))
    arguments = [
        str(federation.root / word) if word.startswith(("consortium/", "hospitals/")) else word for word in words
    ]
    signing = request.with_name("signing.key").read_bytes()
    old = request.with_name("tls.crt").read_bytes()
    assert CliRunner().invoke(consilo, arguments, catch_exceptions=False).exit_code == 0
    assert request.with_name("signing.key").read_bytes() == signing
    assert request.with_name("tls.crt").read_bytes() != old


def test_the_program_is_named_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = tmp_path / "consilo"
    called.write_text("#!/bin/sh\n")
    called.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(called), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "consilo"
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert program() == str(called)
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert program() == "consilo"


def test_keys_are_for_their_owner_only(federation: Federation) -> None:
    keys = list(federation.root.rglob("*.key"))
    assert len(keys) == 2 * 5 + 2  # and the authority's, and the officer's
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)


def test_two_hospitals_agree_to_be_two(tmp_path: Path) -> None:
    federation = lay_out(tmp_path, hospitals=2, rounds=1, seed=1, now=NOW)
    silo = load_config(federation.participant_config("hospital-a"), ParticipantSettings, environment={})
    assert (silo.policy.minimum_members, silo.policy.minimum_survivors, silo.policy.allow_two_party) == (2, 2, True)
    federation.initial_model.write_bytes(b"a model")
    spec = load_job_file(federation.job_file).spec
    assert (spec.masking.allow_two_party, spec.masking.max_colluding, spec.threshold) == (True, 0, 2)
    assert "each learns the other's update" in "\n".join(federation.protection.in_words())


def test_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_folder_with_files_in_it_is_not_taken(tmp_path: Path) -> None:
    claim_folder(tmp_path / "new" / "folder")
    claim_folder(tmp_path / "new" / "folder")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="new or empty"):
        claim_folder(tmp_path)
    result = CliRunner().invoke(demo, ["--keep", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)


@pytest.mark.parametrize("arguments", [["--participants", "1"], ["--rounds", "0"], ["--seed", "-1"]])
def test_numbers_that_make_no_federation_are_wrong_use(arguments: list[str]) -> None:
    assert CliRunner().invoke(demo, arguments).exit_code == 2


def finished_job() -> JobDetail:
    rounds = (
        committed(JOB, 1),
        committed(JOB, 2, dropped={"hospital-b": "disconnected"}),
        committed(JOB, 3, dropped={"hospital-c": "disconnected"}),
    )
    return JobDetail(job=status(JOB, state=JobState.COMPLETED), rounds=rounds, live=None)


def outcome_of(federation: Federation) -> Outcome:
    return Outcome(
        job=finished_job(),
        federated_accuracy=0.97,
        pooled_accuracy=0.98,
        alone_accuracy={"hospital-a": 0.75, "hospital-b": 0.85},
        model_path=federation.root / "model.safetensors",
        model_digest=Digest(bytes(range(32))),
        audit_verified=True,
        audit_head="0" * 64,
        seconds=12.34,
    )


def test_the_outcome_for_machines_has_the_promised_keys(federation: Federation) -> None:
    told = outcome_of(federation).as_json(federation)
    promised = {
        "federated_accuracy", "pooled_accuracy", "alone_accuracy", "rounds", "rounds_committed", "dropped", "back_in",
        "masking", "members", "threshold", "max_colluding", "model_path", "model_digest", "audit_verified",
    }  # fmt: skip
    assert promised <= told.keys()
    assert told["dropped"] == [
        {"participant": "hospital-b", "round": 2, "reason": "disconnected"},
        {"participant": "hospital-c", "round": 3, "reason": "disconnected"},
    ]
    assert told["back_in"] == [{"participant": "hospital-b", "round": 3}]
    assert (told["masking"], told["rounds"], told["rounds_committed"]) == ("masked", 5, 3)
    assert (told["members"], told["threshold"], told["max_colluding"]) == (3, 3, 1)


def test_the_outcome_for_people_compares(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print(report(federation, outcome_of(federation)))
    text = capsys.readouterr().out
    for part in ("hospital-a alone", "0.750", "mean of the hospitals alone", "0.800", "0.970", "0.980", "README.txt"):
        assert part in text
    assert "hospital-b in round 2: disconnected" in text
    assert "hospital-b in round 3" in text
    assert "masked: 3 members, 3 must help to open a total, 1 may collude with the coordinator" in text


def test_each_finished_round_is_written_once() -> None:
    lines: list[str] = []
    watcher = line_writer(lines.append)
    whole = finished_job()
    watcher(JobDetail(job=status(JOB), rounds=(), live=live(JOB, 1)))
    watcher(JobDetail(job=status(JOB), rounds=whole.rounds[:1], live=live(JOB, 2)))
    watcher(whole)
    watcher(whole)
    assert [line[:8] for line in lines] == ["round 1 ", "round 2 ", "round 3 "]
