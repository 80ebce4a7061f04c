"""Configuration is strict, and its complaints say where, what was expected and what came."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.config import load_config, split_address
from shared.errors import ConfigError
from shared.ids import Digest

SAMPLES = Path(__file__).parents[3] / "deploy" / "samples"
COORDINATOR = SAMPLES / "coordinator.minimal.toml"
PARTICIPANT = SAMPLES / "participant.minimal.toml"
PARTICIPANT_FULL = SAMPLES / "participant.full.toml"


def _coordinator(path: Path = COORDINATOR, **environment: str) -> CoordinatorSettings:
    return load_config(path, CoordinatorSettings, environment=environment)


def _participant(path: Path = PARTICIPANT, **environment: str) -> ParticipantSettings:
    return load_config(path, ParticipantSettings, environment=environment)


def test_the_minimal_samples_have_the_documented_defaults() -> None:
    coordinator, participant = _coordinator(), _participant()
    assert coordinator.coordinator.listen == ("127.0.0.1:8443",)
    assert coordinator.metrics.address == ("127.0.0.1", 9464)
    assert participant.metrics.address == ("127.0.0.1", 9465)
    assert participant.policy.minimum_members == 3
    assert participant.policy.allowed_jobs == ("*",)
    assert participant.policy.approved_jobs == ()
    assert participant.tasks["heart"].threads == 0  # type: ignore[index] # a TaskName in the model


def test_the_full_samples_say_the_defaults() -> None:
    assert _coordinator(SAMPLES / "coordinator.full.toml") == _coordinator()
    full, minimal = _participant(PARTICIPANT_FULL), _participant()
    assert full.model_copy(update={"tasks": minimal.tasks}) == minimal


def _tables(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= _tables(part)
    return found


def test_every_key_is_described_and_nothing_changes_afterwards() -> None:
    for table in _tables(CoordinatorSettings) | _tables(ParticipantSettings):
        assert table.model_config["extra"] == "forbid"
        assert all(field.description for field in table.model_fields.values()), table
    with pytest.raises(ValidationError, match="frozen"):
        _coordinator().log.level = "debug"  # type: ignore[misc] # the point


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    text = COORDINATOR.read_text().replace('"allowlist.toml"', '"/etc/allowlist.toml"')
    (tmp_path / "c.toml").write_text(text)
    settings = _coordinator(tmp_path / "c.toml", CONSILO_COORDINATOR__DATA_DIR="../elsewhere")
    assert settings.tls.paths.key == tmp_path / "credentials" / "tls.key"
    assert settings.access.allowlist == Path("/etc/allowlist.toml")
    assert settings.coordinator.data_dir == tmp_path / ".." / "elsewhere"


def test_a_table_that_may_be_left_out(tmp_path: Path) -> None:
    text = PARTICIPANT.read_text()
    (tmp_path / "participant.toml").write_text(text[: text.index("[consortium]")])
    assert _participant(tmp_path / "participant.toml").consortium is None
    there = {"CONSILO_CONSORTIUM__MANIFEST": "m.json", "CONSILO_CONSORTIUM__DIGEST": 64 * "1"}
    table = _participant(tmp_path / "participant.toml", **there).consortium
    assert table is not None
    assert (table.manifest, table.pinned) == (tmp_path / "m.json", Digest(32 * b"\x11"))
    with pytest.raises(ConfigError, match=r"CONSILO_CONSORTIUM__PIN: no such key; .*digest, manifest"):
        _participant(CONSILO_CONSORTIUM__PIN="1")


def test_how_many_colluding_members_a_silo_wants_withstood() -> None:
    assert _participant().policy.minimum_colluding == "auto"
    assert _participant(CONSILO_POLICY__MINIMUM_COLLUDING="2").policy.minimum_colluding == 2
    assert _participant(CONSILO_POLICY__MINIMUM_COLLUDING="auto").policy.minimum_colluding == "auto"
    allowed = _participant(CONSILO_POLICY__ALLOWED_REPEATS='["heart-2", "heart-3"]').policy.allowed_repeats
    assert allowed == ("heart-2", "heart-3")


def test_the_environment_takes_the_place_of_keys() -> None:
    settings = _participant(
        PATH="/bin",
        CONSILO_BUILD_REVISION="abc",
        CONSILO_PARTICIPANT__ID="7",
        CONSILO_PARTICIPANT__COORDINATORS='["a.example:1", "[::1]:2"]',
        CONSILO_POLICY__MINIMUM_MEMBERS="5",
        CONSILO_POLICY__ALLOW_PLAIN="false",
        CONSILO_POLICY__MAX_DEADLINE_S="60",
        CONSILO_METRICS__LISTEN="off",
    )
    assert settings.participant.id == "7"
    assert settings.participant.coordinators == ("a.example:1", "[::1]:2")
    assert settings.policy.minimum_members == 5
    assert not settings.policy.allow_plain
    assert settings.policy.max_deadline_s == 60.0
    assert settings.metrics.address is None
    assert _coordinator(CONSILO_COORDINATOR__LISTEN="0.0.0.0:1").coordinator.listen == ("0.0.0.0:1",)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[policy]", "[policy]\nminimum_member = 2", r"policy.minimum_member: unknown key; .*minimum_members"),
        ("[policy]", "[polcy]", r"polcy: unknown key; expected one of .*policy"),
        (
            "[policy]",
            "[policy]\nminimum_members = 0",
            r"policy.minimum_members: expected at least 1, got 0",
        ),
        ("[policy]", "[policy]\nminimum_members = '3'", r"expected a whole number, got '3'"),
        ("[policy]", "[policy]\nminimum_members = true", r"expected a whole number, got true"),
        ("[policy]", "[policy]\nmax_deadline_s = inf", r"policy.max_deadline_s"),
        ("allow_plain = false", "allow_plain = 1", r"policy.allow_plain: expected true or false, got 1"),
        ("[policy]", "[policy]\nminimum_survivors = 1", r"policy.minimum_survivors: expected at least 2, got 1"),
        ("[policy]", "[policy]\nminimum_colluding = 'all'", r"minimum_colluding: expected \"auto\" or .*got 'all'"),
        ("[policy]", "[policy]\napproved_jobs = ['heart']", r"policy.approved_jobs.0: .*heart"),
        ("[policy]", "[policy]\nminimum_colluding = -1", r"minimum_colluding: expected \"auto\" or .*got -1"),
        ("[policy]", "[policy]\nminimum_colluding = true", r"minimum_colluding: expected \"auto\" or .*got True"),
        ("[policy]", "[policy]\nallowed_repeats = ['Heart 1']", r"policy.allowed_repeats.0: .*a job id has"),
        ('manifest = "consortium.json"', "", r"consortium.manifest: it is missing"),
        (f'digest = "{64 * "0"}"', "", r"consortium.digest: it is missing"),
        (f'digest = "{64 * "0"}"', 'digest = "00 00"', r"consortium.digest: expected 64 .*, got '00 00'"),
        ("[consortium]", "[consortium]\npin = 1", r"consortium.pin: unknown key; expected one of digest, manifest"),
        ('id = "hospital-a"', "", r"participant.id: it is missing"),
        ('id = "hospital-a"', 'id = "Hospital A"', r"participant.id: .*a-z"),
        (":8443", "", r"participant.coordinators.0: .*expected host:port"),
        (":8443", ":84430", r"expected host:port"),
        ('["coordinator.hearts.example:8443"]', "[]", r"participant.coordinators: .*at least 1"),
        (
            "heart_study.task:HeartTask",
            "heart_study.task",
            r"tasks.heart.entry: expected .*package.module:ClassName, got 'heart_study.task'",
        ),
        ("heart_study.task", "shared.task", r"package named 'shared'"),
        ("[tasks.heart]", "[tasks.Heart]", r"tasks.Heart"),
        ("[tasks.heart]", "[tasks.heart]\noptions.since = 2020-01-01", r"got the date 2020-01-01"),
        ("[tasks.heart]", "[tasks.heart]\noptions.days = [[[2020-01-01]]]", r"options.days: .*got the date 2020"),
        (
            "[tasks.heart]",
            "[tasks.heart]\noptions.days = [[{of = 12:00:00}]]",
            r"options.days.of: .*got the time",
        ),
        ('data_dir = "data"', "data_dir = 3", r"participant.data_dir: .*got 3"),
        ("[policy]", "[policy", r"not TOML.*line"),
        ("[policy]", '[training]\ndevice = "tpu"\n[policy]', r"training.device: expected .*'cuda'.*, got 'tpu'"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "participant.toml"
    text = PARTICIPANT.read_text() + "\n[policy]\nallow_plain = false\n"
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=complaint) as caught:
        _participant(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("CONSILO_POLICY__MINIMUM_MEMBER", "2", "no such key; .*minimum_members"),
        ("CONSILO_POLCY__MINIMUM_MEMBERS", "2", "no such table; expected one of .*policy"),
        ("CONSILO_TASKS__HEART", "x", "set it in the file"),
        ("CONSILO_POLICY__MINIMUM_MEMBERS", "0", r"expected at least 1, got 0"),
        ("CONSILO_POLICY__MINIMUM_MEMBERS", "few", r"expected a whole number, got 'few'"),
        ("CONSILO_METRICS__LISTEN", "9464", r"expected host:port.*'9464'"),
    ],
)
def test_mistakes_in_the_environment(variable: str, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_config(PARTICIPANT, ParticipantSettings, environment={variable: text})
    assert variable in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        _participant(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        _participant(tmp_path / "binary.toml")


def test_addresses_split() -> None:
    assert split_address("[::1]:8443") == ("::1", 8443)
    assert split_address("coordinator.example:443") == ("coordinator.example", 443)
