"""PROTOCOL.md says what the code does: its tables and worked examples are read and compared, in both directions.

A constant, reason, phase or method that is in one and not in the other fails here, so that the document cannot rot.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coordinator.rpc.authorization import MATRIX
from shared.hashing import tagged_hash
from shared.ids import Digest
from shared.job import JobSpec, jobspec_digest, parse_jobspec
from shared.pb.v1 import session_pb2
from shared.protocol.phases import TABLE, Kind, Phase, Role
from shared.reasons import AbortReason, ConsentRule, DropReason, RefusalReason
from shared.tensors import encode_header
from shared.update import DType, Encoding, ModelManifest, StatisticsLayout, TensorSpec, UpdateLayout, update_digest
from shared.wire.sealed import _CODECS, decode_update_header
from shared.wire.status import STATUS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "protos/PROTOCOL.md").read_text(encoding="utf-8")

# Every number that these modules name in capitals stands in section 11.
WITH_LIMITS = (
    "shared.ids",
    "shared.identity",
    "shared.certificates",
    "shared.job",
    "shared.update",
    "shared.tensors",
    "shared.protocol.messages",
    "shared.wire.fields",
    "shared.wire.session",
    "shared.wire.sealed",
    "shared.wire.transfer",
    "shared.wire.operations",
    "coordinator.round.machine",
    "coordinator.rpc.opening",
    "coordinator.rpc.session",
    "coordinator.rpc.sessions",
    "coordinator.rpc.transfer",
    "coordinator.rpc.operations",
    "participant.rpc.session",
    "participant.rpc.transfer",
    "participant.backoff",
)

Row = dict[str, str]


def section(number: str) -> str:
    """The text under a heading, up to the next heading of the same depth or above."""
    depth = "##" if "." not in number else "###"
    found = re.search(
        rf"^{depth} {re.escape(number)}\.? [^\n]*\n(.*?)(?=^#{{2,{len(depth)}}} |\Z)",
        DOCUMENT,
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, f"PROTOCOL.md has no section {number}"
    return found[1]


def rows_of(text: str) -> Iterator[Row]:
    """Every row of every table in `text`, by column."""
    columns: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if not columns:
            columns = cells
        elif set("".join(cells)) - set("-: "):
            yield dict(zip(columns, cells, strict=True))


def number_of(text: str) -> float:
    return float(text.replace(",", ""))


def constant(where: str, name: str) -> float:
    """A module's constant, or `Class.field` for the default of a dataclass."""
    module = importlib.import_module(where)
    owner, dot, field = name.partition(".")
    if not dot:
        return float(getattr(module, name))
    defaults = {known.name: known.default for known in dataclasses.fields(getattr(module, owner))}
    return float(str(defaults[field]))


def limits() -> list[Row]:
    return list(rows_of(section("11")))


