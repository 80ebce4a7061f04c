"""PROTOCOL.md says what the code does: its tables and worked examples are read and compared, in both directions.

A constant, reason, phase or method that is in one and not in the other fails here, so that the document cannot rot.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from enum import IntEnum, StrEnum
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coordinator.rpc.authorization import MATRIX
from shared.consortium import _LABEL, _Body, _Document
from shared.errors import WireError
from shared.hashing import tagged_hash
from shared.ids import Digest
from shared.job import JobSpec, jobspec_digest, parse_jobspec
from shared.pb.v1 import session_pb2
from shared.protocol.messages import AnswerKind, CheckpointKind
from shared.protocol.phases import TABLE, Kind, Phase, Role
from shared.reasons import (
    SAID_BY_PARTICIPANT,
    AbortReason,
    AttemptAbortReason,
    ConsentRule,
    DropReason,
    RefusalReason,
)
from shared.secagg.keys import check_public_key
from shared.secagg.transcript import ShareKind
from shared.tensors import encode_header
from shared.update import DType, Encoding, ModelManifest, StatisticsLayout, TensorSpec, UpdateLayout, update_digest
from shared.wire.sealed import _CODECS, decode_update_header
from shared.wire.status import STATUS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "protos/PROTOCOL.md").read_text(encoding="utf-8")
VECTORS = {name: json.loads((ROOT / f"tests/vectors/{name}.json").read_text("utf-8")) for name in ("shapes", "secagg")}

# Every number that these modules name in capitals stands in section 11.
WITH_LIMITS = (
    "shared.ids",
    "shared.identity",
    "shared.certificates",
    "shared.job",
    "shared.update",
    "shared.consortium",
    *(f"shared.secagg.{path.stem}" for path in sorted((ROOT / "shared/secagg").glob("[!_]*.py"))),
    "shared.tensors",
    "shared.protocol.messages",
    "shared.wire.fields",
    "shared.wire.attempts",
    "shared.wire.exchanges",
    "shared.wire.session",
    "shared.wire.sealed",
    "shared.wire.transfer",
    "shared.wire.operations",
    "coordinator.planning",
    *(f"coordinator.round.{path.stem}" for path in sorted((ROOT / "coordinator/round").glob("[!_]*.py"))),
    "shared.log_budget",
    "coordinator.rpc.authorization",
    "coordinator.rpc.opening",
    "coordinator.rpc.server",
    "coordinator.rpc.session",
    "coordinator.rpc.sessions",
    "coordinator.rpc.transfer",
    "coordinator.rpc.operations",
    "participant.round.phases",
    "participant.rpc.opening",
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
    """A number in digits, or a whole one as `2^a - b`; exact where it is whole."""
    power = re.fullmatch(r"2\^(\d+) - (\d+)", text)
    if power is not None:
        return (1 << int(power[1])) - int(power[2])
    plain = text.replace(",", "")
    return int(plain) if re.fullmatch(r"-?\d+", plain) else float(plain)


def constant(where: str, name: str) -> float:
    """A module's constant, or `Class.field` for the default of a dataclass."""
    module = importlib.import_module(where)
    owner, dot, field = name.partition(".")
    if not dot:
        value: float = getattr(module, name)
        return value
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
        ("9.5", AttemptAbortReason, "reason", session_pb2.AttemptAbortReason),
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
    """A Withdraw says what SAID_BY_PARTICIPANT has; `declined` is said by Decline."""
    said = {row["reason"]: row["said by"] for row in rows_of(section("9.2"))}
    by_participant = {reason for reason, who in said.items() if who == "participant"}
    assert by_participant == {reason.value for reason in SAID_BY_PARTICIPANT} | {DropReason.DECLINED}
    assert set(said.values()) == {"participant", "coordinator"}


def test_the_order_of_rules_names_each_once() -> None:
    listed = re.search(r"asked in this order: ([^.]*)\.", section("9.3"))
    assert listed is not None
    assert sorted(re.findall(r"[a-z_]+", listed[1])) == sorted(ConsentRule)


