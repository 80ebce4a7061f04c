"""Model files: what is read, what is refused by name, and that one content has one form."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import ModelError, StorageError
from shared.tensors import (
    HEADER_MAX_BYTES,
    LENGTH_BYTES,
    FileReader,
    ModelIndex,
    TensorData,
    encode_header,
    file_digest,
    read_index,
    read_index_file,
    write_model_file,
)
from shared.update import DType, ModelManifest, TensorSpec
from tests.support import models
from tests.support.readers import MemoryReader

ONE = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def whole(header: object, data: bytes = b"\0\0\0\0") -> bytes:
    """A file with this header: bytes as they are, anything else as JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def index_of(data: bytes) -> ModelIndex:
    return read_index(MemoryReader(data))


def entry(dtype: str, shape: list[Any], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@given(models.manifests(), models.metadata, st.integers(0, 2**32))
def test_what_is_written_is_read(manifest: ModelManifest, metadata: dict[str, str], seed: int) -> None:
    tensors = models.random_tensors(manifest, seed)
    data = models.model_bytes(manifest, tensors, metadata)
    index = index_of(data)
    assert (index.manifest, index.metadata, index.file_size) == (manifest, metadata, len(data))
    assert index == encode_header(manifest, metadata)[1]
    for tensor in manifest.tensors:
        start = index.offset_of(tensor.name)
        assert data[start : start + tensor.data_bytes] == tensors[tensor.name]
        assert start % min(tensor.dtype.item_bytes, 8) == 0


@pytest.mark.parametrize("begins", [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(begins: bytes) -> None:
    header = json.dumps(ONE).encode().ljust(int.from_bytes(begins, "little"))
    assert whole(header)[:LENGTH_BYTES] == begins.ljust(LENGTH_BYTES, b"\0")
    assert index_of(whole(header)).manifest == index_of(whole(ONE)).manifest
    assert safetensors.torch.load(whole(header))["a"].tolist() == [0.0]


@given(models.manifests(), st.integers(0, 2**32), st.none() | st.tuples(models.texts, models.texts))
def test_the_canonical_layout_is_the_librarys(manifest: ModelManifest, seed: int, note: tuple[str, str] | None) -> None:
    tensors = models.random_tensors(manifest, seed)
    loaded = {
        tensor.name: torch.frombuffer(bytearray(tensors[tensor.name]), dtype=getattr(torch, TORCH[tensor.dtype]))
        if tensor.elements
        else torch.empty(0, dtype=getattr(torch, TORCH[tensor.dtype]))
        for tensor in manifest.tensors
    }
    shaped = {tensor.name: loaded[tensor.name].reshape(tensor.shape) for tensor in manifest.tensors}
    # One metadata key at most: the library writes several in the order of a hash map.
    metadata = None if note is None else dict([note])
    assert safetensors.torch.save(shaped, metadata) == models.model_bytes(manifest, tensors, metadata)


TORCH = {
    DType.F64: "float64", DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16",
    DType.I64: "int64", DType.I32: "int32", DType.I16: "int16", DType.I8: "int8",
    DType.U64: "uint64", DType.U32: "uint32", DType.U16: "uint16", DType.U8: "uint8", DType.BOOL: "bool",
}  # fmt: skip


def test_a_frozen_file() -> None:
    manifest = ModelManifest.of(
        [
            TensorSpec("b", DType.F32, (2,)),
            TensorSpec("a", DType.BF16, ()),
            TensorSpec("steps", DType.I64, (1,)),
            TensorSpec("empty", DType.F16, (0, 3)),
        ]
    )
    data = models.model_bytes(
        manifest,
        {"b": b"\0\0\x80\x3f\0\0\0\x40", "a": b"\x80\x3f", "steps": b"\7" + bytes(7), "empty": b""},
        {"z": "12", "format": "pt"},
    )
    assert data[8:] == (
        b'{"__metadata__":{"format":"pt","z":"12"},'
        b'"steps":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},'
        b'"a":{"dtype":"BF16","shape":[],"data_offsets":[16,18]},'
        b'"empty":{"dtype":"F16","shape":[0,3],"data_offsets":[18,18]}}'
        b"    \x07\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\x40\x80\x3f"
    )
    assert str(file_digest(MemoryReader(data))) == "fa4b23230afe2c0642512d90a013d9d2cacc5590996ce0628c401eda6889a4e1"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "8 bytes of header length; it has 0 bytes"),
        ((HEADER_MAX_BYTES + 1).to_bytes(8, "little"), "is it a safetensors file"),
        (b"\x05" + bytes(7) + b"{}", "ends inside its header"),
        (whole(b""), "starts with '{'"),
        (whole(b" {}"), "starts with '{'"),
        (whole(b"{]"), "not JSON"),
        (whole(b"{}\n\0"), "not JSON"),
        (whole(b'{"\xff":1}'), "not JSON"),
        (whole(b'{"a":' + b"[" * 100_000), "nested too deeply"),
        (whole(b'{"a":1,"a":2}'), "names 'a' twice"),
        (whole(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}'), "names 'dtype' twice"),
        (whole(b'{"\\ud800":1}'), "valid Unicode"),
        (whole(b'{"__metadata__":{"a":"\\udfff"}}'), "valid Unicode"),
        (whole({**ONE, "__metadata__": {"a": 1}}), "__metadata__ 'a' is text, got 1"),
        (whole({**ONE, "__metadata__": []}), "__metadata__ is an object"),
        (whole({"a": {**ONE["a"], "more": 1}}), "tensor 'a': expected dtype, shape and data_offsets"),
        (whole({"a": ["F32", [1], [0, 4]]}), "tensor 'a': expected dtype, shape and data_offsets"),
        (whole({"a": entry("C64", [1], 0, 8)}), "tensor 'a': element type 'C64', expected one of F64"),
        (whole({"a": entry("F32", [True], 0, 4)}), "tensor 'a': shape is a list of integers"),
        (whole({"a": entry("F32", [1.0], 0, 4)}), "integers from 0"),
        (whole({"a": entry("F32", [-1], 0, 4)}), "integers from 0"),
        (whole(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b""), "integers from 0"),
        (whole({"a": entry("F32", [math.nan], 0, 4)}), "integers from 0"),
        (whole({"a": entry("F32", [2**48 + 1], 0, 4)}), "integers from 0 to 281474976710656, got '281474976710657'"),
        (whole(b'{"a":' + b"9" * 5000 + b"}"), "integers from 0"),
        (whole({"a": entry("F32", [2], 0, 4)}), r"F32 of shape \(2,\) has 8 bytes, its data_offsets are \[0, 4\]"),
        (whole({"a": entry("F32", [1], 4, 0)}), "tensor 'a'"),
        (whole({"a": {**ONE["a"], "data_offsets": [0, 4, 4]}}), "tensor 'a'"),
        (whole({"a": entry("F32", [2**48, 2**48, 0], 0, 0)}, b""), "tensor 'a': shape .* is beyond"),
        (whole({"a": entry("F32", [1] * 17, 0, 4)}), "tensor 'a'"),
        (whole({"": entry("F32", [1], 0, 4)}), "a tensor name has 1 to 512 bytes"),
        (whole({**ONE, "b": entry("U8", [1], 5, 6)}, bytes(6)), "tensor 'b': its data leaves a hole .* at 4, got 5"),
        (whole({**ONE, "b": entry("U8", [2], 3, 5)}, bytes(5)), "tensor 'b': its data overlaps"),
        (whole({**ONE, "b": entry("U8", [0], 2, 2)}), "tensor 'b': its data overlaps|tensor 'b': its data leaves"),
        (whole(ONE, bytes(5)), "have 4 bytes together, the file has 5"),
        (whole(ONE, bytes(3)), "have 4 bytes together, the file has 3"),
        (whole({"a": entry("I64", [1], 0, 8)}, bytes(8)), "no floating-point tensor"),
        (whole({}, b""), "no floating-point tensor"),
    ],
)
def test_what_is_refused_says_why(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        index_of(data)


def accepted_by_both_or_refused(data: bytes) -> None:
    try:
        index = index_of(data)
    except ModelError:
        return
    theirs = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    assert set(theirs) == set(index.offsets)
    for tensor in index.manifest.tensors:
        start = index.offset_of(tensor.name)
        assert bytes(theirs[tensor.name]["data"]) == data[start : start + tensor.data_bytes]
        assert (theirs[tensor.name]["dtype"], tuple(theirs[tensor.name]["shape"])) == (tensor.dtype, tensor.shape)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_index_or_refused(data: bytes) -> None:
    accepted_by_both_or_refused(data)
    accepted_by_both_or_refused(whole(b"{" + data))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*DType, "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.integers(0, 12) | st.integers(-(2**70), 2**70)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DType, "C64", "f32"]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2),
    }
)


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | JSON_VALUES, max_size=3), st.binary())
@example({"a": entry("F32", [0, 2**48], 0, 0), "b": entry("F16", [2], 0, 4)}, b"\0\0\0\0")
def test_any_header_is_an_index_or_refused(header: dict[str, object], data: bytes) -> None:
    accepted_by_both_or_refused(whole(header, data))