def test_sections_are_numbered_in_order_without_a_gap() -> None:
    numbers = [int(found) for found in re.findall(r"^## (\d+)\. ", DOCUMENT, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("row", limits(), ids=lambda row: f"{row['where']}.{row['constant']}")
def test_a_limit_has_the_value_that_the_code_has(row: Row) -> None:
    assert number_of(row["value"]) == constant(row["where"], row["constant"])
    assert row["why"]


@pytest.mark.parametrize("module", WITH_LIMITS)
def test_every_named_number_stands_in_section_11(module: str) -> None:
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    names = {
        target.id
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id)
    }
    loaded = importlib.import_module(module)
    numbers = {name for name in names if type(getattr(loaded, name)) in {int, float}}
    said = {row["constant"] for row in limits() if row["where"] == module and "." not in row["constant"]}
    assert said == numbers


def test_the_phase_table_is_the_codes_table() -> None:
    said = {
        (Role(row["said by"]), Phase(phase), Kind(row["message"])): Phase(cell)
        for row in rows_of(section("5.2"))
        for phase, cell in row.items()
        if phase not in {"message", "said by"} and cell != "-"
    }
    assert said == TABLE
    assert {row["message"] for row in rows_of(section("5.2"))} == set(Kind)


@pytest.mark.parametrize(
    ("number", "reasons", "column", "wire"),
    [
        ("9.1", AbortReason, "reason", session_pb2.AbortReason),
        ("9.2", DropReason, "reason", session_pb2.DropReason),
        ("9.3", ConsentRule, "rule", session_pb2.ConsentRule),
        ("9.4", RefusalReason, "reason", session_pb2.RefusalReason),
    ],
)
def test_reasons_are_the_codes_and_the_wires(
    number: str, reasons: type[StrEnum], column: str, wire: EnumTypeWrapper
) -> None:
    rows = list(rows_of(section(number)))
    assert {row[column] for row in rows} == {reason.value for reason in reasons}
    for row in rows:
        assert wire.Name(int(row["number"])).endswith("_" + row[column].upper())
        assert row["meaning"]
        assert row["what to do"]
    assert len(rows) == len(wire.values()) - 1  # all but UNSPECIFIED


def test_who_says_a_drop_reason() -> None:
    """The enumeration's two blocks: the participant's reasons come first."""
    by_participant = [row["reason"] for row in rows_of(section("9.2")) if row["said by"] == "participant"]
    assert by_participant == list(DropReason)[: len(by_participant)]
    assert by_participant[-1] == DropReason.LOST


def keys_of(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in table.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from keys_of(nested, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def test_the_keys_of_a_job_are_all_there_with_their_defaults() -> None:
    rows = {row["key"]: row for row in rows_of(section("3.2"))}
    fields = dict(keys_of(JobSpec))
    assert rows.keys() == fields.keys()
    for key, field in fields.items():
        if field.is_required():
            assert rows[key]["default"].startswith("required"), key
        else:
            default = field.get_default(call_default_factory=True)
            assert json.loads(rows[key]["default"]) == (list(default) if isinstance(default, tuple) else default), key


def test_the_example_job_is_canonical_and_has_its_digest() -> None:
    found = re.search(r"```json\n(.*?)\n```\n\n`([0-9a-f]{64})`", section("3.2"), re.DOTALL)
    assert found is not None
    parse_jobspec(found[1].encode())
    assert str(jobspec_digest(found[1].encode())) == found[2]


def test_labels_of_hashes_are_those_in_use() -> None:
    in_code = set()
    for path in (path for house in ("shared", "coordinator", "participant") for path in (ROOT / house).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "tagged_hash":
                label = call.args[0]
                in_code.add(label.value if isinstance(label, ast.Constant) else "audit")
    assert {row["label"] for row in rows_of(section("2.2"))} == in_code


def test_kinds_of_audit_entries_are_those_in_use() -> None:
    in_code = {
        call.args[0].value
        for path in (ROOT / "coordinator").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "entry"
        if len(call.args) == 2 and isinstance(call.args[0], ast.Constant)
    }
    assert {row["kind"] for row in rows_of(section("10.2"))} == in_code


def test_types_of_signatures_are_those_in_use() -> None:
    listed = re.search(r"These types exist:(.*?)\(", section("2.3"), re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`([a-z-]+)`", listed[1])) == {label for label, _, _ in _CODECS.values()} | {"audit"}


def test_methods_and_roles_are_those_of_the_wall() -> None:
    said = {f"/consilo.v1.{row['method']}": {row["role"]} for row in rows_of(section("8.1"))}
    assert said == {method: {str(role) for role in roles} for method, roles in MATRIX.items()}


def test_errors_have_the_status_of_the_table() -> None:
    said = {row["error"]: row["status"] for row in rows_of(section("8.3"))}
    assert said == {error.__name__: status for error, status in STATUS.items()}


def test_worked_examples() -> None:
    assert str(tagged_hash("example", b"a", b"")) in section("2.1")
    manifest = ModelManifest.of(
        [
            TensorSpec("fc.weight", DType.F32, (2, 3)),
            TensorSpec("fc.bias", DType.F32, (2,)),
            TensorSpec("steps", DType.I64, ()),
        ]
    )
    assert str(manifest.digest) in section("6.1")
    layout = UpdateLayout(Encoding.PLAIN, 8, StatisticsLayout(("loss", "accuracy")).cells)
    assert str(layout.digest) in section("6.3")
    assert list(layout.chunk_ranges()) == [(0, 32), (32, 80)]
    header = re.search(r"header `([0-9a-f]+)`", section("6.4"))
    assert header is not None
    raw = bytes.fromhex(header[1])
    assert (decode_update_header(raw).weight, decode_update_header(raw).contributors) == (128.0, 1)
    assert str(update_digest(raw, [Digest(bytes(32)), Digest(b"\1" * 32)])) in section("6.4")


def test_the_order_of_element_types_is_the_writers() -> None:
    every = ModelManifest.of([TensorSpec(dtype.lower(), dtype, (8,)) for dtype in DType])
    _, index = encode_header(every, {})
    order = ", ".join(tensor.dtype for tensor in index.in_file_order())
    assert order in " ".join(section("6.1").split())


def test_sections_that_the_code_cites_exist() -> None:
    numbers = set(re.findall(r"^#{2,3} ([0-9.]+?)\.? ", DOCUMENT, re.MULTILINE))
    cited = set()
    for folder in ("shared", "coordinator", "participant", "consilo", "protos", "tests"):
        for path in (ROOT / folder).rglob("*.p*"):
            if path.suffix in {".py", ".proto"} and "pb/v1" not in str(path.relative_to(ROOT)).removeprefix("protos/"):
                text = " ".join(path.read_text(encoding="utf-8").split())
                cited |= set(re.findall(r"PROTOCOL\.md,? sections? ([0-9]+(?:\.[0-9]+)?)", text))
    assert cited
    assert cited <= numbers