def test_the_order_of_rules_is_the_one_of_consent() -> None:
    """The rules as `require_consent` comes to them: its own statements, and those of what it calls, in turn."""
    module = ast.parse((ROOT / "participant/consent.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}

    def rules_in(function: ast.FunctionDef) -> Iterator[str]:
        found: list[tuple[int, str]] = []
        for node in ast.walk(function):
            match node:
                case ast.Attribute(value=ast.Name(id="ConsentRule"), attr=rule):
                    found.append((node.lineno, rule.lower()))
                case ast.Call(func=ast.Name(id=name)) if name in functions and name != "_no":
                    found.append((node.lineno, name))
        for _, name in sorted(found):
            if name in functions:
                yield from rules_in(functions[name])
            else:
                yield name

    listed = re.search(r"asked in this order: ([^.]*)\.", section("9.3"))
    assert listed is not None
    assert re.findall(r"[a-z_]+", listed[1]) == list(dict.fromkeys(rules_in(functions["require_consent"])))


def test_answers_are_the_codes_and_the_wires() -> None:
    rows = [row for row in rows_of(section("5.11")) if "answer" in row]
    assert {row["answer"]: int(row["number"]) for row in rows} == {kind.name.lower(): kind for kind in AnswerKind}
    assert {row["answer"] for row in rows} <= set(Kind)
    for row in rows:
        assert session_pb2.AnswerKind.Name(int(row["number"])) == "ANSWER_KIND_" + row["answer"].upper()
        payload = re.match(r"([A-Za-z]+) \{", row["signed payload"])
        assert payload is not None
        assert re.sub(r"(?<=[a-z])(?=[A-Z])", "_", payload[1]).lower() == row["answer"]
    assert len(rows) == len(session_pb2.AnswerKind.values()) - 1  # all but UNSPECIFIED


def test_small_numbers_of_masking() -> None:
    """Kinds that stand in running text."""
    kinds: list[IntEnum] = list(CheckpointKind)
    assert [f"kind {kind.name} = {kind.value}" in section("5.11") for kind in kinds] == [True]
    assert "(kind 1) and `mask_commitment` (kind 2)" in section("2.2")
    assert {kind.name: kind.value for kind in ShareKind} == {"SELF": 1, "MASK": 2}


def test_encodings_are_the_codes_and_the_wires() -> None:
    rows = [row for row in rows_of(section("6.3")) if "encoding" in row]
    said = {row["encoding"]: (int(row["number"]), int(row["bytes of a cell of section 0"])) for row in rows}
    assert said == {encoding.name: (encoding.value, encoding.word_bytes) for encoding in Encoding}
    for name, (number, _) in said.items():
        assert session_pb2.Encoding.Name(number) == f"ENCODING_{name}"
    assert all(("masked" in row["cells of section 0"]) is Encoding[row["encoding"]].masked for row in rows)


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


def test_the_example_jobs_are_canonical_and_have_their_digests() -> None:
    examples = re.findall(r"```json\n(.*?)\n```\n\n`([0-9a-f]{64})`", section("3.2"), re.DOTALL)
    assert [parse_jobspec(text.encode()).masking.mode for text, _ in examples] == ["masked", "plain"]
    for text, digest in examples:
        assert str(jobspec_digest(text.encode())) == digest
    assert examples[0] == (VECTORS["shapes"]["job"]["text"], VECTORS["shapes"]["job"]["digest"])


def labels_in(path: Path, function: str) -> Iterator[str]:
    """The labels that a module hands to a function: constants, also those that the module names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == function:
            match call.args[0]:
                case ast.Constant(value=str(label)):
                    yield label
                case ast.Name(id=name):
                    yield str(named[name])
                case other:
                    raise AssertionError(f"{path}:{call.lineno}: the label {ast.unparse(other)} cannot be read here")


def test_the_keys_of_a_manifest_are_all_there() -> None:
    said = {row["key of the document"] for row in rows_of(section("1.5"))}
    assert said == _Body.model_fields.keys() | (_Document.model_fields.keys() - {"body"})


def test_labels_of_hashes_are_those_in_use() -> None:
    houses = [path for house in ("shared", "coordinator", "participant") for path in (ROOT / house).rglob("*.py")]
    in_code = {label for path in houses for label in labels_in(path, "tagged_hash")}
    assert {row["label"] for row in rows_of(section("2.2"))} == in_code


def test_derivations_of_masking_are_those_of_the_one_module() -> None:
    """`shared.secagg.transcript` is the only place that derives: nobody else makes a tag."""
    tags = [row["tag"] for row in rows_of(section("2.5")) if "tag" in row]
    in_module = list(labels_in(ROOT / "shared/secagg/transcript.py", "tag"))
    assert sorted(tags) == sorted(in_module)
    elsewhere = {
        path.relative_to(ROOT).as_posix()
        for house in ("shared", "coordinator", "participant", "consilo")
        for path in (ROOT / house).rglob("*.py")
        if path.stem not in {"transcript", "hashing"}
        if list(labels_in(path, "tag"))
    }
    assert elsewhere == set()


def test_values_of_derivations_are_the_frozen_ones() -> None:
    frozen: Mapping[str, str] = VECTORS["secagg"]["transcript"]
    names = {"t1", "t2", "t3", "self_seed_commitment", "share_commitment_self", "share_commitment_mask"}
    assert {name for name in names if frozen[name] in section("2.2")} == names
    worked = [row["hexadecimal"] for row in rows_of(section("2.5")) if "hexadecimal" in row]
    keys = ("mask_private", "share_key", "pair_root", "self_root", "stream_key_0", "stream_key_1")
    assert worked == [frozen[name] for name in (*keys, "encoding_key_0", "encoding_key_1")]


def test_values_of_dealing_and_of_streams_are_the_frozen_ones() -> None:
    dealing = VECTORS["secagg"]["dealing"]
    assert all(dealing[name] in section("5.11") for name in ("mask_public", "share_public", "root"))
    streams = {(row["section"], row["first_byte"]): row["bytes"] for row in VECTORS["secagg"]["streams"]}
    assert all(streams[place] in section("6.8") for place in ((0, 0), (0, 2**20)))


def test_words_of_encodings_are_the_frozen_ones() -> None:
    rows = [row for row in rows_of(section("6.7")) if "encoding" in row]
    assert [_numbers(row) for row in rows] == [
        (case["encoding"], case["ranges"], case["exponents"], case["words"]) for case in VECTORS["secagg"]["encoding"]
    ]


def _numbers(row: Row) -> tuple[Encoding, list[int], list[int], list[int]]:
    words = row["words of section 0 before masking"]
    lists = [[int(number) for number in cell.split(", ")] for cell in (row["r"], row["e"], words)]
    return Encoding[row["encoding"]], lists[0], lists[1], lists[2]


def test_public_keys_that_section_2_5_refuses_are_refused() -> None:
    order_8 = [bytes.fromhex(found) for found in re.findall(r"^`([0-9a-f]{64})`", section("2.5"), re.MULTILINE)]
    small = [value.to_bytes(32, "little") for value in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 + 9)]
    assert len(order_8) == 2
    for key in (*order_8, *small, bytes(31)):
        with pytest.raises(WireError):
            check_public_key(key)


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
    sealed = {label for label, _, _ in _CODECS.values()}
    assert set(re.findall(r"`([a-z-]+)`", listed[1])) == sealed | {"audit", _LABEL}


def test_methods_and_roles_are_those_of_the_wall() -> None:
    said = {
        f"/{row['method']}" if row["method"].startswith("grpc.") else f"/consilo.v1.{row['method']}": (
            {"participant", "operator", "coordinator"} if row["role"] == "anybody" else {row["role"]}
        )
        for row in rows_of(section("8.1"))
    }
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
    masked = UpdateLayout.of_round(
        encoding=Encoding.U32, parameters=8, tensors=2, statistics=StatisticsLayout(("loss", "accuracy"))
    )
    assert str(masked.digest) in section("6.3")
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
