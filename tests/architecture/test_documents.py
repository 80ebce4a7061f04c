"""What the documents promise: links that lead somewhere, configurations that parse, tables that the code bears out."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel

from coordinator.client.job_file import JobFile, MaskingTable
from coordinator.client.settings import OperatorSettings
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings, PolicyTable
from shared.config import load_config
from shared.job import MaskingSpec
from shared.reasons import AbortReason, AttemptAbortReason, ConsentRule, DropReason
from shared.secagg.threshold import default_max_colluding, threshold
from shared.update import Encoding

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "protos/*.md", "examples/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

# Which file a block of TOML is, by a table or key that only that file has.
KINDS: dict[str, type[BaseModel]] = {
    "participant": ParticipantSettings,
    "coordinator": CoordinatorSettings,
    "operator": OperatorSettings,
    "rounds": JobFile,
}
SCHEMAS = {"job" if kind == "rounds" else kind: model for kind, model in KINDS.items()}


def anchors_of(document: Path) -> set[str]:
    """The anchors that a hosting site makes of headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks_of_toml() -> list[tuple[str, type[BaseModel], str]]:
    """(document, what it is, text) of every block that is a whole file."""
    found = []
    for document in DOCUMENTS:
        for text in re.findall(r"^```toml\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            keys = tomllib.loads(text).keys()
            found += [(document.name, model, text) for key, model in KINDS.items() if key in keys]
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize(
    ("model", "text"),
    [(model, text) for _, model, text in blocks_of_toml()],
    ids=[f"{name}-{model.__name__}" for name, model, _ in blocks_of_toml()],
)
def test_configurations_in_documents_parse(model: type[BaseModel], text: str, tmp_path: Path) -> None:
    path = tmp_path / "from-document.toml"
    path.write_text(text, encoding="utf-8")
    load_config(path, model, environment={})
    name = next(kind for kind, known in SCHEMAS.items() if known is model)
    schema = json.loads((ROOT / "deploy" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft7Validator(schema).validate(tomllib.loads(text))


def test_the_blocks_were_found() -> None:
    assert {model for _, model, _ in blocks_of_toml()} >= {ParticipantSettings, OperatorSettings, JobFile}


# --- tables of the guides ---------------------------------------------------------------------------------------------


def tables_of(name: str) -> Iterator[list[list[str]]]:
    """Every table of a guide: rows of cells, the heading first."""
    table: list[list[str]] = []
    for line in [*(ROOT / "docs" / name).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if set("".join(cells)) - set("-: "):
                table.append(cells)
        elif table:
            yield table
            table = []


def table_with(name: str, first: str) -> list[list[str]]:
    """The one table of a guide whose heading begins with that cell; its heading left out."""
    (found,) = [table for table in tables_of(name) if table[0][0] == first]
    return found[1:]


def test_the_table_of_thresholds_is_computed() -> None:
    (table,) = [table for table in tables_of("masking.md") if table[0][0] == "members (n)"]
    members, colluding, needed, spare = ([int(cell) for cell in row[1:]] for row in table)
    assert colluding == [default_max_colluding(count) for count in members]
    assert needed == [threshold(count, c) for count, c in zip(members, colluding, strict=True)]
    assert spare == [count - t for count, t in zip(members, needed, strict=True)]


def test_the_keys_of_masking_are_those_of_a_job_file() -> None:
    (rows,) = [table[1:] for table in tables_of("masking.md") if ["`mode`", '`"masked"`'] in [row[:2] for row in table]]
    assert [row[0].strip("`") for row in rows] == list(MaskingTable.model_fields)
    for key, default, _ in rows:
        field = MaskingSpec.model_fields[key.strip("`")]
        if field.is_required():
            assert default == "by the number of members"
        else:
            assert json.loads(default.strip("`")) == field.default, key


def test_the_encodings_have_their_bytes() -> None:
    rows = table_with("masking.md", "encoding")
    said = {row[0].strip("`"): int(row[1].partition(",")[0].partition(";")[0]) for row in rows}
    assert said == {each.name.lower(): each.word_bytes for each in Encoding if each.masked}


def test_the_policy_keys_of_masked_jobs_have_their_defaults() -> None:
    rows = table_with("guide-silo.md", "key under `[policy]`")
    for key, default, _ in rows:
        known = PolicyTable.model_fields[key.strip("`")].default
        assert (list(known) if isinstance(known, tuple) else known) == (
            [] if default == "none" else json.loads(default.strip("`"))
        ), key
    plain = {"allow_plain", "allowed_jobs", "max_deadline_s", "share_progress"}
    assert {key.strip("`") for key, *_ in rows} == PolicyTable.model_fields.keys() - plain


def test_the_reasons_that_a_guide_explains_exist() -> None:
    """A word in the first column of the guide's table of reasons is one that a reader can meet."""
    known = {*AbortReason, *DropReason, *ConsentRule, *AttemptAbortReason, "range_miss"}
    told = {word for row in table_with("masking.md", "you see") for word in re.findall(r"`([a-z_]+)`", row[0])}
    assert told <= known
    assert told >= {
        AbortReason.UNOPENABLE,
        AbortReason.TOTAL_REFUSED,
        DropReason.EXCHANGE_LATE,
        DropReason.ATTEMPT_LEFT,
    }


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\[(\d{4})\]\((\d{4})[^)]*\.md\)", (ROOT / "docs/adr/README.md").read_text(encoding="utf-8"))
    files = sorted(path.name[:4] for path in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [number for number, _ in listed] == [target for _, target in listed] == files
