"""The schemas that editors know say what Consilo says: of every sample, of misspelt keys, of values out of bounds."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel

from coordinator.client.job_file import JobFile
from coordinator.client.settings import OperatorSettings
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.config import load_config
from shared.errors import ConfigError

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "deploy" / "samples"
MODELS: dict[str, type[BaseModel]] = {
    "coordinator": CoordinatorSettings,
    "participant": ParticipantSettings,
    "operator": OperatorSettings,
    "job": JobFile,
}
FILES = [*sorted(SAMPLES.glob("*.toml")), *sorted((ROOT / "examples").rglob("job.toml"))]
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((ROOT / "deploy" / "schemas" / f"{name}.schema.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)
    return schema


def _kind(path: Path) -> str:
    return path.name.partition(".")[0]


def _tables(schema: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(where, its schema) of each table with a fixed set of keys; a task of the participant's is called heart."""
    if "properties" in schema:
        yield place, schema
        for key, below in schema["properties"].items():
            yield from _tables(below, (*place, key))
    elif schema.get("additionalProperties"):
        yield from _tables(schema["additionalProperties"], (*place, "heart"))


def _at(document: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for key in place:
        document = document[key]
    return document


def test_there_are_two_samples_of_each_file() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == {
        f"{name}.{size}.toml" for name in MODELS for size in ("minimal", "full")
    }


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_sample_is_valid_and_names_its_schema(path: Path) -> None:
    first, _, _ = path.read_text("utf-8").partition("\n")
    schema = (path.parent / first.removeprefix("#:schema ")).resolve()
    assert schema == ROOT / "deploy" / "schemas" / f"{_kind(path)}.schema.json"
    Draft7Validator(_schema(_kind(path))).validate(tomllib.loads(path.read_text("utf-8")))


@pytest.mark.parametrize("name", MODELS)
def test_a_full_sample_has_every_key_with_its_default(name: str) -> None:
    text = (SAMPLES / f"{name}.full.toml").read_text("utf-8")
    full = tomllib.loads(text)
    for place, table in _tables(_schema(name)):
        there = _at(full, place)
        # What is not set unless somebody sets it has no value to stand there: it is shown in a remark.
        without = {key for key in table["properties"].keys() - there.keys() if f"\n#   {key} = " in text}
        assert without <= table["properties"].keys() - set(table.get("required", ()))
        assert there.keys() == table["properties"].keys() - without, place
        for key in there:
            assert there[key] == table["properties"][key].get("default", there[key]), (*place, key)


@pytest.mark.parametrize("name", MODELS)
def test_a_misspelt_key_is_refused_by_both(name: str, tmp_path: Path) -> None:
    text = (SAMPLES / f"{name}.full.toml").read_text("utf-8")
    refused = 0
    for place, _ in _tables(_schema(name)):
        heading = f"[{'.'.join(place)}]\n"
        wrong = text.replace(heading, f"{heading}mispelt = 1\n") if place else f"mispelt = 1\n{text}"
        _refused_by_both(name, wrong, tmp_path)
        refused += 1
    assert refused >= {"coordinator": 9, "participant": 9, "operator": 4, "job": 4}[name]


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("coordinator", 'listen = ["127.0.0.1:8443"]', 'listen = "8443"'),
        ("coordinator", 'listen = "127.0.0.1:9464"', "listen = 9464"),
        ("coordinator", "keep_versions = 0", "keep_versions = -1"),
        ("coordinator", 'level = "info"', 'level = "loud"'),
        ("participant", "minimum_members = 3", "minimum_members = 0"),
        ("participant", 'minimum_colluding = "auto"', 'minimum_colluding = "none"'),
        ("participant", 'minimum_colluding = "auto"', "minimum_colluding = -1"),
        ("participant", "max_deadline_s = 86400", 'max_deadline_s = "86400"'),
        ("participant", "share_progress = true", 'share_progress = "true"'),
        ("participant", 'entry = "heart_study.task:HeartTask"', 'entry = "heart_study/task.py"'),
        ("operator", 'coordinator = "coordinator.hearts.example:8443"', 'coordinator = "coordinator.hearts.example"'),
        ("job", "rounds = 10", "rounds = 0"),
        ("job", 'mode = "masked"', 'mode = "open"'),
        ("job", 'members = ["hospital-a", "hospital-b", "hospital-c", "hospital-d"]', "members = []"),
    ],
)
def test_a_value_that_nobody_takes_is_refused_by_both(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = (SAMPLES / f"{name}.full.toml").read_text("utf-8")
    assert right in text
    _refused_by_both(name, text.replace(right, wrong), tmp_path)


def test_the_bounds_of_a_job_are_those_of_what_it_becomes() -> None:
    """A job file's own model leaves them to the resolved one: here the schema alone says no."""
    validator = Draft7Validator(_schema("job"))
    document = tomllib.loads((SAMPLES / "job.full.toml").read_text("utf-8"))
    for section, key, wrong in (("round", "attempts", 0), ("round", "deadline_s", -1), ("masking", "encoding", "u8")):
        changed = {**document, section: {**document[section], key: wrong}}
        assert [list(error.path) for error in validator.iter_errors(changed)] == [[section, key]]


def _refused_by_both(name: str, text: str, folder: Path) -> None:
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    assert not Draft7Validator(_schema(name)).is_valid(tomllib.loads(text))
    with pytest.raises(ConfigError):
        load_config(path, MODELS[name], environment={})