@given(models.manifests(), models.metadata, st.data())
def test_a_damaged_file_is_an_index_or_refused(
    manifest: ModelManifest, metadata: dict[str, str], data: st.DataObject
) -> None:
    damaged = bytearray(models.model_bytes(manifest, models.random_tensors(manifest, 0), metadata))
    header_end = 8 + int.from_bytes(damaged[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, min(header_end, len(damaged)) - 1))
        match data.draw(st.sampled_from(["set", "insert", "delete", "cut"])):
            case "set":
                damaged[position] = data.draw(st.sampled_from(b'0129{}[],:"\\ \n\xffaFU') | st.integers(0, 255))
            case "insert":
                damaged.insert(position, data.draw(st.sampled_from(b'019{}[],:" \n-')))
            case "delete":
                del damaged[position]
            case _:
                del damaged[max(position, 1) :]
    accepted_by_both_or_refused(bytes(damaged))


@pytest.mark.parametrize(
    ("name", "metadata", "says"),
    [("__metadata__", {}, "the format uses that name"), ("\ud800", {}, "Unicode"), ("a", {"a": "\ud800"}, "Unicode")],
)
def test_a_header_that_no_reader_would_accept_is_not_written(name: str, metadata: dict[str, str], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        encode_header(ModelManifest.of([TensorSpec(name, DType.F32, (1,))]), metadata)


def test_a_header_over_the_limit_is_not_written() -> None:
    with pytest.raises(ModelError, match="at most"):
        encode_header(SMALL, {"a": "x" * HEADER_MAX_BYTES})


SMALL = ModelManifest.of([TensorSpec("half", DType.BF16, (3,)), TensorSpec("w", DType.F32, (2, 2))])
ARRAYS: dict[str, TensorData] = {"w": np.arange(4, dtype=np.float32).reshape(2, 2).T, "half": b"\x80\x3f\0\0\0\x40"}


def test_a_written_file_loads_everywhere_and_writes_again_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    digest = write_model_file(first, SMALL, {"format": "pt", "a": "b"}, ARRAYS)
    assert write_model_file(second, SMALL, {"a": "b", "format": "pt"}, ARRAYS) == digest
    assert first.read_bytes() == second.read_bytes()
    assert str(digest) == hashlib.sha256(first.read_bytes()).hexdigest()
    assert sorted(tmp_path.iterdir()) == [first, second]
    loaded = safetensors.torch.load_file(first)
    assert loaded["w"].tolist() == [[0, 2], [1, 3]]
    assert loaded["half"].tolist() == [1, 0, 2]
    with FileReader(first) as reader:
        assert file_digest(reader) == digest
        assert read_index(reader) == read_index_file(first)
        with pytest.raises(StorageError, match="ends at"):
            reader.read_at(reader.size - 1, 2)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"w": ARRAYS["w"]}, "'half': it has no data"),
        ({**ARRAYS, "w": bytes(15)}, r"'w': F32 of shape \(2, 2\) has 16 bytes, got 15"),
        ({**ARRAYS, "x": b""}, "'x' is not in the manifest"),
    ],
)
def test_arrays_unlike_the_manifest_write_nothing(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        write_model_file(tmp_path / "m", SMALL, {}, arrays)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    occupied = tmp_path / "m"
    (occupied / "inside").mkdir(parents=True)  # a folder in the way: the rename fails
    with pytest.raises(StorageError, match="cannot write"):
        write_model_file(occupied, SMALL, {}, ARRAYS)
    assert list(tmp_path.iterdir()) == [occupied]
    with pytest.raises(StorageError, match="cannot write"):
        write_model_file(tmp_path / "absent" / "m", SMALL, {}, ARRAYS)


def test_an_unreadable_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"):
        read_index_file(tmp_path / "absent")
