"""Descriptions of model versions, and what a job can start from."""

from __future__ import annotations

import json
import math
import struct
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.checkpoints import (
    InitialModel,
    TrainedModel,
    accept_initial_model,
    describe_initial,
    describe_version,
    parse_description,
)
from shared.casts import narrow
from shared.errors import ModelError
from shared.ids import (
    Digest,
    ParticipantId,
    RoundKey,
    parse_job_id,
    parse_participant_id,
    parse_round_number,
)
from shared.job import StrategySpec, canonical_json
from shared.reasons import DropReason
from shared.tensors import ModelIndex, encode_header
from shared.update import CHUNK_BYTES, DType, ModelManifest, TensorSpec
from tests.support import models
from tests.support.models import FLOATS
from tests.support.readers import MemoryReader

MANIFEST = ModelManifest.of([TensorSpec("w", DType.F32, (3,)), TensorSpec("steps", DType.I64, ())])
INDEX = encode_header(MANIFEST, {})[1]
KEY = RoundKey(parse_job_id("heart-3f9a21c0"), parse_round_number(7))
NEW, OLD = Digest.of(b"new"), Digest.of(b"old")
A, B, C = (parse_participant_id(name) for name in ("hospital-a", "hospital-b", "hospital-c"))


def described(
    *,
    survivors: tuple[ParticipantId, ...] = (A, C),
    dropped: dict[ParticipantId, DropReason] | None = None,
    index: ModelIndex = INDEX,
    weight_total: float = 12.5,
) -> bytes:
    return describe_version(
        digest=NEW,
        parent=OLD,
        index=index,
        key=KEY,
        survivors=survivors,
        dropped={B: DropReason.UPLOAD_LATE} if dropped is None else dropped,
        weight_total=weight_total,
        totals={"train.weight": 10.0, "train.loss": 4.0, "evaluate.weight": 0.0, "evaluate.loss": 0.0},
        strategy=StrategySpec(name="fedavg"),
    )


def test_an_initial_model_is_described_and_read_back() -> None:
    data = describe_initial(digest=NEW, index=INDEX)
    assert json.loads(data) == {
        "format": 1,
        "kind": "initial",
        "digest": str(NEW),
        "manifest": str(MANIFEST.digest),
        "parameters": 3,
        "code_version": version("consilo"),
    }
    description = parse_description(data)
    assert isinstance(description, InitialModel)
    assert (description.digest, description.manifest) == (NEW, MANIFEST.digest)


def test_a_version_names_parent_members_totals_and_strategy() -> None:
    data = described()
    assert json.loads(data) == {
        "format": 1,
        "kind": "trained",
        "digest": str(NEW),
        "parent": str(OLD),
        "manifest": str(MANIFEST.digest),
        "parameters": 3,
        "job": "heart-3f9a21c0",
        "round": 7,
        "purpose": "train",
        "members": {"hospital-a": "survivor", "hospital-b": "upload_late", "hospital-c": "survivor"},
        "weight_total": 12.5,
        "totals": {"train.weight": 10.0, "train.loss": 4.0, "evaluate.weight": 0.0, "evaluate.loss": 0.0},
        "strategy": {"name": "fedavg"},
        "code_version": version("consilo"),
    }
    description = parse_description(data)
    assert isinstance(description, TrainedModel)
    assert (description.key, description.parent, description.means) == (KEY, OLD, {"train.loss": 0.4})
    assert description.members[B] is DropReason.UPLOAD_LATE


def test_the_order_in_which_members_are_named_changes_nothing() -> None:
    dropped = {B: DropReason.ABSENT}
    assert described(survivors=(A, C), dropped=dropped) == described(survivors=(C, A), dropped=dropped)


def changed(**fields: object) -> bytes:
    return canonical_json({**json.loads(described()), **fields})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a description of a model version"),
        (b"[]", "not a description"),
        (b"\xff", "not a description"),
        (described() + b" ", "not in canonical form"),
        (changed(kind="other"), "kind|tag"),
        (changed(format=2), "format"),
        (changed(more=1), "more: unknown key"),
        (changed(digest="00"), "digest: .*64 lower-case hexadecimal digits"),
        (changed(digest=7), "digest: .*64 lower-case hexadecimal digits"),
        (changed(round=0), "round"),
        (changed(weight_total=0.0), "weight_total"),
        (changed(weight_total=1), "not in canonical form"),
        (changed(members={"hospital-a": "asleep"}), "members"),
        (changed(members={"Hospital": "survivor"}), "members"),
        (changed(members={"hospital-a": "absent"}), "at least one survivor"),
        (changed(job="-"), "job"),
        (described().replace(b"12.5", b"NaN"), "not a description"),
        (described().replace(b"12.5", b"1e999"), "not a description"),
    ],
)
def test_other_bytes_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        parse_description(data)


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 10))
def test_damaged_descriptions_are_read_or_refused(damage: bytes, start: int, length: int) -> None:
    data = described()
    for candidate in (damage, data[:start] + damage + data[start + length :]):
        try:
            description = parse_description(candidate)
        except ModelError:
            continue
        assert canonical_json(description.model_dump(mode="json")) == candidate


@given(models.manifests(), models.metadata)
def test_finite_models_are_accepted(manifest: ModelManifest, metadata: dict[str, str]) -> None:
    data = models.model_bytes(manifest, models.random_tensors(manifest, 1), metadata)
    index = accept_initial_model(MemoryReader(data))
    assert (index.manifest, index.metadata) == (manifest, metadata)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_found_in_the_last_chunk(dtype: DType, value: float) -> None:
    values = np.zeros(CHUNK_BYTES // dtype.item_bytes + 1)
    values[-1] = value
    manifest = ModelManifest.of([TensorSpec("a", DType.F32, (1,)), TensorSpec("deep", dtype, (values.size,))])
    data = models.model_bytes(manifest, {"a": bytes(4), "deep": bytes(narrow(values, dtype))})
    with pytest.raises(ModelError, match="tensor 'deep' holds a NaN or an infinity"):
        accept_initial_model(MemoryReader(data))


def test_integers_that_look_like_nan_are_accepted() -> None:
    manifest = ModelManifest.of([TensorSpec("a", DType.F32, (1,)), TensorSpec("n", DType.I32, (1,))])
    data = models.model_bytes(manifest, {"a": bytes(4), "n": struct.pack("<f", math.nan)})
    assert accept_initial_model(MemoryReader(data)).manifest == manifest


def test_a_model_without_numbers_to_train_is_refused() -> None:
    header = b'{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}'
    with pytest.raises(ModelError, match="no floating-point tensor"):
        accept_initial_model(MemoryReader(len(header).to_bytes(8, "little") + header + bytes(8)))
