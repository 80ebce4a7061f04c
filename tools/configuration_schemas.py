"""Write deploy/schemas, a JSON Schema of each file that a person writes, or say which is stale (`--check`).

They are made from the models that read the files. An editor that knows them completes keys, shows what they mean and
marks a misspelt one; what depends on two keys, or on a file that is named, is looked at by Consilo alone. References
are written out, so that every dialect of JSON Schema reads them alike.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from coordinator.client.job_file import JobFile
from coordinator.client.settings import OperatorSettings
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.job import MaskingSpec, RoundPolicy

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "schemas"
FILES: dict[str, type[BaseModel]] = {
    "coordinator": CoordinatorSettings,
    "participant": ParticipantSettings,
    "operator": OperatorSettings,
    "job": JobFile,
}
# A job file may leave these keys out; what they become, their bounds and what they mean stands in another model.
RESOLVED_BY: dict[str, type[BaseModel]] = {"round": RoundPolicy, "masking": MaskingSpec}
UNITS = {"_s": "seconds", "_bytes": "bytes"}  # by how a key's name ends

Schema = dict[str, Any]


def schema_of(name: str) -> Schema:
    """The schema of one file."""
    raw = FILES[name].model_json_schema()
    schema = _plain(raw, raw.get("$defs", {}))
    if name == "job":
        for section, model in RESOLVED_BY.items():
            _resolve(schema["properties"][section]["properties"], model)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"{name}.toml of Consilo",
        **{key: value for key, value in schema.items() if key != "description"},
    }


def unit_of(key: str) -> str | None:
    return next((unit for end, unit in UNITS.items() if key.endswith(end)), None)


def _resolve(properties: Schema, model: type[BaseModel]) -> None:
    resolved = model.model_json_schema()["properties"]
    for key, own in properties.items():
        said = _with_unit(key, _plain(resolved[key], {}))
        words = [said["description"], own.get("description")]
        properties[key] = {**said, "description": " ".join(word for word in words if word)}


def _plain(node: Any, definitions: Schema) -> Any:
    """Without references, titles that repeat a key, and the null of what may be left out."""
    if isinstance(node, list):
        return [_plain(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
    if "anyOf" in node:
        choices = [each for each in node["anyOf"] if each != {"type": "null"}]
        if len(choices) == 1:
            return _plain({**choices[0], **{k: v for k, v in node.items() if k != "anyOf"}}, definitions)
    plain = {key: _plain(value, definitions) for key, value in node.items() if key not in {"$defs", "title"}}
    if "properties" in node:
        _describe_keys(plain, node, definitions)
    elif plain.get("default", ...) is None:
        del plain["default"]
    return plain


def _describe_keys(plain: Schema, node: Schema, definitions: Schema) -> None:
    """A table's default is its keys' defaults: that is where a reader looks for them."""
    defaults = plain.pop("default", None) or {}
    plain["properties"] = {}
    for key, value in node["properties"].items():
        described = _with_unit(key, _plain(value, definitions))
        if defaults.get(key) is not None and "properties" not in described:
            described.setdefault("default", defaults[key])
        plain["properties"][key] = described


def _with_unit(key: str, schema: Schema) -> Schema:
    unit, said = unit_of(key), schema.get("description", "")
    return {**schema, "description": f"{said} In {unit}."} if unit and said and unit not in said else schema


def text_of(name: str) -> str:
    return json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.schema.json"


def stale() -> list[str]:
    """What is not as it would be written."""
    return [
        str(path_of(name).relative_to(FOLDER.parents[1]))
        for name in FILES
        if not path_of(name).exists() or path_of(name).read_text("utf-8") != text_of(name)
    ]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        complaints = stale()
        for complaint in complaints:
            print(f"{complaint} is stale: run `make docs` and commit the result", file=sys.stderr)
        raise SystemExit(1 if complaints else 0)
    FOLDER.mkdir(exist_ok=True)
    for each in FILES:
        path_of(each).write_text(text_of(each), "utf-8")
