from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import WireError
from shared.hashing import tagged_hash
from shared.ids import Digest
from shared.job import JOBSPEC_MAX_BYTES, METRICS_MAX, JobSpec, canonical_json, jobspec_digest, parse_jobspec

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "heart",
    "task": "heart",
    "members": ["hospital-a", "hospital-b", "hospital-c"],
    "rounds": 10,
    "seed": 42,
    "initial": "0" * 64,
    "metrics": ["loss", "accuracy"],
    "round": {
        "quorum": 3,
        "deadline_s": 600.0,
        "exchange_deadline_s": 30.0,
        "grace_s": 5.0,
        "upload_deadline_s": 60.0,
        "min_survivors": 3,
        "attempts": 2,
        "aborted_rounds_allowed": 3,
    },
    "strategy": {"name": "fedavg"},
    "masking": {
        "mode": "plain",
        "max_colluding": 0,
        "encoding": "u32",
        "weights": "examples",
        "max_weight": 16777216.0,
        "metric_bound": 1024.0,
        "allow_two_party": False,
        "allow_no_collusion": False,
        "protocol": "fedsecagg/v1",
        "suite": 1,
    },
    "training": {"learning_rate": 0.05, "layers": [1, 2, {"größe": None}]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(SPEC))
    table = copy
    *parents, last = path.split(".")
    for name in parents:
        table = table[name]
    table[last] = value
    return copy


def without(path: str) -> dict[str, Any]:
    copy = changed(path, None)
    table = copy
    *parents, last = path.split(".")
    for name in parents:
        table = table[name]
    del table[last]
    return copy


def test_a_specification_is_read_and_written_to_the_same_bytes() -> None:
    data = canonical_json(SPEC)
    spec = parse_jobspec(data)
    assert spec.to_bytes() == data
    assert spec.initial_model == Digest(bytes(32))
    assert spec.training == SPEC["training"]
    assert jobspec_digest(data) == tagged_hash("jobspec", data)


VALID = [
    ("members", ["a"]),
    ("rounds", 1_000_000),
    ("seed", 2**63 - 1),
    ("metrics", []),
    ("metrics", [f"m{number}" for number in range(METRICS_MAX)]),
    ("name", "x" * 50),
    ("round.grace_s", 0.0),
    ("round.min_survivors", 1),
    ("training", {}),
    ("training", {"deep": [[[[1.5e-300, -0.0, True, "\u2028"]]]]}),
]


@pytest.mark.parametrize(("path", "value"), VALID)
def test_what_is_allowed(path: str, value: Any) -> None:
    made = changed(path, value)
    if path == "members":
        made["round"] |= {"quorum": 1, "min_survivors": 1}
    data = canonical_json(made)
    assert parse_jobspec(data).to_bytes() == data


REFUSED = [
    ("version", 2, "version"),
    ("name", "Heart", "name"),
    ("name", "x" * 51, "name"),
    ("name", "heart\n", "name"),
    ("task", "a/b", "a task name"),
    ("members", [], "members"),
    ("members", ["hospital-b", "hospital-a", "hospital-c"], "sorted and distinct"),
    ("members", ["hospital-a", "hospital-a", "hospital-c"], "sorted and distinct"),
    ("members", ["Hospital", "hospital-b", "hospital-c"], "a participant id"),
    ("rounds", 0, "rounds"),
    ("rounds", "10", "rounds"),
    ("rounds", 10.0, "rounds"),
    ("rounds", True, "rounds"),
    ("seed", -1, "seed"),
    ("seed", 2**63, "seed"),
    ("initial", "0" * 63, "initial"),
    ("initial", "A" * 64, "initial"),
    ("initial", "0" * 64 + "\n", "initial"),
    ("metrics", ["loss", "loss"], "distinct"),
    ("metrics", ["Loss"], "metrics"),
    ("metrics", [f"m{number}" for number in range(METRICS_MAX + 1)], "metrics"),
    ("round.quorum", 0, "round.quorum"),
    ("round.quorum", 4, "the job has 3 members"),
    ("round.min_survivors", 0, "round.min_survivors"),
    ("round.deadline_s", 0.0, "round.deadline_s"),
    ("round.deadline_s", 1e9, "round.deadline_s"),
    ("round.grace_s", -1.0, "round.grace_s"),
    ("round.attempts", 0, "round.attempts"),
    ("round.attempts", 11, "round.attempts"),
    ("round.exchange_deadline_s", 0.0, "round.exchange_deadline_s"),
    ("round.exchange_deadline_s", 1e9, "round.exchange_deadline_s"),
    ("strategy.name", "median", "strategy.name"),
    ("masking.mode", "off", "masking.mode"),
    ("masking.max_colluding", -1, "masking.max_colluding"),
    ("masking.max_colluding", 1.0, "masking.max_colluding"),
    ("masking.max_colluding", 1, "masking.max_colluding means nothing in a plain job: expected 0"),
    ("masking.encoding", "plain", "masking.encoding"),
    ("masking.encoding", "u8", "masking.encoding"),
    ("masking.weights", "steps", "masking.weights"),
    ("masking.max_weight", 0.5, "masking.max_weight"),
    ("masking.max_weight", 2.0**32 + 1, "masking.max_weight"),
    ("masking.metric_bound", 0.0, "masking.metric_bound"),
    ("masking.metric_bound", 2.0**20 + 1, "masking.metric_bound"),
    ("masking.allow_two_party", 1, "masking.allow_two_party"),
    ("masking.allow_no_collusion", "yes", "masking.allow_no_collusion"),
    ("masking.protocol", "fedsecagg/v2", "masking.protocol"),
    ("masking.suite", 2, "masking.suite"),
    ("masking.threshold", 3, "masking.threshold"),
    ("qourum", 3, "qourum"),
    ("round.qourum", 3, "round.qourum"),
    ("training", [], "training"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), REFUSED)
