"""Write docs/configuration.md, every key of every file that a person writes, or say that it is stale (`--check`).

It is made from the schemas of configuration_schemas.py, and so from the models that read the files; by `make docs`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from configuration_schemas import Schema, schema_of, unit_of

from coordinator.client.settings import OWN_VARIABLES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
COLUMNS = "| key | type | default | meaning | variable |\n|---|---|---|---|---|"
COLUMNS_WITHOUT_VARIABLE = "| key | type | default | meaning |\n|---|---|---|---|"

INTRODUCTION = """\
# Configuration

<!-- Written by tools/render_configuration_docs.py from the models that read the files: change them and `make docs`. -->

Every key of the four files that people write, all of them TOML. An unknown key is an error, never a no-op; so is a
value of another type. A key without a default is **required**; in a table that may be left out, when the table is
there. Relative paths count from the folder of the file. Secrets stand in no file: keys are named by path.

`CONSILO_<SECTION>__<KEY>` in the environment takes the place of a key, where the last column names one: for containers,
where a file is shared and a port is not. Its value is the text itself where the key takes text, and otherwise what TOML
reads there (`true`, `3`, `["a", "b"]`). Besides these, `CONSILO_OPERATOR_CONFIG` says where `operator.toml` is, and
`CONSILO_BUILD_REVISION` which revision an image was built from (`consilo version`).

[Samples](../deploy/samples) show each file twice: with the least that it needs, and with every key and its default.
Copy one and check it: `consilo coordinator check`, `consilo participant check`, `consilo job digest job.toml`.

**In an editor.** [JSON Schemas](../deploy/schemas) of the four files complete keys, show what they mean and say what
is misspelt. Editors with the TOML language server Taplo (in VS Code: Even Better TOML) follow a first line like the
samples'; in a copy, let it lead to where the schema is:

```toml
#:schema /path/to/consilo/deploy/schemas/participant.schema.json
```

What depends on two keys at once, or on a file that is named, only Consilo's own check looks at.
"""
WHAT = {
    "coordinator": "Read by `consilo coordinator`. The [guide for operators](guide-operator.md) uses it.",
    "participant": "Read by `consilo participant`: the silo's own word. The [guide for silo IT](guide-silo.md) has it.",
    "operator": (
        "Read by `consilo job`, `model` and `audit`: where `--config` says, else `CONSILO_OPERATOR_CONFIG`, else in "
        "the working folder."
    ),
    "job": (
        "Read by `consilo job submit` and `digest`, which fill in every default: what is hashed, approved and run "
        "leaves nothing out. The [guide for data scientists](guide-data-scientist.md) uses it, [Masking](masking.md) "
        "explains `[masking]`."
    ),
}
# Tables whose names or keys are the writer's own.
OPEN_TABLES = {"training": "Whatever keys the task asks for.", "tasks": "One table for each task."}


def page() -> str:
    return "\n".join([INTRODUCTION, *(part for name in WHAT for part in file_parts(name))])


def file_parts(name: str) -> Iterator[str]:
    schema = schema_of(name)
    yield f"## {name}.toml\n\n{WHAT[name]}\n"
    top = {key: value for key, value in schema["properties"].items() if value.get("type") != "object"}
    if top:
        yield f"At the top:\n\n{keys_table({**schema, 'properties': top}, '', variables=False)}\n"
    for section, table in schema["properties"].items():
        if section in top:
            continue
        title, keys = section, table
        if section == "tasks":
            title, keys = "tasks.NAME", table["additionalProperties"]
        words = [table["description"]]
        if table["additionalProperties"] is not False:
            words.append(OPEN_TABLES[section])
        elif section not in schema["required"] and needs_something(table):
            words.append("The table may be left out.")
        yield f"### `[{title}]`\n\n{' '.join(words)}\n"
        if "properties" in keys:
            yield keys_table(keys, section, variables=has_variables(name, section)) + "\n"


def needs_something(table: Schema) -> bool:
    return any("default" not in table["properties"][key] for key in table.get("required", ()))


def has_variables(name: str, section: str) -> bool:
    """Where the environment may take the place of a key (shared.config)."""
    if name == "operator":
        return f"CONSILO_{section.upper()}__" in OWN_VARIABLES
    return name != "job" and section != "tasks"


def keys_table(table: Schema, section: str, *, variables: bool) -> str:
    rows = [COLUMNS if variables else COLUMNS_WITHOUT_VARIABLE]
    for key, schema in table["properties"].items():
        cells = [f"`{key}`", type_of(key, schema), default_of(key, table), schema["description"]]
        if variables:
            cells.append(f"`CONSILO_{section.upper()}__{key.upper()}`")
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def default_of(key: str, table: Schema) -> str:
    schema = table["properties"][key]
    if "default" in schema:
        return f"`{json.dumps(schema['default'], ensure_ascii=False)}`"
    return "**required**" if key in table.get("required", ()) else "-"


def type_of(key: str, schema: Schema) -> str:
    unit = unit_of(key)
    return f"{kind_of(schema)}, {unit}" if unit else kind_of(schema)


def kind_of(schema: Schema) -> str:
    """A type in words, with its bounds."""
    if "anyOf" in schema:
        return " or ".join(kind_of(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return f"whole number{bounds_of(schema)}"
        case "number":
            return f"number{bounds_of(schema)}"
        case "array":
            most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
            return f"list of {kind_of(schema['items'])}{most}"
        case "object":
            return "table"
        case _:
            return {"path": "path", "host:port": "host:port"}.get(schema.get("format", ""), "text")


def bounds_of(schema: Schema) -> str:
    if {"minimum", "maximum"} <= schema.keys():
        return f" from {figure(schema['minimum'])} to {figure(schema['maximum'])}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{word} {figure(schema[bound])}" for bound, word in words.items() if bound in schema]
    return f" {' and '.join(said)}" if said else ""


def figure(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def check() -> int:
    kept = PAGE.read_text("utf-8") if PAGE.exists() else ""
    if kept == page():
        return 0
    print("docs/configuration.md is stale: run `make docs` and commit the result", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        raise SystemExit(check())
    PAGE.write_text(page(), "utf-8")