def test_what_is_refused_names_the_key(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(WireError, match=f"not a job specification: .*{complaint}"):
        parse_jobspec(canonical_json(changed(path, value)))


def test_a_floor_above_the_quorum_is_refused() -> None:
    made = changed("round.quorum", 2)
    with pytest.raises(WireError, match="an attempt could start that can never end"):
        parse_jobspec(canonical_json(made))


REQUIRED = [
    "name", "task", "members", "rounds", "seed", "initial", "round", "round.quorum", "round.min_survivors",
    "masking", "masking.max_colluding",
]  # fmt: skip


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_key_is_named(path: str) -> None:
    with pytest.raises(WireError, match=f"{path}: it is missing"):
        parse_jobspec(canonical_json(without(path)))


DEFAULTED = [
    "version", "metrics", "strategy", "training", "round.grace_s", "round.exchange_deadline_s", "strategy.name",
    "masking.encoding", "masking.weights", "masking.max_weight", "masking.metric_bound", "masking.allow_two_party",
    "masking.allow_no_collusion", "masking.protocol", "masking.suite",
]  # fmt: skip


@pytest.mark.parametrize("path", DEFAULTED)
def test_defaults_are_resolved_by_the_submitter_and_not_here(path: str) -> None:
    with pytest.raises(WireError, match="canonical form"):
        parse_jobspec(canonical_json(without(path)))


def test_masked_is_what_a_job_is_unless_it_says_otherwise() -> None:
    """A job that leaves the mode out is held to the rules of masking, before its form is looked at."""
    with pytest.raises(WireError, match="max_colluding is 0: one member"):
        parse_jobspec(canonical_json(without("masking.mode")))


TEXT = canonical_json(SPEC).decode()
OTHER_FORMS = {
    "white space": json.dumps(SPEC, sort_keys=True),
    "a line feed at the end": TEXT + "\n",
    "a byte order mark": "\ufeff" + TEXT,
    "keys in another order": json.dumps(SPEC, separators=(",", ":"), ensure_ascii=False),
    "escapes where none are needed": json.dumps(SPEC, sort_keys=True, separators=(",", ":")),
    "a key twice, with the same value": TEXT.replace('"seed":42', '"seed":42,"seed":42'),
    "a key twice, with two values": TEXT.replace('"seed":42', '"seed":41,"seed":42'),
    "a key twice inside training": TEXT.replace('"learning_rate":0.05', '"learning_rate":1,"learning_rate":0.05'),
    "a whole number for a duration": TEXT.replace("600.0", "600"),
    "an exponent": TEXT.replace("600.0", "6e2"),
    "more digits than needed": TEXT.replace("0.05", "0.050"),
    "a negative zero for a count": TEXT.replace('"seed":42', '"seed":-0'),
    "not a number": TEXT.replace("0.05", "NaN"),
    "infinity": TEXT.replace("0.05", "Infinity"),
    "a number beyond a double": TEXT.replace("0.05", "1e999"),
    "a number of ten thousand digits": TEXT.replace("0.05", "9" * 10_000),
    "half a surrogate pair": TEXT.replace("größe", "\\ud800"),
    "nesting without end": TEXT.replace("[1,2,", "[" * 5_000 + "1,2,"),
    "two documents": TEXT + TEXT,
    "no document": "",
    "a list": f"[{TEXT}]",
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_any_other_form_is_refused(form: str) -> None:
    assert OTHER_FORMS[form] != TEXT
    with pytest.raises(WireError):
        parse_jobspec(OTHER_FORMS[form].encode("utf-8", "surrogatepass"))


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(WireError):
        parse_jobspec(TEXT.replace("größe", "x").encode() + b"\xff")


def test_the_limit_of_its_size() -> None:
    room = JOBSPEC_MAX_BYTES - len(canonical_json(changed("training", {"notes": ""})))
    parse_jobspec(canonical_json(changed("training", {"notes": "x" * room})))
    with pytest.raises(WireError, match="at most 262144 bytes, got 262145"):
        parse_jobspec(canonical_json(changed("training", {"notes": "x" * (room + 1)})))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(training=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_any_training_table_comes_back(training: dict[str, Any]) -> None:
    data = canonical_json(changed("training", training))
    assert parse_jobspec(data).to_bytes() == data
    assert canonical_json(parse_jobspec(data).training) == canonical_json(training)


@given(cuts=st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 12), st.text(max_size=4)), max_size=3))
@example(cuts=[(0, 0, " ")])
def test_damaged_text_is_the_same_meaning_or_a_wire_error(cuts: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for start, length, instead in cuts:
        text = text[:start] + instead + text[start + length :]
    data = text.encode("utf-8", "replace")
    with contextlib.suppress(WireError):
        assert parse_jobspec(data).to_bytes() == data


def test_a_specification_cannot_be_changed() -> None:
    spec = parse_jobspec(canonical_json(SPEC))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, "rounds", 11)  # noqa: B010 - the type checker refuses the plain form


def test_made_by_hand_it_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValidationError, match="sorted and distinct"):
        JobSpec.model_validate_json(canonical_json(changed("members", ["b", "a", "c"])))


@pytest.mark.parametrize("table", [None, "masking"])
def test_a_key_of_somebody_elses_is_cut_and_without_control_characters_in_the_complaint(table: str | None) -> None:
    key = "\x1b[2J" * 6000
    spec = json.loads(json.dumps(SPEC))
    (spec[table] if table else spec)[key] = 1
    with pytest.raises(WireError) as raised:
        parse_jobspec(json.dumps(spec).encode())
    assert len(str(raised.value)) < 1000
    assert str(raised.value).isprintable()
